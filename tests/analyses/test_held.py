"""What one vector holds exactly of words and of books: texts made so that nats decide, or tokens."""

import numpy as np
import pandas as pd
import pytest

from paper_lib.analyses import held
from paper_lib.verdicts import CONTRADICTED, SUPPORTED, UNDECIDED

R = {"n_resamples": 300, "seed": 0}
LENGTHS = [8, 16, 24, 32, 48, 64, 96]


def make_texts(decides, n_texts=60, protocol="strict"):
    """Texts of 4 nats a token (books) and 8 (words), exact up to a size of their own around 200 nats or 40 tokens."""
    rng = np.random.default_rng(3)
    rows = []
    for source, nats in (("books", 4.0), ("random", 8.0)):
        for text in range(n_texts):
            limit = rng.normal(1, 0.1) * (200 / nats if decides == "nats" else 40)
            rows += [
                {"name": "m", "protocol": protocol, "source": source, "text_id": f"{source}-{text}",
                 "cluster_id": f"{source}-{text}", "length": n, "ce_lm_nats": n * nats, "exact": n <= limit}
                for n in rng.permutation(LENGTHS)
            ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("decides", "other", "ratio"), [("nats", "tokens", 0.5), ("tokens", "nats", 2.0)])
def test_what_decides_is_held_alike(decides, other, ratio):
    table = held.compare_held(make_texts(decides), **R)
    rows = table.set_index("unit")
    assert rows.loc[decides, "ratio_low"] < 1.02
    assert rows.loc[decides, "ratio_high"] > 0.98
    assert rows.loc[decides, "ratio"] == pytest.approx(1, abs=0.05)
    assert rows.loc[other, "ratio"] == pytest.approx(ratio, rel=0.05)
    assert rows.loc[decides, "books"] == pytest.approx({"nats": 200, "tokens": 40}[decides], rel=0.05)
    verdicts = {row["claim"].split("as many ")[1].split()[0]: row["verdict"] for row in held.judge(table)}
    assert verdicts == {decides: SUPPORTED, other: CONTRADICTED}


def test_the_verdict_takes_the_protocol_that_holds_most():
    few = make_texts("nats", protocol="weak").assign(exact=lambda c: c["exact"] & (c["length"] <= 8))
    table = held.compare_held(pd.concat([few, make_texts("nats")]), **R)
    assert len(table) == 4
    assert all(row["claim"].startswith("m, strict: ") for row in held.judge(table))


def test_a_text_that_is_exact_nowhere_holds_less_than_the_shortest_length_tried():
    cases = make_texts("nats", n_texts=1).assign(exact=False)
    found = held._find_held(cases, "length")
    assert found[["at_least", "below"]].to_numpy().tolist() == [[0, 8], [0, 8]]
    everything = held._find_held(cases.assign(exact=True), "ce_lm_nats")
    assert everything[["at_least", "below"]].to_numpy().tolist() == [[96 * 4, np.inf], [96 * 8, np.inf]]


def test_of_several_starts_the_best_counts():
    one = make_texts("nats", n_texts=1)
    starts = pd.concat([one, one.assign(exact=False)])
    pd.testing.assert_frame_equal(held._find_held(starts, "length"), held._find_held(one, "length"))


def test_a_source_without_words_beside_it_has_no_row_and_one_text_of_each_no_interval():
    assert held.compare_held(make_texts("nats").query("source == 'books'"), **R).empty
    table = held.compare_held(make_texts("nats", n_texts=1), **R)
    assert table["ratio_low"].isna().all()
    assert {row["verdict"] for row in held.judge(table)} <= {UNDECIDED}
