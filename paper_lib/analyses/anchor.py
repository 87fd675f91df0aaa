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
    """Return the cases of texts that were run in several orders, with columns ``order`` and ``optimiser``.

    ``cases`` are those of sweeps with arms; an arm is named by its optimiser, and after a comma by its order.
    """
    chosen = cases[cases["stopping"] == "strict"].assign(optimiser=lambda frame: frame["arm"].str.split(",").str[0])
    lengths = chosen.loc[chosen["protocol"] != "strict", "length"]
    chosen = chosen[chosen["length"].isin(lengths)]
    several = chosen.groupby(["name", "optimiser"])["protocol"].transform("nunique") > 1
    return chosen[several].assign(order=chosen["protocol"].map(ORDERS))


def compute_anchor(cases: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return one row per model, order of start token and vector, and optimiser, from the cases of ``select_orders``.

    ``exact_share`` with its interval over books, ``gained`` its difference from the vector first on the same texts,
    ``evaluations`` to exact (median of those that are), and of the texts that are not exact the index of the token that
    is wrong most often, ``wrong_index`` (0 is the first of the text), with the share of those texts in which it is.
    ``start_attention`` is the share of attention that the model gives its start token on a plain text.
    """
    rows, resampling = [], {"n_resamples": n_resamples, "seed": seed}
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
                "max_evaluations": group["optimiser_max_steps"].iloc[0],
                **share.columns("exact_share"),
                **gained.columns("gained"),
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
