"""Comparison at equal x: ratios that were put in, and weights that count like repetition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paper_lib import matching

STATISTICS = [matching.weighted_fitted_ratio, matching.weighted_neighbour_ratio]


def make(ratio, n_books=120, n_words=40):
    x = np.concatenate([np.linspace(100, 1000, n_books), np.linspace(500, 1000, n_words)])
    words = np.arange(len(x)) >= n_books
    return x, (20 + x / 20 + (x / 500) ** 2) * np.where(words, ratio, 1), words


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("ratio", [0.7, 1.0, 1.4])
def test_the_ratio_is_that_at_equal_x(statistic, ratio):
    x, gain, words = make(ratio)
    found = statistic(x, gain, words)(np.ones((1, len(x))))[0]
    assert found == pytest.approx(ratio, rel=0.02)
    assert gain[words].mean() / gain[~words].mean() > 1.2 * ratio  # what pooling would say


@pytest.mark.parametrize("statistic", STATISTICS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_weight_counts_its_point_that_often(statistic, seed):
    rng = np.random.default_rng(seed)
    x, gain, words = make(1.2)
    gain = gain + rng.normal(0, 1, len(x))
    weights = rng.integers(0, 4, len(x)).astype(float)
    again = np.repeat(np.arange(len(x)), weights.astype(int))
    ones = np.ones((1, len(again)))
    shift = (x - x.mean()) / x.std()  # the same scale of x for both fits
    whole = statistic(shift, gain, words)(weights[None])[0]
    assert whole == pytest.approx(statistic(shift[again], gain[again], words[again])(ones)[0], rel=1e-6)


def test_only_failed_points_beyond_every_solved_one_where_both_kinds_are():
    x = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])
    solved = np.array([1, 0, 1, 0, 0, 0, 0, 0], bool)
    words = np.array([0, 0, 0, 0, 1, 0, 1, 0], bool)
    assert matching.find_support(x, solved, words).tolist() == [False] * 4 + [True] * 3 + [False]


def test_one_kind_alone_has_no_support():
    assert not matching.find_support([1.0, 2], [False, False], [True, True]).any()
