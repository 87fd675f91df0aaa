"""How far texts grew, from stages that can be counted by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from paper_lib.analyses import horizons
from paper_lib.errors import InputError
from paper_lib.verdicts import CONTRADICTED, SUPPORTED, UNDECIDED

NONE = {"n_resamples": 0, "seed": 0}


def grown(text, stages, proven, *, ce_lm=2.0, ce_mem=0.5, name="model", arm="fast"):
    """One text of eight tokens; ``stages`` are (step, targets, nats left)."""
    steps, targets, nats = (list(column) for column in zip(*stages, strict=True)) if stages else ([], [], [])
    return {
        "name": name, "arm": arm, "text_id": text, "cluster_id": f"book {text}", "exact_length_tokens": proven,
        "n_steps": 50, "ended": "patience",
        "stage_steps_each": steps, "stage_targets_each": targets, "stage_nats_each": nats,
        "ce_lm_nats_each": [ce_lm] * 8, "ce_mem_nats_each": [ce_mem] * 8,
    }  # fmt: skip


def test_a_horizon_is_the_longest_stage_and_its_gain_is_over_that():
    cases = pd.DataFrame([grown("a", [(5, 2, 1.0), (9, 4, 3.0)], 4), grown("b", [(7, 2, 1.0)], 0), grown("c", [], 0)])
    table = horizons.compute_horizons(cases)
    assert table["tokens"].tolist() == [4, 2, 0]
    assert table["proven_tokens"].tolist() == [4, 0, 0]
    assert table["gain_bits"].tolist() == pytest.approx([6 / math.log(2), 3 / math.log(2), 0])
    row = horizons.summarise_horizons(table, **NONE).iloc[0]
    assert (row["n_texts"], row["tokens"], row["tokens_std"]) == (3, 2, 2)


def test_a_stage_brings_what_it_adds_to_the_one_before():
    cases = pd.DataFrame([grown("a", [(5, 2, 1.0), (30, 5, 9.5), (9, 4, 3.0)], 5)])
    table = horizons.compute_stages(cases)
    assert table["tokens"].tolist() == [2, 4, 5]
    assert table["steps"].tolist() == [5, 4, 21]
    assert table["gain_bits"].tolist() == pytest.approx([3 / math.log(2), 5 / math.log(2), 0.5 / math.log(2)])
    assert table["marginal_bits"].tolist() == pytest.approx(np.array([1.5, 1.0, -4.5]) / math.log(2))


def test_stages_that_lose_are_counted():
    cases = pd.DataFrame([grown("a", [(5, 2, 1.0), (9, 4, 3.0), (30, 5, 9.5)], 5), grown("b", [(7, 2, 1.0)], 2)])
    row = horizons.summarise_stages(horizons.compute_stages(cases), **NONE).iloc[0]
    assert (row["n_stages"], row["losing_share"]) == (4, 0.25)
    assert row["last_bits"] == pytest.approx((1.5 + 1.0 - 4.5 + 1.5) / 4 / math.log(2))


def test_stages_are_averaged_where_half_of_the_texts_came():
    cases = [grown("a", [(5, 2, 1.0), (9, 4, 3.0)], 4), grown("b", [(7, 2, 3.0)], 2), grown("c", [(7, 2, 3.0)], 2)]
    table = horizons.average_stages(horizons.compute_stages(pd.DataFrame(cases)), **NONE)
    assert table[["tokens", "n_texts"]].to_numpy().tolist() == [[2, 3]]
    assert table["marginal_bits"].item() == pytest.approx((1.5 + 0.5 + 0.5) / 3 / math.log(2))


def test_a_fixed_length_is_compared_on_the_texts_that_grew_too():
    cases = pd.DataFrame([grown("a", [(5, 2, 1.0)], 2), grown("b", [(7, 4, 3.0)], 4), grown("alone", [], 0)])
    held = [("a", 4, True, 8.0), ("a", 8, False, 9.0), ("b", 4, False, 9.0), ("other", 4, True, 9.0)]
    fixed = pd.DataFrame(held, columns=["text_id", "length", "exact", "ce_lm_nats"])
    fixed = fixed.assign(text_bytes=1, ce_mem_nats=2.0, cluster_id=fixed["text_id"])
    row = horizons.compare_with_fixed(horizons.compute_horizons(cases), fixed, **NONE).iloc[0]
    assert (row["n_texts"], row["tokens_ratio"]) == (2, 4 / 6)
    assert row["gain_ratio"] == pytest.approx(6 / (3 + 6))


def test_a_fixed_length_that_was_the_longest_leaves_its_ratio_open():
    some = horizons.compute_horizons(pd.DataFrame([grown("a", [(5, 2, 1.0)], 2), grown("b", [(7, 4, 3.0)], 4)]))
    fixed = pd.DataFrame({"text_id": ["a", "b", "b"], "length": [4, 4, 8], "exact": [True, True, False]})
    fixed = fixed.assign(text_bytes=1, ce_lm_nats=9.0, ce_mem_nats=2.0, cluster_id=fixed["text_id"])
    for cases, is_open in ((fixed, False), (fixed[fixed["length"] == 4], True)):
        row = horizons.compare_with_fixed(some, cases, n_resamples=50, seed=0).iloc[0]
        assert np.isinf([row["tokens_ratio_high"], row["gain_ratio_high"]]).tolist() == [is_open] * 2
    with pytest.raises(InputError, match="run both sweeps on the same texts"):
        horizons.compare_with_fixed(some, fixed.assign(text_id="other"), **NONE)


def test_models_and_arms_are_apart():
    cases = [grown("a", [(5, n, 1.0)], n, name=name, arm=arm) for n, (name, arm) in enumerate(KINDS, start=2)]
    table = horizons.compute_horizons(pd.DataFrame(cases))
    stages = horizons.compute_stages(pd.DataFrame(cases))
    for rows in (
        horizons.summarise_horizons(table, **NONE),
        horizons.average_stages(stages, **NONE),
        horizons.summarise_stages(stages, **NONE),
    ):
        assert list(zip(rows["name"], rows["arm"], strict=True)) == KINDS
        assert rows["n_texts"].tolist() == [1, 1, 1]


KINDS = [("one", "published"), ("one", "fast"), ("other", "published")]


@pytest.mark.parametrize(
    ("tokens", "std", "verdict"), [(20.0, 0.1, SUPPORTED), (40.0, 0.1, CONTRADICTED), (20.0, 20.0, UNDECIDED)]
)
def test_what_is_printed_brings_its_own_uncertainty(tokens, std, verdict):
    here = pd.concat(pd.DataFrame({"name": name, "cluster_id": range(16)}) for name in horizons.PRINTED)
    here = here.assign(tokens=[19, 21] * 16, arm="published", cut_short=False)
    there = pd.DataFrame({"model": horizons.PRINTED.values(), "tokens_mean": tokens, "tokens_std": std, "n_texts": 10})
    fast = here.assign(tokens=1000, arm="fast")
    ratios = horizons.compare_with_printed(pd.concat([here, fast]), there, n_resamples=500, seed=0)
    assert list(ratios) == ["SmolLM2-135M", "gemma-3-270m"]
    assert [ratio.value for ratio in ratios.values()] == pytest.approx([20 / tokens] * 2)
    assert [row["verdict"] for row in horizons.judge(ratios)] == [verdict] * 2


def test_a_mean_that_is_printed_without_its_deviation_gets_that_of_the_texts_here():
    here = pd.concat(pd.DataFrame({"name": name, "cluster_id": range(16)}) for name in horizons.PRINTED)
    here = here.assign(tokens=[19, 21] * 16, arm="published", cut_short=False)
    there = pd.DataFrame(
        {"model": horizons.PRINTED.values(), "tokens_mean": 20, "tokens_std": [9, None], "n_texts": 10}
    )
    wide, unknown = horizons.compare_with_printed(here, there, n_resamples=500, seed=0).values()
    same = there.assign(tokens_std=here["tokens"].iloc[:16].std(ddof=1))
    assert unknown == horizons.compare_with_printed(here, same, n_resamples=500, seed=0)["gemma-3-270m"]
    assert wide.low < 0.9 < unknown.low < 1 < unknown.high < 1.1 < wide.high


def test_texts_that_are_cut_short_leave_the_ratio_open():
    here = pd.concat(pd.DataFrame({"name": name, "cluster_id": range(16)}) for name in horizons.PRINTED)
    here = here.assign(tokens=[19, 21] * 16, arm="published", cut_short=[True] + [False] * 31)
    there = pd.DataFrame({"model": horizons.PRINTED.values(), "tokens_mean": 20, "tokens_std": 0.1, "n_texts": 10})
    cut, whole = horizons.compare_with_printed(here, there, n_resamples=500, seed=0).values()
    assert (cut.value, cut.low, cut.high) == (whole.value, pytest.approx(whole.low, rel=0.05), math.inf)
    assert whole.high < 1.1
    assert [row["verdict"] for row in horizons.judge({"cut": cut, "whole": whole})] == [UNDECIDED, SUPPORTED]


def test_a_text_that_might_have_grown_further_is_cut_short():
    ends = [("budget", 3000), ("budget", 10_000), ("patience", 3000), ("reached", 100)]
    cases = [grown("a", [(5, 2, 1.0)], 2) | {"ended": ended, "n_steps": n_steps} for ended, n_steps in ends]
    table = horizons.compute_horizons(pd.DataFrame(cases))
    assert table["cut_short"].tolist() == [True, False, False, True]
    assert horizons.summarise_horizons(table, **NONE)["n_cut_short"].tolist() == [2]
