"""How far texts grew, from stages that can be counted by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from paper_lib.analyses import horizons
from paper_lib.verdicts import CONTRADICTED, SUPPORTED, UNDECIDED

NONE = {"n_resamples": 0, "seed": 0}


def grown(text, stages, proven, *, ce_lm=2.0, ce_mem=0.5, arm="fast"):
    """One text of eight tokens; ``stages`` are (step, targets, nats left)."""
    steps, targets, nats = (list(column) for column in zip(*stages, strict=True)) if stages else ([], [], [])
    return {
        "arm": arm, "text_id": text, "cluster_id": f"book {text}", "exact_length_tokens": proven, "n_steps": 50,
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


@pytest.mark.parametrize(
    ("tokens", "std", "verdict"), [(20.0, 0.1, SUPPORTED), (40.0, 0.1, CONTRADICTED), (20.0, 20.0, UNDECIDED)]
)
def test_what_is_printed_brings_its_own_uncertainty(tokens, std, verdict):
    table = pd.DataFrame({"tokens": [19, 21] * 8, "cluster_id": range(16)})
    printed = pd.Series({"tokens_mean": tokens, "tokens_std": std, "n_texts": 10})
    ratio = horizons.compare_with_printed(table, printed, n_resamples=500, seed=0)
    assert ratio.value == pytest.approx(20 / tokens)
    assert horizons.judge({"SmolLM2-135M": ratio})[0]["verdict"] == verdict
