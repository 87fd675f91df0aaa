"""Notebook 03: do more vectors hold proportionally more (Figure 4)?"""

import math

import pandas as pd

from ..published import PROTOCOL, compute_decoding_capacity
from ..stats import Interval, fit_power_law
from ..verdicts import claim
from .decoding_capacity import compare_capacities

CONTEXT_FULL = {"EleutherAI/pythia-160m": 32}  # from this many vectors on its 2,048 tokens of context are the limit
PRINTED = {
    "decoding_capacity_tokens": "decoding capacity (tokens)",
    "token_gain_mean": "token gain (tokens)",
    "info_gain_nats_mean": "information gain (nats)",
}
MEASURED = {
    "exact_tokens": "exact capacity (tokens)",
    "exact_bytes": "exact capacity (bytes)",
    "info_gain_nats": "information gain (nats)",
}  # means, with the bounds of their intervals beside them


def compute_scaled(printed: pd.DataFrame, length_means: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Return the printed runs on PG-19 of every model with several vectors, by model and ``n_mem``.

    The frames are those of ``published.load_capacities``, ``load_length_means`` and ``load_models``. Columns: those of
    ``printed``, ``name``, ``family``, and ``recomputed_capacity_tokens``, null where accuracies per length do not
    decide it.
    """
    books = printed[printed["source"] == "pg19"].join(models.set_index("model")[["name", "family"]], on="model")
    scaled = books[books["model"].isin(books.loc[books["n_mem"] > 1, "model"])]
    scaled = scaled.merge(compute_decoding_capacity(length_means), how="left")
    return scaled.sort_values(["model", "n_mem"], ignore_index=True).assign(protocol=PROTOCOL)


def compute_exponents(scaled: pd.DataFrame, held: pd.DataFrame) -> pd.DataFrame:
    """Return the exponent of each quantity in the number of vectors, with its 95 % t interval (three runs or more).

    ``scaled`` is published (see ``compute_scaled``; runs that the context bounds are left out), ``held`` measured
    (see ``measured.compute_capacities``). 1 means proportional. ``per_vector_at_1`` and ``per_vector_at_max`` are in
    the quantity's own unit.
    """
    limit = scaled["model"].map(CONTEXT_FULL).astype(float).fillna(math.inf)
    free = scaled[scaled["n_mem"] < limit]
    rows = [
        {"origin": "published", "model": model, "name": name, "quantity": label} | _fit(runs, quantity)
        for (model, name), runs in free.groupby(["model", "name"])
        for quantity, label in PRINTED.items()
    ]
    rows += [
        {"origin": "measured", "model": model, "name": f"{name}, {protocol}", "quantity": label}
        | _fit(runs, f"{quantity}_mean")
        for (model, name, protocol), runs in held.groupby(["model", "name", "protocol"])
        for quantity, label in MEASURED.items()
    ]
    return pd.DataFrame(rows)


def _fit(runs, quantity):
    known = runs[runs[quantity] > 0].sort_values("n_mem")
    fit = fit_power_law(known["n_mem"], known[quantity]) if len(known) > 1 else Interval(math.nan)
    per_vector = (known[quantity] / known["n_mem"]).tolist() or [math.nan]
    return {
        "exponent": fit.value,
        "low": fit.low,
        "high": fit.high,
        "per_vector_at_1": per_vector[0],
        "n_mem_max": known["n_mem"].max(),
        "per_vector_at_max": per_vector[-1],
    }


def judge(scaled: pd.DataFrame, exponents: pd.DataFrame) -> list[dict]:
    """Return the verdict on "nearly linear"; the frames are those of ``compute_scaled`` and ``compute_exponents``."""
    decided = scaled.dropna(subset=["recomputed_capacity_tokens"])
    gain = exponents[(exponents["origin"] == "published") & exponents["quantity"].str.startswith("information")]
    return [
        compare_capacities(decided, decided["decoding_capacity_tokens"], decided["recomputed_capacity_tokens"]),
        *(
            claim(
                f"information gain of {row.name} is proportional to the vectors (interval of the exponent holds 1)",
                row.low <= 1 <= row.high,
                f"exponent {row.exponent:.2f} [{row.low:.2f}, {row.high:.2f}]",
            )
            for row in gain.itertuples(index=False)
        ),
    ]
