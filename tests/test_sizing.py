"""The chance that a text fits: known curves are found again, by an independent fit too, and chances are honest."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from paper_lib import sizing
from paper_lib.errors import InputError

KNEES, SPREAD = {"small": 30.0, "large": 400.0}, 0.12
NONE = {"n_resamples": 0, "seed": 0}


def draw(n_texts=400, seed=0, knees=KNEES):
    generate, rows = np.random.default_rng(seed), []
    for model, knee in knees.items():
        for text in range(n_texts):
            nats = knee * math.exp(generate.normal(0, 0.4))
            chance = 1 / (1 + (nats / knee) ** (1 / SPREAD))
            rows.append((model, f"text {text}", nats, round(nats / 3), generate.random() < chance))
    frame = pd.DataFrame(rows, columns=["model", "text_id", "ce_lm_nats", "length", "fits"])
    return frame.assign(origin="measured", n_mem=1, cluster_id=frame["text_id"])


@pytest.fixture(scope="module")
def cases():
    return draw()


def test_knees_and_spread_are_found_again(cases):
    found = sizing.fit_sizing(cases)
    assert found.knees == pytest.approx(KNEES, rel=0.05)
    assert found.spread == pytest.approx(SPREAD, rel=0.15)


def test_the_fit_is_the_most_likely_one_without_slopes_too(cases):
    x, fits = np.log(cases["ce_lm_nats"]), cases["fits"].to_numpy(float)

    def loss(numbers):
        knee = np.where(cases["model"] == "large", numbers[0], numbers[1])
        chance = np.clip(1 / (1 + np.exp((x - knee) / numbers[2])), 1e-12, 1 - 1e-12)
        return -(fits * np.log(chance) + (1 - fits) * np.log(1 - chance)).sum()

    fine = {"xatol": 1e-8, "fatol": 1e-10, "maxiter": 5000}
    theirs = minimize(loss, [6, 3.4, 0.2], method="Nelder-Mead", options=fine)
    found = sizing.fit_sizing(cases)
    ours = [math.log(found.knees["large"]), math.log(found.knees["small"]), found.spread]
    assert ours == pytest.approx(theirs.x, abs=1e-4)


@settings(max_examples=50, deadline=None)
@given(size=st.floats(1, 1e4), n_mem=st.integers(1, 64))
def test_chances_fall_with_the_size_and_rise_with_vectors(size, n_mem):
    curve = sizing.Sizing(KNEES, SPREAD)
    chance = curve.chance(size, "small", n_mem)
    assert 0 <= chance <= 1
    assert curve.chance(1.1 * size, "small", n_mem) <= chance <= curve.chance(size, "small", n_mem + 1)
    assert curve.chance(30.0 * n_mem, "small", n_mem) == pytest.approx(0.5)
    needed = curve.count_vectors(size, "small")
    assert curve.chance(size, "small", needed) >= sizing.SURE - 1e-6
    assert needed == 1 or curve.chance(size, "small", needed - 1) < sizing.SURE


def test_knees_rise_with_vectors_as_they_did_where_several_were_tried(cases):
    eight = draw(seed=3, knees={model: knee * 8**0.7 for model, knee in KNEES.items()}).assign(n_mem=8)
    found = sizing.fit_sizing(pd.concat([cases, eight]))
    assert found.growth == pytest.approx(0.7, abs=0.03)
    assert found.knees == pytest.approx(KNEES, rel=0.05)
    assert sizing.fit_sizing(cases).growth == 1
    needed = found.count_vectors(300.0, "small")
    assert found.chance(300.0, "small", needed) >= sizing.SURE > found.chance(300.0, "small", needed - 1)


def test_outcomes_that_a_size_does_not_order_leave_the_fit_within_its_bounds():
    apart = pd.DataFrame({"model": "m", "n_mem": 1, "ce_lm_nats": [10.0, 20.0], "fits": [True, False]})
    assert sizing.SPREADS[0] <= sizing.fit_sizing(apart).spread < 0.03
    assert sizing.fit_sizing(apart.assign(fits=[False, True])).spread == pytest.approx(sizing.SPREADS[1])


def test_held_out_chances_are_as_often_right_as_they_say(cases):
    predicted = sizing.predict_held_out(cases, seed=1)
    assert len(predicted) == len(cases) / 2
    assert predicted["text_id"].nunique() == 200
    table = sizing.compute_reliability(predicted, n_resamples=200, seed=0)
    assert table["n_cases"].sum() == len(predicted)
    inside = table["chance"].between(table["share_low"] - 0.02, table["share_high"] + 0.02)
    assert inside.mean() > 0.7
    scores = sizing.compute_brier(predicted, **NONE).set_index("predicted from")["brier"]
    assert scores["tokens - nats"] == pytest.approx(scores["tokens"] - scores["nats"])
    assert scores["nats"] < 0.15


def test_lengths_that_say_nothing_of_nats_predict_worse(cases):
    lengths = cases.groupby("model")["length"].transform(lambda x: x.sample(frac=1, random_state=0).to_numpy())
    shuffled = cases.assign(length=lengths)
    scores = sizing.compute_brier(sizing.predict_held_out(shuffled, seed=1), **NONE).set_index("predicted from")
    assert scores.loc["tokens - nats", "brier"] > 0.05


def test_models_without_a_knee_are_named(cases):
    alike = cases.assign(fits=cases["fits"] | (cases["model"] == "large"))
    assert set(sizing.fit_sizing(alike).knees) == {"small"}
    with pytest.raises(InputError, match="no model has both"):
        sizing.fit_sizing(cases.assign(fits=True))
    with pytest.raises(InputError, match="chance 1: give one between 0 and 1"):
        sizing.Sizing(KNEES, SPREAD).count_vectors(10, "small", 1)
    with pytest.raises(InputError, match="model with a measured capacity.*small"):
        sizing.Sizing(KNEES, SPREAD).chance(10, "smal")
