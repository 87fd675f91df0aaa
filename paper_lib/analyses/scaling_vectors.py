"""Notebook 03: do more vectors hold proportionally more (Figure 4)?"""

import math

import numpy as np
import pandas as pd

from ..capacity import info_gain_nats, select_first_failed_length, select_unsolved
from ..published import N_TEXTS_PG19, PROTOCOL, compute_decoding_capacity
from ..stats import Interval, bootstrap_clusters, weighted_mean
from ..verdicts import claim

PROPORTIONAL = (0.95, 1.05)  # an exponent within it counts as proportional to the number of vectors
GAIN, EXACT = "information gain (nats)", "exact capacity (tokens)"
PRINTED = {
    "decoding_capacity_tokens": "decoding capacity (tokens)",
    "token_gain_mean": "token gain (tokens)",
    "info_gain_nats_mean": GAIN,
}


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


def compute_matched(scaled: pd.DataFrame, points: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return what n_mem vectors gain over one vector at the same multiples of their capacity, in nats on PG-19.

    A printed gain of ``n_mem`` vectors averages failed texts of ``multiple_low`` to ``multiple_high`` times their
    capacity; the one vector is averaged over its own failed texts of the same multiples, from the authors' points.
    Where its grid has none, its nearest longer ones are taken, whose gains are less capped: then the exponent is
    ``at_least`` so large. ``exponent_matched`` is log(gain ratio) / log(n_mem), ``pooled`` the same of the printed
    means, ``per_vector`` the gain per vector relative to the one vector, each with its 95 % interval: the texts of one
    vector are resampled, the printed mean varies by its deviation over 50 texts.
    """
    rows = []
    for (model, name, family), runs in scaled.groupby(["model", "name", "family"], sort=False):
        one = points[(points["model"] == model) & (points["source"] == "pg19")]
        failed = one[~one["solved"]]
        alone = runs[runs["n_mem"] == 1].iloc[0]
        for run in runs[runs["failed_lengths"].notna() & (runs["n_mem"] > 1)].itertuples():
            lengths = np.array(run.failed_lengths.split(), float)
            low, high = lengths.min() / run.decoding_capacity_tokens, lengths.max() / run.decoding_capacity_tokens
            multiple = failed["length"].astype(float) / alone["decoding_capacity_tokens"]
            chosen = multiple.between(low, high)
            at_least = not chosen.any()
            if at_least:
                chosen = multiple == multiple[multiple > high].min()
            gain = info_gain_nats(failed[chosen])
            mean = bootstrap_clusters(
                failed.loc[chosen, "text_id"], weighted_mean(gain), n_resamples=n_resamples, seed=seed
            )
            error = run.info_gain_nats_std / math.sqrt(N_TEXTS_PG19)
            drawn = run.info_gain_nats_mean + error * np.random.default_rng(seed).standard_normal(len(mean.resamples))
            rows.append(
                {
                    "origin": "published", "model": model, "name": name, "family": family, "protocol": PROTOCOL,
                    "quantity": GAIN, "n_mem": run.n_mem, "multiple_low": low, "multiple_high": high,
                    "multiple_one_low": multiple[chosen].min(), "multiple_one_high": multiple[chosen].max(),
                    "at_least": at_least, "gain": run.info_gain_nats_mean, "gain_one": mean.value,
                    **_exponent(run.info_gain_nats_mean / mean.value, drawn / mean.resamples, run.n_mem),
                    "pooled": math.log(run.info_gain_nats_mean / alone["info_gain_nats_mean"]) / math.log(run.n_mem),
                }
            )  # fmt: skip
    return _add_local(pd.DataFrame(rows))


def compute_measured(cases: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return the same for the runs of this repository: every number of vectors against one, paired by text.

    Information gain at each one's first length at which no text is exact, exact capacity as the mean longest exact
    length (tokens); books are resampled, the same ones on both sides. ``cases`` are those of models with several
    numbers of vectors on natural text.
    """
    rows = []
    for (name, model, family, _, protocol), runs in cases.groupby(["name", "model", "family", "source", "protocol"]):
        one, *others = (group for _, group in runs.groupby("n_mem", sort=True))
        for several in others if int(one["n_mem"].iloc[0]) == 1 else []:
            n_mem = int(several["n_mem"].iloc[0])
            means = [info_gain_nats(select_unsolved(group)).mean() for group in (several, one)]
            pooled = math.log(means[0] / means[1]) / math.log(n_mem) if min(means) > 0 else math.nan
            for quantity, measure in ((GAIN, _failed_gains), (EXACT, _longest_exact)):
                (x, low), (y, high) = measure(one), measure(several)
                if not len(x) or not len(y) or not x["value"].mean() > 0:
                    continue
                both = pd.concat([x.assign(several=False), y.assign(several=True)], ignore_index=True)
                over, under = (weighted_mean(both["value"], both["several"] == part) for part in (True, False))
                ratio = bootstrap_clusters(
                    both["cluster_id"], lambda w, o=over, u=under: o(w) / u(w), n_resamples=n_resamples, seed=seed
                )
                rows.append(
                    {
                        "origin": "measured", "model": model, "name": f"{name}, {protocol}", "family": family,
                        "protocol": protocol, "quantity": quantity, "n_mem": n_mem,
                        "multiple_low": high, "multiple_high": high, "multiple_one_low": low, "multiple_one_high": low,
                        "at_least": quantity == GAIN and low > high, "gain": y["value"].mean(),
                        "gain_one": x["value"].mean(), **_exponent(ratio.value, ratio.resamples, n_mem),
                        "pooled": pooled if quantity == GAIN else math.nan,
                    }
                )  # fmt: skip
    return _add_local(pd.DataFrame(rows))


def _failed_gains(cases):
    # Gains at the first length at which no text is exact, and that length as a multiple of the exact capacity.
    failed = select_first_failed_length(cases, "exact").dropna(subset=["ce_lm_nats", "ce_mem_nats"])
    capacity = _longest_exact(cases)[0]["value"].mean()
    gains = failed.assign(value=info_gain_nats(failed, "exact"))[["cluster_id", "value"]]
    return gains, failed["length"].max() / capacity if len(failed) and capacity else math.nan


def _longest_exact(cases):
    exact = cases.assign(value=cases["length"].where(cases["exact"].astype(bool), 0).astype(float))
    return exact.groupby("text_id", as_index=False).agg(
        value=("value", "max"), cluster_id=("cluster_id", "first")
    ), math.nan


def _exponent(ratio, resamples, n_mem):
    low, high = np.percentile(resamples, [2.5, 97.5]) if len(resamples) else (math.nan, math.nan)
    columns = {}
    for part, value in (("", ratio), ("_low", low), ("_high", high)):
        columns[f"exponent_matched{part}"] = math.log(value) / math.log(n_mem) if value > 0 else math.nan
        columns[f"per_vector{part}"] = value / n_mem
    return columns


def _add_local(table):
    # From one number of vectors to the next: the exponent between neighbours, both at their own matched multiples.
    if table.empty:
        return table
    groups = table.groupby(["name", "quantity"], sort=False)
    before, ratio = groups["n_mem"].shift(fill_value=1), table["per_vector"] * table["n_mem"]
    table["exponent_local"] = np.log(
        ratio / ratio.groupby([table["name"], table["quantity"]]).shift(fill_value=1)
    ) / np.log(table["n_mem"] / before)
    return table


def judge(exponents: pd.DataFrame) -> list[dict]:
    """Return the verdict on "nearly linear": the exponent of the information gain, up to the most vectors of each."""
    gains = exponents[exponents["quantity"] == GAIN].sort_values(["at_least", "n_mem"], ascending=[False, True])
    most = gains.groupby("name", sort=False).tail(1)  # of the matched ones, where there are any
    return [
        claim(
            f"{row.n_mem} vectors gain in proportion to their number, {row.name}",
            Interval(
                row.exponent_matched, row.exponent_matched_low, math.inf if row.at_least else row.exponent_matched_high
            ),
            PROPORTIONAL,
            unit="exponent",
            detail="at least: one vector was tried at larger multiples only" if row.at_least else "",
        )
        for row in most.itertuples()
    ]


def judge_exact(exact: pd.DataFrame) -> list[dict]:
    """Return the verdict on exact capacity of the most vectors, from ``compute_measured`` at equal multiples."""
    most = exact.loc[exact["n_mem"].idxmax()]
    exponent = Interval(*most[["exponent_matched", "exponent_matched_low", "exponent_matched_high"]])
    statement = f"{most['n_mem']} vectors hold in proportion to their number, exactly, {most['name']}"
    return [claim(statement, exponent, PROPORTIONAL, unit="exponent")]
