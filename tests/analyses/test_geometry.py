"""Cosines, paths and radii against values worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from paper_lib.analyses import geometry

NONE = {"n_resamples": 0, "seed": 0}


def test_cosines_are_those_of_all_pairs():
    cases = pd.DataFrame(
        {
            "key": list("abcd"),
            "text_id": ["t", "t", "u", "u"],
            "cluster_id": ["t", "t", "u", "u"],
            "restart": [0, 1, 0, 1],
            "exact": [True, True, True, False],
        }
    )
    vectors = {"a": [[1, 0]], "b": [[1, 1]], "c": [[0, 2]], "d": [[9, 9]]}
    cosines = geometry.compute_cosines(cases, {key: np.array(v, np.float16) for key, v in vectors.items()}, seed=0)
    same = cosines[cosines["pair"] == geometry.PAIRS["same"]]["cosine"]
    other = cosines[cosines["pair"] == geometry.PAIRS["other"]]["cosine"]
    assert list(same) == pytest.approx([np.sqrt(0.5)])
    assert sorted(other) == pytest.approx([0, np.sqrt(0.5)])
    assert (cosines["pair"] == geometry.PAIRS["random"]).sum() == 3


def test_random_directions_have_the_cosines_of_their_dimension():
    n, width = 60, 100
    keys = [f"{n:03d}" for n in range(n)]
    cases = pd.DataFrame({"key": keys, "text_id": "t", "cluster_id": "t", "restart": range(n), "exact": True})
    vectors = {key: np.ones((1, width)) for key in keys}
    random = geometry.compute_cosines(cases, vectors, seed=0).query("pair == 'random directions'")["cosine"]
    assert random.std() == pytest.approx(1 / np.sqrt(width), rel=0.05)


@pytest.fixture
def paths():
    rows = [
        {"arm": "fast", "path": path, "cluster_id": "b", "key": key, "other_key": "z", "at": at, "accuracy": accuracy,
         "all_right": accuracy == 1, "length_ratio": ratio}
        for path, key, ratio, along in (
            ("straight", "a", 1.0, [1, 0.5, 0.25, 1]),
            ("straight", "b", 1.0, [1, 1, 0.5, 1]),
            ("curved", "a", 1.5, [1, 1, 1, 1]),
            ("curved", "b", 1.1, [1, 1, 0.995, 1]),
        )
        for at, accuracy in zip([0, 1 / 3, 2 / 3, 1], along, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_only_what_lies_between_the_ends_of_a_path_counts(paths):
    between = geometry.summarise_paths(paths, **NONE).set_index("path")
    assert between.loc["straight", "share_solved"] == 0.25
    assert between.loc["straight", "joined"] == 0
    assert between.loc["straight", "lowest"] == pytest.approx(0.375)
    assert between.loc["curved", ["share_solved", "joined", "length_ratio", "longest"]].tolist() == [1, 0.5, 1.3, 1.5]
    along = geometry.average_paths(paths, **NONE).set_index(["arm", "path", "at"])["accuracy"]
    assert along["fast", "straight", 1 / 3] == 0.75


def test_the_radius_lies_between_the_last_right_and_the_first_wrong_length():
    sizes = [1.0, 2.0, 4.0, 8.0]
    right = {0: [True, True, False, True], 1: [True, True, True, False], 2: [False] * 4}
    perturbed = pd.DataFrame(
        [
            {"how": "noise", "key": "a", "draw": draw, "at": at, "all_right": fine}
            for draw, line in right.items()
            for at, fine in zip(sizes, line, strict=True)
        ]
    )
    case = {"key": "a", "text_id": "t", "cluster_id": "t", "min_logit_margin": 0.1, "ce_lm_nats": 9.0}
    radii = geometry.compute_radii(perturbed, pd.DataFrame([case]))
    assert radii["radius"].tolist() == pytest.approx([np.sqrt(8)])  # the median of 1, sqrt(8) and sqrt(32)


def test_the_rank_correlation_is_spearmans():
    draw = np.random.default_rng(0)
    data = pd.DataFrame({"x": draw.random(40), "cluster_id": range(40)})
    data["y"] = -data["x"] + 0.3 * draw.random(40)
    found = geometry.correlate_ranks(data, "x", "y", n_resamples=200, seed=0)
    assert found.value == pytest.approx(stats.spearmanr(data["x"], data["y"]).statistic)
    assert -1 <= found.low < found.value < found.high < -0.5


def test_a_way_ends_where_all_is_first_right_or_with_its_budget():
    def way(key, right):
        n = len(right)
        return pd.DataFrame(
            {"recipe": "some", "length": 8, "key": key, "cluster_id": key, "evaluation": range(1, n + 1),
             "all_right": right, "norm": [float(i) for i in range(n)], "moved": [0.0, *[1.0] * (n - 1)],
             "n_components": range(n)}
        )  # fmt: skip

    ways = pd.concat([way("a", [False, True, False, True]), way("b", [False] * 4)])
    row = geometry.summarise_trajectories(ways, **NONE).iloc[0]
    assert row[["reached", "evaluations", "norm", "path_length", "n_components"]].tolist() == [0.5, 3, 2, 2, 2]
    assert geometry.average_trajectories(ways, **NONE)["norm"].tolist() == [0, 1, 2, 3]
    assert geometry.average_trajectories(ways[ways["key"] == "a"], **NONE)["norm"].tolist() == [0, 1]
