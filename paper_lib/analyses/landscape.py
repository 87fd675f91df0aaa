"""Notebook 14: what encoders, the paper and its follow-ups claimed per vector, and what was shown of it each time."""

import math

import pandas as pd

from ..capacity import nats_to_bits
from ..published import VECTOR_BYTES_PER_DIMENSION, load_capacities, load_followup
from ..stats import Interval
from ..verdicts import claim

SCORE, MEAN, EXACT, GREEDY = PROOFS = (
    "quality score",  # of the decoded text or of a task
    "mean accuracy ≥ .99",  # given the true prefix, or in the single pass of a one-step model
    "teacher-forced exact",  # all tokens right, given the true prefix
    "greedy decoding",  # the share of tokens that is right in free-running greedy decoding
)
COLUMNS = ["origin", "work", "model", "row", "tokens_per_vector", "tokens_per_vector_high", "proof", "detail"]
PER_SAMPLE = "per-sample optimisation"
ORIGINAL_ONE = "original, 1 vector"
VARIED = (
    ("progressive_learning_rate", "learning_rate", "learning rate"),
    ("progressive_temperature", "temperature", "temperature of the loss"),
    ("progressive_stage_size", "tokens_per_stage", "tokens added per stage"),
)
CODER_NAMES = {"huffman": "Huffman", "arithmetic+pythia-160m": "arithmetic coding,\nPythia-160M"}


def collect_landscape(cases: pd.DataFrame) -> pd.DataFrame:
    """Return every result as a row: COLUMNS, with ``tokens_per_vector_high`` the upper end of a range.

    ``row`` names the line of the figure that it is drawn in, ``proof`` (one of PROOFS) what was shown, ``detail`` how.
    ``cases`` are those measured here (``measured.load_cases``); all else is published.
    """
    parts = [
        _collect_encoders(),
        _collect_original(),
        _collect_memory_tokens(),
        _collect_one_step(),
        _collect_progressive(),
        _collect_margin(),
    ]
    landscape = pd.concat(parts, ignore_index=True).assign(origin="published")
    landscape = pd.concat([landscape, _collect_measured(cases)], ignore_index=True)
    return landscape.fillna({"model": ""})[COLUMNS]


def _collect_measured(cases):
    # What one vector holds exactly on average; the protocols apart, since they ask for different things.
    books = cases[(cases["n_mem"] == 1) & (cases["source"] == "pg19_test_clean")]
    rows = []
    for (model, protocol, _), group in books.groupby(["model", "protocol", "sweep"], sort=False):
        held = group["length"].where(group["exact"].eq(True), 0).groupby(group["text_id"]).max()
        rows.append(
            {
                "origin": "measured",
                "work": "this repository",
                "model": model,
                "row": f"here, {protocol}",
                "tokens_per_vector": held.mean(),
                "proof": GREEDY,
                "detail": f"{group['name'].iloc[0]}: every token, also with the cache, mean of {len(held)} texts",
            }
        )
    return pd.DataFrame(rows)


def _collect_encoders():
    encoders = load_followup("encoder_ratios")
    encoders = encoders[encoders["kind"] != PER_SAMPLE]  # these follow in full
    ends = encoders["tokens_per_vector"].str.split("-", expand=True).astype(float)
    layers = encoders["memory"] == "keys and values"  # per layer: not one vector, so these stand apart
    rows = pd.DataFrame(
        {
            "work": encoders["work"],
            "row": encoders["work"].replace("Hwang et al.", "sentence autoencoder")
            + layers.map({True: " (keys, values)", False: ""}),
            "tokens_per_vector": ends[0],
            "tokens_per_vector_high": ends[1],
            "proof": encoders["work"].map(lambda work: GREEDY if work.startswith("Hwang") else SCORE),
            "detail": encoders["quality"],
        }
    )
    return rows.assign(layers=layers).sort_values(["layers", "tokens_per_vector"], kind="stable")


def _collect_memory_tokens():
    works = load_followup("encoder_ratios").set_index("work")
    row = works.loc["Memory Tokens"]
    tokens = float(row["tokens_per_vector"])
    facts = {"work": "Sastre and Rosá", "model": "meta-llama/Meta-Llama-3.1-8B", "row": "memory tokens"}
    return pd.DataFrame([facts | {"tokens_per_vector": tokens, "proof": GREEDY, "detail": row["quality"]}])


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
    # One range for the settings with which every token came out in free decoding, one for the others.
    runs = load_followup("progressive_margin")
    rows = {True: "with margin, greedy 100 %", False: "with margin, greedy < 100 %"}
    groups = runs.groupby([(runs["greedy_percent"] == 100).map(rows), "model"], sort=False)
    return pd.DataFrame(
        {
            "work": "Tarasov et al.",
            "model": model,
            "row": row,
            "tokens_per_vector": group["tokens"].min(),
            "tokens_per_vector_high": group["tokens"].max(),
            "proof": GREEDY,
            "detail": f"{len(group)} settings, {group['greedy_percent'].min():g} to "
            f"{group['greedy_percent'].max():g} % of tokens right",
        }
        for (row, model), group in groups
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


def compare_coders(
    landscape: pd.DataFrame, coders: pd.DataFrame, models: pd.DataFrame, contexts: pd.DataFrame
) -> pd.DataFrame:
    """Return compression ratios on PG-19 (text bytes / coded bytes), smallest first, the paper's best vector with them.

    ``coders`` is ``published.load_followup("classical_coders")``, ``contexts``
    ``published.load_ablations("text_prefix_vs_mem")``, which has the cross-entropy of the same texts under the model of
    that vector: what an ideal code by it would take. The vector is that of the largest one-vector capacity, at 16 bits
    per dimension. Columns: ``coder``, ``ratio_mean``, ``coded_bytes`` (of that text), ``family``, ``origin``.
    """
    best = _largest_original(landscape)
    model = models.set_index("model").loc[best["model"]]
    text_bytes = best["tokens_per_vector"] / model["tokens_per_byte"]
    ce = contexts[(contexts["metric"] == "ce") & (contexts["model"] == best["model"])]["value"].item()
    own = pd.DataFrame(
        {
            "coder": [f"vector of\n{model['name']}", f"ideal code by\n{model['name']}"],
            "coded_bytes": [model["d_model"] * VECTOR_BYTES_PER_DIMENSION, nats_to_bits(ce) / 8],
            "family": model["family"],
        }
    )
    own["ratio_mean"] = text_bytes / own["coded_bytes"]
    known = coders.loc[coders["source"] == "pg19", ["coder", "ratio_mean"]].assign(family="other")
    known["coder"] = known["coder"].replace(CODER_NAMES)
    return pd.concat([known, own], ignore_index=True).assign(origin="published").sort_values("ratio_mean")


def collect_varied(name: str, x: str, models: pd.DataFrame) -> pd.DataFrame:
    """Return one of VARIED: ``x``, ``tokens`` and the model's ``name``, where the setting ``x`` is a number."""
    runs = load_followup(name).rename(columns={"horizon_tokens": "tokens"})
    names = models.set_index("model")["name"]
    runs[x] = pd.to_numeric(runs[x], errors="coerce")
    short = runs["model"].str.rsplit("/", n=1).str[-1]
    return runs.dropna(subset=[x]).assign(name=runs["model"].map(names).fillna(short), origin="published")


def judge(landscape: pd.DataFrame, headlines: pd.DataFrame) -> list[dict]:
    """Return the verdict on "two orders of magnitude", against all learnt encoders and against the lossless ones.

    ``landscape`` comes from ``collect_landscape``, ``headlines`` is ``published.load_followup("encoder_ratios")``.
    """
    largest = _largest_original(landscape)["tokens_per_vector"]
    encoders = headlines[(headlines["kind"] != PER_SAMPLE) & (headlines["memory"] == "input vectors")]
    highest = encoders["tokens_per_vector"].str.split("-").str[-1].astype(float)
    kinds = {
        "every learnt encoder to input vectors": highest,
        "every learnt encoder that claims (nearly) no loss": encoders["lossless_up_to"].dropna(),
    }
    rows = []
    for kind, ratios in kinds.items():
        times, best = largest / ratios.max(), encoders.loc[ratios.idxmax(), "work"]
        interval = Interval(times, times, times)
        detail = f"{largest:g} against {ratios.max():g} ({best})"
        rows.append(
            claim(f"the largest capacity is 100 times that of {kind}", interval, (100, math.inf), detail=detail)
        )
    return rows


def _largest_original(landscape):
    runs = landscape[landscape["row"] == ORIGINAL_ONE]
    return runs.loc[runs["tokens_per_vector"].idxmax()]
