"""Notebook 11: how few evaluations of the model a vector needs, and how much it holds then.

An evaluation is one forward and backward pass of one text. ``cases`` are those of a sweep with arms
(``measured.load_arms``).
"""

import numpy as np
import pandas as pd

from ..stats import Interval, bootstrap_clusters, weighted_mean
from ..verdicts import claim

BUDGETS = (50, 100, 200, 400)  # evaluations, of the search table
MOST = 0.9  # share of texts that counts as nearly all
ORDERS = {
    "strict": "vector, text",
    "anchored": "start token, vector, text",
    "anchored(n_before=0, n_after=1)": "vector, start token, text",
}


def compute_search(cases: pd.DataFrame) -> pd.DataFrame:
    """Return one row per arm, in the order in which they are worth trying, and length.

    ``exact_at_50`` and so on are shares of texts that are exact after so many evaluations; ``tokens_right`` the mean
    share of targets right at the end, ``gain_nats`` the mean information gain, ``exact_bytes`` the mean bytes of exact
    text per vector.
    """
    rows = []
    for (arm, length), group in cases.groupby(["arm", "length"], sort=False):
        row = {"origin": "measured", "arm": arm, "length": length, "n_texts": len(group)}
        row |= {f"exact_at_{budget}": _is_exact(group, budget).mean() for budget in BUDGETS}
        row |= {
            "tokens_right": (group["n_correct_mem"] / group["n_targets"]).mean(),
            "gain_nats": (group["ce_lm_nats"] - group["ce_mem_nats"]).mean(),
            "exact_bytes": (group["text_bytes"] * group["exact"]).mean(),
        }
        rows.append(row)
    table = pd.DataFrame(rows)
    best = table.groupby("arm")["exact_at_200"].mean()
    return table.assign(best=table["arm"].map(best)).sort_values(
        ["length", "best", "arm"], ascending=[True, False, True], ignore_index=True, kind="stable"
    ).drop(columns="best")  # fmt: skip


def _is_exact(cases, evaluations):
    return cases["exact"].astype(bool) & (cases["n_steps"] <= evaluations)


def compute_held(cases: pd.DataFrame, evaluations: int) -> pd.DataFrame:
    """Return what each arm holds of each text after so many evaluations of each length: its longest exact length.

    Columns: ``arm``, ``text_id``, ``cluster_id``, ``tokens``, ``nats`` and ``bytes`` of that much text, 0 where none is
    exact.
    """
    by = ["arm", "text_id"]
    longest = cases[_is_exact(cases, evaluations)].sort_values("length").groupby(by).tail(1).set_index(by)
    held = cases[[*by, "cluster_id"]].drop_duplicates().set_index(by)
    for name, column in (("tokens", "length"), ("nats", "ce_lm_nats"), ("bytes", "text_bytes")):
        held[name] = longest[column].astype(float)
    return held.fillna(0.0).reset_index()


def compare_held(
    cases: pd.DataFrame,
    arm: str,
    reference: str,
    *,
    evaluations: int,
    unit: str = "tokens",
    n_resamples: int,
    seed: int,
) -> Interval:
    """Return how many times as much ``arm`` holds exactly as ``reference``, both after so many evaluations.

    The ratio of means over the same texts; books are resampled, the same ones on both sides. ``unit`` is tokens, nats
    or bytes.
    """
    held = compute_held(cases, evaluations)
    held = held[held["arm"].isin([arm, reference])]
    above, below = (weighted_mean(held[unit], held["arm"] == name) for name in (arm, reference))

    def ratio(weights):
        with np.errstate(divide="ignore", invalid="ignore"):
            return above(weights) / below(weights)

    return bootstrap_clusters(held["cluster_id"], ratio, n_resamples=n_resamples, seed=seed)


def count_saved(
    cases: pd.DataFrame, arm: str, reference: str, *, n_resamples: int, seed: int
) -> tuple[Interval, Interval]:
    """Return after how many evaluations ``arm`` holds as many tokens as ``reference`` at its end, and the ratio.

    The ratio is the budget of ``reference`` over that number; it is 0 where ``arm`` never gets there.
    """
    budget = int(cases.loc[cases["arm"] == reference, "optimiser_max_steps"].max())
    at_end = compute_held(cases, budget).query("arm == @reference").set_index("text_id").sort_index()
    steps = sorted(cases.loc[(cases["arm"] == arm) & cases["exact"].astype(bool), "n_steps"].unique())
    curve = np.stack([_held_by(cases, arm, at_end.index, evaluations) for evaluations in steps], axis=1)
    target = at_end["tokens"].to_numpy()

    def evaluations(weights):
        reached = weights @ curve >= (weights @ target)[:, None] - 1e-9
        return np.where(reached.any(axis=1), np.asarray(steps, float)[reached.argmax(axis=1)], np.inf)

    options = {"n_resamples": n_resamples, "seed": seed}
    return (
        bootstrap_clusters(at_end["cluster_id"], evaluations, **options),
        bootstrap_clusters(at_end["cluster_id"], lambda weights: budget / evaluations(weights), **options),
    )


def _held_by(cases, arm, texts, evaluations):
    held = compute_held(cases[cases["arm"] == arm], evaluations)
    return held.set_index("text_id").loc[texts, "tokens"].to_numpy()


def compute_held_curve(cases: pd.DataFrame, *, n_resamples: int, seed: int, n_points: int = 40) -> pd.DataFrame:
    """Return the tokens that each arm holds exactly on average, with 95 % intervals, over evaluations up to its end."""
    rows = []
    for arm, group in cases.groupby("arm", sort=False):
        budget = int(group["optimiser_max_steps"].max())
        for evaluations in np.unique(np.geomspace(5, budget, n_points).astype(int)):
            held = compute_held(group, int(evaluations))
            mean = bootstrap_clusters(
                held["cluster_id"], weighted_mean(held["tokens"]), n_resamples=n_resamples, seed=seed
            )
            rows.append({"arm": arm, "evaluations": evaluations, **_limits("tokens", mean)})
    return pd.DataFrame(rows).assign(origin="measured")


def compute_share_curve(cases: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return the share of texts that are exact over evaluations, by arm and order, with 95 % intervals over books."""
    rows = []
    for (arm, protocol), group in cases.groupby(["arm", "protocol"], sort=False):
        budget = int(group["optimiser_max_steps"].max())
        steps = {1, budget, *group.loc[group["exact"].astype(bool), "n_steps"].astype(int)}
        for evaluations in sorted(steps):
            share = bootstrap_clusters(
                group["cluster_id"],
                weighted_mean(_is_exact(group, evaluations)),
                n_resamples=n_resamples,
                seed=seed,
            )
            row = {"arm": arm, "protocol": protocol, "order": ORDERS.get(protocol, protocol)}
            rows.append(row | {"evaluations": evaluations, **_limits("share", share)})
    return pd.DataFrame(rows).assign(origin="measured")


def count_until(cases: pd.DataFrame, share: float, *, n_resamples: int, seed: int) -> Interval:
    """Return after how many evaluations that share of texts is exact; infinite where it never is."""
    steps = np.where(cases["exact"].astype(bool), cases["n_steps"].astype(float), np.inf)
    order = np.argsort(steps, kind="stable")

    def quantile(weights):
        reached = np.cumsum(weights[:, order], axis=1) >= share * weights.sum(axis=1, keepdims=True) - 1e-9
        return steps[order][reached.argmax(axis=1)]

    return bootstrap_clusters(cases["cluster_id"], quantile, n_resamples=n_resamples, seed=seed)


def compute_anchor(cases: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return one row per model, order of start token and vector, and optimiser, on the same texts.

    ``exact_share`` with its interval over books, ``evaluations`` to exact (median of those that are), and of the texts
    that are not exact the index of the token that is wrong most often, ``wrong_index`` (0 is the first of the text),
    with the share of those texts in which it is wrong. ``start_attention`` is the share of attention that the model
    gives its start token on a plain text.
    """
    rows = []
    for (name, arm, protocol), group in cases.groupby(["name", "arm", "protocol"], sort=False):
        share = bootstrap_clusters(
            group["cluster_id"], weighted_mean(group["exact"].astype(float)), n_resamples=n_resamples, seed=seed
        )
        exact = group["exact"].astype(bool)
        index, wrong = _find_wrong(group[~exact])
        rows.append(
            {
                "origin": "measured",
                "model": name,
                "start_attention": group["start_attention"].iloc[0],
                "order": ORDERS.get(protocol, protocol),
                "optimiser": arm,
                "length": group["length"].iloc[0],
                "n_texts": len(group),
                "max_evaluations": group["optimiser_max_steps"].iloc[0],
                **_limits("exact_share", share),
                "evaluations": group.loc[exact, "n_steps"].median(),
                "tokens_right": (group["n_correct_mem"] / group["n_targets"]).mean(),
                "wrong_index": index,
                "wrong_share": wrong,
            }
        )
    return pd.DataFrame(rows)


def _find_wrong(cases):
    # The index that is wrong in most of these cases, and in which share of them.
    if cases.empty:
        return np.nan, np.nan
    width = int(cases["n_targets"].max())
    wrong = np.zeros(width)
    for margins in cases["margin_each"]:
        wrong[: len(margins)] += np.asarray(margins, float) < 0
    return int(wrong.argmax()), wrong.max() / len(cases)


def compute_margin_price(cases: pd.DataFrame, arms: dict[str, str], *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return what it costs to ask for more than accuracy 1: one row per arm, named by what it asks for.

    Of the texts whose search reached what it asked for: ``exact_share`` are exact by the whole ladder,
    ``evaluations`` is their median, and ``tokens`` what a vector holds on average by that arm's own criterion.
    """
    rows = []
    for arm, asks in arms.items():
        group = cases[cases["arm"] == arm]
        reached = group[group["ended"] == "reached"]
        share = bootstrap_clusters(
            reached["cluster_id"], weighted_mean(reached["exact"].astype(float)), n_resamples=n_resamples, seed=seed
        )
        longest = group.assign(held=group["length"].where(group["ended"] == "reached", 0)).groupby("text_id")["held"]
        row = {"origin": "measured", "stops at": asks, "reached": len(reached) / len(group)}
        row |= _limits("exact_share", share)
        rows.append(row | {"evaluations": reached["n_steps"].median(), "tokens": longest.max().mean()})
    return pd.DataFrame(rows)


def _limits(name, interval):
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def judge(small: dict[str, Interval], real: dict[str, Interval], anchor: pd.DataFrame) -> list[dict]:
    """Return the verdict rows from the numbers of the small and of the real model, and the table of orders."""
    rows = [
        claim("fast holds more than the published optimiser (novels-5m, 400 evaluations)",
              small["tokens_published"], (1.4, np.inf), unit="times the tokens"),
        claim("fast holds more than AdamW at its best rate (novels-5m, 400 evaluations)",
              small["tokens_best"], (1.4, np.inf), unit="times the tokens"),
        claim("fast needs fewer evaluations for what AdamW at its best rate holds after 1,000 (novels-5m)",
              small["saved_best"], (5, np.inf), unit="times fewer"),
        claim("fast is exact for nine of ten texts of 32 tokens (SmolLM2-135M)",
              real["until_most"], (0, 200), unit="evaluations"),
        claim("the published optimiser is exact for fewer texts at its end than fast after a tenth of that",
              real["tenth"], (0, np.inf), unit="share of texts, difference"),
    ]  # fmt: skip
    return rows + [_judge_order(name, group) for name, group in anchor.groupby("model", sort=False)]


def _judge_order(name, rows):
    # The start token in front against the vector first, under the better optimiser; intervals that do not meet decide.
    fast = rows[rows["optimiser"] == "fast"].set_index("order")
    before, first = fast.loc[ORDERS["anchored"]], fast.loc[ORDERS["strict"]]
    difference = Interval(
        before["exact_share"] - first["exact_share"],
        before["exact_share_low"] - first["exact_share_high"],
        before["exact_share_high"] - first["exact_share_low"],
    )
    return claim(
        f"{name}: more texts are exact with the start token in front of the vector",
        difference, (0, np.inf), unit="share of texts, difference",
        detail=f"attention on the start token {before['start_attention']:.2f}",
    )  # fmt: skip
