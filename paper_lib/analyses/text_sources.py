"""Notebook 05: does it matter what the text is (Tables 1 and 3, Figures 3 and 6)?"""

import math

import numpy as np
import pandas as pd

from ..capacity import compute_gains, info_gain_nats, select_unsolved
from ..matching import find_support, weighted_fitted_ratio, weighted_neighbour_ratio
from ..stats import Interval, bootstrap_clusters, weighted_mean
from ..verdicts import UNDECIDED, claim, claim_of_most, decide_together

SHARED = (0.9, 1.1)  # ratios of gains that count as equal: a tenth, as texts of one model vary by 9 to 32 % around b
N_STORIES = {"pg19": 32, "fanfics": 21}  # distinct ones behind 50 texts, about (see data/README.md)
PAIRED = ["source", "text_id", "length", "seed", "restart", "stopping", "optimiser_lr", "optimiser_max_steps"]
FEWEST_TEXTS = 6  # of each kind, or nothing is fitted
COLUMNS = [
    "origin", "model", "name", "family", "source", "precision", "n_books", "n_words", "ratio_matched",
    "ratio_matched_low", "ratio_matched_high", "ratio_neighbours", "methods_agree", "ratio_pooled", "verdict",
]  # fmt: skip


def compare_published(points: pd.DataFrame, models: pd.DataFrame, grids: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return how much more random words gain than books at equal cross-entropy, a row for each model of the paper.

    ``points``, ``models`` and ``grids`` are those of ``published`` (``load_run_grids``). Columns: COLUMNS; see
    ``compare_sources``. The verdict on "they share one b" is Holm's over all models. The random panels that are cut off
    are cut in x, which does not bias a comparison at equal x.
    """
    precision = grids.drop_duplicates("model").set_index("model")["precision"]
    found = [
        compare_sources(points[points["model"] == model], cluster="text_id", **resampling) for model in models["model"]
    ]
    facts = models[["model", "name", "family"]].assign(origin="published", source="pg19")
    table = pd.concat([facts, pd.DataFrame([row for row, _ in found])], axis=1)
    table["precision"] = table["model"].map(precision)
    return _with_verdicts(table, [interval for _, interval in found])


def compare_measured(cases: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return the same for the runs of this repository, a row for each model and natural source beside random words.

    ``cases`` are those of one protocol and one vector (see ``measured.load_cases``). Clusters are books.
    """
    rows, intervals = [], []
    for (name, family, model), runs in cases.groupby(["name", "family", "model"]):
        random = runs["source"] == "random"
        for natural in runs.loc[~random, "source"].unique() if random.any() else []:
            pair = runs[random | (runs["source"] == natural)]
            row, interval = compare_sources(pair, cluster="cluster_id", **resampling)
            facts = {"origin": "measured", "model": model, "name": name, "family": family, "source": natural}
            rows.append(facts | {"precision": _name_precision(pair)} | row)
            intervals.append(interval)
    return _with_verdicts(pd.DataFrame(rows, columns=COLUMNS[:-1]), intervals)


def compare_sources(cases: pd.DataFrame, *, cluster: str, n_resamples: int, seed: int) -> tuple[dict, Interval]:
    """Return one model's gain on random words over that on natural text: a row, and the ratio with its resamples.

    Only failed points count that compare (see ``matching.find_support``), ``n_books`` and ``n_words`` of them.
    ``ratio_matched`` is the fitted ratio at equal cross-entropy, with its 95 % interval over ``cluster``;
    ``ratio_neighbours`` the same by nearest texts; ``ratio_pooled`` the paper's comparison, mean gains of all failed
    texts wherever they lie.
    """
    cases = cases.dropna(subset=["paper_ce_lm_nats", "paper_ce_mem_nats"])
    x, random = cases["paper_ce_lm_nats"], cases["source"] == "random"
    gain, failed = info_gain_nats(cases), ~cases["solved"].astype(bool)
    support = find_support(x, cases["solved"], random)
    n_words = int(random[support].sum())
    n_books = int(support.sum()) - n_words
    fitted, neighbours = Interval(math.nan), math.nan
    if min(n_books, n_words) >= FEWEST_TEXTS:
        points = x[support], gain[support], random[support]
        fitted = bootstrap_clusters(
            cases.loc[support, cluster],
            weighted_fitted_ratio(*points),
            sample=random[support],
            n_resamples=n_resamples,
            seed=seed,
        )
        neighbours = float(weighted_neighbour_ratio(*points)(np.ones((1, n_books + n_words)))[0])
    row = {
        "n_books": n_books,
        "n_words": n_words,
        "ratio_matched": fitted.value,
        "ratio_matched_low": fitted.low,
        "ratio_matched_high": fitted.high,
        "ratio_neighbours": neighbours,
        "methods_agree": fitted.low <= neighbours <= fitted.high,
        "ratio_pooled": gain[failed & random].mean() / gain[failed & ~random].mean(),
    }
    return row, fitted


def select_comparable(cases: pd.DataFrame) -> pd.DataFrame:
    """Return one model's failed texts that ``compare_sources`` compares, with ``gain_nats``."""
    support = find_support(cases["paper_ce_lm_nats"], cases["solved"], cases["source"] == "random")
    return cases[support].assign(gain_nats=info_gain_nats(cases[support]))


def compare_precisions(cases: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return what the same texts gain under bf16 autocast over what they gain in fp32: a row per model and source.

    ``cases`` as for ``compare_measured``. Paired: each text and length that failed under both, resampled by book. A row
    of nothing, undecided, where no model was run both ways.
    """
    rows, intervals = [], []
    on = [column for column in PAIRED if column in cases]
    for weights, runs in cases[~cases["solved"].astype(bool)].groupby("weights"):
        precision = runs["autocast"].fillna("float32")
        pairs = runs[precision == "float32"].merge(runs[precision == "bfloat16"], on=on, suffixes=("", "_bf16"))
        for source, pair in pairs.groupby("source"):
            fp32 = info_gain_nats(pair)
            bf16 = pair["paper_ce_lm_nats_bf16"] - pair["paper_ce_mem_nats_bf16"]
            over, under = weighted_mean(bf16), weighted_mean(fp32)
            ratio = bootstrap_clusters(
                pair["cluster_id"], lambda w, o=over, u=under: o(w) / u(w), n_resamples=n_resamples, seed=seed
            )
            facts = {"origin": "measured", "name": pair["name"].iloc[0], "weights": weights, "source": source}
            rows.append(
                facts | {"n_pairs": len(pair), "ratio": ratio.value, "ratio_low": ratio.low, "ratio_high": ratio.high}
            )
            intervals.append(ratio)
    columns = ["origin", "name", "weights", "source", "n_pairs", "ratio", "ratio_low", "ratio_high"]
    nothing = {"origin": "measured", "name": "none", "source": "none", "n_pairs": 0, "ratio": math.nan}
    table = pd.DataFrame(rows or [nothing], columns=columns)
    return table.assign(verdict=decide_together(intervals or [Interval(math.nan)], SHARED))


def compare_fanfics(printed: pd.DataFrame, models: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return what fanfics gain over what books gain, from printed means and deviations, for the models that have both.

    ``printed`` is ``published.load_capacities``. The interval takes as many independent texts as there are stories
    (N_STORIES), and is normal in the
    logarithm, drawn ``n_resamples`` times.
    """
    one = printed[printed["n_mem"] == 1].pivot(index="model", columns="source")
    mean, std = one["info_gain_nats_mean"], one["info_gain_nats_std"]
    rows, intervals = [], []
    draws = np.random.default_rng(seed).standard_normal(n_resamples)
    for row in models[models["model"].isin(mean.dropna(subset=["fanfics"]).index)].itertuples():
        m, s = mean.loc[row.model], std.loc[row.model]
        error = math.sqrt(sum((s[source] / m[source]) ** 2 / n for source, n in N_STORIES.items()))
        resamples = m["fanfics"] / m["pg19"] * np.exp(error * draws)
        low, high = np.percentile(resamples, [2.5, 97.5]) if n_resamples else (math.nan, math.nan)
        intervals.append(Interval(m["fanfics"] / m["pg19"], float(low), float(high), resamples))
        rows.append({"origin": "published", "model": row.model, "name": row.name, "family": row.family})
    table = pd.DataFrame(rows)
    table["ratio"], table["ratio_low"], table["ratio_high"] = (
        [getattr(interval, part) for interval in intervals] for part in ("value", "low", "high")
    )
    return table.assign(verdict=decide_together(intervals, SHARED))


def compute_context(ablation: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Return what share of a text's cross-entropy is left with true left context, or with one vector instead.

    ``ablation`` is ``published.load_ablations("text_prefix_vs_mem")``. One row per model and ``prefix_tokens``, with
    ``ce_left`` and, the same in every row of a model, ``ce_left_with_vector``; shares of the text alone, 0 to 1.
    """
    ce = {metric: rows.set_index("model")["value"] for metric, rows in ablation.groupby("metric")}
    context = ablation[ablation["metric"] == "ce_with_text_prefix"].merge(
        models[["model", "name", "family"]], on="model"
    )
    return context.assign(
        prefix_tokens=context["setting"].astype(float),
        ce_left=context["value"] / context["model"].map(ce["ce"]),
        ce_left_with_vector=context["model"].map(ce["ce_with_mem"] / ce["ce"]),
        origin="published",
    )


def compute_pooling(points: pd.DataFrame, printed: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Return each model's information gain (nats) on PG-19 under four ways to average the same points.

    ``paper``: as printed; ``true_count``: N - 1 predictions in place of N; ``beyond_capacity``: failed texts beyond the
    decoding capacity; ``sums``: at ``sums_length_tokens``, the shortest length at which no text is solved.
    """
    books = points[points["source"] == "pg19"]
    unsolved = select_unsolved(books)
    model, gain = unsolved["model"], info_gain_nats(unsolved)
    true_count = gain * unsolved["n_targets"].astype(float) / unsolved["length"].astype(float)
    one = printed[(printed["source"] == "pg19") & (printed["n_mem"] == 1)].set_index("model")
    beyond = unsolved["length"] > model.map(one["decoding_capacity_tokens"])
    sums = compute_gains(books, convention="sums").set_index("model")
    pooling = models[["model", "name"]].set_index("model")
    pooling = pooling.assign(
        paper=gain.groupby(model).mean(),
        true_count=true_count.groupby(model).mean(),
        beyond_capacity=gain[beyond].groupby(model).mean(),
        sums=sums["info_gain_nats_mean"],
        sums_length_tokens=sums["gain_length_tokens"].astype("Int64"),
    )
    return pooling.assign(sums_over_paper=pooling["sums"] / pooling["paper"]).reset_index()


def judge(
    published: pd.DataFrame, measured: pd.DataFrame, precisions: pd.DataFrame, fanfics: pd.DataFrame
) -> list[dict]:
    """Return the verdict; the frames are those of the ``compare_*`` of this module, all ratios against SHARED."""
    full = published["precision"] == "fp32"
    rows = [
        claim_of_most(f"random words gain what books gain, {what}", list(group["verdict"]), list(group["name"]))
        for what, group in (
            ("at equal cross-entropy", published),
            ("models run in fp32", published[full]),
            ("models run under bf16 autocast", published[~full]),
        )
        if len(group)
    ]
    rows += [
        claim(f"the same, {row.name} on {row.source}", _interval(row, "ratio_matched"), SHARED)
        for row in measured.itertuples()
    ]
    rows += [
        claim(f"bf16 autocast gains what fp32 gains, {row.name} on {row.source}", _interval(row, "ratio"), SHARED)
        for row in precisions.itertuples()
    ]
    rows.append(claim_of_most("fanfics gain what books gain", list(fanfics["verdict"]), list(fanfics["name"])))
    return rows


def _interval(row, name):
    return Interval(getattr(row, name), getattr(row, f"{name}_low"), getattr(row, f"{name}_high"))


def _with_verdicts(table, intervals):
    together = decide_together(intervals, SHARED)
    table["verdict"] = [v if agree else UNDECIDED for v, agree in zip(together, table["methods_agree"], strict=True)]
    return table[COLUMNS]


def _name_precision(cases):
    kinds = cases["autocast"].fillna(cases["dtype"]).unique()
    return ", ".join(sorted(kinds)).replace("float32", "fp32").replace("bfloat16", "bf16 autocast")
