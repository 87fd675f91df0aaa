"""Verdicts: an interval against a margin; each can come out three ways."""

import math

import numpy as np
import pandas as pd
import pytest

from paper_lib import verdicts
from paper_lib.errors import InputError
from paper_lib.stats import Interval
from paper_lib.verdicts import CONTRADICTED, SUPPORTED, UNDECIDED


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.96, 1.04, SUPPORTED), (0.95, 1.05, SUPPORTED), (1.06, 1.3, CONTRADICTED), (0.1, 0.94, CONTRADICTED),
        (0.9, 1.0, UNDECIDED), (0.5, 2.0, UNDECIDED), (math.nan, math.nan, UNDECIDED),
    ],
)  # fmt: skip
def test_an_interval_lies_within_the_margin_outside_it_or_neither(low, high, verdict):
    assert verdicts.decide(low, high, (0.95, 1.05)) == verdict


def resampled(mean, spread, n=2000):
    draws = mean + spread * np.random.default_rng(0).standard_normal(n)
    return Interval(mean, float(np.percentile(draws, 2.5)), float(np.percentile(draws, 97.5)), draws)


def test_an_imprecise_number_is_never_support():
    precise, vague = resampled(1, 0.01), resampled(1, 0.2)
    assert verdicts.decide_together([precise, vague], (0.95, 1.05)) == [SUPPORTED, UNDECIDED]
    assert verdicts.decide_together([Interval(1.0)], (0.95, 1.05)) == [UNDECIDED]


def test_many_chances_make_each_harder():
    just = resampled(1.5, 0.2)  # its 95 % interval just clears the margin
    assert verdicts.decide(just.low, just.high, (0.9, 1.08)) == CONTRADICTED
    assert verdicts.decide_together([just], (0.9, 1.08)) == [CONTRADICTED]
    assert verdicts.decide_together([just] + [resampled(1, 0.2)] * 13, (0.9, 1.08))[0] == UNDECIDED


def test_holm_is_that_of_the_textbook():
    # Holm (1979): of .01, .04, .03 and .005 the ordered products are .02, .03, .06 and .06 (raised to the one before)
    assert verdicts.adjust([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_a_claim_about_most_models_counts_what_is_decided():
    def judged(supported, contradicted, undecided):
        each = [SUPPORTED] * supported + [CONTRADICTED] * contradicted + [UNDECIDED] * undecided
        return verdicts.claim_of_most("x", each, [f"m{i}" for i in range(len(each))])

    assert judged(8, 0, 6)["verdict"] == SUPPORTED
    assert judged(0, 7, 7)["verdict"] == CONTRADICTED
    assert judged(7, 6, 1)["verdict"] == UNDECIDED
    row = judged(1, 1, 1)
    assert (row["estimate"], row["low"], row["high"], row["margin"]) == (1, 1, 2, "2 to 3")
    assert row["detail"] == "supported: m0; contradicted: m1; undecided: m2"


def test_a_comparison_is_supported_within_the_tolerance_only():
    assert verdicts.compare("x", 1.0, 1.04, tolerance=0.05)["verdict"] == SUPPORTED
    assert verdicts.compare("x", 1.0, 1.06, tolerance=0.05)["verdict"] == CONTRADICTED
    assert verdicts.compare("x", 1.0, math.nan, tolerance=0.05)["verdict"] == CONTRADICTED


def test_rounding_noise_is_no_difference():
    assert verdicts.compare("x", [1.0], [1.0 + 1.3e-8], tolerance=1e-5)["estimate"] == 0


def test_a_comparison_of_lists_names_what_differs():
    row = verdicts.compare("x", [1, 2, 3], [1, 2.5, 3], tolerance=0.1, names=["a", "b", "c"])
    assert (row["verdict"], row["detail"]) == (CONTRADICTED, "1 of 3 differ: b")
    assert (row["estimate"], row["low"], row["high"]) == (0.5, 0, 0.5)


def test_a_comparison_needs_pairs():
    with pytest.raises(InputError, match="pair them"):
        verdicts.compare("x", [1, 2], [1], tolerance=1)
    with pytest.raises(InputError, match="pair them"):
        verdicts.compare("x", [], [], tolerance=1)


@pytest.mark.parametrize(
    ("margin", "text"),
    [((0.9, 1.1), "0.9 to 1.1"), ((-10, 10), "± 10"), ((100, math.inf), "at least 100"), ((-math.inf, 3), "at most 3")],
)
def test_margins_are_printed(margin, text):
    assert verdicts.format_margin(margin) == text


def test_a_saved_verdict_has_its_margin_and_interval(tmp_path):
    rows = [verdicts.compare("x", 1, 2, tolerance=0.1), verdicts.claim("y", Interval(1.0, 0.9, 1.1), (0.8, 1.2))]
    verdicts.save_verdict(rows, "table_verdict", tmp_path)
    saved = pd.read_csv(tmp_path / "table_verdict.csv")
    assert saved["verdict"].tolist() == [CONTRADICTED, SUPPORTED]
    assert saved[["margin", "low", "high"]].notna().all(axis=None)
