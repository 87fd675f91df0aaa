"""Notebook 05: does it matter what the text is (Tables 1 and 3, Figures 3 and 6)?"""

import pandas as pd

from ..capacity import compute_gains, select_unsolved
from ..published import COMPLETE_RANDOM_PANELS
from ..stats import Interval, bootstrap_clusters, weighted_mean
from ..verdicts import claim, compare, contains

FANFICS_MARGIN = 0.05  # fanfics gain "as much" as PG-19 within this share


def compute_ratio(cases: pd.DataFrame, *, cluster: str, n_resamples: int, seed: int) -> Interval:
    """Return the mean gain (b) of failed random words over that of failed natural text, as a 95 % interval.

    Clusters (the column ``cluster``) of natural and random text are resampled independently.
    """
    unsolved = select_unsolved(cases)
    gain = _gain_nats(unsolved).to_numpy()
    random = (unsolved["source"] == "random").to_numpy()
    over, under = weighted_mean(gain * random), weighted_mean(gain * ~random)
    share_over, share_under = weighted_mean(random), weighted_mean(~random)
    return bootstrap_clusters(
        unsolved[cluster],
        lambda weights: over(weights) / share_over(weights) / (under(weights) / share_under(weights)),
        sample=unsolved["source"],
        n_resamples=n_resamples,
        seed=seed,
    )


def compare_published(points, printed, models, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return per model of the paper the gains b (nats) on PG-19, random words and fanfics, and their ratios.

    The ratio of random words to PG-19 has an interval where all random points are drawn; elsewhere it is that of the
    printed means, without one (``ratio_how``). ``points``, ``printed`` and ``models`` are those of ``published``.
    """
    printed = printed[printed["n_mem"] == 1].pivot(index="model", columns="source", values="info_gain_nats_mean")
    rows = []
    for row in models.itertuples():
        b = printed.loc[row.model]
        complete = row.model in COMPLETE_RANDOM_PANELS
        ratio = Interval(b["random"] / b["pg19"])
        if complete:
            cases = points[points["model"] == row.model]
            ratio = compute_ratio(cases, cluster="text_id", n_resamples=n_resamples, seed=seed)
        rows.append(
            {
                "origin": "published",
                "model": row.model,
                "name": row.name,
                "family": row.family,
                "b_pg19_nats": b["pg19"],
                "b_random_nats": b["random"],
                "b_fanfics_nats": b["fanfics"],
                **_ratio_columns(ratio, "per-text points" if complete else "printed means"),
                "ratio_fanfics": b["fanfics"] / b["pg19"],
            }
        )
    return pd.DataFrame(rows)


def compare_measured(cases: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return the same columns for the runs of this repository: a row for each model and natural source.

    ``cases`` are those of one protocol and one vector (see ``measured.load_cases``). Without random words: no row.
    ``b_pg19_nats`` is that of the natural source, which ``ratio_how`` names. Clusters are books.
    """
    rows = []
    for (name, family, model), runs in cases.groupby(["name", "family", "model"]):
        random = runs["source"] == "random"
        for natural in runs.loc[~random, "source"].unique() if random.any() else []:
            pair = runs[random | (runs["source"] == natural)]
            ratio = compute_ratio(pair, cluster="cluster_id", n_resamples=n_resamples, seed=seed)
            unsolved = select_unsolved(pair)
            b = _gain_nats(unsolved).groupby(unsolved["source"]).mean()
            rows.append(
                {
                    "origin": "measured",
                    "model": model,
                    "name": name,
                    "family": family,
                    "b_pg19_nats": b[natural],
                    "b_random_nats": b["random"],
                    **_ratio_columns(ratio, f"per-text runs, {natural}"),
                }
            )
    return pd.DataFrame(rows)


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
    model, gain = unsolved["model"], _gain_nats(unsolved)
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


def judge(sources: pd.DataFrame, context: pd.DataFrame) -> list[dict]:
    """Return the verdict on text sources; the frames are those of ``compare_published`` and ``compute_context``."""
    tested = sources[sources["ratio_how"] == "per-text points"]
    shared = contains(tested, "ratio_random", 1)
    fanfics = sources["ratio_fanfics"].dropna()
    longest = context[context["prefix_tokens"] == 1024]
    left, with_vector = longest["ce_left"], longest["ce_left_with_vector"]
    return [
        compare(
            "ratio random / PG-19 of the printed means, complete panels",
            tested["b_random_nats"] / tested["b_pg19_nats"],
            tested["ratio_random"],
            tolerance=1e-5,
            names=tested["name"],
        ),
        claim(
            "natural and random text share one b (interval of the ratio holds 1; Sheared-LLaMA is on the edge)",
            shared.all(),
            f"{shared.sum()} of {len(shared)} models with an interval: {', '.join(tested['name'][shared])}",
        ),
        claim(
            "fanfics gain as much as PG-19 (printed means within 5 %)",
            (abs(fanfics - 1) < FANFICS_MARGIN).all(),
            f"ratios {fanfics.min():.2f} to {fanfics.max():.2f}, {len(fanfics)} models",
        ),
        claim(
            "a vector gives more than 1,024 tokens of true context",
            (with_vector < left).all(),
            f"left: {left.min():.2f} to {left.max():.2f} with 1,024 tokens of context, "
            f"{with_vector.min():.2f} to {with_vector.max():.2f} with one vector",
        ),
    ]


def _gain_nats(cases):
    return cases["paper_ce_lm_nats"] - cases["paper_ce_mem_nats"]


def _ratio_columns(ratio, how):
    return {
        "ratio_random": ratio.value,
        "ratio_random_low": ratio.low,
        "ratio_random_high": ratio.high,
        "ratio_how": how,
    }
