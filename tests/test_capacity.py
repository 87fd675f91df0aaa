"""The mathematics against closed forms, a brute-force search and numbers worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paper_lib import capacity
from paper_lib.errors import InputError


def test_nats_to_bits_of_known_distributions():
    assert capacity.nats_to_bits(math.log(2)) == 1
    assert capacity.nats_to_bits(4865.654558) == pytest.approx(7019.66, abs=0.005)  # the 8B model's gain
    np.testing.assert_allclose(capacity.nats_to_bits([math.log(8), 0]), [3, 0])


@given(d_model=st.integers(1, 10_000), exponent=st.integers(1, 20))
def test_theoretical_capacity_counts_bits(d_model, exponent):
    # With 2^k tokens each token is worth exactly k bits.
    assert capacity.theoretical_capacity_tokens(d_model, 2**exponent) == pytest.approx(16 * d_model / exponent)


def test_a_vector_filled_to_the_brim_has_utilisation_one():
    assert capacity.utilisation_tokens(capacity.theoretical_capacity_tokens(768, 50304), 768, 50304) == 1
    assert capacity.utilisation_bits(16 * 768 * math.log(2), 768) == pytest.approx(1)


@pytest.mark.parametrize(("d_model", "vocab_size", "bits"), [(0, 50304, 16), (768, 1, 16), (768, 50304, 0)])
def test_theoretical_capacity_refuses_nonsense(d_model, vocab_size, bits):
    with pytest.raises(InputError, match="need d_model"):
        capacity.theoretical_capacity_tokens(d_model, vocab_size, bits)


def test_utilisation_in_bits_refuses_nonsense():
    with pytest.raises(InputError, match="need d_model"):
        capacity.utilisation_bits(1.0, 0)


@given(ce=st.floats(0, 1e5), length=st.integers(2, 5000))
def test_paper_cross_entropy_overstates_by_one_token(ce, length):
    assert capacity.paper_cross_entropy(ce, length - 1, length) == pytest.approx(ce * length / (length - 1))


@pytest.mark.parametrize(("n_targets", "length"), [(0, 1), (5, 4)])
def test_paper_cross_entropy_refuses_impossible_counts(n_targets, length):
    with pytest.raises(InputError, match="n_targets"):
        capacity.paper_cross_entropy(1.0, n_targets, length)


grids = st.lists(st.integers(1, 4096), min_size=1, max_size=12, unique=True)


@given(lengths=grids, data=st.data())
def test_decoding_capacity_is_the_largest_passing_length(lengths, data):
    accuracies = [data.draw(st.sampled_from([0.5, 0.98, 0.99, 1.0])) for _ in lengths]
    passing = [length for length, accuracy in zip(lengths, accuracies, strict=True) if accuracy >= 0.99]
    assert capacity.decoding_capacity(lengths, accuracies) == max(passing, default=0)


def test_decoding_capacity_need_not_be_monotone():
    # Llama-3.2-1B in the published data: fails at 64, passes at 512.
    assert capacity.decoding_capacity([64, 128, 512, 768], [0.984, 0.995, 0.998, 0.962]) == 512


def test_an_unknown_accuracy_decides_nothing_unless_a_longer_length_passes():
    assert math.isnan(capacity.decoding_capacity([64, 128, 256], [1.0, math.nan, 0.5]))
    assert capacity.decoding_capacity([64, 128, 256], [math.nan, math.nan, 0.99]) == 256


@pytest.mark.parametrize(
    ("lengths", "accuracies", "threshold"),
    [
        ([], [], 0.99),
        ([8], [1.0, 1.0], 0.99),
        ([8, 8], [1, 1], 0.99),
        ([0], [1], 0.99),
        ([8], [1.2], 0.99),
        ([8], [1], 2),
    ],
)
def test_decoding_capacity_refuses_nonsense(lengths, accuracies, threshold):
    with pytest.raises(InputError):
        capacity.decoding_capacity(lengths, accuracies, threshold)


@pytest.fixture
def six_cases(make_cases):
    """Two texts at three lengths: both exact at 8, one exact at 16, none at 32."""
    return make_cases(
        text_id=["a", "b"] * 3,
        length=[8, 8, 16, 16, 32, 32],
        n_targets=[7, 7, 15, 15, 31, 31],
        solved=[True, True, True, True, False, False],
        exact=[True, True, True, False, False, False],
        tf_accuracy=[1.0, 1.0, 1.0, 0.99, 0.8, 0.6],
        n_correct_lm=[2, 1, 4, 3, 8, 6],
        n_correct_mem=[7, 7, 15, 14, 25, 18],
        ce_lm_nats=[20.0, 22, 40, 44, 80, 90],
        ce_mem_nats=[1.0, 1, 2, 5, 40, 55],
        ce_mem_min_nats=[0.5, 0.5, 1, 4, 38, 54],
        paper_ce_lm_nats=[23.0, 25, 43, 47, 83, 93],
        paper_ce_mem_nats=[1.0, 1, 2, 6, 41, 56],
        text_bytes=[30, 32, 60, 64, 120, 130],
    )


def test_paper_convention_pools_cases_up_to_99_percent_over_all_lengths(six_cases):
    row = capacity.compute_gains(six_cases, convention="paper").iloc[0]
    gains = np.array([47 - 6, 83 - 41, 93 - 56])  # .99 itself belongs to them
    assert row["info_gain_nats_mean"] == pytest.approx(gains.mean())
    assert row["info_gain_nats_std"] == pytest.approx(gains.std(ddof=1))
    tokens = [(0.99 - 3 / 15) * 16, (0.8 - 8 / 31) * 32, (0.6 - 6 / 31) * 32]
    assert row["token_gain_mean"] == pytest.approx(np.mean(tokens))
    assert row["token_gain_std"] == pytest.approx(np.std(tokens, ddof=1))
    assert (row["n_cases"], row["n_texts"]) == (3, 2)


def test_exact_convention_takes_true_sums_at_the_first_length_without_an_exact_text(six_cases):
    row = capacity.compute_gains(six_cases, convention="exact").iloc[0]
    assert row["gain_length_tokens"] == 32
    assert row["info_gain_nats_mean"] == pytest.approx(np.mean([80 - 40, 90 - 55]))
    assert row["token_gain_mean"] == pytest.approx(np.mean([25 - 8, 18 - 6]))


def test_sums_convention_takes_the_first_length_without_a_solved_text_and_minimum_sums(six_cases):
    row = capacity.compute_gains(six_cases, convention="sums").iloc[0]
    assert row["gain_length_tokens"] == 32
    assert row["info_gain_nats_mean"] == pytest.approx(np.mean([80 - 38, 90 - 54]))


def test_exact_and_sums_look_at_different_successes(six_cases):
    six_cases["exact"] = six_cases["exact"] & (six_cases["length"] == 8)  # still solved at 16, no longer exact
    gains = {c: capacity.compute_gains(six_cases, convention=c).iloc[0] for c in ("exact", "sums")}
    assert (gains["exact"]["gain_length_tokens"], gains["sums"]["gain_length_tokens"]) == (16, 32)
    assert gains["exact"]["info_gain_nats_mean"] == pytest.approx(np.mean([40 - 2, 44 - 5]))


def test_exact_gains_of_untested_cases_are_null(points):
    gains = capacity.compute_gains(points[points["source"] == "pg19"], convention="exact")
    assert gains["info_gain_nats_mean"].isna().all()
    assert (gains["n_cases"] == 0).all()


def test_gains_are_null_where_the_convention_is_undefined(six_cases):
    short = six_cases[six_cases["length"] == 8]
    for convention in capacity.CONVENTIONS:
        row = capacity.compute_gains(short, convention=convention).iloc[0]
        assert row["n_cases"] == 0
        assert math.isnan(row["info_gain_nats_mean"])


def test_exact_capacity_averages_each_texts_longest_exact_length(six_cases):
    row = capacity.compute_exact_capacity(six_cases).iloc[0]
    assert row["exact_tokens_mean"] == (16 + 8) / 2
    assert row["exact_bytes_mean"] == (60 + 32) / 2
    none = capacity.compute_exact_capacity(six_cases.assign(exact=False)).iloc[0]
    assert none["exact_tokens_mean"] == 0


def test_exact_capacity_of_untested_cases_is_null(points):
    capacities = capacity.compute_exact_capacity(points)
    assert capacities[["exact_tokens_mean", "exact_bytes_mean"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("ce_lm_nats", -1.0, "negative"),
        ("paper_ce_mem_nats", math.inf, "infinite"),
        ("tf_accuracy", 1.5, "between 0 and 1"),
        ("solved", None, "true or false"),
    ],
)
def test_impossible_cases_are_refused(six_cases, column, value, says):
    six_cases[column] = value
    with pytest.raises(InputError, match=says):
        capacity.compute_gains(six_cases, convention="paper")


def test_unknown_convention_and_missing_column_are_named(six_cases):
    with pytest.raises(InputError, match="unknown convention 'mean'; choose from: paper, exact, sums"):
        capacity.compute_gains(six_cases, convention="mean")
    with pytest.raises(InputError, match="missing column solved"):
        capacity.compute_gains(six_cases.drop(columns="solved"), convention="paper")
