"""Lengths near the knee, on texts made so that the answer is known."""

import numpy as np
import pandas as pd

from paper_lib.analyses import knee
from paper_lib.verdicts import CONTRADICTED, SUPPORTED

R = {"n_resamples": 300, "seed": 0}


def make_texts(decides):
    """100 texts at five lengths of 4 nats a token, ± 20 %, exact below 100 nats, or whatever their nats are."""
    rng = np.random.default_rng(2)
    rows = []
    for text in range(100):
        factor = rng.uniform(0.8, 1.2)
        for n in (8, 22, 24, 28, 60):
            exact = n * 4 * factor < 100 if decides == "nats" else n == 8 or (n < 60 and rng.random() < 0.5)
            rows.append((f"t{text}", n, n * 4 * factor, exact))
    cases = pd.DataFrame(rows, columns=["text_id", "length", "ce_lm_nats", "exact"])
    return cases.assign(cluster_id=cases["text_id"])


def plateau(change):
    return pd.DataFrame({name: [change] for name in ("change_percent", "change_percent_low", "change_percent_high")})


def test_only_lengths_with_both_outcomes_count_and_the_last_row_pools_them():
    cases = make_texts("nats")
    table = knee.compare_at_lengths(cases, **R)
    assert list(table["length"]) == [22, 24, 28, 0]
    assert table["n_texts"].tolist() == [100, 100, 100, 300]
    assert table["auc"].tolist() == [1, 1, 1, 1]
    pooled = cases[cases["length"].isin([22, 24, 28])]
    assert (table["n_exact"].iloc[-1], table["nats"].iloc[-1]) == (pooled["exact"].sum(), pooled["ce_lm_nats"].mean())


def test_entropy_predicts_where_it_decides():
    table = knee.compare_at_lengths(make_texts("nats"), **R)
    predicts, constant = knee.judge(table, plateau(3.0))
    assert (predicts["verdict"], constant["verdict"]) == (SUPPORTED, SUPPORTED)
    assert knee.judge(table, plateau(25.0))[1]["verdict"] == CONTRADICTED


def test_entropy_tells_nothing_where_chance_decides():
    pooled = knee.compare_at_lengths(make_texts("chance"), **R).iloc[-1]
    assert pooled["auc_low"] < 0.5 < pooled["auc_high"] < 0.65
