"""Notebook 11: how few evaluations of the model a vector needs, and how much it holds then.

An evaluation is one forward and backward pass of one text. ``cases`` are those of a sweep with arms
(``measured.load_arms``).
"""

import numpy as np
import pandas as pd

from ..stats import Interval, bootstrap_clusters, weighted_mean
from ..verdicts import claim
from .anchor import CLEAR, FAST, ORDERS, judge_orders

BUDGETS = (50, 100, 200, 400)  # evaluations, of the search table
REFERENCES = ["published", "AdamW at its best rate"]  # arms that fast is held against
STOPS = {  # arms, by what a text must reach before its search ends
    "fast, accuracy 1": "accuracy 1",
    "fast": "margin .001",
    "fast, margin .1": "margin .1",
    "fast, margin 1": "margin 1",
}
MOST = 0.9  # share of texts that counts as nearly all
MORE, FEWER, FAIR, SOON = 1.4, 5, 10, 200  # margins: times as much, times fewer, times as many, evaluations


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
    cases = cases[[*by, "cluster_id", "exact", "n_steps", "length", "ce_lm_nats", "text_bytes"]]
    longest = cases[_is_exact(cases, evaluations)].sort_values("length").groupby(by).tail(1).set_index(by)
    held = cases[[*by, "cluster_id"]].drop_duplicates().set_index(by)
    for name, column in (("tokens", "length"), ("nats", "ce_lm_nats"), ("bytes", "text_bytes")):
        held[name] = longest[column].astype(float)
    return held.fillna(0.0).reset_index()


def compare_recipes(cases: pd.DataFrame, references: list[str], **resampling) -> pd.DataFrame:
    """Return what the arm ``fast`` holds exactly against each reference on the same texts, and how soon.

    Rows: mean tokens, nats and bytes held after as many evaluations as ``fast`` is given, and the evaluations until the
    tokens are held that the reference holds at its own end. ``fast`` and ``other`` are the two numbers, ``ratio`` how
    many times better the first is, with its interval. ``resampling`` are ``n_resamples`` and ``seed``; books are
    resampled, the same ones on both sides.
    """
    budget, rows = int(cases.loc[cases["arm"] == FAST, "optimiser_max_steps"].max()), []
    held = compute_held(cases, budget).groupby("arm")[["tokens", "nats", "bytes"]].mean()
    for other in references:
        for unit in held:
            ratio = compare_held(cases, FAST, other, evaluations=budget, unit=unit, **resampling)
            numbers = {"fast": held.loc[FAST, unit], "other": held.loc[other, unit]}
            rows.append(
                {"reference": other, "quantity": f"{unit} held after {budget}"} | numbers | ratio.columns("ratio")
            )
        saved = count_saved(cases, FAST, other, **resampling)
        end = cases.loc[cases["arm"] == other, "optimiser_max_steps"].max()
        numbers = {"fast": end / saved.value if saved.value else np.inf, "other": end}
        rows.append({"reference": other, "quantity": "evaluations for its end"} | numbers | saved.columns("ratio"))
    return pd.DataFrame(rows).assign(origin="measured", n_texts=cases["text_id"].nunique())


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


def count_saved(cases: pd.DataFrame, arm: str, reference: str, *, n_resamples: int, seed: int) -> Interval:
    """Return how many times fewer evaluations ``arm`` takes to hold as many tokens as ``reference`` at its end.

    The budget of ``reference`` over that number of evaluations; 0 where ``arm`` never gets there.
    """
    budget = int(cases.loc[cases["arm"] == reference, "optimiser_max_steps"].max())
    at_end = compute_held(cases, budget).query("arm == @reference").set_index("text_id").sort_index()
    exact = cases[(cases["arm"] == arm) & cases["exact"].astype(bool)]
    steps = np.unique(exact["n_steps"].to_numpy(float))
    lengths = exact["length"].to_numpy()[:, None] * (exact["n_steps"].to_numpy()[:, None] <= steps)
    curve = pd.DataFrame(lengths).groupby(exact["text_id"].to_numpy()).max().reindex(at_end.index, fill_value=0)
    curve, target = curve.to_numpy(), at_end["tokens"].to_numpy()

    def times_fewer(weights):
        if not len(steps):
            return np.zeros(len(weights))
        reached = weights @ curve >= (weights @ target)[:, None] - 1e-9
        return np.where(reached.any(axis=1), budget / steps[reached.argmax(axis=1)], 0)

    return bootstrap_clusters(at_end["cluster_id"], times_fewer, n_resamples=n_resamples, seed=seed)


def compute_held_curve(
    cases: pd.DataFrame, arms: list[str], *, n_resamples: int, seed: int, n_points: int = 30
) -> pd.DataFrame:
    """Return the tokens that each arm holds exactly on average, with 95 % intervals, over evaluations up to its end."""
    rows = []
    for arm in arms:
        group = cases[cases["arm"] == arm]
        budget = int(group["optimiser_max_steps"].max())
        for evaluations in np.unique(np.geomspace(5, budget, n_points).astype(int)):
            held = compute_held(group, int(evaluations))
            mean = bootstrap_clusters(
                held["cluster_id"], weighted_mean(held["tokens"]), n_resamples=n_resamples, seed=seed
            )
            rows.append({"arm": arm, "evaluations": evaluations, **mean.columns("tokens")})
    return pd.DataFrame(rows).assign(origin="measured")


def compute_share_curve(cases: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return the share of texts that are exact over evaluations, by optimiser and order, with 95 % intervals.

    An arm is named by its optimiser, and after a comma by its order; optimisers come in the order of ``cases``. Books
    are resampled.
    """
    rows = []
    cases = cases.assign(optimiser=cases["arm"].str.split(",").str[0])
    first = {name: place for place, name in enumerate(cases["optimiser"].unique())}
    cases = cases.assign(place=cases["optimiser"].map(first)).sort_values(["place", "protocol"], kind="stable")
    for (optimiser, protocol), group in cases.groupby(["optimiser", "protocol"], sort=False):
        budget = int(group["optimiser_max_steps"].max())
        steps = {1, budget, *group.loc[group["exact"].astype(bool), "n_steps"].astype(int)}
        for evaluations in sorted(steps):
            share = bootstrap_clusters(
                group["cluster_id"],
                weighted_mean(_is_exact(group, evaluations)),
                n_resamples=n_resamples,
                seed=seed,
            )
            row = {"optimiser": optimiser, "protocol": protocol, "order": ORDERS.get(protocol, protocol)}
            rows.append(row | {"evaluations": evaluations, **share.columns("share")})
    return pd.DataFrame(rows).assign(origin="measured")


def count_until(cases: pd.DataFrame, share: float, *, n_resamples: int, seed: int) -> Interval:
    """Return after how many evaluations that share of texts is exact; infinite where it never is."""
    steps = np.where(cases["exact"].astype(bool), cases["n_steps"].astype(float), np.inf)
    order = np.argsort(steps, kind="stable")

    def quantile(weights):
        reached = np.cumsum(weights[:, order], axis=1) >= share * weights.sum(axis=1, keepdims=True) - 1e-9
        return steps[order][reached.argmax(axis=1)]

    return bootstrap_clusters(cases["cluster_id"], quantile, n_resamples=n_resamples, seed=seed)


def compute_margin_price(cases: pd.DataFrame, arms: dict[str, str], **resampling) -> pd.DataFrame:
    """Return what it costs to ask for more than accuracy 1: one row per arm, named by what it asks for.

    At the length that all of them were run at. ``reached`` is the share of texts that reached it; of these,
    ``exact_share`` are exact by the whole ladder, and ``evaluations`` is their median.
    """
    lengths = [set(cases.loc[cases["arm"] == arm, "length"]) for arm in arms]
    cases, rows = cases[cases["length"].isin(set.intersection(*lengths))], []
    for arm, asks in arms.items():
        group = cases[cases["arm"] == arm]
        reached = group[group["ended"] == "reached"]
        share = bootstrap_clusters(reached["cluster_id"], weighted_mean(reached["exact"].astype(float)), **resampling)
        row = {"origin": "measured", "stops at": asks, "n_texts": len(group), "reached": len(reached) / len(group)}
        rows.append(row | share.columns("exact_share") | {"evaluations": reached["n_steps"].median()})
    return pd.DataFrame(rows)


def compare_real(cases: pd.DataFrame, long: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return how soon ``fast`` is exact for MOST of the searches, and how it stands against the published optimiser.

    ``cases`` may have several starts of a text. ``fast`` with the start token in front of the vector, the published
    optimiser with the vector at position 0, as the paper has it. Rows: the evaluations of ``fast``; of the texts in
    ``long``, the share exact after all evaluations that the published one was given, that of ``fast`` after FAIR times
    fewer, and their difference.
    """
    fast = cases.query("arm == @FAST and protocol == 'anchored'")
    published = long.query("arm == 'published' and protocol == 'strict'").set_index("text_id")
    until = count_until(fast, MOST, **resampling)
    first = {"quantity": f"evaluations of fast until {MOST:.0%} are exact", **until.columns("value")}
    rows, budget = [first | {"n_texts": fast["text_id"].nunique()}], int(published["optimiser_max_steps"].max())
    by_published = _is_exact(published, budget).astype(float)
    by_fast = _is_exact(fast, budget // FAIR).groupby(fast["text_id"]).mean().loc[published.index]
    for name, values in (
        (f"share exact, published after {budget}", by_published),
        (f"share exact, fast after {budget // FAIR}", by_fast),
        ("difference of these shares", by_fast - by_published),
    ):
        share = bootstrap_clusters(published["cluster_id"], weighted_mean(values), **resampling)
        rows.append({"quantity": name, **share.columns("value"), "n_texts": len(published)})
    return pd.DataFrame(rows).assign(origin="measured")


def judge(small: pd.DataFrame, real: pd.DataFrame, anchor: pd.DataFrame) -> list[dict]:
    """Return the verdict rows from the tables of ``compare_recipes``, ``compare_real`` and ``compute_anchor``."""
    rows = [
        claim(
            f"novels-5m: fast against {row.reference}, {row.quantity}",
            Interval(row.ratio, row.ratio_low, row.ratio_high),
            (FEWER if row.quantity.startswith("evaluations") else MORE, np.inf),
            unit="times",
        )
        for row in small.itertuples()
        if row.quantity.startswith(("tokens", "evaluations"))
    ]
    until, *_, difference = (Interval(row.value, row.value_low, row.value_high) for row in real.itertuples())
    rows.append(claim(f"SmolLM2-135M: {real['quantity'].iloc[0]}", until, (0, SOON), unit="evaluations"))
    statement = f"SmolLM2-135M: fast is exact for more texts than the published optimiser after {FAIR} times as many"
    rows.append(claim(statement, difference, (CLEAR, np.inf), unit="share of texts, difference"))
    return rows + judge_orders(anchor)
