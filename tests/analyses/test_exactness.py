"""Notebook 07's numbers from cases whose answers can be counted by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from paper_lib.analyses import exactness
from paper_lib.verdicts import CONTRADICTED, SUPPORTED, UNDECIDED

NONE, SOME = {"n_resamples": 0, "seed": 0}, {"n_resamples": 400, "seed": 0}
RUNGS = ["solved", "tf_exact", "greedy_exact_full", "greedy_exact_cached", "exact"]


def run(text, length, n_rungs, protocol="kuratov2025", nats=1.0):
    met = {rung: number < n_rungs for number, rung in enumerate(RUNGS)}
    row = {"text_id": text, "cluster_id": f"book {text}", "length": length, "protocol": protocol}
    return row | met | {"ce_lm_nats": 3.0 * length, "ce_mem_nats": 3.0 * length - nats}


def test_each_criterion_asks_more_of_the_same_runs():
    cases = pd.DataFrame([run("a", 8, 5), run("a", 16, 3), run("b", 8, 2), run("b", 16, 1)])
    table = exactness.compute_criteria(cases, **NONE)
    assert table["tokens"].tolist() == [16, 12, 8, 4, 4]


def test_exchange_rates_compare_the_same_texts():
    cases = [run("a", 8, 5), run("a", 16, 1), run("b", 8, 5), run("b", 16, 1)]
    cases += [run("a", 8, 5, "strict", 2.0), run("a", 16, 5, "strict", 2.0), run("b", 8, 5, "strict", 2.0)]
    cases += [run("b", 16, 0, "strict", 2.0)]
    cases += [run(text, 16, 5, "anchored", 5.0) for text in "ab"]
    table = exactness.compute_exchange_rates(pd.DataFrame(cases), **SOME).set_index("to")
    assert table.loc["every token, teacher forced", "tokens_ratio"] == 0.5
    assert table.loc["each by a margin of .001", "tokens_ratio"] == 1
    assert table.loc["strict", "tokens_ratio"] == 1.5
    assert table.loc["strict", ["tokens_ratio_low", "tokens_ratio_high"]].tolist() == [1, 2]
    assert table.loc["strict", "gain_ratio"] == 2
    assert table.loc["anchored", ["tokens_ratio", "gain_ratio"]].tolist() == [2, 2.5]  # both were run at 16 tokens only
    assert table.loc["every token, teacher forced":"each by a margin of .001", "gain_ratio"].isna().all()


def arm_case(arm, text, n_steps, *curve):
    """One text of 64 targets of which the model has 4 right alone; ``curve``: (evaluations, right, nats left)."""
    at, right, nats = (list(column) for column in zip(*curve, strict=True))
    return {
        "arm": arm, "text_id": text, "cluster_id": f"book {text}", "n_steps": n_steps, "n_targets": 64,
        "n_correct_lm": 4, "ce_lm_nats": 100.0, "n_correct_mem": right[-1], "ce_mem_min_nats": nats[-1],
        "tf_exact": right[-1] == 64,
        "curve_evaluations_each": at, "curve_n_correct_each": right, "curve_ce_nats_each": nats,
    }  # fmt: skip


def test_arms_compare_what_was_gained_by_then():
    names = {arm for _, before, after, _ in exactness.ARMS for arm, _ in (before, after)}
    cases = [arm_case(arm, text, 400, (200, 14, 80.0), (400, 24, 60.0)) for arm in names for text in "ab"]
    cases = pd.DataFrame([c for c in cases if c["arm"] != "fast"])
    early = [arm_case("fast", text, 150, (25, 5, 99.0), (125, 30, 40.0)) for text in "ab"]
    for case in early:
        case |= {"n_correct_mem": 64, "ce_mem_min_nats": 0.0, "tf_exact": True}  # exact after 150
    cases = pd.concat([cases, pd.DataFrame(early)])
    arms = {suffix: cases for _, _, _, suffix in exactness.ARMS}
    table = exactness.compare_arms(arms, **NONE).set_index("factor")
    assert table.loc["evaluations: 200, to 400", ["tokens_ratio", "gain_ratio"]].tolist() == [2, 2]
    assert table.loc["learning rate: .01, to .1", ["tokens_ratio", "gain_ratio"]].tolist() == [1, 1]
    assert table.loc["optimiser: published, to fast", ["tokens_ratio", "gain_ratio"]].tolist() == [6, 5]
    assert table.loc["optimiser: published, to fast", ["n_whole_before", "n_whole_after"]].tolist() == [0, 2]
    assert (table["n_texts"] == 2).all()


def test_texts_that_only_one_side_has_do_not_count():
    before = pd.DataFrame([arm_case("fast", text, 150, (25, 14, 80.0)) for text in "abc"]).assign(n_targets=16)
    after = pd.DataFrame([arm_case("fast", text, 150, (25, 24, 60.0)) for text in "bcd"]).assign(tf_exact=True)
    [row] = exactness.compare_arms(
        {"": before, "_fp32": after}, [("precision", ("fast", 150), ("fast", 150), "_fp32")], **NONE
    ).to_dict("records")
    assert (row["n_texts"], row["n_whole_before"], row["n_whole_after"]) == (2, 0, 2)
    assert (row["tokens_ratio"], row["gain_ratio"], row["tokens_are"]) == (2, 2, "made right, of 16")


def test_first_errors_count_tokens_of_the_text_also_where_the_first_is_given():
    def failed(text, length, protocol, margins):
        row = run(text, length, 0, protocol)
        return row | {"n_targets": len(margins), "margin_each": margins}

    cases = [failed("a", 4, "strict", [-1, 1, 1, -1]), failed("b", 4, "strict", [1, -1, 1, 1])]
    cases += [failed("b", 8, "strict", [-1] * 8), run("c", 4, 5, "strict") | {"n_targets": 4, "margin_each": [1] * 4}]
    cases += [failed("a", 4, "kuratov2025", [-1, 1, 1])]
    table = exactness.compute_first_errors(pd.DataFrame(cases)).set_index("protocol")
    assert table.loc["strict", ["n_texts", "wrong_at_0", "wrong_at_1", "wrong_at_2"]].tolist() == [2, 0.5, 0.5, 0]
    assert table.loc["kuratov2025", ["wrong_at_1", "wrong_at_2"]].tolist() == [1, 0]
    assert pd.isna(table.loc["kuratov2025", "wrong_at_0"])


def test_survival_is_counted_by_margin():
    cases = pd.DataFrame({"key": list("abcd"), "min_logit_margin": [0.01, 0.02, 0.05, 0.5], "cluster_id": list("wxyz")})
    decoded = pd.DataFrame({"key": list("abcd"), "condition": "bf16", "survives": [False, True, True, True]})
    decoded = pd.concat([decoded.assign(processor="old"), decoded.assign(processor="new", survives=True)])
    table = exactness.compute_portability(decoded, cases, **NONE)
    assert table["processor"].tolist() == ["old"] * 4 + ["new"] * 4
    assert table["n_vectors"].tolist() == [4, 2, 1, 1] * 2
    assert table["survive"].tolist() == [0.75, 0.5, 1, 1, 1, 1, 1, 1]


def test_what_is_held_exactly_counts_nothing_for_a_text_that_never_is():
    cases = [run("a", 8, 5, nats=8.0), run("a", 16, 5, nats=20.0), run("a", 32, 4, nats=50.0), run("b", 8, 1)]
    row = exactness.compute_exact_gains(pd.DataFrame(cases).assign(text_bytes=40), **NONE).iloc[0]
    assert (row["tokens"], row["bytes"]) == (8, 20)
    assert row["gain_bits"] == pytest.approx(10 / math.log(2))
    assert row["text_bits"] == pytest.approx(24 / math.log(2))


def test_a_learning_curve_says_what_each_step_of_it_brought():
    cases = pd.DataFrame([arm_case("fast", text, 400, (200, 14, 80.0), (400, 24, 60.0)) for text in "ab"])
    curve = exactness.compute_learning_curve(cases, [200, 400], **NONE)
    assert curve["tokens"].tolist() == [10, 20]
    assert curve["nats"].tolist() == [20, 40]
    assert curve["growth"].tolist()[1] == 2


def test_starts_share_the_variance_with_texts():
    rng = np.random.default_rng(0)
    texts = np.repeat(np.arange(400), 4)
    gains = rng.normal(0, 3, 400)[texts] + rng.normal(0, 1, 1600) + 50
    cases = pd.DataFrame({"text_id": texts, "cluster_id": texts, "ce_lm_nats": 100.0, "ce_mem_nats": 100 - gains})
    cases["exact"] = np.tile([True, False, False, False], 400)
    shares = exactness.compute_starts(cases, **NONE)["share"].tolist()
    assert shares[:2] == [0.25, 1]
    assert shares[2] == pytest.approx(0.9, abs=0.02)


def test_verdicts_follow_the_rates():
    curve = pd.DataFrame({"growth": [1.02], "growth_low": [1.01], "growth_high": [1.03]})
    rates = pd.DataFrame({"to": [*list(exactness.CRITERIA)[1:], "strict", "anchored"]})

    def judge():
        return [row["verdict"] for row in exactness.judge(rates, curve)]

    for name, values in (("tokens_ratio", 1.0), ("tokens_ratio_low", 1.0), ("tokens_ratio_high", 1.0)):
        rates[name] = values
    assert judge() == [SUPPORTED, SUPPORTED, CONTRADICTED, CONTRADICTED, SUPPORTED]
    rates["tokens_ratio_high"], curve["growth_high"] = 2.0, 1.1
    assert judge() == [UNDECIDED] * 5
    rates[["tokens_ratio", "tokens_ratio_low"]], curve["growth_low"] = 2.0, 1.08
    assert judge() == [CONTRADICTED, CONTRADICTED, SUPPORTED, SUPPORTED, CONTRADICTED]
