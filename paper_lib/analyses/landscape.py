"""Notebook 14: what encoders, the paper and its follow-ups claimed per vector, and what was shown of it each time."""

import pandas as pd

from ..published import VECTOR_BYTES_PER_DIMENSION, load_capacities, load_followup
from ..verdicts import claim, compare
from .decoding_capacity import compare_bytes_ratio

SCORE, MEAN, EXACT, GREEDY = PROOFS = (
    "quality score",  # of the decoded text or of a task
    "mean accuracy ≥ .99",  # given the true prefix, or in the single pass of a one-step model
    "teacher-forced exact",  # all tokens right, given the true prefix
    "greedy share printed",  # tokens right in free-running greedy decoding
)
COLUMNS = ["origin", "work", "model", "row", "tokens_per_vector", "tokens_per_vector_high", "proof", "detail"]
PER_SAMPLE = "per-sample optimisation"
ORIGINAL_ONE = "original, 1 vector"
CODER_NAMES = {"huffman": "Huffman", "arithmetic+pythia-160m": "arithmetic coding,\nPythia-160M"}


def collect_landscape() -> pd.DataFrame:
    """Return every published result as a row: COLUMNS, with ``tokens_per_vector_high`` the upper end of a range.

    ``row`` names the line of the figure that it is drawn in, ``proof`` (one of PROOFS) what was shown, ``detail`` how.
    """
    parts = [_collect_encoders(), _collect_original(), _collect_one_step(), _collect_progressive(), _collect_margin()]
    landscape = pd.concat(parts, ignore_index=True).assign(origin="published")
    return landscape.fillna({"model": ""})[COLUMNS]


def _collect_encoders():
    encoders = load_followup("encoder_ratios")
    encoders = encoders[encoders["kind"] != PER_SAMPLE]  # these follow in full
    ends = encoders["tokens_per_vector"].str.split("-", expand=True).astype(float)
    rows = pd.DataFrame(
        {
            "work": encoders["work"],
            "row": encoders["work"].replace("Hwang et al.", "sentence autoencoder"),
            "tokens_per_vector": ends[0],
            "tokens_per_vector_high": ends[1],
            "proof": encoders["work"].map(lambda work: GREEDY if work.startswith("Hwang") else SCORE),
            "detail": encoders["quality"],
        }
    )
    return rows.sort_values("tokens_per_vector", kind="stable")


def _collect_original():
    runs = load_capacities().query("source == 'pg19' and n_mem <= 16")  # more fill the context, not the vectors
    return pd.DataFrame(
        {
            "work": "Kuratov et al.",
            "model": runs["model"],
            "row": (runs["n_mem"] > 1).map({False: ORIGINAL_ONE, True: "original, 2-16 vectors"}),
            "tokens_per_vector": runs["decoding_capacity_tokens"] / runs["n_mem"],
            "proof": MEAN,
            "detail": runs["n_mem"].map("mean over texts, n_mem = {}".format),
        }
    )


def _collect_one_step():
    # Two vectors are trained, e and m; where many texts share m, only e belongs to the text alone.
    runs = load_followup("one_step_capacity").query("source == 'pg19'")
    kinds = (("one step, e and m", "tokens_own_m", 2), ("one step, m shared", "tokens_shared_m", 1))
    return pd.concat(
        pd.DataFrame(
            {
                "work": "Mezentsev and Oseledets",
                "model": runs["model"],
                "row": row,
                "tokens_per_vector": runs[column] / n_vectors,
                "proof": MEAN,
                "detail": "accuracy in one pass, best over seeds",
            }
        )
        for row, column, n_vectors in kinds
    )


def _collect_progressive():
    runs = load_followup("progressive_capacity")
    rows = {"progressive": "progressive", "activation_alignment": "progressive, aligned"}
    return pd.DataFrame(
        {
            "work": "Tarasov et al.",
            "model": runs["model"],
            "row": runs["variant"].map(lambda variant: rows.get(variant, "progressive, low-dimensional")),
            "tokens_per_vector": runs["tokens_mean"],
            "proof": EXACT,
            "detail": runs["n_texts"].map("mean over {} texts".format),
        }
    )


def _collect_margin():
    runs = load_followup("progressive_margin")
    rows = {True: "with margin, greedy 100 %", False: "with margin, greedy < 100 %"}
    return pd.DataFrame(
        {
            "work": "Tarasov et al.",
            "model": runs["model"],
            "row": (runs["greedy_percent"] == 100).map(rows),
            "tokens_per_vector": runs["tokens"],
            "proof": GREEDY,
            "detail": [
                f"{r.parametrisation}, {r.loss}, margin {r.margin:g}: {r.greedy_percent:g} % greedy"
                for r in runs.itertuples()
            ],
        }
    )


def summarise_rows(landscape: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Return the largest result of each row of the figure, as the notebook shows it."""
    most = landscape["tokens_per_vector_high"].fillna(landscape["tokens_per_vector"])
    best = landscape.loc[most.groupby(landscape["row"], sort=False).idxmax()]
    ends = best[["tokens_per_vector", "tokens_per_vector_high"]].itertuples(index=False)
    return pd.DataFrame(
        {
            "result": best["row"],
            "work": best["work"],
            "model": best["model"].replace(models.set_index("model")["name"]),
            "tokens per vector": [f"{low:,.0f}" if pd.isna(high) else f"{low:,.0f}–{high:,.0f}" for low, high in ends],
            "proven": best["proof"],
            "detail": best["detail"],
        }
    )


def compute_coders(landscape: pd.DataFrame, coders: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Return compression ratios on PG-19 (text bytes / coded bytes), smallest first, the paper's best vector with them.

    ``coders`` is ``published.load_followup("classical_coders")``. The vector is that of the largest one-vector
    capacity, at 16 bits per dimension. Columns: ``coder``, ``ratio_mean``, ``family``, ``origin``.
    """
    best = _largest_original(landscape)
    model = models.set_index("model").loc[best["model"]]
    vector_bytes = model["d_model"] * VECTOR_BYTES_PER_DIMENSION
    ratio = best["tokens_per_vector"] / model["tokens_per_byte"] / vector_bytes
    known = coders.loc[coders["source"] == "pg19", ["coder", "ratio_mean"]].assign(family="other")
    known["coder"] = known["coder"].replace(CODER_NAMES)
    vector = pd.DataFrame([{"coder": f"vector of\n{model['name']}", "ratio_mean": ratio, "family": model["family"]}])
    return pd.concat([known, vector], ignore_index=True).assign(origin="published").sort_values("ratio_mean")


def judge(landscape: pd.DataFrame, coders: pd.DataFrame, headlines: pd.DataFrame) -> list[dict]:
    """Return the verdict on the headline numbers.

    ``landscape`` and ``coders`` are frames of this module, ``headlines`` ``published.load_followup("encoder_ratios")``.
    """
    per_sample = headlines["kind"] == PER_SAMPLE
    headline = headlines[per_sample].set_index("work")["tokens_per_vector"].astype(float)
    encoders = landscape[landscape["work"].isin(headlines.loc[~per_sample, "work"])]
    largest = _largest_original(landscape)["tokens_per_vector"]
    times = largest / encoders["tokens_per_vector_high"].fillna(encoders["tokens_per_vector"])
    progressive = landscape.loc[landscape["row"] == "progressive", "tokens_per_vector"].max()
    unit = "tokens per vector"
    return [
        compare("the paper's largest capacity", headline["Kuratov et al."], largest, tolerance=0, unit=unit),
        compare("progressive, Llama-3.1-8B", headline["Progressive Cramming"], progressive, tolerance=0.5, unit=unit),
        compare_bytes_ratio(coders.loc[coders["coder"].str.startswith("vector"), "ratio_mean"].item()),
        claim(
            "the largest capacity is two orders of magnitude above every learnt encoder",
            (times >= 100).all(),
            f"{times.min():.1f} to {times.max():.0f} times; at least 100 times for {(times >= 100).sum()} of "
            f"{len(times)}",
        ),
    ]


def _largest_original(landscape):
    runs = landscape[landscape["row"] == ORIGINAL_ONE]
    return runs.loc[runs["tokens_per_vector"].idxmax()]
