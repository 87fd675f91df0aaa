"""The claim of the abstract, on texts made so that it holds or fails."""

import numpy as np
import pandas as pd
import pytest

from paper_lib.analyses import entropy_cutoff
from paper_lib.errors import InputError
from paper_lib.stats import Interval
from paper_lib.verdicts import CONTRADICTED, SUPPORTED, UNDECIDED


@pytest.fixture
def simulated(make_cases):
    """Return cases of 200 texts at two lengths; ``decides`` names what makes a text fit, ``gain`` what it gains."""

    def simulate(decides, slope=1.0):
        rng = np.random.default_rng(5)
        length = np.tile([64, 128], 200)
        entropy = 4 * length + rng.uniform(-200, 200, 400)  # the two lengths overlap in entropy
        solved = entropy < 400 if decides == "entropy" else rng.random(400) < np.where(length == 64, 0.9, 0.1)
        after = np.where(solved, 5.0, 100 + slope * entropy)
        return make_cases(
            text_id=np.repeat(np.arange(200), 2),
            length=length,
            solved=solved,
            paper_ce_lm_nats=entropy,
            paper_ce_mem_nats=after,
        )

    return simulate


def test_entropy_test_finds_entropy_where_it_decides(simulated):
    row = entropy_cutoff.compute_entropy_test(simulated("entropy"), n_resamples=200, seed=0).iloc[0]
    assert row["auc_entropy"] == 1
    assert row["auc_within_length"] == 1
    assert row["auc_diff_low"] > 0


def test_entropy_test_finds_nothing_beyond_length_where_length_decides(simulated):
    row = entropy_cutoff.compute_entropy_test(simulated("length"), n_resamples=200, seed=0).iloc[0]
    assert row["auc_within_low"] < 0.5 < row["auc_within_high"]
    assert row["auc_diff_high"] < 0


@pytest.mark.parametrize("slope", [1.0, 0.8])
def test_entropy_test_recovers_the_slope(simulated, slope):
    row = entropy_cutoff.compute_entropy_test(simulated("entropy", slope), n_resamples=200, seed=0).iloc[0]
    assert row["slope_free"] == pytest.approx(slope)
    assert (abs(row["slope1_r2"] - 1) < 1e-9) == (slope == 1)


def test_entropy_test_resamples_texts_not_points(simulated):
    cases = simulated("length").assign(book=lambda f: f["text_id"].astype(str).str[:1])
    texts = entropy_cutoff.compute_entropy_test(cases, n_resamples=300, seed=0).iloc[0]
    books = entropy_cutoff.compute_entropy_test(cases, cluster="book", n_resamples=300, seed=0).iloc[0]
    points = entropy_cutoff.compute_entropy_test(cases.assign(p=range(400)), cluster="p", n_resamples=300, seed=0).iloc[
        0
    ]
    limits = {tuple(row[["auc_within_low", "auc_within_high"]]) for row in (texts, books, points)}
    assert len(limits) == 3
    assert texts["n_points"] == 400


def test_slopes_tell_harder_from_longer_texts(make_cases):
    # Within a length nothing is gained by being harder (slope 1); longer texts gain more, so the pooled slope is lower.
    rng = np.random.default_rng(7)
    length = np.tile([10, 64, 128], 100)
    before = 4.0 * length + rng.uniform(-20, 20, 300)
    after = np.where(length == 10, 0.1, before - length)
    cases = make_cases(
        text_id=np.repeat(np.arange(100), 3), length=length, solved=length == 10,
        paper_ce_lm_nats=before, paper_ce_mem_nats=after,
    )  # fmt: skip
    row = entropy_cutoff.compute_slopes(cases, n_resamples=50, seed=0).iloc[0]
    assert row["within"] == pytest.approx(1)
    assert row["pooled"] == row["beyond"] < 0.8
    some_solved = cases.assign(solved=cases["solved"] | ((length == 64) & (rng.random(300) < 0.5)))
    row = entropy_cutoff.compute_slopes(some_solved, n_resamples=50, seed=0).iloc[0]
    assert row["beyond"] == pytest.approx(1)  # only length 128 is left
    assert (
        entropy_cutoff.compute_slopes(cases.assign(solved=True), n_resamples=50, seed=0)
        .iloc[0][["pooled", "beyond"]]
        .isna()
        .all()
    )


def test_entropy_test_leaves_out_what_needs_lengths_when_there_are_none(simulated):
    row = entropy_cutoff.compute_entropy_test(simulated("entropy").assign(length=None), n_resamples=20, seed=0).iloc[0]
    assert row[["auc_length", "auc_diff", "auc_within_length"]].isna().all()
    assert row["auc_entropy"] == 1


def plateau_cases(make_cases, rise, n_texts=40):
    """Texts that are solved at 32 tokens, gain 100 nats at 64 and that much more, in per cent, at 128."""
    rng = np.random.default_rng(1)
    gain = np.concatenate([np.full(n_texts, 90.0), np.full(n_texts, 100.0), np.full(n_texts, 100.0 + rise)])
    gain += np.tile(rng.normal(0, 5, n_texts), 3)
    return make_cases(
        text_id=np.tile(np.arange(n_texts), 3),
        length=np.repeat([32, 64, 128], n_texts),
        solved=np.repeat([True, False, False], n_texts),
        ce_lm_nats=500.0,
        ce_mem_min_nats=500.0 - gain,
    )


@pytest.mark.parametrize(
    ("rise", "verdict"), [(2, SUPPORTED), (30, CONTRADICTED), (-30, CONTRADICTED), (10, UNDECIDED)]
)
def test_a_plateau_is_flat_rises_or_is_undecided(make_cases, rise, verdict):
    cases = plateau_cases(make_cases, rise)
    row = entropy_cutoff.compute_plateau(cases, cluster="text_id", n_resamples=500, seed=0).iloc[0]
    assert (row["first_length"], row["last_length"], row["verdict"]) == (64, 128, verdict)
    assert row["change_percent"] == pytest.approx(rise, abs=0.5)
    assert row["change_percent_low"] < row["change_percent"] < row["change_percent_high"]


def test_one_length_without_a_solved_text_leaves_the_plateau_open(make_cases):
    cases = plateau_cases(make_cases, 0).query("length < 128")
    row = entropy_cutoff.compute_plateau(cases, cluster="text_id", n_resamples=50, seed=0).iloc[0]
    assert row["verdict"] == UNDECIDED
    assert pd.isna(row["first_length"])


def test_gain_curves_are_in_units_of_b(make_cases):
    cases = make_cases(
        model="m",
        length=[8, 8, 16],
        paper_ce_lm_nats=[10.0, 20.0, 60.0],
        paper_ce_mem_nats=[0.0, 10.0, 30.0],
        solved=[True, False, False],
    )
    b = pd.DataFrame({"model": ["m"], "name": ["M"], "family": ["OPT"], "slope1_b_nats": [20.0]})
    curves = entropy_cutoff.compute_gain_curves(cases, b)
    assert curves[["x_over_b", "gain_over_b"]].to_numpy().tolist() == [[0.75, 0.5], [3, 1.5]]
    assert curves["any_solved"].tolist() == [True, False]


def test_models_are_named_in_the_order_of_the_paper():
    frame = pd.DataFrame({"model": ["b", "a"], "x": [2, 1]})
    models = pd.DataFrame({"model": ["a", "b"], "name": ["A", "B"], "family": "OPT", "d_model": 4})
    named = entropy_cutoff.name_models(frame, models)
    assert named[["model", "name", "family", "x"]].to_numpy().tolist() == [["a", "A", "OPT", 1], ["b", "B", "OPT", 2]]


def test_the_abstracts_claims_count_models():
    test = pd.DataFrame({"model": ["a", "b", "c"], "name": ["A", "B", "C"], "slope1_b_nats": [10.0, 20.0, 30.0]})
    test = test.assign(predicts=[SUPPORTED, CONTRADICTED, UNDECIDED])
    plateau = pd.DataFrame({"name": ["A", "B", "C"], "verdict": [CONTRADICTED, CONTRADICTED, UNDECIDED]})
    labels = pd.DataFrame({"model": ["b", "a", "c"], "b_nats_label": [20.0, 10.04, 30]})
    lower = {
        "origin": "published",
        "predicted from": "tokens - nats",
        "brier": 0.1,
        "brier_low": -0.1,
        "brier_high": 0.2,
    }
    rows = entropy_cutoff.judge(test, plateau, labels, pd.DataFrame([lower]), (64, Interval(0.5, 0.2, 0.8)))
    assert [row["verdict"] for row in rows] == [SUPPORTED, UNDECIDED, CONTRADICTED, UNDECIDED, SUPPORTED]
    assert rows[1]["detail"] == "supported: A; contradicted: B; undecided: C"


def test_sources_are_compared_length_by_length():
    rows = [
        ("own", 8, 5.0, True, 10),
        ("own", 8, 7.0, True, 20),
        ("pg19", 8, 30.0, True, 90),
        ("pg19", 8, 50.0, False, 99),
    ]
    cases = pd.DataFrame(rows, columns=["source", "length", "ce_lm_nats", "exact", "n_steps"])
    table = entropy_cutoff.compare_sources(cases.assign(cluster_id=range(4)), n_resamples=0, seed=0)
    assert table["nats"].tolist() == [6, 40]
    assert table["exact"].tolist() == [1, 0.5]
    assert table["evaluations"].tolist() == [15, 90]


def test_own_texts_and_books_are_compared_at_the_longest_length_of_both():
    rows = [("own", 8, True), ("own", 16, True), ("own", 32, False), ("pg19", 8, True), ("pg19", 16, False)]
    cases = pd.DataFrame(rows, columns=["source", "length", "exact"])
    cases = pd.concat([cases.assign(cluster_id=cases["source"] + str(number)) for number in range(6)])
    length, difference = entropy_cutoff.compare_own(cases, n_resamples=50, seed=0)
    assert (length, difference.value, difference.low, difference.high) == (16, 1, 1, 1)
    with pytest.raises(InputError, match="not run at the same length"):
        entropy_cutoff.compare_own(cases[cases["source"] == "own"], n_resamples=50, seed=0)
