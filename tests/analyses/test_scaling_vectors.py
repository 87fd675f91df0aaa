"""More vectors against one at equal multiples of capacity: exponents that were put in come out."""

import math

import numpy as np
import pandas as pd
import pytest

from paper_lib import published
from paper_lib.analyses import scaling_vectors

R = {"n_resamples": 300, "seed": 0}


def make_points(make_cases, gain_at):
    """Fifty texts, failed at the lengths of ``gain_at`` (length: gain in nats) and solved below."""
    parts = [
        make_cases(
            model="m", source="pg19", text_id=[f"t{i}" for i in range(50)], length=length, solved=False,
            paper_ce_lm_nats=1000.0, paper_ce_mem_nats=1000.0 - gain + np.linspace(-1, 1, 50),
        )
        for length, gain in gain_at.items()
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def make_scaled(lengths_of_four="40 80"):
    return pd.DataFrame(
        {
            "model": "m", "name": "M", "family": "OPT", "n_mem": [1, 4], "decoding_capacity_tokens": [10, 40],
            "info_gain_nats_mean": [50.0, 80.0], "info_gain_nats_std": 5.0,
            "failed_lengths": ["10 20 80", lengths_of_four],
        }
    )  # fmt: skip


def test_one_vector_is_averaged_over_the_same_multiples_only(make_cases):
    points = make_points(make_cases, {10: 20, 20: 20, 80: 500})
    (row,) = scaling_vectors.compute_matched(make_scaled(), points, **R).to_dict("records")
    assert (row["multiple_low"], row["multiple_high"], row["multiple_one_high"]) == (1, 2, 2)
    assert row["gain_one"] == pytest.approx(20)
    assert row["exponent_matched"] == pytest.approx(1)  # four times 20 nats; pooled it would be far less
    assert row["pooled"] == pytest.approx(math.log(80 / 50) / math.log(4))
    assert row["exponent_matched_low"] < 1 < row["exponent_matched_high"]
    assert not row["at_least"]


def test_without_such_multiples_the_exponent_is_a_lower_bound(make_cases):
    points = make_points(make_cases, {80: 40, 160: 90})
    (row,) = scaling_vectors.compute_matched(make_scaled(), points, **R).to_dict("records")
    assert row["at_least"]
    assert row["gain_one"] == pytest.approx(40)  # the nearest longer ones
    (verdict,) = scaling_vectors.judge(pd.DataFrame([row]))
    assert (verdict["verdict"], verdict["high"]) == ("undecided", math.inf)


@pytest.mark.parametrize(("gain", "verdict"), [(20, "supported"), (40, "contradicted"), (10, "contradicted")])
def test_proportional_is_an_exponent_within_the_margin(make_cases, gain, verdict):
    points = make_points(make_cases, {10: gain, 20: gain})
    table = scaling_vectors.compute_matched(make_scaled(), points, **R)
    assert [row["verdict"] for row in scaling_vectors.judge(table)] == [verdict]


def test_measured_runs_are_paired_by_text(make_cases):
    books = [f"b{i}" for i in range(12)]
    factor = np.linspace(0.5, 1.5, 12)  # of both sides of a text, so it cancels
    parts = [
        make_cases(
            model="m", source="novels", protocol="strict", n_mem=n_mem, text_id=books, length=length,
            solved=exact, exact=exact, ce_lm_nats=1000.0, ce_mem_nats=1000.0 - gain * factor,
        )
        for n_mem, length, exact, gain in ((1, 4, True, 1), (1, 12, False, 10), (4, 8, True, 1), (4, 24, False, 30))
    ]  # fmt: skip
    cases = pd.concat(parts, ignore_index=True).assign(name="M", family="other")
    cases["cluster_id"] = cases["text_id"]
    gain, exact = scaling_vectors.compute_measured(cases, **R).to_dict("records")
    assert gain["exponent_matched"] == pytest.approx(math.log(3) / math.log(4))
    assert gain["exponent_matched_low"] == pytest.approx(gain["exponent_matched_high"])
    assert gain["multiple_one_low"] == 3
    assert not gain["at_least"]
    assert (exact["gain"], exact["gain_one"]) == (8, 4)


def test_runs_that_gained_nothing_or_stand_alone_have_no_exponent(make_cases):
    nothing = [
        make_cases(n_mem=n, length=8, solved=False, exact=False, ce_lm_nats=[9.0], ce_mem_nats=9.0) for n in (1, 4)
    ]
    cases = pd.concat(nothing).assign(name="M", family="other", cluster_id="b")
    assert scaling_vectors.compute_measured(cases, **R).empty
    assert scaling_vectors.compute_measured(cases[cases["n_mem"] == 4], **R).empty


def test_local_exponents_join_up_to_the_whole_one(models, points):
    scaled = scaling_vectors.compute_scaled(published.load_capacities(), published.load_length_means(), models)
    table = scaling_vectors.compute_matched(scaled, points, n_resamples=0, seed=0)
    for _, runs in table.groupby("name"):
        assert runs["n_mem"].tolist() == [2, 4, 8, 16]
        assert runs["exponent_local"].mean() == pytest.approx(runs["exponent_matched"].iloc[-1])


def test_the_papers_scaled_models_are_the_two_with_several_vectors(models):
    scaled = scaling_vectors.compute_scaled(published.load_capacities(), published.load_length_means(), models)
    assert set(scaled["name"]) == {"Pythia-160M", "Llama-3.2-1B"}
    assert scaled.groupby("name")["n_mem"].apply(list)["Llama-3.2-1B"] == [1, 2, 4, 8, 16]
