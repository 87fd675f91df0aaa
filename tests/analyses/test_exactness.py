"""Notebook 07's numbers from cases whose answers can be counted by hand."""

import pandas as pd

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


def test_verdicts_follow_the_rates():
    rates = pd.DataFrame({"to": [*list(exactness.CRITERIA)[1:], "strict", "anchored"]})
    for name, values in (("tokens_ratio", 1.0), ("tokens_ratio_low", 1.0), ("tokens_ratio_high", 1.0)):
        rates[name] = values
    assert [row["verdict"] for row in exactness.judge(rates)] == [SUPPORTED, SUPPORTED, CONTRADICTED, CONTRADICTED]
    rates["tokens_ratio_high"] = 2.0
    assert [row["verdict"] for row in exactness.judge(rates)] == [UNDECIDED] * 4
    rates[["tokens_ratio", "tokens_ratio_low"]] = 2.0
    assert [row["verdict"] for row in exactness.judge(rates)] == [CONTRADICTED, CONTRADICTED, SUPPORTED, SUPPORTED]
