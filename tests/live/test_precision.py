"""A warning where a lower precision is slower than fp32; the times are given, since they are the machine's."""

import warnings

import pytest
from tiny import save_tiny_model

from paper_lib.live import precision
from paper_lib.live.load import load_lm


def give_times(monkeypatch, **seconds):
    monkeypatch.setattr(precision, "_time_product", seconds.__getitem__)


@pytest.mark.parametrize("options", [{"autocast": "bfloat16"}, {"dtype": "bfloat16"}])
def test_products_that_are_emulated_are_said_to_be(tmp_path, monkeypatch, options):
    give_times(monkeypatch, float32=0.002, bfloat16=0.015)
    with pytest.warns(UserWarning, match="bfloat16 take 7.5 times as long on this processor as in float32; leave out"):
        load_lm(save_tiny_model(tmp_path / "model"), **options)


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({"autocast": "bfloat16"}, {"float32": 0.002, "bfloat16": 0.001}),
        ({"autocast": "bfloat16"}, {"float32": 0.002, "bfloat16": 0.0025}),  # no more than times vary by
        ({}, {}),  # nothing is timed where nothing is lower
        ({"dtype": "float64"}, {}),
    ],
)
def test_nothing_is_said_of_what_pays_or_was_not_asked_for(tmp_path, monkeypatch, options, seconds):
    give_times(monkeypatch, **seconds)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_lm(save_tiny_model(tmp_path / "model"), **options)


def test_the_product_is_timed():
    assert precision._time_product("float32") > 0


def test_a_gpu_is_not_timed(monkeypatch):
    give_times(monkeypatch)
    precision.warn_if_slow("bfloat16", "cuda")
