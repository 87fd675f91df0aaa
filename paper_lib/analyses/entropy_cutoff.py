"""Notebook 02: is the limit the text's cross-entropy, or its length (Figures 3 and 6)?"""

import math

import numpy as np
import pandas as pd

from ..capacity import GROUP_COLUMNS, info_gain_nats
from ..errors import InputError, require_columns
from ..published import select_complete
from ..stats import Interval, bootstrap_clusters, fit_unit_slope, weighted_auc, weighted_mean, weighted_slope
from ..verdicts import claim, claim_of_most, compare, decide_together, format_margin

FLAT = (-10.0, 10.0)  # a change of the gain in per cent within it counts as none: texts of one model vary by as much
PREDICTS = (0.55, 1.0)  # an AUC within it counts as predicting success
CLEAR = 0.1  # share of texts that counts as a difference
OWN = "own"  # source of texts that the model itself goes on with
CROSS_ENTROPIES = ["paper_ce_lm_nats", "paper_ce_mem_nats"]
ENTROPY_TEST_COLUMNS = [
    *GROUP_COLUMNS, "auc_entropy", "auc_length", "auc_diff", "auc_diff_low", "auc_diff_high",
    "auc_within_length", "auc_within_low", "auc_within_high", "predicts", "slope1_b_nats", "slope1_r2", "slope_free",
    "slope_free_low", "slope_free_high", "n_points",
]  # fmt: skip


def compute_entropy_test(cases: pd.DataFrame, *, cluster: str = "text_id", n_resamples: int, seed: int) -> pd.DataFrame:
    """Test "the limit is the text's cross-entropy, not its length", one row per GROUP_COLUMNS.

    Label: solved. ``auc_entropy`` scores by minus the cross-entropy before, ``auc_length`` by minus the length,
    ``auc_diff`` is their difference, ``auc_within_length`` the first over pairs of equal length (.5 = entropy tells
    nothing beyond length). On the unsolved cases, with x the cross-entropy before and y after (paper convention, nats):
    ``slope1_b_nats`` and ``slope1_r2`` of y = x - b and ``slope_free`` of least squares (1 = the gain is constant).
    ``predicts`` is the verdict on ``auc_within_length`` within PREDICTS, by Holm over all rows that have one.
    Quantities that need lengths are null where any is unknown; cases without a finite cross-entropy are left out.
    Intervals resample ``cluster`` within a model.
    """
    require_columns(cases, [*GROUP_COLUMNS, "solved", "length", *CROSS_ENTROPIES, cluster], "cases")
    rows = []
    for key, group in cases.dropna(subset=CROSS_ENTROPIES).groupby(GROUP_COLUMNS, sort=True):
        rows.append(dict(zip(GROUP_COLUMNS, key, strict=True)) | _entropy_test(group, cluster, n_resamples, seed))
    tested = [row for row in rows if "within" in row]
    for row, verdict in zip(tested, decide_together([row["within"] for row in tested], PREDICTS), strict=True):
        row["predicts"] = verdict
    return pd.DataFrame(rows, columns=ENTROPY_TEST_COLUMNS)


def compute_slopes(cases: pd.DataFrame, *, cluster: str = "text_id", n_resamples: int, seed: int) -> pd.DataFrame:
    """Fit y on x over unsolved cases in three ways, per GROUP_COLUMNS: does the gain depend on the text, or on length?

    ``pooled`` is the free slope of ``compute_entropy_test``; ``within`` lets every length have its own intercept;
    ``beyond`` takes only lengths at which no case is solved, where no gain is capped by the text's own entropy. Each
    with ``_low`` and ``_high``; null where fewer than three cases are left. 1 means that the gain is constant. Cases
    without a length or a finite cross-entropy are left out.
    """
    rows = []
    for key, group in cases.dropna(subset=["length", *CROSS_ENTROPIES]).groupby(GROUP_COLUMNS):
        unsolved = group[~group["solved"].astype(bool)]
        solved_lengths = group.loc[group["solved"].astype(bool), "length"].unique()
        beyond = unsolved[~unsolved["length"].isin(solved_lengths)]
        row = dict(zip(GROUP_COLUMNS, key, strict=True))
        for name, part, stratum in (
            ("pooled", unsolved, None),
            ("within", unsolved, "length"),
            ("beyond", beyond, None),
        ):
            fit = Interval(float("nan"))
            if len(part) > 2:
                levels = None if stratum is None else part[stratum].astype(int)
                slope = weighted_slope(part["paper_ce_lm_nats"], part["paper_ce_mem_nats"], levels)
                fit = bootstrap_clusters(part[cluster], slope, n_resamples=n_resamples, seed=seed)
            row |= {name: fit.value, f"{name}_low": fit.low, f"{name}_high": fit.high}
        rows.append(row)
    return pd.DataFrame(rows)


def _entropy_test(group, cluster, n_resamples, seed):
    def interval(points, statistic):
        return bootstrap_clusters(points[cluster], statistic, n_resamples=n_resamples, seed=seed)

    solved, entropy = group["solved"], group["paper_ce_lm_nats"]
    by_entropy = weighted_auc(solved, -entropy)
    row = {"auc_entropy": float(by_entropy(np.ones((1, len(group))))[0]), "n_points": len(group)}
    unsolved = group[~group["solved"].astype(bool)]
    if len(unsolved) > 1:
        x, y = unsolved["paper_ce_lm_nats"], unsolved["paper_ce_mem_nats"]
        unit, free = fit_unit_slope(x, y), interval(unsolved, weighted_slope(x, y))
        row |= {
            "slope1_b_nats": unit.b, "slope1_r2": unit.r2,
            "slope_free": free.value, "slope_free_low": free.low, "slope_free_high": free.high,
        }  # fmt: skip
    if group["length"].notna().all():
        by_length = weighted_auc(solved, -group["length"].astype(float))
        difference = interval(group, lambda weights: by_entropy(weights) - by_length(weights))
        within = interval(group, weighted_auc(solved, -entropy, stratum=group["length"]))
        row |= {
            "within": within,
            "auc_length": float(by_length(np.ones((1, len(group))))[0]),
            "auc_diff": difference.value, "auc_diff_low": difference.low, "auc_diff_high": difference.high,
            "auc_within_length": within.value, "auc_within_low": within.low, "auc_within_high": within.high,
        }  # fmt: skip
    return row


def compute_published_test(points: pd.DataFrame, models: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return ``compute_entropy_test`` of the authors' points, books first, models in the paper's order.

    The columns ``name`` and ``family`` are added. Random words only where all their points are drawn.
    """
    test = compute_entropy_test(select_complete(points), n_resamples=n_resamples, seed=seed)
    test = name_models(test, models)
    return test.sort_values("source", kind="stable", ignore_index=True)


def name_models(frame: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Return ``frame`` with the ``name`` and ``family`` of each model, in the order of ``models``."""
    names = models.set_index("model")[["name", "family"]]
    return names.join(frame.set_index("model")).rename_axis("model").reset_index()


def compute_plateau(cases: pd.DataFrame, *, cluster: str, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return, per GROUP_COLUMNS, how the mean gain moves from the first to the last length at which no text is solved.

    Gains are true sums in nats: at these lengths none is capped by its text's own cross-entropy. ``change_percent`` is
    relative to the first, with its 95 % interval over ``cluster`` (the texts are the same in both); ``verdict`` says
    whether it lies within FLAT, by Holm over all rows. Null, undecided with fewer than two such lengths.
    """
    rows, intervals = [], []
    for key, group in cases.dropna(subset=["length", "ce_lm_nats"]).groupby(GROUP_COLUMNS, sort=True):
        solved = group.groupby("length")["solved"].any()
        lengths = solved.index[~solved.astype(bool)]
        row = dict(zip(GROUP_COLUMNS, key, strict=True)) | {"n_lengths_unsolved": len(lengths)}
        change = Interval(math.nan)
        if len(lengths) > 1:
            ends = group[group["length"].isin([lengths[0], lengths[-1]])]
            gain, last = info_gain_nats(ends, "sums"), ends["length"] == lengths[-1]
            before, after = weighted_mean(gain, ~last), weighted_mean(gain, last)
            change = bootstrap_clusters(
                ends[cluster], lambda w, a=after, b=before: 100 * (a(w) / b(w) - 1), n_resamples=n_resamples, seed=seed
            )
            row |= {
                "first_length": int(lengths[0]),
                "last_length": int(lengths[-1]),
                "gain_first_nats": gain[~last].mean(),
                "gain_last_nats": gain[last].mean(),
            }
        rows.append(
            row | {"change_percent": change.value, "change_percent_low": change.low, "change_percent_high": change.high}
        )
        intervals.append(change)
    found = ["n_lengths_unsolved", "first_length", "last_length", "gain_first_nats", "gain_last_nats"]
    changes = ["change_percent", "change_percent_low", "change_percent_high"]
    table = pd.DataFrame(rows, columns=[*GROUP_COLUMNS, *found, *changes])
    table = table.astype({"first_length": "Int64", "last_length": "Int64"})
    return table.assign(margin=format_margin(FLAT), verdict=decide_together(intervals, FLAT))


def compute_gain_curves(points: pd.DataFrame, on_books: pd.DataFrame) -> pd.DataFrame:
    """Return each model's mean gain and mean cross-entropy per length, both over its b, and whether any text is solved.

    ``points`` of one source, in the paper's convention; ``on_books``: the entropy test, for b, ``name``, ``family``.
    Columns: ``x_over_b``, ``gain_over_b``, ``any_solved`` and those of the models.
    """
    gains = points.assign(gain=info_gain_nats(points))
    curves = gains.groupby(["origin", "model", "length"], as_index=False).agg(
        x=("paper_ce_lm_nats", "mean"), gain=("gain", "mean"), any_solved=("solved", "any")
    )
    curves = curves.merge(on_books[["model", "name", "family", "slope1_b_nats"]], on="model")
    b = curves["slope1_b_nats"]
    return curves.assign(x_over_b=curves["x"] / b, gain_over_b=curves["gain"] / b).drop(columns=["x", "gain"])


def compare_sources(cases: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return what became of the texts of each source and length: their ``nats``, the share that is ``exact``.

    ``evaluations`` is the median of those that are. Cases of one model and protocol; intervals resample books.
    """
    rows = []
    for (source, length), group in cases.groupby(["source", "length"], sort=True):
        mean = weighted_mean(group["exact"].astype(float))
        share = bootstrap_clusters(group["cluster_id"], mean, n_resamples=n_resamples, seed=seed)
        row = {"origin": "measured", "source": source, "length": length, "n_texts": len(group)}
        row |= {"nats": group["ce_lm_nats"].mean(), **share.columns("exact")}
        rows.append(row | {"evaluations": group.loc[group["exact"].astype(bool), "n_steps"].median()})
    return pd.DataFrame(rows)


def compare_own(cases: pd.DataFrame, *, n_resamples: int, seed: int) -> tuple[int, Interval]:
    """Return the longest length that OWN texts and books were both run at, and how much larger the exact share is.

    Raises InputError where either was not run.
    """
    cases = cases.assign(own=cases["source"] == OWN)
    lengths = [set(group["length"]) for _, group in cases.groupby("own")]
    if len(lengths) < 2 or not set.intersection(*lengths):
        raise InputError("texts of the model's own and books were not run at the same length; run both")
    length = max(set.intersection(*lengths))
    here = cases[cases["length"] == length]
    own, books = (weighted_mean(here["exact"].astype(float), here["own"] == side) for side in (True, False))
    difference = bootstrap_clusters(
        here["cluster_id"], lambda weights: own(weights) - books(weights), n_resamples=n_resamples, seed=seed
    )
    return int(length), difference


def judge(
    on_books: pd.DataFrame, plateau: pd.DataFrame, fits: pd.DataFrame, brier: pd.DataFrame, own: tuple[int, Interval]
) -> list[dict]:
    """Return the verdict on the abstract's claim; the first three frames have one row per model.

    ``on_books``: the entropy test on PG-19; ``plateau``: ``compute_plateau`` of the same; ``fits``:
    ``published.load_fits``, the printed b in nats. ``brier``: ``sizing.compute_brier``; ``own``:
    ``compare_own``.
    """
    lower = brier.set_index(["origin", "predicted from"]).loc[("published", "tokens - nats")]
    labels = on_books.merge(fits, on="model")
    return [
        compare(
            "b, as printed beside the lines",
            labels["b_nats_label"],
            labels["slope1_b_nats"],
            tolerance=0.05,
            unit="nats",
            names=labels["name"],
        ),
        claim_of_most(
            "entropy predicts success within one length (AUC at least .55)",
            list(on_books["predicts"]),
            list(on_books["name"]),
        ),
        claim_of_most(
            "once no text fits, the gain is a constant b of the model (within 10 %)",
            list(plateau["verdict"]),
            list(plateau["name"]),
        ),
        claim(
            "whether a text fits is predicted better from its nats than from its tokens (Brier score, held-out texts)",
            Interval(lower["brier"], lower["brier_low"], lower["brier_high"]),
            (0, math.inf),
            unit="lower by",
        ),
        claim(
            f"SmolLM2-135M: of {own[0]} tokens, texts that it says itself are exact more often than novels",
            own[1],
            (CLEAR, math.inf),
            unit="share of texts, difference",
        ),
    ]
