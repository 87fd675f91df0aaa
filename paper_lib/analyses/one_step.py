"""Notebook 08: all tokens from one forward pass over two vectors, against one token after the other."""

import itertools

import numpy as np
import pandas as pd

from ..stats import Interval, bootstrap_clusters, weighted_mean, widen_certain
from ..verdicts import claim

# As the one-step paper writes the arrangements of its Table 1, and as protocols here are called.
PRINTED = {
    "e m*": "e, m x (N-1)",
    "e m* after": "e, m x N",
    "alternating": "(e,m) x N/2",
    "halves": "e x N/2, m x N/2",
    "e*": "e x N",
}
ALIKE = 0.1  # of the tokens: a difference that counts as none
AUTOREGRESSIVE, OF_TWO = "autoregressive, 1 vector, fast", "autoregressive, 2 vectors, fast"
# Arms of the sweeps, in the order in which they are shown.
ARMS = [
    "autoregressive, 1 vector",
    AUTOREGRESSIVE,
    "autoregressive, 2 vectors",
    OF_TWO,
    "one step, e and m",
    "one step, e, e and m",
    "shared m",
    "held m",
]


def compute_arrangements(cases: pd.DataFrame, printed: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return the share of tokens right by arrangement and number of tokens: as printed, and of our arms, over books."""
    names = {there: here for here, there in PRINTED.items()}
    rows = [
        {
            "origin": "published",
            "name": "Llama-3.2-1B",
            "arrangement": names[row.arrangement],
            "n_tokens": row.n_tokens,
            "accuracy": row.accuracy_mean,
            "accuracy_std": row.accuracy_std,
        }
        for row in printed.itertuples()
    ]
    for (arm, length), group in cases.groupby(["arm", "length"]):
        values = group["n_correct_mem"] / group["n_targets"]
        mean = bootstrap_clusters(group["cluster_id"], weighted_mean(values), **resampling)
        row = {"origin": "measured", "name": group["name"].iloc[0], "arrangement": arm, "n_tokens": length}
        rows.append(row | mean.columns("accuracy") | {"accuracy_std": values.std(ddof=1), "n_texts": len(group)})
    order = {name: place for place, name in enumerate(PRINTED)}
    table = pd.DataFrame(rows)
    place = table["arrangement"].map(order)
    return table.assign(place=place).sort_values(["place", "name", "n_tokens"], ignore_index=True).drop(columns="place")


def arrange_arrangements(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table as it is shown: a row per arrangement and model, a column per number of tokens."""
    cells = [
        f"{row.accuracy:.2f}" + ("" if pd.isna(row.accuracy_std) else f" ± {row.accuracy_std:.2f}")
        for row in table.itertuples()
    ]
    wide = table.assign(cell=cells).pivot(index=["arrangement", "name"], columns="n_tokens", values="cell")
    wide.columns = [f"N = {n}" for n in wide.columns]
    return wide.reindex(list(PRINTED), level="arrangement").reset_index().fillna("")


def compute_held(cases: pd.DataFrame) -> pd.DataFrame:
    """Return one row per arm, number of vectors and text: its longest exact length, 0 for none, and what that costs.

    ``evaluations`` are those of that length (null for none); ``at_most`` is the longest length that was tried,
    ``own_bytes`` the size of the vectors that belong to the text alone.
    """
    rows = []
    for (arm, n_mem, text_id), group in cases.groupby(["arm", "n_mem", "text_id"], sort=False):
        exact = group[group["exact"].eq(True)].sort_values("length")
        best = exact.iloc[-1] if len(exact) else None
        rows.append(
            {
                "arm": arm,
                "n_mem": n_mem,
                "text_id": text_id,
                "cluster_id": group["cluster_id"].iloc[0],
                "tokens": 0 if best is None else best["length"],
                "nats": 0.0 if best is None else best["ce_lm_nats"],
                "evaluations": np.nan if best is None else best["n_steps"],
                "at_most": group["length"].max(),
                "own_bytes": _own_bytes(group.iloc[0]),
            }
        )
    return pd.DataFrame(rows)


def _own_bytes(case):
    # Of the vectors that belong to the text alone; vector_bytes is for each of n_mem.
    total = case["vector_bytes"] * case["n_mem"]
    shares = case["finder"] == "shared_last" or case["parametrisation"] == "held_last"
    return total - total // (case["n_mem"] + 1) if shares else total


def summarise_held(held: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return one row per arm and number of vectors: exact tokens and nats, and what they cost.

    ``ratio`` is its nats over AUTOREGRESSIVE's, ``ratio_of_two`` over OF_TWO's: of means over the same texts, so null
    where the arm has others. ``passes`` that decoding takes: one for one
    step, else one a token.
    """
    references = {"ratio": AUTOREGRESSIVE, "ratio_of_two": OF_TWO}
    nats = {name: held[held["arm"] == arm].set_index("text_id")["nats"] for name, arm in references.items()}
    rows = []
    for (arm, n_mem), group in held.groupby(["arm", "n_mem"], sort=False):
        row = {"origin": "measured", "arm": arm, "n_mem": n_mem, "n_texts": len(group)}
        for name in ("tokens", "nats"):
            mean = weighted_mean(group[name].astype(float))
            row |= bootstrap_clusters(group["cluster_id"], mean, **resampling).columns(name)
        for name, reference in nats.items():
            there = group["text_id"].map(reference)
            if there.notna().all():
                ratio = _ratio(group["nats"].to_numpy(float), there.to_numpy(float))
                row |= bootstrap_clusters(group["cluster_id"], ratio, **resampling).columns(name)
        row |= {
            "at_longest": int((group["tokens"] == group["at_most"]).sum()),
            "evaluations": group["evaluations"].median(),
            "own_bytes": group["own_bytes"].iloc[0],
            "passes": "one a token" if arm.startswith("autoregressive") else "one",
        }
        rows.append(row)
    return pd.DataFrame(rows).sort_values("arm", key=lambda arms: arms.map(ARMS.index), ignore_index=True)


def _ratio(here, there):
    def ratio(weights):
        with np.errstate(invalid="ignore", divide="ignore"):
            return (weights @ here) / (weights @ there)

    return ratio


def judge(arrangements: pd.DataFrame, held: pd.DataFrame) -> list[dict]:
    """Return the verdict rows: printed accuracies at 2 and 4 tokens, and nats of one step against one vector's."""
    at = arrangements.set_index(["origin", "arrangement", "n_tokens"])
    rows = []
    for name, n_tokens in itertools.product(PRINTED, (2, 4)):
        here, target = at.loc[("measured", name, n_tokens)], at.loc[("published", name, n_tokens), "accuracy"]
        rows.append(
            claim(
                f"{PRINTED[name]}, {n_tokens} tokens: accuracy {target:g} (printed for Llama-3.2-1B)",
                widen_certain(
                    Interval(*map(float, here[["accuracy", "accuracy_low", "accuracy_high"]])), int(here["n_texts"])
                ),
                (max(0, round(target - ALIKE, 2)), min(1, round(target + ALIKE, 2))),
                unit="of the tokens",
            )
        )
    row = held.set_index(["arm", "n_mem"]).loc[("one step, e and m", 1)]
    return [
        *rows,
        claim(
            "One step holds about half of the nats of one vector read autoregressively, down to a fifth (printed)",
            Interval(row["ratio"], row["ratio_low"], row["ratio_high"]),
            (0.2, 0.67),
            unit="times the nats",
        ),
    ]
