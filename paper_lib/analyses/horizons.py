"""Notebook 07: how far each text grows into one vector, and what Progressive Cramming prints for the same models."""

import numpy as np
import pandas as pd

from ..capacity import nats_to_bits
from ..stats import Interval, bootstrap_clusters, weighted_mean
from ..verdicts import claim

LAST_STAGES = 5
ALIKE = (0.8, 1.25)  # a ratio within it counts as the same capacity


def compute_horizons(cases: pd.DataFrame) -> pd.DataFrame:
    """Return how far each text grew, from cases of the goal ``growing``: one row per arm and text.

    ``tokens`` is the longest stage reached, ``proven_tokens`` what decodes freely of it, ``gain_bits`` the information
    gain over that stage, ``evaluations`` those of the whole search.
    """
    rows = []
    for case in cases.itertuples():
        n = max(case.stage_targets_each, default=0)
        gained = np.sum(case.ce_lm_nats_each[:n]) - np.sum(case.ce_mem_nats_each[:n])
        rows.append(
            {
                "arm": case.arm,
                "text_id": case.text_id,
                "cluster_id": case.cluster_id,
                "tokens": n,
                "proven_tokens": case.exact_length_tokens,
                "gain_bits": nats_to_bits(float(gained)),
                "evaluations": case.n_steps,
            }
        )
    return pd.DataFrame(rows)


def summarise_horizons(horizons: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return one row per arm: means with intervals over books, and standard deviations over texts (ddof = 1)."""
    rows = []
    for arm, group in horizons.groupby("arm", sort=False):
        row = {"origin": "measured", "arm": arm, "n_texts": len(group)}
        for name in ("tokens", "proven_tokens", "gain_bits"):
            mean = bootstrap_clusters(group["cluster_id"], weighted_mean(group[name].astype(float)), **resampling)
            row |= {**mean.columns(name), f"{name}_std": group[name].std(ddof=1)}
        rows.append(row | {"evaluations": group["evaluations"].median()})
    return pd.DataFrame(rows)


def compute_stages(cases: pd.DataFrame) -> pd.DataFrame:
    """Return what each stage brought: one row per arm, text and stage that was passed.

    ``tokens`` is how long the target was, ``steps`` what the stage took, ``gain_bits`` the information gain over the
    target when it was passed, ``marginal_bits`` how much more that is than after the stage before, for each token that
    came.
    """
    rows = []
    for case in cases.itertuples():
        alone = np.concatenate([[0], np.cumsum(case.ce_lm_nats_each)])
        before = (0, 0, 0.0)
        stages = sorted(zip(case.stage_steps_each, case.stage_targets_each, case.stage_nats_each, strict=True))
        for steps, tokens, nats in stages:
            gain = nats_to_bits(float(alone[tokens] - nats))
            rows.append(
                {
                    "origin": "measured",
                    "arm": case.arm,
                    "text_id": case.text_id,
                    "cluster_id": case.cluster_id,
                    "tokens": tokens,
                    "steps": steps - before[0],
                    "gain_bits": gain,
                    "marginal_bits": (gain - before[2]) / (tokens - before[1]),
                }
            )
            before = steps, tokens, gain
    return pd.DataFrame(rows)


def average_stages(stages: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return the mean ``marginal_bits`` of each arm's stages, with intervals, where half of its texts came."""
    rows = []
    for arm, group in stages.groupby("arm", sort=False):
        n_texts = group["text_id"].nunique()
        for tokens, stage in group.groupby("tokens"):
            if 2 * len(stage) >= n_texts:
                mean = bootstrap_clusters(stage["cluster_id"], weighted_mean(stage["marginal_bits"]), **resampling)
                row = {"origin": "measured", "arm": arm, "tokens": tokens, "n_texts": len(stage)}
                rows.append(row | mean.columns("marginal_bits"))
    return pd.DataFrame(rows)


def summarise_stages(stages: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return, by arm, the share of stages that lose information and the gain of each text's last stages, over books.

    ``last_bits``: mean ``marginal_bits`` of the last LAST_STAGES of each text, right below its horizon.
    """
    rows = []
    for arm, group in stages.groupby("arm", sort=False):
        last = group.sort_values("tokens").groupby("text_id").tail(LAST_STAGES)
        row = {"origin": "measured", "arm": arm, "n_stages": len(group), "n_texts": group["text_id"].nunique()}
        for name, part, values in (
            ("losing_share", group, (group["marginal_bits"] < 0).astype(float)),
            ("last_bits", last, last["marginal_bits"]),
        ):
            row |= bootstrap_clusters(part["cluster_id"], weighted_mean(values), **resampling).columns(name)
        rows.append(row)
    return pd.DataFrame(rows)


def compare_with_printed(horizons: pd.DataFrame, printed: pd.Series, *, n_resamples: int, seed: int) -> Interval:
    """Return how many times the printed tokens the horizons are, with the uncertainty of both.

    ``printed`` has ``tokens_mean``, ``tokens_std`` and ``n_texts``; its mean counts as normal with that standard error.
    """
    mean = weighted_mean(horizons["tokens"].astype(float))
    here = bootstrap_clusters(horizons["cluster_id"], mean, n_resamples=n_resamples, seed=seed)
    error = printed["tokens_std"] / printed["n_texts"] ** 0.5
    there = np.random.default_rng(seed).normal(printed["tokens_mean"], error, len(here.resamples))
    ratios = here.resamples / there
    low, high = np.quantile(ratios, [0.025, 0.975]) if len(ratios) else (np.nan, np.nan)
    return Interval(here.value / printed["tokens_mean"], float(low), float(high), ratios)


def judge(replicated: dict[str, Interval]) -> list[dict]:
    """Return the verdict rows, from the results of ``compare_with_printed`` by model."""
    return [
        claim(
            f"{name}: horizon under the rule and optimiser of Progressive Cramming, against its print",
            ratio,
            ALIKE,
            unit="times the tokens",
        )
        for name, ratio in replicated.items()
    ]
