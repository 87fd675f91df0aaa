"""Fits, areas under the ROC curve and bootstrap intervals. scipy does the work; the definitions are written here.

All intervals resample *clusters* (texts; books where texts share one), because the cases of one text at several
lengths are not independent. All randomness comes from one seed, so the same data give the same numbers.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from .errors import InputError

CONFIDENCE_LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % limits, and the resamples they are taken from; NaN and none where there are none."""

    value: float
    low: float = float("nan")
    high: float = float("nan")
    resamples: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False, compare=False)

    def columns(self, name: str) -> dict[str, float]:
        """Return the three numbers as columns ``name``, ``name_low`` and ``name_high`` of a table."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


# --- fits ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class UnitSlopeFit:
    """The paper's line y = x - b (Figure 3). ``r2`` is 1 - SS_residual / SS_total and may be negative."""

    b: float
    r2: float


def fit_unit_slope(x, y) -> UnitSlopeFit:
    """Fit y = x - b by least squares: b = mean(x - y), in the unit of x. Raises InputError below two points."""
    x, y = _pairs(x, y)
    b = float(np.mean(x - y))
    total = float(np.sum((y - y.mean()) ** 2))
    return UnitSlopeFit(b, 1 - float(np.sum((y - x + b) ** 2)) / total if total > 0 else float("nan"))


def _pairs(x, y):
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2:
        raise InputError("a fit needs two lists of the same length with at least two points")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("a fit needs finite numbers; drop missing points first")
    return x, y


# --- bootstrap over clusters ---------------------------------------------------------------------------------------


def bootstrap_clusters(
    cluster, statistic: Callable[[np.ndarray], np.ndarray], *, sample=None, n_resamples: int, seed: int
) -> Interval:
    """Return a statistic of weighted points with its percentile interval, resampling whole clusters.

    ``cluster`` (point,) names each point's cluster; ``sample`` (point,), if given, the sample it belongs to: samples
    are resampled independently of each other. ``statistic`` maps weights (resample, point) to values (resample,):
    weight w means that the point's cluster was drawn w times, and all ones give the estimate itself. Resamples in which
    the statistic is undefined (NaN) are left out; infinite ones lie beyond all others. The limits are NaN for
    ``n_resamples`` = 0 or a sample of one cluster.
    """
    if n_resamples < 0 or seed < 0:
        raise InputError(f"n_resamples {n_resamples}, seed {seed}: both must be 0 or more")
    cluster = np.asarray(cluster)
    sample = np.zeros(len(cluster)) if sample is None else np.asarray(sample)
    members = [np.flatnonzero(sample == name) for name in np.unique(sample)]
    codes = [pd.factorize(cluster[points], sort=True)[0] for points in members]
    n_clusters = [code.max() + 1 for code in codes]
    estimate = float(statistic(np.ones((1, len(cluster))))[0])
    if n_resamples == 0 or min(n_clusters) < 2 or np.isnan(estimate):
        return Interval(estimate)

    def of_drawn_clusters(*drawn, axis):  # one array (..., n_clusters) of drawn cluster numbers for each sample
        drawn = [np.moveaxis(d, axis, -1).astype(int) for d in drawn]
        weights = np.empty((drawn[0][..., 0].size, len(cluster)))
        for points, code, numbers in zip(members, codes, drawn, strict=True):
            rows = numbers.reshape(-1, numbers.shape[-1])
            apart = rows + np.arange(len(rows))[:, None] * rows.shape[1]  # so that one count does for all rows
            weights[:, points] = np.bincount(apart.ravel(), minlength=apart.size).reshape(rows.shape)[:, code]
        return np.asarray(statistic(weights)).reshape(drawn[0].shape[:-1])

    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        # scipy warns when a resample is undefined or infinite; the docstring says what becomes of those.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            [np.arange(n) for n in n_clusters],
            of_drawn_clusters,
            n_resamples=n_resamples,
            batch=500,
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    tail = 100 * (1 - CONFIDENCE_LEVEL) / 2
    known = result.bootstrap_distribution[~np.isnan(result.bootstrap_distribution)]
    return Interval(estimate, *_find_percentiles(known, [tail, 100 - tail]), known)


def _find_percentiles(values, percentages):
    # A percentile between an infinite value and a finite one is infinite.
    if not len(values):
        return [float("nan")] * len(percentages)
    largest = np.finfo(float).max / 4
    found = np.percentile(np.clip(values, -largest, largest), percentages)
    return [float(value) if abs(value) < math.sqrt(largest) else math.copysign(math.inf, value) for value in found]


def widen_certain(interval: Interval, n_clusters: int) -> Interval:
    """Return a share's interval, or, of 0 or 1 in every resample, the exact binomial one of so many clusters.

    A bootstrap of values that are all alike has no width, and says nothing of what was not drawn.
    """
    if interval.value not in (0, 1) or interval.low != interval.high:
        return interval
    exact = stats.binomtest(int(interval.value * n_clusters), n_clusters).proportion_ci(CONFIDENCE_LEVEL)
    return Interval(interval.value, float(exact.low), float(exact.high))


def open_ends(ratio: Interval, *, above: bool, below: bool) -> Interval:
    """Return a ratio's interval with an end open where what is above or below the line may be more than is known."""
    return Interval(ratio.value, 0.0 if below else ratio.low, np.inf if above else ratio.high)


def weighted_mean(values, where=None) -> Callable[[np.ndarray], np.ndarray]:
    """Return the bootstrap statistic that averages ``values`` (point,), or those of them that ``where`` selects."""
    where = np.ones(len(values)) if where is None else np.asarray(where, dtype=float)
    values = np.where(where > 0, np.asarray(values, dtype=float), 0)

    def mean(weights):
        with np.errstate(invalid="ignore", divide="ignore"):
            return weights @ values / (weights @ where)

    return mean


def weighted_ratio(above, below) -> Callable[[np.ndarray], np.ndarray]:
    """Return the bootstrap statistic sum of ``above`` (point,) over sum of ``below``; undefined over 0."""
    above, below = np.asarray(above, dtype=float), np.asarray(below, dtype=float)

    def ratio(weights):
        under = weights @ below
        return np.divide(weights @ above, under, out=np.full(under.shape, np.nan), where=under != 0)

    return ratio


def weighted_slope(x, y, stratum=None) -> Callable[[np.ndarray], np.ndarray]:
    """Return the bootstrap statistic that fits the least-squares slope of y on x.

    With ``stratum`` (point,) each stratum has an intercept of its own, so only differences within a stratum count.
    """
    x, y = _pairs(x, y)
    x, y = x - x.mean(), y - y.mean()  # the slope does not move; the sums below lose fewer digits
    stratum = np.zeros(len(x)) if stratum is None else np.asarray(stratum)
    members = [stratum == name for name in np.unique(stratum)]

    def slope(weights):
        covariance = variance = 0.0
        for inside in members:
            w, u, v = weights[:, inside], x[inside], y[inside]
            total = np.maximum(w.sum(axis=1), 1)  # an absent stratum adds nothing
            covariance = covariance + w @ (u * v) - (w @ u) * (w @ v) / total
            variance = variance + w @ u**2 - (w @ u) ** 2 / total
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(variance > 0, covariance / variance, np.nan)

    return slope


def weighted_auc(label, score, stratum=None) -> Callable[[np.ndarray], np.ndarray]:
    """Return the bootstrap statistic AUC: how often a true ``label`` outscores a false one, ties counting one half.

    With ``stratum`` (point,) only pairs within one stratum count, pooled over strata. No such pair gives NaN.
    """
    label, score = np.asarray(label, dtype=bool), np.asarray(score, dtype=float)
    if label.shape != score.shape or label.ndim != 1 or not np.isfinite(score).all():
        raise InputError("an AUC needs one label and one finite score per point")
    stratum = np.zeros(len(label)) if stratum is None else np.asarray(stratum)
    blocks = []
    for name in np.unique(stratum):
        positive, negative = np.flatnonzero(label & (stratum == name)), np.flatnonzero(~label & (stratum == name))
        difference = score[positive][:, None] - score[negative][None, :]
        blocks.append((positive, negative, (difference > 0) + 0.5 * (difference == 0)))

    def auc(weights):
        won = sum(np.einsum("rp,rp->r", weights[:, p] @ wins, weights[:, n]) for p, n, wins in blocks)
        pairs = sum(weights[:, p].sum(axis=1) * weights[:, n].sum(axis=1) for p, n, _ in blocks)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(pairs > 0, won / pairs, np.nan)

    return auc
