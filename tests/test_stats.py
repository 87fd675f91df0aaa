"""Fits, AUCs and intervals against scipy, numpy, brute force and normal theory."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from paper_lib import stats
from paper_lib.errors import InputError


def once(statistic, n_points):
    return float(statistic(np.ones((1, n_points)))[0])


def test_unit_slope_recovers_a_constant_gain_exactly():
    x = np.array([100.0, 200, 400])
    fit = stats.fit_unit_slope(x, x - 37)
    assert (fit.b, fit.r2) == (37, 1)


def test_unit_slope_r2_is_negative_when_the_mean_would_do_better():
    assert stats.fit_unit_slope([0.0, 10, 20], [5.0, 5.1, 4.9]).r2 < 0


@pytest.mark.parametrize(
    ("fit", "x", "y"),
    [
        (stats.fit_unit_slope, [1.0], [1.0]),
        (stats.fit_unit_slope, [1.0, math.nan], [1.0, 2.0]),
    ],
)
def test_fits_refuse_nonsense(fit, x, y):
    with pytest.raises(InputError):
        fit(x, y)


def test_a_ratio_is_of_weighted_sums_and_undefined_over_nothing():
    ratio = stats.weighted_ratio([2.0, 4.0], [1.0, 0.0])
    assert ratio(np.array([[1.0, 1.0], [2.0, 1.0]])).tolist() == [6, 4]
    assert math.isnan(ratio(np.array([[0.0, 1.0]]))[0])


labelled = st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 2)), min_size=2, max_size=30)


@given(labelled)
def test_auc_is_the_mann_whitney_share(rows):
    label, score, _ = map(np.array, zip(*rows, strict=True))
    auc = once(stats.weighted_auc(label, score), len(rows))
    if label.all() or not label.any():
        assert math.isnan(auc)
    else:
        u = mannwhitneyu(score[label], score[~label]).statistic
        assert auc == pytest.approx(u / (label.sum() * (~label).sum()))


@given(labelled)
def test_auc_within_strata_pools_their_pairs(rows):
    wins = [
        (score > other) + 0.5 * (score == other)
        for label, score, stratum in rows
        for other_label, other, other_stratum in rows
        if label and not other_label and stratum == other_stratum
    ]
    label, score, stratum = map(np.array, zip(*rows, strict=True))
    auc = once(stats.weighted_auc(label, score, stratum), len(rows))
    assert auc == pytest.approx(np.mean(wins)) if wins else math.isnan(auc)


@settings(max_examples=30)
@given(labelled, st.integers(0, 2**32 - 1))
def test_a_weight_counts_its_point_that_often(rows, seed):
    label, score, stratum = map(np.array, zip(*rows, strict=True))
    weights = np.random.default_rng(seed).integers(0, 4, len(rows))
    repeated = np.repeat(np.arange(len(rows)), weights)
    if not len(repeated):
        return
    weighted = stats.weighted_auc(label, score, stratum)(weights[None].astype(float))[0]
    plain = once(stats.weighted_auc(label[repeated], score[repeated], stratum[repeated]), len(repeated))
    np.testing.assert_allclose(weighted, plain)


def test_weighted_slope_counts_points_like_repetition():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 20))
    weights = rng.integers(0, 4, 20)
    slope = stats.weighted_slope(x, y)(weights[None].astype(float))[0]
    assert slope == pytest.approx(np.polyfit(np.repeat(x, weights), np.repeat(y, weights), 1)[0])


def test_slope_within_strata_is_that_of_a_regression_with_an_intercept_each():
    rng = np.random.default_rng(6)
    stratum = np.repeat([0, 1, 2], 10)
    x = rng.normal(size=30) + 5 * stratum
    y = 0.7 * x - 20 * stratum + rng.normal(size=30)
    design = np.column_stack([x, *(stratum == s for s in range(3))])
    expected = np.linalg.lstsq(design, y, rcond=None)[0][0]
    assert once(stats.weighted_slope(x, y, stratum), 30) == pytest.approx(expected)
    weights = rng.integers(0, 3, 30) * (stratum != 1)  # a resample may miss a stratum
    repeated = np.repeat(np.arange(30), weights)
    expected = np.linalg.lstsq(design[repeated], y[repeated], rcond=None)[0][0]
    assert stats.weighted_slope(x, y, stratum)(weights[None].astype(float))[0] == pytest.approx(expected)


@pytest.mark.parametrize("wrong", [{"n_resamples": -1, "seed": 0}, {"n_resamples": 5, "seed": -1}])
def test_bootstrap_refuses_negative_settings(wrong):
    with pytest.raises(InputError, match="both must be 0 or more"):
        stats.bootstrap_clusters([0, 1], stats.weighted_mean([0, 1]), **wrong)


def test_bootstrap_of_a_mean_agrees_with_normal_theory():
    values = np.random.default_rng(2).normal(10, 3, 400)
    interval = stats.bootstrap_clusters(np.arange(400), stats.weighted_mean(values), n_resamples=4000, seed=0)
    half = 1.96 * values.std() / 20
    assert interval.value == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.06)
    assert (interval.low + interval.high) / 2 == pytest.approx(values.mean(), abs=0.1 * half)


def test_copies_within_a_cluster_do_not_narrow_the_interval():
    values = np.random.default_rng(3).normal(size=60)
    copied = np.repeat(values, 5)
    options = {"n_resamples": 2000, "seed": 0}
    single = stats.bootstrap_clusters(np.arange(60), stats.weighted_mean(values), **options)
    clustered = stats.bootstrap_clusters(np.repeat(np.arange(60), 5), stats.weighted_mean(copied), **options)
    pretended = stats.bootstrap_clusters(np.arange(300), stats.weighted_mean(copied), **options)
    assert (clustered.low, clustered.high) == pytest.approx((single.low, single.high))
    assert pretended.high - pretended.low < 0.6 * (single.high - single.low)


def test_samples_are_resampled_independently_at_their_own_size():
    sample = np.array(["a"] * 30 + ["b"] * 70)
    cluster = np.r_[np.arange(30), np.arange(70)]  # the same names in both samples are different clusters
    seen = []

    def statistic(weights):
        seen.append(weights)
        return weights.sum(axis=1)

    stats.bootstrap_clusters(cluster, statistic, sample=sample, n_resamples=50, seed=0)
    drawn = np.concatenate(seen[1:])
    assert (drawn[:, :30].sum(axis=1) == 30).all()
    assert (drawn[:, 30:].sum(axis=1) == 70).all()
    assert (drawn[:, :30] != drawn[:, 30:60]).any()


@pytest.mark.parametrize(("share", "high"), [(0.01, 1.0), (0.5, math.inf)])
def test_infinite_resamples_are_the_largest_and_open_the_interval(share, high):
    drawn = np.random.default_rng(1)
    # The estimate is asked for one row at a time, resamples many at a time.
    found = stats.bootstrap_clusters(
        np.arange(5),
        lambda weights: np.where((len(weights) > 1) & (drawn.random(len(weights)) < share), math.inf, 1.0),
        n_resamples=1000,
        seed=0,
    )
    assert (found.value, found.low, found.high) == (1.0, 1.0, high)
    below = stats.bootstrap_clusters(
        np.arange(5), lambda w: np.where(w[:, 0] > 0, -1.0, -math.inf), n_resamples=500, seed=0
    )
    assert (below.low, below.high) == (-math.inf, -1.0)


def test_bootstrap_is_repeatable_and_can_be_switched_off():
    values = np.random.default_rng(4).normal(size=50)
    runs = [
        stats.bootstrap_clusters(np.arange(50), stats.weighted_mean(values), n_resamples=100, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]
    one_text = stats.bootstrap_clusters(np.zeros(50), stats.weighted_mean(values), n_resamples=100, seed=0)
    assert math.isnan(one_text.low), "one cluster says nothing about the spread between clusters"
    off = stats.bootstrap_clusters(np.arange(50), stats.weighted_mean(values), n_resamples=0, seed=0)
    assert math.isnan(off.low)
    assert off.value == runs[0].value


def test_what_is_certain_in_every_resample_is_as_wide_as_its_clusters_allow():
    none, all_of_them = (stats.widen_certain(stats.Interval(value, value, value), 12) for value in (0.0, 1.0))
    assert (none.low, none.high) == (0, pytest.approx(1 - 0.025 ** (1 / 12)))
    assert (all_of_them.low, all_of_them.high) == (pytest.approx(0.025 ** (1 / 12)), 1)
    assert stats.widen_certain(stats.Interval(0.5, 0.4, 0.6), 12) == stats.Interval(0.5, 0.4, 0.6)


def test_an_end_of_a_ratio_is_open_where_more_may_be_above_or_below():
    ratio = stats.Interval(2.0, 1.5, 2.5)
    assert stats.open_ends(ratio, above=False, below=False) == ratio
    assert stats.open_ends(ratio, above=True, below=False) == stats.Interval(2.0, 1.5, float("inf"))
    assert stats.open_ends(ratio, above=False, below=True) == stats.Interval(2.0, 0.0, 2.5)
