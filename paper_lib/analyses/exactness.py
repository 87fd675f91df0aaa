"""Notebook 07: what each demand on exactness costs, and how far a text grows into one vector."""

import numpy as np
import pandas as pd

from ..capacity import nats_to_bits
from ..stats import Interval, bootstrap_clusters, weighted_mean
from ..verdicts import claim

# What may be asked of a text, each more than the one before; of the same run.
CRITERIA = {
    "accuracy of .99": lambda cases: cases["solved"],
    "every token, teacher forced": lambda cases: cases["tf_exact"],
    "free decoding, whole forward": lambda cases: cases["greedy_exact_full"],
    "free decoding, with the cache too": lambda cases: cases["greedy_exact_full"] & cases["greedy_exact_cached"],
    "each by a margin of .001": lambda cases: cases["exact"],
}
EXACT = list(CRITERIA)[-1]
PROTOCOLS = {  # what changes from one protocol to the next
    ("kuratov2025", "strict"): "first token: given, to a target",
    ("strict", "anchored"): "vector: at position 0, to after the start token",
}
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


def compute_criteria(cases: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return the tokens of each text's longest length that meets each of CRITERIA, on average, per protocol.

    All criteria are read off the same runs. Cases of one model and source with one vector; intervals over books.
    """
    rows = []
    for protocol, group in cases.groupby("protocol", sort=False):
        for criterion in CRITERIA:
            held = _hold(group, criterion)
            mean = bootstrap_clusters(held["cluster_id"], weighted_mean(held["tokens"]), **resampling)
            row = {"origin": "measured", "protocol": protocol, "criterion": criterion, "n_texts": len(held)}
            rows.append(row | mean.columns("tokens"))
    return pd.DataFrame(rows)


def compute_exchange_rates(cases: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return what each change costs or brings: the ratio of tokens held, the same texts on both sides.

    Rows: each of CRITERIA against the one before, under the published protocol; each change of PROTOCOLS, with
    exactness asked of both. ``gain_ratio`` is that of information gains at the longest length that both were run at,
    null for criteria, which are read off the same vectors. Intervals resample books, the same ones on both sides.
    """
    runs, rows = dict(list(cases.groupby("protocol"))), []
    published = runs["kuratov2025"]
    names = list(CRITERIA)
    for before, after in zip(names, names[1:], strict=False):
        ratio = _compare(_hold(published, before), _hold(published, after), "tokens", **resampling)
        rows.append({"factor": "criterion", "from": before, "to": after} | ratio.columns("tokens_ratio"))
    for (before, after), factor in PROTOCOLS.items():
        sides = [_hold(runs[protocol], EXACT) for protocol in (before, after)]
        row = {"factor": factor, "from": before, "to": after}
        row |= _compare(*sides, "tokens", **resampling).columns("tokens_ratio")
        gains = [_gain(runs[protocol], _longest_common(runs[before], runs[after])) for protocol in (before, after)]
        rows.append(row | _compare(*gains, "nats", **resampling).columns("gain_ratio"))
    return pd.DataFrame(rows).assign(origin="measured", n_texts=published["text_id"].nunique())


def _hold(cases, criterion):
    # Of each text the longest length at which it meets the criterion, 0 for none.
    met = CRITERIA[criterion](cases).fillna(False).astype(bool)
    held = cases.assign(tokens=cases["length"].where(met, 0).astype(float))
    return held.groupby("text_id").agg(tokens=("tokens", "max"), cluster_id=("cluster_id", "first"))


def _longest_common(one, other):
    return max(set(one["length"]) & set(other["length"]))


def _gain(cases, length):
    here = cases[cases["length"] == length].set_index("text_id")
    return here.assign(nats=here["ce_lm_nats"] - here["ce_mem_nats"])[["nats", "cluster_id"]]


def _compare(before, after, column, *, n_resamples, seed):
    # The ratio of means over the same texts.
    after = after.loc[before.index]
    above, below = after[column].to_numpy(float), before[column].to_numpy(float)

    def ratio(weights):
        with np.errstate(divide="ignore", invalid="ignore"):
            return (weights @ above) / (weights @ below)

    return bootstrap_clusters(before["cluster_id"], ratio, n_resamples=n_resamples, seed=seed)


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


def judge(replicated: Interval) -> list[dict]:
    """Return the verdict rows, from the result of ``compare_with_printed``."""
    return [
        claim(
            "SmolLM2-135M: horizon under the rule and optimiser of Progressive Cramming, against its print",
            replicated,
            ALIKE,
            unit="times the tokens",
        )
    ]
