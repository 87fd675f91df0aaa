"""Notebook 08: all tokens from one forward pass over two vectors, against one token after the other."""

import itertools

import numpy as np
import pandas as pd

from ..stats import Interval, bootstrap_clusters, open_ends, weighted_mean, weighted_ratio, widen_certain
from ..verdicts import claim

# As the one-step paper writes the arrangements of its Table 1, and as protocols here are called.
PRINTED = {
    "e m*": "e, m x (N-1)",
    "e m* after": "e, m x N",
    "alternating": "(e,m) x N/2",
    "halves": "e x N/2, m x N/2",
    "e*": "e x N",
}
SHIPPED = "novels-5m"
# How the models of these tables tell one place from another.
POSITIONS = {"Llama-3.2-1B": "rotary", SHIPPED: "rotary", "gpt2-170k": "learned", "mamba-400k": "recurrence"}
# What the paper finds between solutions of one text, and the share of pairs that would agree.
PATHS = {
    "straight": ("Straight lines between solutions of one step fail (printed)", (0, 0.1)),
    "curved": ("A curve with one trained middle point joins solutions of one step (printed)", (0.9, 1)),
}
ALIKE = 0.1  # of the tokens: a difference that counts as none
AUTOREGRESSIVE, OF_TWO = "autoregressive, 1 vector, fast", "autoregressive, 2 vectors, fast"
ONE_STEP = "one step, e and m"
# Arms of the sweeps, in the order in which they are shown.
ARMS = [
    "autoregressive, 1 vector",
    AUTOREGRESSIVE,
    "autoregressive, 2 vectors",
    OF_TWO,
    ONE_STEP,
    "one step, e, e and m",
    "shared m",
    "held m",
]


def compute_arrangements(cases: pd.DataFrame, printed: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return the share of tokens right by arrangement, model and number of tokens: as printed, and over our books.

    ``positions``: how the model tells one place from another, empty where that is not known here.
    """
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
    for (name, arm, length), group in cases.groupby(["name", "arm", "length"]):
        values = group["n_correct_mem"] / group["n_targets"]
        mean = bootstrap_clusters(group["cluster_id"], weighted_mean(values), **resampling)
        row = {"origin": "measured", "name": name, "arrangement": arm, "n_tokens": length}
        rows.append(row | mean.columns("accuracy") | {"accuracy_std": values.std(ddof=1), "n_texts": len(group)})
    order = {name: place for place, name in enumerate(PRINTED)}
    table = pd.DataFrame(rows)
    table.insert(2, "positions", table["name"].map(POSITIONS).fillna(""))
    by_model = {name: place for place, name in enumerate(POSITIONS)}
    return table.sort_values(
        ["arrangement", "name", "n_tokens"],
        key=lambda column: column.map({"arrangement": order, "name": by_model}.get(column.name, lambda value: value)),
        ignore_index=True,
    )


def arrange_arrangements(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table as it is shown: a row per arrangement and model, a column per number of tokens."""
    cells = [
        f"{row.accuracy:.2f}" + ("" if pd.isna(row.accuracy_std) else f" ± {row.accuracy_std:.2f}")
        for row in table.itertuples()
    ]
    index = ["arrangement", "name", "positions"]
    wide = table.assign(cell=cells).pivot(index=index, columns="n_tokens", values="cell")
    wide.columns = [f"N = {n}" for n in wide.columns]
    return wide.reindex(pd.MultiIndex.from_frame(table[index].drop_duplicates())).reset_index().fillna("")


def compute_held(cases: pd.DataFrame) -> pd.DataFrame:
    """Return one row per model, arm, number of vectors and text: the most tokens held exactly, and what that costs.

    ``nats`` is the cross-entropy of these tokens under the model alone (H_LM of the paper), ``evaluations`` those of
    the case that holds them (null for none); ``at_most`` is the longest length that was tried, ``own_bytes`` the size
    of the vectors that belong to the text alone.
    """
    rows = []
    for (name, arm, n_mem, text_id), group in cases.groupby(["name", "arm", "n_mem", "text_id"], sort=False):
        group = group.sort_values("length")
        best = group.iloc[group["exact_length_tokens"].argmax()]
        tokens = int(best["exact_length_tokens"])
        rows.append(
            {
                "name": name,
                "arm": arm,
                "n_mem": n_mem,
                "text_id": text_id,
                "cluster_id": best["cluster_id"],
                "tokens": tokens,
                "nats": float(np.sum(best["ce_lm_nats_each"][:tokens])),
                "evaluations": best["n_steps"] if tokens else np.nan,
                "at_most": group["length"].max(),
                "own_bytes": _own_bytes(best),
            }
        )
    return pd.DataFrame(rows)


def _own_bytes(case):
    # Of the vectors that belong to the text alone; vector_bytes is for each of n_mem.
    total = case["vector_bytes"] * case["n_mem"]
    shares = case["finder"] == "shared_last" or case["parametrisation"] == "held_last"
    return total - total // (case["n_mem"] + 1) if shares else total


def summarise_held(held: pd.DataFrame, references: dict[str, str], **resampling) -> pd.DataFrame:
    """Return one row per model, arm and number of vectors: exact tokens and nats, and what they cost.

    ``references`` names arms by the column of ratios: nats over that arm's, of means over the same texts, so null where
    an arm has others. ``passes`` that decoding takes: one for one step, else one a token.
    """
    rows = []
    for (name, arm, n_mem), group in held.groupby(["name", "arm", "n_mem"], sort=False):
        row = {"origin": "measured", "name": name, "arm": arm, "n_mem": n_mem, "n_texts": len(group)}
        for column in ("tokens", "nats"):
            mean = weighted_mean(group[column].astype(float))
            row |= bootstrap_clusters(group["cluster_id"], mean, **resampling).columns(column)
        for column, reference in references.items():
            there = held[(held["name"] == name) & (held["arm"] == reference)].set_index("text_id")["nats"]
            there = group["text_id"].map(there)
            if there.notna().all():
                ratio = weighted_ratio(group["nats"], there)
                row |= bootstrap_clusters(group["cluster_id"], ratio, **resampling).columns(column)
        row |= {
            "at_longest": int((group["tokens"] == group["at_most"]).sum()),
            "evaluations": group["evaluations"].median(),
            "own_bytes": group["own_bytes"].iloc[0],
            "passes": "one a token" if arm.startswith("autoregressive") else "one",
        }
        rows.append(row)
    order = {arm: place for place, arm in enumerate(ARMS)}
    return pd.DataFrame(rows).sort_values(
        ["name", "arm"],
        key=lambda column: column.map(order).fillna(len(order)) if column.name == "arm" else column,
        ignore_index=True,
        kind="stable",
    )


def compute_speed(found: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return tokens decoded a second by model, way, number of vectors and length: medians over repeats.

    ``ratio``: the seconds that decoding token by token takes behind one vector, over these, summed over the same
    repeats, with its interval over them.
    """
    name = found["model"].str.rsplit("/", n=1).str[-1]
    found = found.assign(name=name, rate=found["length"] / found["seconds"])
    slow = found[(found["how"] == "cached") & (found["n_mem"] == 1)]
    slow = slow.groupby(["name", "length", "repeat"])["seconds"].min()
    rows = []
    for (name, how, n_mem, length), group in found.groupby(["name", "how", "n_mem", "length"], sort=False):
        there = slow.reindex(pd.MultiIndex.from_frame(group[["name", "length", "repeat"]])).to_numpy()
        ratio = bootstrap_clusters(group["repeat"], weighted_ratio(there, group["seconds"]), **resampling)
        facts = {"name": name, "how": how, "n_mem": n_mem, "length": length, "n_repeats": len(group)}
        facts |= {"n_threads": group["n_threads"].iloc[0], "device": group["device"].iloc[0]}
        rows.append(
            {"origin": "measured"} | facts | {"tokens_a_second": group["rate"].median()} | ratio.columns("ratio")
        )
    return pd.DataFrame(rows)


def judge(arrangements: pd.DataFrame, held: pd.DataFrame, paths: pd.DataFrame) -> list[dict]:
    """Return the verdict rows: printed accuracies, nats of one step against one vector's, paths between solutions.

    ``paths`` as ``geometry.summarise_paths`` makes them.
    """
    rows = _judge_arrangements(arrangements)
    for name, rows_of in held[held["n_mem"] == 1].groupby("name"):
        arms = rows_of.set_index("arm")
        rows.append(
            claim(
                f"{name}: one step holds about half of the nats of one autoregressive vector, down to a fifth "
                "(printed for others)",
                _bound_ratio(arms.loc[ONE_STEP], arms.loc[AUTOREGRESSIVE]),
                (0.2, 0.67),
                unit="times the nats",
            )
        )
    for row in paths[paths["arm"] == ONE_STEP].to_dict("records"):
        share = Interval(row["joined"], row["joined_low"], row["joined_high"])
        statement, margin = PATHS[row["path"]]
        rows.append(claim(statement, widen_certain(share, row["n_books"]), margin, unit="of the pairs"))
    return rows


def _bound_ratio(above, below):
    # Texts that come out at the longest length tried may hold more.
    ratio = Interval(*map(float, above[["ratio", "ratio_low", "ratio_high"]]))
    return open_ends(ratio, above=bool(above["at_longest"]), below=bool(below["at_longest"]))


def _judge_arrangements(arrangements):
    at = arrangements.set_index(["name", "arrangement", "n_tokens"])
    rows = []
    for arrangement, n_tokens in itertools.product(PRINTED, (2, 4)):
        target = at.loc[("Llama-3.2-1B", arrangement, n_tokens), "accuracy"]
        rows.append(
            claim(
                f"{PRINTED[arrangement]}, {n_tokens} tokens: accuracy {target:g} (printed for Llama-3.2-1B)",
                _read_accuracy(at.loc[(SHIPPED, arrangement, n_tokens)]),
                (max(0, round(target - ALIKE, 2)), min(1, round(target + ALIKE, 2))),
                unit="of the tokens",
            )
        )
    for name in ("gpt2-170k", "mamba-400k"):
        rows.append(
            claim(
                f"{name} ({POSITIONS[name]}): one vector alone says four tokens",
                _read_accuracy(at.loc[(name, "e*", 4)]),
                (1 - ALIKE, 1),
                unit="of the tokens",
            )
        )
    return rows


def _read_accuracy(row):
    return widen_certain(
        Interval(*(float(row[f"accuracy{end}"]) for end in ("", "_low", "_high"))), int(row["n_texts"])
    )
