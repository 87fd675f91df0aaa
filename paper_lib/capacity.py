"""The information-capacity mathematics of the paper, in float64, on numbers and tidy frames; no input or output.

A *case* is one text, cut to one length, crammed into ``n_mem`` vectors of one model. Frames of cases, published and
measured alike, have the columns of ``CASE_COLUMNS``. Two conventions turn cases into a model's gain:

``paper``   as in the published tables: mean loss x N, minimum loss and maximum accuracy taken separately, pooled
            over all cases with accuracy <= .99, whatever their length; standard deviation with ddof = 1.
``exact``   true sums over the predicted tokens, averaged over all texts at the smallest length of the grid at which
            no text is exact. ``sums`` is the same at the smallest length at which no text is *solved* (teacher-forced
            accuracy >= .99): all that the published points allow, since nobody decoded them freely.
"""

import math

import numpy as np
import pandas as pd

from .errors import InputError, require_columns, unknown_name

SOLVED_ACCURACY = 0.99
BITS_PER_DIMENSION = 16

CASE_COLUMNS = [
    "origin",  # "published" or "measured"
    "model",  # Hugging Face id
    "source",  # where the text comes from: pg19, fanfics, random, ...
    "n_mem",  # trained vectors
    "protocol",  # how vectors and text enter the model: kuratov2025, strict, ...
    "length",  # tokens of the text, N; null where unknown
    "text_id",  # which text, within model and source
    "n_targets",  # predicted tokens
    "solved",  # teacher-forced accuracy >= .99
    "exact",  # free-running greedy decoding returns the text; null for published points
    "tf_accuracy",  # best teacher-forced accuracy over steps; null where only `solved` is known
    "n_correct_lm",  # targets right without the vector
    "n_correct_mem",  # targets right with it, at the best step
    "ce_lm_nats",  # sum of -log p over targets without the vector; null where the length is unknown
    "ce_mem_nats",  # the same with it, at the best step; null for published points
    "ce_mem_min_nats",  # the same with it, minimum over steps
    "paper_ce_lm_nats",  # mean loss x N, the published convention
    "paper_ce_mem_nats",
    "text_bytes",  # UTF-8 bytes of the text
]
GROUP_COLUMNS = ["origin", "model", "source", "n_mem", "protocol"]
CONVENTIONS = ("paper", "exact", "sums")
CRITERIA = {"paper": f"mean_tf_accuracy>={SOLVED_ACCURACY}", "exact": "free_greedy_decoding"}


# --- numbers -------------------------------------------------------------------------------------------------------


def nats_to_bits(nats):
    """Return information in bits; ``nats`` is a number or an array."""
    return np.asarray(nats, dtype=float) / math.log(2) if np.ndim(nats) else float(nats) / math.log(2)


def theoretical_capacity_tokens(d_model: int, vocab_size: int, bits_per_dimension: float = BITS_PER_DIMENSION) -> float:
    """Return d_model * bits / log2(vocab_size), the most tokens that one vector could address (paper, section 5.3).

    ``d_model`` is the width of the vector, ``vocab_size`` the (padded) rows of the embedding matrix, and every token
    counts as log2(vocab_size) bits, however predictable. Raises InputError unless d_model >= 1, vocab_size >= 2 and
    bits_per_dimension > 0.
    """
    if d_model < 1 or vocab_size < 2 or bits_per_dimension <= 0:
        raise InputError(
            f"d_model {d_model}, vocab_size {vocab_size}, bits_per_dimension {bits_per_dimension}: "
            "need d_model >= 1, vocab_size >= 2 and bits_per_dimension > 0"
        )
    return d_model * bits_per_dimension / math.log2(vocab_size)


def utilisation_tokens(token_gain: float, d_model: int, vocab_size: int) -> float:
    """Return token gain / theoretical capacity, the paper's utilisation: 0 for a useless vector, 1 at the bound."""
    return token_gain / theoretical_capacity_tokens(d_model, vocab_size)


def utilisation_bits(info_gain_nats: float, d_model: int, bits_per_dimension: float = BITS_PER_DIMENSION) -> float:
    """Return the share of a vector's d_model * bits that the information gain fills; 0 to 1 for a lossless channel."""
    if d_model < 1 or bits_per_dimension <= 0:
        raise InputError(f"d_model {d_model}, bits_per_dimension {bits_per_dimension}: need d_model >= 1 and bits > 0")
    return nats_to_bits(info_gain_nats) / (d_model * bits_per_dimension)


def paper_cross_entropy(ce_nats, n_targets, length):
    """Return mean loss x N from the true sum over targets (protocol facts, paper's notebooks).

    The mean runs over ``n_targets`` = N - 1 tokens in the paper's protocol but is multiplied by ``length`` = N, so
    the result overstates the sum by N / (N - 1). Raises InputError for n_targets < 1 or length < n_targets.
    """
    n_targets, length = np.asarray(n_targets, dtype=float), np.asarray(length, dtype=float)
    if np.any(n_targets < 1) or np.any(length < n_targets):
        raise InputError("n_targets must be at least 1 and at most length")
    return ce_nats / n_targets * length


def decoding_capacity(lengths, mean_accuracies, threshold: float = SOLVED_ACCURACY) -> float:
    """Return the largest length whose mean teacher-forced accuracy is >= ``threshold``; 0 if none, NaN if undecided.

    Shorter lengths need not pass (the published criterion; Llama-3.2-1B fails at 64 and passes at 512). An unknown
    accuracy (NaN) leaves the answer undecided unless a longer length passes. Raises InputError for an empty grid,
    repeated or non-positive lengths, accuracies outside 0..1, or a threshold outside 0..1.
    """
    lengths, accuracies = np.asarray(lengths, dtype=float), np.asarray(mean_accuracies, dtype=float)
    if lengths.ndim != 1 or lengths.shape != accuracies.shape or not len(lengths):
        raise InputError("lengths and mean_accuracies must be two non-empty lists of the same length")
    if np.any(lengths < 1) or len(set(lengths)) != len(lengths):
        raise InputError("lengths must be positive and all different")
    if np.any((accuracies < 0) | (accuracies > 1)) or not 0 <= threshold <= 1:
        raise InputError("accuracies and the threshold must lie between 0 and 1")
    for length, accuracy in sorted(zip(lengths, accuracies, strict=True), reverse=True):
        if math.isnan(accuracy):
            return math.nan
        if accuracy >= threshold:
            return length
    return 0.0


# --- frames of cases -----------------------------------------------------------------------------------------------


def check_cases(cases: pd.DataFrame) -> None:
    """Raise InputError unless ``cases`` has the case columns and physically possible values."""
    require_columns(cases, CASE_COLUMNS, "cases")
    for column in ("ce_lm_nats", "ce_mem_nats", "ce_mem_min_nats", "paper_ce_lm_nats", "paper_ce_mem_nats"):
        values = cases[column].astype(float)
        if np.isinf(values).any() or (values < 0).any():
            raise InputError(f"cases: {column} has an infinite or negative cross-entropy; fix or drop those rows")
    if not cases["tf_accuracy"].dropna().between(0, 1).all():
        raise InputError("cases: tf_accuracy must lie between 0 and 1")
    if cases["solved"].isna().any():
        raise InputError("cases: solved must be true or false in every row")


def compute_gains(cases: pd.DataFrame, *, convention: str) -> pd.DataFrame:
    """Return one row per model, source, n_mem and protocol with its token and information gain.

    ``convention`` is one of CONVENTIONS (see the module's first lines). Columns: GROUP_COLUMNS, ``gain_length_tokens``
    (the length that ``exact`` and ``sums`` are taken at; null for ``paper``), means and standard deviations (ddof = 1)
    of ``token_gain`` in tokens and ``info_gain_nats``, ``n_cases`` averaged over and ``n_texts``. A group for which the
    convention is undefined (no length without a solved text, no failed case) has null gains.
    """
    if convention not in CONVENTIONS:
        raise unknown_name("convention", convention, CONVENTIONS)
    check_cases(cases)
    select = _select_unsaturated if convention == "paper" else select_first_failed_length
    success = "exact" if convention == "exact" else "solved"
    rows = []
    for key, group in cases.groupby(GROUP_COLUMNS, sort=True, dropna=False):
        selected = select(group, success)
        tokens, nats = _token_gain(selected, convention), info_gain_nats(selected, convention)
        lengths = selected["length"].unique()
        rows.append(
            dict(zip(GROUP_COLUMNS, key, strict=True))
            | {
                "gain_length_tokens": float(lengths[0]) if convention != "paper" and len(lengths) else math.nan,
                "token_gain_mean": tokens.mean(),
                "token_gain_std": tokens.std(ddof=1),
                "info_gain_nats_mean": nats.mean(),
                "info_gain_nats_std": nats.std(ddof=1),
                "n_cases": len(selected),
                "n_texts": group["text_id"].nunique(),
            }
        )
    return pd.DataFrame(rows)


def compute_exact_capacity(cases: pd.DataFrame) -> pd.DataFrame:
    """Return per group the mean over texts of the longest exact length, in tokens and bytes (0 for a text with none).

    The ``exact`` capacity of a model: columns GROUP_COLUMNS, ``exact_tokens_mean``, ``exact_bytes_mean``, both null for
    groups in which exactness was never tested (published points).
    """
    check_cases(cases)
    tested = cases.assign(tested=cases["exact"].notna(), exact=cases["exact"].eq(True))
    for target, size in (("tokens", "length"), ("bytes", "text_bytes")):
        tested[target] = tested[size].astype(float).where(tested["exact"], 0.0).where(tested["tested"])
    per_text = tested.groupby([*GROUP_COLUMNS, "text_id"], sort=True)[["tokens", "bytes"]].max()
    means = per_text.groupby(level=GROUP_COLUMNS, sort=True).mean()
    return means.rename(columns={"tokens": "exact_tokens_mean", "bytes": "exact_bytes_mean"}).reset_index()


def select_unsolved(cases: pd.DataFrame) -> pd.DataFrame:
    """Return the cases whose vector is saturated: accuracy <= .99, or not solved where only that is known."""
    accuracy = cases["tf_accuracy"].astype(float)
    return cases[(accuracy <= SOLVED_ACCURACY).where(accuracy.notna(), ~cases["solved"].astype(bool))]


def _select_unsaturated(group, _success):
    return select_unsolved(group)


def select_first_failed_length(group: pd.DataFrame, success: str) -> pd.DataFrame:
    """Return the cases of the smallest length at which ``success`` (exact or solved) never holds; none if unknown."""
    if group["length"].isna().any() or group[success].isna().any():
        return group.iloc[:0]
    any_success = group.groupby("length")[success].any()
    failed = any_success.index[~any_success.astype(bool)]
    return group[group["length"] == failed.min()] if len(failed) else group.iloc[:0]


def _token_gain(cases, convention):
    gained = (cases["n_correct_mem"] - cases["n_correct_lm"]).astype(float)
    if convention == "paper":
        best_correct = cases["tf_accuracy"].astype(float) * cases["n_targets"].astype(float)
        gained = (
            (best_correct - cases["n_correct_lm"].astype(float))
            / cases["n_targets"].astype(float)
            * cases["length"].astype(float)
        )
    return gained


def info_gain_nats(cases: pd.DataFrame, convention: str = "paper") -> pd.Series:
    """Return the information gain of each case in nats, by one of CONVENTIONS (see the module's first lines)."""
    before, after = {
        "paper": ("paper_ce_lm_nats", "paper_ce_mem_nats"),
        "exact": ("ce_lm_nats", "ce_mem_nats"),
        "sums": ("ce_lm_nats", "ce_mem_min_nats"),
    }[convention]
    return cases[before].astype(float) - cases[after].astype(float)
