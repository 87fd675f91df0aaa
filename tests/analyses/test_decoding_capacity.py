"""Capacities and gains of notebook 01, and how well the grid and the spread pin them down."""

import math

import pandas as pd
import pytest

from paper_lib import published
from paper_lib.analyses import decoding_capacity


def test_a_cell_marks_what_is_copied_from_print():
    row = {"decoding_capacity_tokens": 80, "token_gain_mean": 70.892, "token_gain_std": 11.0, "name": "B"}
    row |= {"source": "pg19", "info_gain_nats_mean": 396.44, "info_gain_nats_std": 46.0}
    row |= {"capacity_how": "printed", "info_gain_how": "recomputed"}
    models = pd.DataFrame({"name": ["A", "B"], "model": ["a", "b"]})
    wide = decoding_capacity.arrange_cells(pd.DataFrame([row]), models)
    assert list(wide.columns) == ["model", "PG-19", "Fanfics", "Random words"]
    assert list(wide["model"]) == ["A", "B"]
    assert wide["PG-19"][1] == "80† / 70.9 ± 11.0† / 396.4 ± 46.0"
    assert wide["Fanfics"].isna().all()


def test_accuracy_curves_have_the_standard_error_of_fifty_texts(models):
    curves = decoding_capacity.compute_accuracy_curves(published.load_length_means(), models)
    assert "OPT-1.3B" not in set(curves["name"])  # a single length is no curve
    row = curves.query("name == 'Pythia-160M' and length == 80").iloc[0]
    assert (row["low"], row["high"]) == pytest.approx((0.9934 - 1.96 * 0.0264 / math.sqrt(50), 1.0))
    assert math.isnan(curves.query("name == 'Pythia-160M' and length == 8")["low"].item())


def test_a_changed_capacity_or_gain_is_contradicted_and_named(points, models):
    printed = published.load_capacities()
    capacity = published.compute_capacity_table(points, printed, published.load_length_means(), models)
    rows = decoding_capacity.judge(printed, capacity, models)
    assert len(rows) == 8
    assert {row["verdict"] for row in rows} == {"supported"}
    printed.loc[(printed["model"] == "facebook/opt-1.3b") & (printed["source"] == "pg19"), "info_gain_nats_mean"] += 1
    (bad,) = (row for row in decoding_capacity.judge(printed, capacity, models) if row["verdict"] != "supported")
    assert bad["detail"] == "1 of 10 differ: OPT-1.3B"
