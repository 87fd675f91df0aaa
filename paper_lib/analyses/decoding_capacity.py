"""Notebook 01: how many tokens fit into one vector (Figure 1, Tables 1 and 3)."""

import pandas as pd

from ..published import COMPLETE_RANDOM_PANELS, N_TEXTS_PG19
from ..tables import format_mean_std
from ..verdicts import compare

SOURCE_TITLES = {"pg19": "PG-19", "fanfics": "Fanfics", "random": "Random words"}
COPIED = "†"
PRINTED_TOLERANCE_NATS = {1: 0.05, 6: 2e-4}  # by decimals printed; the points themselves were rounded


def arrange_cells(capacity: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Return Table 3: a row per model, a column per source, each cell "capacity / token gain / information gain".

    ``capacity`` holds the rows of one convention (see ``published.compute_capacity_table``) with the models' ``name``.
    Capacity and token gain in tokens, information gain in nats; gains as mean ± standard deviation. A dagger marks
    what is copied from print; the rest is recomputed.
    """
    cells = capacity.assign(
        cell=[
            f"{row.decoding_capacity_tokens}{_mark(row.capacity_how)} / "
            f"{format_mean_std(row.token_gain_mean, row.token_gain_std)}{COPIED} / "
            f"{format_mean_std(row.info_gain_nats_mean, row.info_gain_nats_std)}{_mark(row.info_gain_how)}"
            for row in capacity.itertuples()
        ]
    )
    wide = cells.pivot(index="name", columns="source", values="cell").reindex(models["name"])
    wide = wide.rename(columns=SOURCE_TITLES).reindex(columns=list(SOURCE_TITLES.values()))
    return wide.rename_axis(columns=None).reset_index(names="model")


def compute_accuracy_curves(length_means: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Return the mean accuracies of one vector per model and length, with ``low`` and ``high`` and the models' names.

    The interval is the mean ± 1.96 standard errors over 50 texts; null where no deviation is printed.
    """
    one = length_means[(length_means["n_mem"] == 1) & length_means["mean_accuracy"].notna()]
    one = one[one.groupby("model")["length"].transform("nunique") > 1]  # OPT has a single one
    error = 1.96 * one["std_accuracy"] / N_TEXTS_PG19**0.5
    one = one.assign(low=one["mean_accuracy"] - error, high=(one["mean_accuracy"] + error).clip(upper=1))
    return models[["model", "name", "family"]].merge(one, on="model")


def judge(printed: pd.DataFrame, capacity: pd.DataFrame, models: pd.DataFrame) -> list[dict]:
    """Return the verdict: gains and capacities as printed against those that the authors' points give.

    ``printed`` comes from ``published.load_capacities``, ``capacity`` from ``published.compute_capacity_table``.
    """
    computed = capacity[capacity["convention"] == "paper"]
    pairs = printed.merge(computed, on=["model", "source", "n_mem"], suffixes=("_printed", ""))
    pairs = pairs.join(models.set_index("model")["name"], on="model")
    books = pairs[(pairs["source"] == "pg19") & (pairs["n_mem"] == 1)]
    random = pairs[(pairs["source"] == "random") & pairs["model"].isin(COMPLETE_RANDOM_PANELS)]
    verdict = [*_compare_gains(books, "PG-19"), *_compare_gains(random, "random words")]
    decided = pairs[pairs["capacity_how"] == "recomputed"]
    if len(decided):
        capacities = compare(
            "decoding capacity, wherever accuracies per length decide it",
            decided["decoding_capacity_tokens_printed"],
            decided["decoding_capacity_tokens"],
            tolerance=0,
            unit="tokens",
            names=decided["name"] + " x" + decided["n_mem"].astype(str),
        )
        verdict.append(capacities)
    for row in books[books["model"] == "meta-llama/Meta-Llama-3.1-8B"].itertuples():
        ratio = row.text_bytes_per_vector / row.vector_bytes
        verdict.append(
            compare("text bytes / vector bytes, Llama-3.1-8B (reply to issue 2)", 0.8, ratio, tolerance=0.05)
        )
    return verdict


def _mark(how):
    return "" if how == "recomputed" else COPIED


def _compare_gains(pairs, what):
    rows = []
    for decimals, tolerance in PRINTED_TOLERANCE_NATS.items():
        group = pairs[pairs["decimals"] == decimals]
        for part in ("mean", "std") if len(group) else ():
            gain = f"info_gain_nats_{part}"
            rows.append(
                compare(
                    f"information gain, {what}, {part}, where printed to {decimals} decimal{'s' * (decimals > 1)}",
                    group[f"{gain}_printed"],
                    group[gain],
                    tolerance=tolerance,
                    unit="nats",
                    names=group["name"],
                )
            )
    return rows
