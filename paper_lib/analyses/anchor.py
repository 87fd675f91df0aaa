"""Notebook 11: does a start token in front of the vector help, and which token is wrong without it?"""

import numpy as np
import pandas as pd

from ..stats import Interval, bootstrap_clusters, weighted_mean
from ..verdicts import claim

ORDERS = {
    "strict": "vector, text",
    "anchored": "start token, vector, text",
    "anchored(n_before=0, n_after=1)": "vector, start token, text",
}
FAST = "fast"  # the optimiser that decides
CLEAR = 0.1  # share of texts that counts as a difference


def select_orders(cases: pd.DataFrame) -> pd.DataFrame:
    """Return the cases of texts that were run in several orders, with columns ``order``, ``optimiser`` and ``budget``.

    ``cases`` are those of sweeps with arms; an arm is named by its optimiser, and after a comma by its order. Where one
    order was given more evaluations than another, those of all count up to the smaller number, ``budget``.
    """
    chosen = cases[cases["stopping"] == "strict"].reset_index(drop=True)  # of several sweeps, put one below the other
    chosen["optimiser"] = chosen["arm"].str.split(",").str[0]
    several = chosen.groupby(["name", "optimiser", "length"])["protocol"].transform("nunique") > 1
    chosen = chosen[several].assign(order=chosen["protocol"].map(ORDERS))
    budget = chosen.groupby(["name", "optimiser"])["optimiser_max_steps"].transform("min")
    return chosen.assign(budget=budget, exact=chosen["exact"].astype(bool) & (chosen["n_steps"] <= budget))


def compute_anchor(cases: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return one row per model, order of start token and vector, and optimiser, from the cases of ``select_orders``.

    ``exact_share`` with its interval over books, ``gained`` its difference from the vector first on the same texts,
    ``evaluations`` to exact (median of those that are), and of the texts that are not exact the index of the token that
    is wrong most often, ``wrong_index`` (0 is the first of the text), with the share of those texts in which it is.
    ``start_attention`` is the share of attention that the model gives its start token on a plain text.
    """
    rows, resampling = [], {"n_resamples": n_resamples, "seed": seed}
    ranks = {"model": list(cases["name"].unique()).index, "place": list(ORDERS).index}
    cases = cases.assign(model=cases["name"].map(ranks["model"]), place=cases["protocol"].map(ranks["place"]))
    cases = cases.sort_values(["model", "optimiser", "place"], kind="stable")
    for (name, optimiser, protocol), group in cases.groupby(["name", "optimiser", "protocol"], sort=False):
        exact = group["exact"].astype(bool)
        share = bootstrap_clusters(group["cluster_id"], weighted_mean(exact.astype(float)), **resampling)
        index, wrong = _find_wrong(group[~exact])
        first = cases.query("name == @name and optimiser == @optimiser and protocol == 'strict'").set_index("text_id")
        gained = exact.astype(float) - first["exact"].astype(float).loc[group["text_id"]].to_numpy()
        gained = bootstrap_clusters(group["cluster_id"], weighted_mean(gained), **resampling)
        rows.append(
            {
                "origin": "measured",
                "model": name,
                "start_attention": group["start_attention"].iloc[0],
                "order": ORDERS.get(protocol, protocol),
                "optimiser": optimiser,
                "length": group["length"].iloc[0],
                "n_texts": len(group),
                "max_evaluations": group["budget"].iloc[0],
                **share.columns("exact_share"),
                **gained.columns("gained"),
                "evaluations": group.loc[exact, "n_steps"].median(),
                "tokens_right": (group["n_correct_mem"] / group["n_targets"]).mean(),
                "wrong_index": index,
                "wrong_share": wrong,
            }
        )
    return pd.DataFrame(rows)


def compute_positions(cases: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return what each token has of the vector, one row per ``arm`` and ``index`` of the token (0 is the first).

    ``wrong`` is the share of texts in which it is not the argmax, ``left_nats`` its mean cross-entropy with the vector,
    both with intervals over books; ``alone_nats`` that without. The texts of all arms are equally long.
    """
    rows = []
    for arm, group in cases.groupby("arm", sort=False):
        margins, left, alone = (
            np.stack(group[column]).astype(float) for column in ("margin_each", "ce_mem_nats_each", "ce_lm_nats_each")
        )
        for index in range(margins.shape[1]):
            row = {"origin": "measured", "arm": arm, "index": index, "alone_nats": alone[:, index].mean()}
            for name, values in (("wrong", margins[:, index] < 0), ("left_nats", left[:, index])):
                mean = weighted_mean(values.astype(float))
                row |= bootstrap_clusters(group["cluster_id"], mean, n_resamples=n_resamples, seed=seed).columns(name)
            rows.append(row)
    return pd.DataFrame(rows)


def arrange_panels(anchor: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of each model for a panel of its own, all with the same lines; empty ones where it has none."""
    lines = anchor[["optimiser", "order"]].drop_duplicates().sort_values("optimiser", kind="stable")
    panels = {}
    for model, rows in anchor.groupby("model", sort=False):
        rows = lines.merge(rows, how="left").assign(origin="measured", family="other")
        panels[model] = rows.assign(name=rows["optimiser"] + ": " + rows["order"])
    return panels


def _find_wrong(cases):
    # The index that is wrong in most of these cases, and in which share of them; null where none is wrong at the end.
    if cases.empty:
        return np.nan, np.nan
    width = int(cases["n_targets"].max())
    wrong = np.zeros(width)
    for margins in cases["margin_each"]:
        wrong[: len(margins)] += np.asarray(margins, float) < 0
    return (int(wrong.argmax()), wrong.max() / len(cases)) if wrong.any() else (np.nan, np.nan)


def judge_orders(anchor: pd.DataFrame) -> list[dict]:
    """Return one verdict row per model from the table of ``compute_anchor``."""
    return [_judge_order(name, group) for name, group in anchor.groupby("model", sort=False)]


def _judge_order(name, rows):
    # The start token in front against the vector first, under the better optimiser.
    before = rows[(rows["optimiser"] == FAST) & (rows["order"] == ORDERS["anchored"])].iloc[0]
    return claim(
        f"{name}: with the start token in front of the vector more texts are exact",
        Interval(before["gained"], before["gained_low"], before["gained_high"]),
        (CLEAR, np.inf),
        unit="share of texts, difference",
        detail=f"attention on the start token {before['start_attention']:.2f}",
    )
