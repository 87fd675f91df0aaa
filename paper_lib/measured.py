"""Runs of this repository, put together as the published numbers are: same columns, ``origin = "measured"``.

Everything is computed sweep by sweep, so that two sweeps of one model never mix. Texts of one book are not independent:
intervals are 95 %, bootstrap over ``cluster_id``.
"""

import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from .capacity import (
    CRITERIA,
    GROUP_COLUMNS,
    compute_exact_capacity,
    compute_gains,
    decoding_capacity,
    nats_to_bits,
    select_first_failed_length,
)
from .censored import find_bins, weighted_censored_mean
from .config import OPTIMISER_PREFIX
from .frozen import load_runs
from .paths import DATA
from .published import CAPACITY_COLUMNS, WHOLE_COLUMNS, load_models, load_points
from .published import PROTOCOL as PUBLISHED_PROTOCOL
from .stats import Interval, bootstrap_clusters, weighted_mean

FACTS = ["name", "family", "d_model", "vocab_size", "vector_bytes"]
SETTINGS = ["weights", "stopping", "dtype", "autocast", "storage", "seed", "loss", "parametrisation", "finder"]


def load_cases(data: Path = DATA) -> pd.DataFrame:
    """Return the frozen runs as cases, with the ``name`` and ``family`` that tables and figures show.

    Sweeps that compare settings (their arms) are not among them: ``load_arms`` has those.

    A model of the paper keeps its name there, any other has the last part of its hub id or folder, or all of it where
    two models end alike. Where a model was run with several settings under one protocol, the name says which; where two
    sweeps measured the same thing (model, source, n_mem, protocol, settings), it says which sweep.
    """
    cases = _name_models(load_runs(data).query("arm == ''"))
    if cases.empty:
        return cases
    for _, runs in list(cases.groupby(["model", "protocol"])):
        cases.loc[runs.index, "name"] += _describe_settings(runs)
    for _, runs in list(cases.groupby(["name", "protocol"])):
        if (runs.groupby(GROUP_COLUMNS)["sweep"].nunique() > 1).any():
            cases.loc[runs.index, "name"] += " (" + runs["sweep"] + ")"
    return cases.rename(columns={"d_embed": "d_model"})


def load_arms(sweep: str, data: Path = DATA) -> pd.DataFrame:
    """Return the cases of a frozen sweep that compares settings, with the ``arm`` and the ``name`` of the model."""
    return _name_models(load_runs(data, name=sweep).query("arm != ''"))


def load_tried(data: Path = DATA) -> pd.DataFrame:
    """Return the texts that were tried, the authors' books and all of ours that are no random words.

    Columns, beside those of cases: ``fits``, by which ``criterion``; ``model``, which here tells apart what was
    measured under another protocol or with other settings (see ``load_cases``); ``cluster_id``, the text where nobody
    knows the book.
    """
    published, measured = load_points(), load_cases(data)
    published, measured = published[published["source"] == "pg19"], measured[measured["source"] != "random"]
    published = published.assign(fits=published["solved"], criterion="accuracy of .99", cluster_id=published["text_id"])
    label = measured["name"] + ", " + measured["protocol"] if len(measured) else []
    measured = measured.assign(fits=measured["exact"], criterion="exact", model=label)
    return pd.concat([published, measured], ignore_index=True).astype({"fits": bool})


def _name_models(cases):
    known = load_models().set_index("model")
    whole = cases["model"].astype(str).str.rstrip("/")
    short = whole.str.rsplit("/", n=1).str[-1]
    if len(cases):
        short = short.where(whole.groupby(short).transform("nunique") == 1, whole)
    family = cases["model"].map(known["family"]).fillna("other")
    return cases.assign(name=cases["model"].map(known["name"]).fillna(short), family=family)


def _describe_settings(runs):
    # What these runs of one model and protocol do not share, in words; nothing where they share everything.
    settings = [c for c in runs.columns if c in SETTINGS or c.startswith(OPTIMISER_PREFIX)]
    differing = [c for c in settings if runs[c].nunique(dropna=False) > 1]

    def describe(row):
        words = [_name_setting(c, str(row[c])) for c in differing if not pd.isna(row[c])]
        return f" ({', '.join(words)})" if words else ""

    return runs.apply(describe, axis=1) if differing else ""


def _name_setting(column, value):
    if column == "autocast":
        return {"bfloat16": "bf16", "float16": "fp16"}.get(value, value)
    return f"{column.removeprefix(OPTIMISER_PREFIX)} {value.removeprefix('sha256:')[:12]}"


def compute_by_sweep(compute: Callable[[pd.DataFrame], pd.DataFrame], cases: pd.DataFrame) -> pd.DataFrame:
    """Return ``compute(cases)``, which has one row per model, source, n_mem and protocol, taken sweep by sweep.

    The rows gain the columns ``sweep`` and FACTS.
    """
    parts = [compute(part).assign(sweep=sweep) for sweep, part in cases.groupby("sweep", sort=True)]
    facts = cases.groupby(["sweep", *GROUP_COLUMNS], as_index=False)[FACTS].first()
    return pd.concat(parts, ignore_index=True).merge(facts, on=["sweep", *GROUP_COLUMNS], how="left")


def describe_runs(cases: pd.DataFrame) -> pd.DataFrame:
    """Return what was run, one row per model, source and number of vectors: counts, lengths, protocols and budget.

    ``clusters`` counts what intervals resample: the books that the texts come from, or the texts themselves.
    """

    def listed(values):
        return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in sorted(set(values.dropna())))

    rows = [
        {
            "model": name,
            "parameters (millions)": group["n_parameters"].iloc[0] / 1e6,
            "width": group["d_model"].iloc[0],
            "source": source,
            "vectors": n_mem,
            "texts": group["text_id"].nunique(),
            "clusters": group["cluster_id"].nunique(),
            "lengths (tokens)": listed(group["length"]),
            "protocols": listed(group["protocol"]),
            "steps at most": listed(group["optimiser_max_steps"]),
            "learning rate": listed(group["optimiser_lr"]),
        }
        for (name, source, n_mem), group in cases.groupby(["name", "source", "n_mem"], sort=True)
    ]
    return pd.DataFrame(rows)


def compute_shares(cases: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return per sweep, group and length how many texts there were and the shares ``solved`` and ``exact``.

    Each share has its interval over books, ``_low`` and ``_high``.
    """
    by = ["sweep", *GROUP_COLUMNS, "name", "family", "length"]
    rows = []
    for key, group in cases.groupby(by, sort=True):
        row = dict(zip(by, key, strict=True)) | {"n_texts": group["text_id"].nunique()}
        for share in ("solved", "exact"):
            mean = weighted_mean(group[share].astype(float))
            found = bootstrap_clusters(group["cluster_id"], mean, n_resamples=n_resamples, seed=seed)
            row |= {share: found.value, f"{share}_low": found.low, f"{share}_high": found.high}
        rows.append(row)
    return pd.DataFrame(rows)


def compute_share_curves(shares: pd.DataFrame) -> pd.DataFrame:
    """Return ``shares`` (see ``compute_shares``) as curves: columns ``curve``, ``share``, ``low``, ``high``.

    Every protocol has a curve of exact texts, the published one also, and first, one of solved texts.
    """
    curves = [(protocol, "exact") for protocol in sorted(shares["protocol"].unique())]
    curves = [(PUBLISHED_PROTOCOL, "solved")] * ((PUBLISHED_PROTOCOL, "exact") in curves) + curves
    lines = [
        shares[shares["protocol"] == protocol].assign(
            share=lambda line, c=criterion: line[c],
            low=lambda line, c=criterion: line[f"{c}_low"],
            high=lambda line, c=criterion: line[f"{c}_high"],
            curve=f"{protocol}, {criterion}",
        )
        for protocol, criterion in curves
    ]
    return pd.concat(lines, ignore_index=True)


def compute_capacities(cases: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return one row per sweep, model, source, n_mem and protocol: what the vectors hold, with intervals over books.

    ``decoding_capacity_tokens`` is the published criterion (mean teacher-forced accuracy >= .99);
    ``exact_tokens_mean`` and ``exact_bytes_mean`` average each text's longest exact length tried, so they are lower
    bounds; ``exact_tokens_estimate`` places each text between its longest exact length and the next (see
    ``censored``; null where most lie beyond the last), and ``exact_tokens_low`` and ``_high`` are the interval of that.
    ``share_ended_by_budget`` is the share of inexact cases that ran out of steps: more steps might have made them
    exact. ``info_gain_nats`` is the gain in true sums at ``gain_length_tokens``, the first length of which no text is
    exact (null if none).
    """

    def compute(part):
        groups = part.groupby(GROUP_COLUMNS, sort=True)
        rows = [
            dict(zip(GROUP_COLUMNS, key, strict=True)) | _summarise(group, n_resamples, seed) for key, group in groups
        ]
        return pd.DataFrame(rows).astype({"gain_length_tokens": "Int64", "capacity_next_tokens": "Int64"})

    return compute_by_sweep(compute, cases)


def _summarise(group, n_resamples, seed):
    def interval(name, values, clusters):
        mean = Interval(math.nan)
        if len(values):
            mean = bootstrap_clusters(clusters, weighted_mean(values), n_resamples=n_resamples, seed=seed)
        return {f"{name}_mean": mean.value, f"{name}_low": mean.low, f"{name}_high": mean.high}

    accuracy = group.groupby("length")["tf_accuracy"].mean()
    capacity = int(decoding_capacity(accuracy.index, accuracy))
    sizes = group[["length", "text_bytes"]].where(group["exact"].astype(bool), 0)
    longest = sizes.assign(cluster=group["cluster_id"]).groupby(group["text_id"]).max()
    bins = find_bins(longest["length"].to_numpy(), accuracy.index)
    estimate = bootstrap_clusters(longest["cluster"], weighted_censored_mean(*bins), n_resamples=n_resamples, seed=seed)
    failed = select_first_failed_length(group, "exact")
    failed = failed.dropna(subset=["ce_lm_nats", "ce_mem_nats"])  # a loss that was never finite
    gains = failed["ce_lm_nats"] - failed["ce_mem_nats"]
    return {
        "n_texts": len(longest),
        "n_clusters": longest["cluster"].nunique(),
        "decoding_capacity_tokens": capacity,
        "capacity_next_tokens": min(accuracy.index[accuracy.index > capacity], default=None),
        "exact_tokens_mean": longest["length"].mean(),
        "exact_tokens_estimate": estimate.value,
        "exact_tokens_low": estimate.low,
        "exact_tokens_high": estimate.high,
        "share_ended_by_budget": (group.loc[~group["exact"].astype(bool), "ended"] == "budget").mean(),
        **interval("exact_bytes", longest["text_bytes"], longest["cluster"]),
        "gain_length_tokens": int(failed["length"].max()) if len(failed) else None,
        **interval("info_gain_nats", gains, failed["cluster_id"]),
    }


def compute_capacity_table(cases: pd.DataFrame, capacities: pd.DataFrame) -> pd.DataFrame:
    """Return the measured half of table_capacity (columns: CAPACITY_COLUMNS), conventions ``paper`` and ``exact``.

    ``capacities`` is the result of ``compute_capacities``. Under ``paper`` the text bytes are those at the decoding
    capacity, under ``exact`` those of the longest exact lengths; both per vector. Vector bytes are as stored.
    """
    by = ["sweep", *GROUP_COLUMNS]
    bytes_at = cases.groupby([*by, "length"])["text_bytes"].mean().rename("bytes_at_capacity").reset_index()
    shown = [
        "decoding_capacity_tokens", "capacity_next_tokens", "exact_tokens_estimate", "exact_tokens_low",
        "exact_tokens_high", "share_ended_by_budget",
    ]  # fmt: skip
    capacity = capacities[[*by, *shown]]
    tables = []
    for convention in ("paper", "exact"):
        gains = compute_by_sweep(lambda part, c=convention: compute_gains(part, convention=c), cases)
        if convention == "paper":
            table = gains.merge(capacity[[*by, "decoding_capacity_tokens", "capacity_next_tokens"]], on=by)
            table = table.merge(
                bytes_at, how="left", left_on=[*by, "decoding_capacity_tokens"], right_on=[*by, "length"]
            )
            text_bytes = table["bytes_at_capacity"].fillna(0)
        else:
            table = gains.merge(compute_by_sweep(compute_exact_capacity, cases).drop(columns=FACTS), on=by)
            table = table.merge(capacity.drop(columns=["decoding_capacity_tokens", "capacity_next_tokens"]), on=by)
            text_bytes = table["exact_bytes_mean"]
        table["text_bytes_per_vector"] = text_bytes / table["n_mem"]
        tables.append(
            table.assign(
                convention=convention, criterion=CRITERIA[convention], capacity_how="measured", info_gain_how="measured"
            )
        )
    table = pd.concat(tables, ignore_index=True)
    table["info_gain_bits_mean"] = nats_to_bits(table["info_gain_nats_mean"])
    table = table.sort_values(["convention", "model", "source", "protocol", "n_mem", "sweep"], ignore_index=True)
    return table.reindex(columns=CAPACITY_COLUMNS).astype(dict.fromkeys(WHOLE_COLUMNS, "Int64"))
