"""Notebook 12: the same texts in trained keys and values, all of them or a part, and in one input vector."""

import numpy as np
import pandas as pd

from ..stats import Interval, bootstrap_clusters, open_ends, weighted_mean, weighted_ratio
from ..storage import find_storage
from ..verdicts import claim

# Arms of the sweeps, in the order in which they are shown.
BOTH, VALUES, STARTED, VECTOR = "keys and values", "values", "keys and values, from a vector's", "input vector"
ARMS = [
    BOTH,
    STARTED,
    VALUES,
    "first quarter of the layers",
    "last quarter of the layers",
    "every fourth layer",
    VECTOR,
]
SIDES = {"above": BOTH, "below": VECTOR}  # of the ratios
ALIKE = (0.9, 1.11)  # a ratio within it counts as the same
PLACES = ["alone", "in front", "behind", "none"]  # of a memory


def compute_held(cases: pd.DataFrame) -> pd.DataFrame:
    """Return one row per model, arm and text: its longest exact length, 0 for none, and the most nats gained.

    ``nats`` is the cross-entropy of what is exact under the model alone, ``gain_nats`` the most that a memory of any
    length brings, exact or not; ``real_numbers`` that are stored, ``own_bytes`` of them; ``accuracy`` at the longest
    length that was tried, which is ``at_most``; ``evaluations`` over all lengths.
    """
    rows = []
    for (name, arm, text_id), group in cases.groupby(["name", "arm", "text_id"], sort=False):
        longest = group.iloc[group["length"].argmax()]
        exact = group["exact"].eq(True)
        size = int(longest["vector_bytes"] * longest["n_mem"])
        rows.append(
            {
                "name": name,
                "arm": arm,
                "text_id": text_id,
                "cluster_id": longest["cluster_id"],
                "n_positions": longest["n_mem"],
                "real_numbers": size * 8 // find_storage(longest["storage"]).n_bits(1),
                "own_bytes": size,
                "tokens": int(group["length"].where(exact, 0).max()),
                "nats": float(group["ce_lm_nats"].where(exact, 0).max()),
                "at_most": longest["length"],
                "gain_nats": float((group["ce_lm_nats"] - group["ce_mem_nats"]).max()),
                "accuracy": longest["n_correct_mem"] / longest["n_targets"],
                "evaluations": int(group["n_steps"].sum()),
            }
        )
    return pd.DataFrame(rows)


def summarise_held(held: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return one row per model and arm: means over books of what is held, in all and for each real number stored.

    ``nats_ratio`` is what is held exactly over what VECTOR holds of the same texts, ``per_number_ratio`` the same for
    each number; ``whole_texts`` counts those that are exact at the longest length tried. Gains say less: a search stops
    where all is right, so they depend on how far the loss is from there.
    """
    rows = []
    for (name, arm), group in held.groupby(["name", "arm"], sort=False):
        first, books = group.iloc[0], group["cluster_id"]
        row = {"origin": "measured", "name": name, "arm": arm, "n_texts": len(group)}
        row |= {column: int(first[column]) for column in ("n_positions", "real_numbers", "own_bytes", "at_most")}
        row |= {"whole_texts": int((group["tokens"] == group["at_most"]).sum())}
        for column, values in (
            ("tokens", group["tokens"].astype(float)),
            ("nats", group["nats"]),
            ("gain_nats", group["gain_nats"]),
            ("nats_per_number", group["nats"] / group["real_numbers"]),
            ("gain_per_number", group["gain_nats"] / group["real_numbers"]),
            ("accuracy", group["accuracy"]),
        ):
            row |= bootstrap_clusters(books, weighted_mean(values), **resampling).columns(column)
        beside = held[(held["name"] == name) & (held["arm"] == VECTOR)].set_index("text_id").reindex(group["text_id"])
        if beside["nats"].notna().all():
            there, numbers = beside["nats"].to_numpy(), beside["real_numbers"].to_numpy()
            ratios = {
                "nats_ratio": weighted_ratio(group["nats"], there),
                "per_number_ratio": weighted_ratio(group["nats"] / group["real_numbers"], there / numbers),
            }
            for column, ratio in ratios.items():
                row |= bootstrap_clusters(books, ratio, **resampling).columns(column)
        rows.append(row | {"evaluations": group["evaluations"].median(), "passes": "one a token"})
    order = {arm: place for place, arm in enumerate(ARMS)}
    return pd.DataFrame(rows).sort_values(
        ["name", "arm"], key=lambda column: column.map(order) if column.name == "arm" else column, ignore_index=True
    )


def compare_arms(held: pd.DataFrame, above: str, below: str, **resampling) -> Interval:
    """Return how many times the nats of ``below`` ``above`` holds exactly, on the same texts of one model."""
    sides = held.pivot(index=["cluster_id", "text_id"], columns="arm", values="nats")
    books = sides.index.get_level_values("cluster_id")
    return bootstrap_clusters(books, weighted_ratio(sides[above], sides[below]), **resampling)


def average_places(found: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return mean accuracy by arm and place of a memory, and how far it is from having none at all, over books."""
    wide = found.pivot_table(index=["arm", "length", "cluster_id", "text_id"], columns="place", values="accuracy")
    rows = []
    for arm, group in wide.groupby("arm", sort=False):
        books = group.index.get_level_values("cluster_id")
        for place in PLACES:
            row = {"origin": "measured", "arm": arm, "place": place, "n_texts": len(group)}
            mean = bootstrap_clusters(books, weighted_mean(group[place]), **resampling)
            more = bootstrap_clusters(books, weighted_mean(group[place] - group["none"]), **resampling)
            rows.append(row | mean.columns("accuracy") | more.columns("above_none"))
    return pd.DataFrame(rows)


def judge(means: pd.DataFrame, values: Interval, places: pd.DataFrame) -> list[dict]:
    """Return the verdict rows, from ``summarise_held``, ``compare_arms`` of values and ``average_places`` of one model.

    Where texts come out at the longest length tried, more may be held than is known: one end of a ratio is open.
    """
    beside = places.set_index(["arm", "place"]).loc[(BOTH, ["in front", "behind"]), :]
    worst = beside.loc[beside["above_none"].idxmax()]
    return [
        *(row for name, rows in means.groupby("name") for row in _judge_model(name, rows.set_index("arm"))),
        claim(
            "Values alone hold as much as keys and values (Learned Structure in Cartridges has most of it there)",
            values,
            ALIKE,
            unit="times the nats",
        ),
        claim(
            "Beside that of another text a memory is no better than none (Cartridges at Scale: near chance)",
            Interval(worst["above_none"], worst["above_none_low"], worst["above_none_high"]),
            (-1, 0.1),
            unit="of the tokens",
        ),
    ]


def _judge_model(name, arms):
    def bound(column):
        ratio = Interval(*(float(arms.loc[BOTH, f"{column}{end}"]) for end in ("", "_low", "_high")))
        return open_ends(ratio, **{side: bool(arms.loc[arm, "whole_texts"]) for side, arm in SIDES.items()})

    return [
        claim(
            f"{name}: the input embedding is the bottleneck: a position of keys and values holds more than one vector",
            bound("nats_ratio"),
            (ALIKE[1], np.inf),
            unit="times the nats",
        ),
        claim(
            f"{name}: for each real number that is stored they hold less",
            bound("per_number_ratio"),
            (0, ALIKE[0]),
            unit="times the nats for each number",
        ),
    ]
