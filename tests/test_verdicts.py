"""Verdicts: they can disagree, and say whose number it is that does."""

import math

import pandas as pd
import pytest

from paper_lib import verdicts
from paper_lib.errors import InputError


def test_verdict_agrees_within_the_tolerance_only():
    assert verdicts.compare("x", 1.0, 1.04, tolerance=0.05)["verdict"] == "agree"
    assert verdicts.compare("x", 1.0, 1.06, tolerance=0.05)["verdict"] == "disagree"
    assert verdicts.compare("x", 1.0, math.nan, tolerance=0.05)["verdict"] == "disagree"


def test_rounding_noise_is_no_difference():
    assert verdicts.compare("x", [1.0], [1.0 + 1.3e-8], tolerance=1e-5)["largest difference"] == 0


def test_verdict_on_lists_says_whose_number_disagrees():
    row = verdicts.compare("x", [1, 2, 3], [1, 2.5, 3], tolerance=0.1, names=["a", "b", "c"])
    assert row["verdict"] == "disagree (1 of 3: b)"
    assert row["largest difference"] == 0.5


def test_verdict_needs_pairs():
    with pytest.raises(InputError, match="pair them"):
        verdicts.compare("x", [1, 2], [1], tolerance=1)
    with pytest.raises(InputError, match="pair them"):
        verdicts.compare("x", [], [], tolerance=1)


def test_saved_verdict_shows_disagreement(tmp_path):
    rows = [verdicts.compare("x", 1, 2, tolerance=0.1), verdicts.claim("all is well", False, "it is not")]
    shown = verdicts.save_verdict(rows, "table_verdict", tmp_path).data
    assert shown.count("disagree") == 2
    assert pd.read_csv(tmp_path / "table_verdict.csv")["verdict"].tolist() == ["disagree", "disagree"]


def test_an_interval_holds_its_ends_and_a_missing_one_holds_nothing():
    frame = pd.DataFrame({"x_low": [0.9, 1.0, 1.1, math.nan], "x_high": [1.0, 1.2, 1.2, math.nan]})
    assert verdicts.contains(frame, "x", 1).tolist() == [True, True, False, False]
