"""Notebook 07: how far each text grows into one vector, and what Progressive Cramming prints for the same models."""

import numpy as np
import pandas as pd

from ..capacity import nats_to_bits
from ..errors import InputError
from ..stats import Interval, bootstrap_clusters, open_ends, weighted_mean, weighted_ratio
from ..verdicts import claim
from .exactness import hold_exactly

PRINTED = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M", "gemma-3-270m": "google/gemma-3-270m"}  # here, there
PRINTED_STEPS = 10_000  # evaluations that each text may have there
LAST_STAGES = 5
ALIKE = (0.8, 1.25)  # a ratio within it counts as the same capacity


def compute_horizons(cases: pd.DataFrame) -> pd.DataFrame:
    """Return how far each text grew, from cases of the goal ``growing``: one row per model, arm and text.

    ``tokens`` is the longest stage reached, ``proven_tokens`` what decodes freely of it, ``gain_bits`` the information
    gain over that stage, ``evaluations`` those of the whole search. A text is ``cut_short`` where these were used up
    before the PRINTED_STEPS, or the whole of it was reached: it might have grown further.
    """
    rows = []
    for case in cases.itertuples():
        n = max(case.stage_targets_each, default=0)
        gained = np.sum(case.ce_lm_nats_each[:n]) - np.sum(case.ce_mem_nats_each[:n])
        rows.append(
            {
                "name": case.name,
                "arm": case.arm,
                "text_id": case.text_id,
                "cluster_id": case.cluster_id,
                "tokens": n,
                "proven_tokens": case.exact_length_tokens,
                "gain_bits": nats_to_bits(float(gained)),
                "evaluations": case.n_steps,
                "cut_short": case.ended == "reached" or (case.ended == "budget" and case.n_steps < PRINTED_STEPS),
            }
        )
    return pd.DataFrame(rows)


def summarise_horizons(horizons: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return one row per model and arm: means, intervals over books, and standard deviations over texts (ddof = 1)."""
    rows = []
    for (name, arm), group in horizons.groupby(["name", "arm"], sort=False):
        row = {"origin": "measured", "name": name, "arm": arm, "n_texts": len(group)}
        for column in ("tokens", "proven_tokens", "gain_bits"):
            mean = bootstrap_clusters(group["cluster_id"], weighted_mean(group[column].astype(float)), **resampling)
            row |= {**mean.columns(column), f"{column}_std": group[column].std(ddof=1)}
        rows.append(row | {"evaluations": group["evaluations"].median(), "n_cut_short": int(group["cut_short"].sum())})
    return pd.DataFrame(rows)


def compute_stages(cases: pd.DataFrame) -> pd.DataFrame:
    """Return what each stage brought: one row per model, arm, text and stage that was passed.

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
                    "name": case.name,
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
    """Return the mean ``marginal_bits`` of each arm's stages, with intervals, where half of its texts came.

    A row for each model, arm and length of the target (``tokens``).
    """
    rows = []
    for (name, arm), group in stages.groupby(["name", "arm"], sort=False):
        n_texts = group["text_id"].nunique()
        for tokens, stage in group.groupby("tokens"):
            if 2 * len(stage) >= n_texts:
                mean = bootstrap_clusters(stage["cluster_id"], weighted_mean(stage["marginal_bits"]), **resampling)
                row = {"origin": "measured", "name": name, "arm": arm, "tokens": tokens, "n_texts": len(stage)}
                rows.append(row | mean.columns("marginal_bits"))
    return pd.DataFrame(rows)


def summarise_stages(stages: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return, by model and arm, the share of stages that lose information and the gain of each text's last stages.

    ``last_bits``: mean ``marginal_bits`` of the last LAST_STAGES of each text, right below its horizon.
    """
    rows = []
    for (name, arm), group in stages.groupby(["name", "arm"], sort=False):
        last = group.sort_values("tokens").groupby("text_id").tail(LAST_STAGES)
        row = {"origin": "measured", "name": name, "arm": arm}
        row |= {"n_stages": len(group), "n_texts": group["text_id"].nunique()}
        for column, part, values in (
            ("losing_share", group, (group["marginal_bits"] < 0).astype(float)),
            ("last_bits", last, last["marginal_bits"]),
        ):
            row |= bootstrap_clusters(part["cluster_id"], weighted_mean(values), **resampling).columns(column)
        rows.append(row)
    return pd.DataFrame(rows)


def compare_with_fixed(horizons: pd.DataFrame, cases: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return what a target of a fixed length brings over one that grows: a row of ``exactness.compute_exchange_rates``.

    ``horizons`` (one per text) and ``cases``, at several lengths, are of one mover and protocol, each under a budget of
    its own. Texts that both have; what is held exactly. A ratio with texts whole at the longest length is open above.
    """
    sides = [horizons.assign(tokens=horizons["proven_tokens"]).set_index("text_id"), hold_exactly(cases)]
    common = sides[0].index.intersection(sides[1].index)
    if common.empty:
        raise InputError("no text both grew and was tried at fixed lengths; run both sweeps on the same texts")
    grown, fixed = (side.loc[common] for side in sides)
    at_longest = bool((fixed["tokens"] == cases["length"].max()).any())
    row = {"factor": "target: growing, to of a fixed length", "from": "stages of 8 tokens", "to": "each length alone"}
    for ratio, size in (("tokens_ratio", "tokens"), ("gain_ratio", "gain_bits")):
        statistic = weighted_ratio(fixed[size], grown[size])
        found = bootstrap_clusters(grown["cluster_id"], statistic, **resampling)
        row |= open_ends(found, above=at_longest, below=False).columns(ratio)
    facts = {"n_texts": len(common), "origin": "measured", "tokens_are": "longest length held, recipe fast"}
    return pd.DataFrame([row | facts])


def compare_with_printed(horizons: pd.DataFrame, printed: pd.DataFrame, **resampling) -> dict[str, Interval]:
    """Return of each model in PRINTED how many times the printed tokens the horizons are, with both uncertainties.

    ``horizons`` are those of the arm ``published``; ``printed`` has ``tokens_mean``, ``tokens_std`` and ``n_texts`` by
    ``model``. A printed mean counts as normal with its standard error; where no deviation is printed, that of the
    texts here stands in for it. Where texts are cut short the interval is open above.
    """
    published, printed = horizons[horizons["arm"] == "published"], printed.set_index("model")
    return {
        model.rpartition("/")[2]: _compare(published[published["name"] == name], printed.loc[model], **resampling)
        for name, model in PRINTED.items()
    }


def _compare(horizons, printed, *, n_resamples, seed):
    mean = weighted_mean(horizons["tokens"].astype(float))
    here = bootstrap_clusters(horizons["cluster_id"], mean, n_resamples=n_resamples, seed=seed)
    deviation = horizons["tokens"].std(ddof=1) if pd.isna(printed["tokens_std"]) else printed["tokens_std"]
    error = deviation / printed["n_texts"] ** 0.5
    there = np.random.default_rng(seed).normal(printed["tokens_mean"], error, len(here.resamples))
    ratios = here.resamples / there
    low, high = np.quantile(ratios, [0.025, 0.975]) if len(ratios) else (np.nan, np.nan)
    ratio = Interval(here.value / printed["tokens_mean"], float(low), float(high), ratios)
    return open_ends(ratio, above=bool(horizons["cut_short"].any()), below=False)


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
