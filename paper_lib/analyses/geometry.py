"""Notebook 06: where the vectors of one text lie, what joins them, and how much room each has."""

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from ..stats import Interval, bootstrap_clusters, weighted_mean, weighted_slope, widen_certain
from ..verdicts import claim

HIGH_COSINE = 0.8  # printed: almost no pair of solutions of one text is above it (appendix E)
SOLVED = 0.99
OUTSIDE_NORM_RATIO = 25  # about: two outside measurements, on Pythia-160M and Qwen2.5-0.5B
PAIRS = {"same": "one text, two starts", "other": "two texts", "random": "random directions"}


def compute_cosines(cases: pd.DataFrame, vectors: dict[str, np.ndarray], *, seed: int) -> pd.DataFrame:
    """Return the cosine of each pair of exact solutions, of one text or two, and of as many random directions.

    ``cases`` are those of a sweep with several starts of each text; vectors (1, width) by key. A pair of two texts
    belongs to the book of its first.
    """
    cases = cases[cases["exact"].eq(True)].sort_values(["text_id", "restart"])
    units = np.stack([vectors[key][0].astype(float) for key in cases["key"]])
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    first, second = np.triu_indices(len(cases), 1)
    text = cases["text_id"].to_numpy()
    books = cases["cluster_id"].to_numpy()[first]
    pairs = pd.DataFrame(
        {
            "pair": np.where(text[first] == text[second], PAIRS["same"], PAIRS["other"]),
            "cluster_id": books,
            "cosine": (units[first] * units[second]).sum(axis=1),
        }
    )
    drawn = np.random.default_rng(seed).standard_normal((len(cases), units.shape[1]))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    random = pd.DataFrame(
        {"pair": PAIRS["random"], "cluster_id": books, "cosine": (drawn[first] * drawn[second]).sum(1)}
    )
    return pd.concat([pairs, random], ignore_index=True).assign(origin="measured")


def summarise_cosines(cosines: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return one row per kind of pair: mean cosine, share above HIGH_COSINE; of one text with intervals over books."""
    rows = []
    for kind, pairs in cosines.groupby("pair", sort=False):
        row = {"origin": "measured", "pair": kind, "n_pairs": len(pairs), "highest": pairs["cosine"].max()}
        pairs = pairs.assign(share_high=pairs["cosine"] > HIGH_COSINE)
        # Pairs of two texts belong to two books, so they are not drawn again by books.
        drawn = resampling if kind == PAIRS["same"] else resampling | {"n_resamples": 0}
        rows.append(row | _average(pairs, ["cosine", "share_high"], drawn))
    return pd.DataFrame(rows)


def average_paths(paths: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return mean accuracy by arm, kind of path and place, with intervals over books."""
    rows = []
    for (arm, path, at), group in paths.groupby(["arm", "path", "at"], sort=False):
        where = {"origin": "measured", "arm": arm, "path": path, "at": at}
        rows.append(where | _average(group, ["accuracy"], resampling))
    return pd.DataFrame(rows)


def summarise_paths(paths: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return one row per arm and kind of path: the share of it at SOLVED, of pairs joined, and its relative length.

    Only what lies between the ends counts. ``joined``: every place looked at has all tokens right.
    """
    inner = paths[paths["at"].between(0, 1, inclusive="neither")]
    pairs = inner.groupby(["arm", "path", "cluster_id", "key", "other_key"], sort=False).agg(
        share_solved=("accuracy", lambda values: (values >= SOLVED).mean()),
        joined=("all_right", "all"),
        lowest=("accuracy", "min"),
        length_ratio=("length_ratio", "first"),
    )
    rows = []
    for (arm, path), group in pairs.reset_index().groupby(["arm", "path"], sort=False):
        row = {"origin": "measured", "arm": arm, "path": path, "n_pairs": len(group)}
        row |= {"n_books": group["cluster_id"].nunique()}
        row |= _average(group, ["share_solved", "joined", "lowest", "length_ratio"], resampling)
        rows.append(row | {"longest": group["length_ratio"].max()})
    return pd.DataFrame(rows)


def compute_robustness(perturbed: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return the share of vectors that stay exact under teacher forcing, by kind and size of what disturbs them."""
    rows = []
    for (how, at), group in perturbed.groupby(["how", "at"], sort=False):
        row = {"origin": "measured", "how": how, "at": at, "n_vectors": group["key"].nunique()}
        rows.append(row | _average(group, ["all_right", "accuracy"], resampling))
    return pd.DataFrame(rows)


def compute_radii(perturbed: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Return, for each vector, the length of noise, in its own, at which half of the directions make an error.

    In each direction it is between the last length before the first error and the first with one: their geometric
    mean. With it the vector's smallest margin and what is held.
    """
    noise = perturbed[perturbed["how"] == "noise"].sort_values("at")
    rows = []
    for (key, draw), line in noise.groupby(["key", "draw"], sort=False):
        wrong = np.flatnonzero(~line["all_right"].to_numpy())
        sizes = line["at"].to_numpy()
        last, first = (wrong[0] - 1, wrong[0]) if len(wrong) else (len(sizes) - 1, len(sizes) - 1)
        rows.append({"key": key, "draw": draw, "radius": np.sqrt(sizes[max(last, 0)] * sizes[first])})
    radii = pd.DataFrame(rows).groupby("key")["radius"].median()
    facts = cases.set_index("key")[["text_id", "cluster_id", "min_logit_margin", "ce_lm_nats"]]
    return facts.join(radii, how="inner").reset_index().assign(origin="measured")


def summarise_radii(radii: pd.DataFrame, margin_radius: Interval, **resampling) -> pd.DataFrame:
    """Return mean radius and margin of the vectors and the rank correlation of the two, with intervals over books."""
    rows = []
    for name, column in (
        ("radius, in lengths of the vector", "radius"),
        ("smallest margin, logits", "min_logit_margin"),
    ):
        mean = _average(radii.rename(columns={column: "value"}), ["value"], resampling)
        rows.append({"origin": "measured", "quantity": name, **mean})
    rows.append({"origin": "measured", "quantity": "their rank correlation", **margin_radius.columns("value")})
    return pd.DataFrame(rows).assign(n_vectors=len(radii))


def correlate_ranks(data: pd.DataFrame, x: str, y: str, **resampling) -> Interval:
    """Return Spearman's rank correlation of two columns, with its interval over books (ranks are not drawn again)."""
    ranks = [scipy_stats.zscore(scipy_stats.rankdata(data[name])) for name in (x, y)]
    forth, back = weighted_slope(*ranks), weighted_slope(*ranks[::-1])

    def correlation(weights):
        slope = forth(weights)
        return np.sign(slope) * np.sqrt(np.clip(slope * back(weights), 0, 1))

    return bootstrap_clusters(data["cluster_id"], correlation, **resampling)


def summarise_neighbours(neighbours: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return what vectors are beside token embeddings, and what another text costs behind them; means over books."""
    per_token = {
        name: neighbours[column] / neighbours["n_other_targets"]
        for name, column in (("behind", "other_ce_behind_nats"), ("alone", "other_ce_alone_nats"))
    }
    quantities = {
        "norm, in those of tokens": neighbours["norm_ratio"],
        "cosine to the nearest token": neighbours["nearest_cosine"],
        "the same of random directions": neighbours["random_nearest_cosine"],
        "another text behind the vector, nats a token": per_token["behind"],
        "that text alone, nats a token": per_token["alone"],
    }
    rows = []
    for name, values in quantities.items():
        mean = _average(neighbours.assign(value=values), ["value"], resampling)
        rows.append({"origin": "measured", "quantity": name, **mean})
    return pd.DataFrame(rows)


def average_attention(attention: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return the share of attention on the vector and on the start token by layer, with intervals over books."""
    rows = []
    for layer, group in attention.groupby("layer"):
        for name, column in (("the vector", "on_vectors"), ("the start token", "on_start")):
            share = _average(group.rename(columns={column: "share"}), ["share"], resampling)
            rows.append({"origin": "measured", "on": name, "layer": layer, **share})
    return pd.DataFrame(rows).sort_values("on", ascending=False, kind="stable", ignore_index=True)


def average_trajectories(trajectories: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return the mean norm, in those of tokens, by recipe and evaluation, until all texts have had all right once.

    With intervals over books.
    """
    before = trajectories.groupby(["recipe", "key"])["all_right"].transform(
        lambda right: right.cummax().shift(fill_value=False)
    )
    unfinished = trajectories[~before].groupby("recipe")["evaluation"].max()
    rows = []
    for (recipe, evaluation), group in trajectories.groupby(["recipe", "evaluation"], sort=False):
        if evaluation > unfinished[recipe]:
            continue
        row = {"origin": "measured", "recipe": recipe, "evaluation": evaluation}
        rows.append(row | _average(group, ["norm"], resampling))
    return pd.DataFrame(rows)


def summarise_trajectories(trajectories: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return one row per recipe and length: how searches stand when all is first right, or at their end.

    ``reached``: the share of texts that get there; ``evaluations`` spent, ``norm`` and ``path_length`` in those of
    tokens, ``n_components`` that hold 99 % of the path's variance. Means with intervals over books.
    """
    rows = []
    for (recipe, length), group in trajectories.groupby(["recipe", "length"], sort=False):
        ends = []
        for _, trajectory in group.groupby("key"):
            right = trajectory["all_right"].to_numpy()
            n = int(right.argmax()) + 1 if right.any() else len(trajectory)
            last = trajectory.iloc[n - 1]
            ends.append(
                {
                    "cluster_id": last["cluster_id"],
                    "reached": right.any(),
                    "evaluations": n,
                    "norm": last["norm"],
                    "path_length": trajectory["moved"].iloc[:n].sum(),
                    "n_components": last["n_components"],
                }
            )
        ends = pd.DataFrame(ends)
        names = ["reached", "evaluations", "norm", "path_length", "n_components"]
        row = {"origin": "measured", "recipe": recipe, "length": length, "n_texts": len(ends)}
        rows.append(row | _average(ends, names, resampling))
    return pd.DataFrame(rows)


def judge(cosines, paths, neighbours, margin_radius: Interval) -> list[dict]:
    """Return the verdict rows, from ``summarise_*`` and the correlation of margin and radius."""

    def take(row, name):
        return Interval(*(float(row[column]) for column in (name, f"{name}_low", f"{name}_high")))

    same = cosines.set_index("pair").loc[PAIRS["same"]]
    straight, curved = (paths.set_index("path").loc[path] for path in ("straight", "curved"))
    norm = neighbours.set_index("quantity").loc["norm, in those of tokens"]
    return [
        claim(
            "Almost no two solutions of one text have a cosine above .8 (printed for Sheared-LLaMA-1.3B)",
            widen_certain(take(same, "share_high"), int(straight["n_books"])),
            (0, 0.05),
            unit="share of pairs",
        ),
        claim(
            "Straight lines between solutions of one text always make errors (same)",
            widen_certain(
                Interval(*(1 - float(straight[column]) for column in ("joined", "joined_high", "joined_low"))),
                int(straight["n_books"]),
            ),
            (0.95, 1),
            unit="share of pairs",
        ),
        claim(
            "Curves with one trained middle point join two solutions of one text (printed for one-step generation)",
            widen_certain(take(curved, "joined"), int(curved["n_books"])),
            (0.9, 1),
            unit="share of pairs",
        ),
        claim(
            "Such curves are at most 1.2 times as long as the straight line (same)",
            take(curved, "length_ratio"),
            (1, 1.2),
            unit="times",
        ),
        claim(
            "Vectors are about 25 times as long as token embeddings (two outside measurements, other models)",
            take(norm, "value"),
            (0.8 * OUTSIDE_NORM_RATIO, 1.25 * OUTSIDE_NORM_RATIO),
            unit="times",
            detail="recipe: fast, on which the length depends",
        ),
        claim(
            "The smallest margin predicts how much noise a vector bears",
            margin_radius,
            (0.3, 1),
            unit="rank correlation",
        ),
    ]


def _average(frame, columns, resampling):
    # Means with their intervals over books, as columns of a table.
    row = {}
    for name in columns:
        mean = weighted_mean(frame[name].astype(float))
        row |= bootstrap_clusters(frame["cluster_id"], mean, **resampling).columns(name)
    return row
