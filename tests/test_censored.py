"""Interval-censored lengths: bins, and a mean between their ends, against scipy's own fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from paper_lib.censored import find_bins, weighted_censored_mean
from paper_lib.stats import bootstrap_clusters


def estimate(lower, upper):
    return float(weighted_censored_mean(lower, upper)(np.ones((1, len(lower))))[0])


def test_a_text_lies_between_its_longest_exact_length_and_the_next():
    lower, upper = find_bins([0, 4, 8, 24], [4, 8, 12, 24])
    assert lower.tolist() == [0, 4, 8, 24]
    assert upper.tolist() == [4, 8, 12, np.inf]


def test_the_estimate_is_scipys_maximum_likelihood():
    true = stats.weibull_min(3, scale=10).rvs(400, random_state=np.random.default_rng(0))
    grid = np.array([4, 8, 12, 24])
    lower, upper = find_bins(np.append(0, grid)[np.searchsorted(grid, true, side="right")], grid)
    data = stats.CensoredData(interval=np.column_stack([lower, upper]))
    shape, _, scale = stats.weibull_min.fit(data, floc=0)
    assert estimate(lower, upper) == pytest.approx(stats.weibull_min(shape, scale=scale).mean(), rel=0.01)
    assert estimate(lower, upper) == pytest.approx(true.mean(), rel=0.05)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([0, 4, 8, 12]), min_size=3, max_size=30).filter(lambda x: len(set(x)) > 1))
def test_the_estimate_lies_between_the_ends_of_the_bins(longest):
    lower, upper = find_bins(longest, [4, 8, 12, 24])
    assert lower.mean() - 0.2 <= estimate(lower, upper) <= upper.mean() + 0.2


def test_a_weight_counts_its_text_that_often():
    lower, upper = find_bins([0, 4, 8, 8], [4, 8, 12])
    weighted = weighted_censored_mean(lower, upper)(np.array([[2.0, 1, 0, 3]]))[0]
    again = [0, 0, 1, 3, 3, 3]
    assert weighted == pytest.approx(estimate(lower[again], upper[again]), rel=0.03)


def test_where_most_texts_lie_beyond_the_longest_length_there_is_no_mean():
    for longest, known in (([12, 12, 4, 8], True), ([12, 12, 12, 4], False)):
        statistic = weighted_censored_mean(*find_bins(longest, [4, 8, 12]))
        assert np.isfinite(statistic(np.array([[1.0, 1, 1, 1], [0, 1, 2, 1]]))).tolist() == [known] * 2


def test_a_resample_whose_mean_may_be_any_has_no_bound():
    lower, upper = find_bins([12, 12, 8, 4], [4, 8, 12])
    drawn = np.array([[2.0, 2.0, 0.0, 0.0], [1.0, 2.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 2.0, 1.0]])
    assert np.isinf(weighted_censored_mean(lower, upper)(drawn)).tolist() == [True, True, False, False]


def test_an_interval_is_open_above_where_enough_resamples_have_no_bound():
    for longest, bounded in (([12] * 7 + [0] * 9, False), ([12] * 7 + [8] * 9, True)):
        statistic = weighted_censored_mean(*find_bins(longest, [4, 8, 12]))
        found = bootstrap_clusters(np.arange(16), statistic, n_resamples=200, seed=0)
        assert np.isfinite(found.value)
        assert np.isfinite(found.low)
        assert np.isfinite(found.high) == bounded
