"""Rounding to few bits, against the definition in plain Python and against itself in torch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from paper_lib.errors import InputError
from paper_lib.storage import SCALES, STORAGES, Levels, find_storage, unpack

numbers = st.floats(-1000, 1000, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)
vectors = arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 9)), elements=numbers)
few_bits = st.integers(2, 8)


def error_of_best_levels(vector, bits):
    """Try every step, and for each number every level."""
    levels = np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1)) + 0.5
    return min(sum(min((x - level * step) ** 2 for level in levels) for x in vector.tolist()) for step in SCALES)


@given(vectors, st.integers(2, 4))
def test_the_step_is_that_of_least_error(array, bits):
    rounded = Levels(bits).round(array).astype(float)
    for vector, there in zip(array, rounded, strict=True):
        assert ((there - vector) ** 2).sum() == pytest.approx(error_of_best_levels(vector, bits), rel=1e-3, abs=1e-9)


@given(vectors, few_bits)
def test_rounding_twice_is_rounding_once(array, bits):
    once = Levels(bits).round(array)
    assert np.array_equal(Levels(bits).round(once), once)


@given(vectors, few_bits)
def test_torch_rounds_as_numpy_does(array, bits):
    rounded = Levels(bits).round(array)
    assert np.array_equal(Levels(bits).round(torch.from_numpy(array)).numpy(), rounded)
    assert np.array_equal(Levels(bits).round(torch.from_numpy(rounded).double()).numpy(), rounded)  # nothing is cut off


@given(vectors, few_bits)
def test_what_is_packed_comes_back_bit_for_bit_and_is_as_small_as_it_says(array, bits):
    storage = Levels(bits)
    rounded = storage.round(array)
    packed = storage.pack(rounded)
    assert packed.dtype == np.int8
    assert np.array_equal(unpack(packed), rounded)
    levels = packed[..., 1:]
    assert levels.min() >= -(2 ** (bits - 1))
    assert levels.max() < 2 ** (bits - 1)
    assert storage.n_bits(array.shape[-1]) == bits * array.shape[-1] + 7


@pytest.mark.parametrize(("name", "n_bits"), [("float16", 64), ("float32", 128), ("levels(bits=3)", 19)])
def test_bits_of_four_numbers(name, n_bits):
    assert find_storage(name).n_bits(4) == n_bits


def test_floats_are_rounded_to_their_precision():
    array = np.array([[1 / 3, 1000.1]])
    for name, kind in (("float16", np.float16), ("float32", np.float32)):
        there = array.astype(kind).astype(float)
        assert np.array_equal(STORAGES[name].round(torch.from_numpy(array)).numpy(), there)


@pytest.mark.parametrize("name", ["float64", "levels(bits=9)", "float16(bits=8)"])
def test_other_storages_are_refused_in_one_line(name):
    with pytest.raises(InputError) as error:
        find_storage(name)
    assert "\n" not in str(error.value)
