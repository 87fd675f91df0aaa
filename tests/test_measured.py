"""Measured runs put together like published ones, on cases whose answers are written by hand."""

import math

import pandas as pd
import pytest

from paper_lib import capacity, frozen, measured
from paper_lib.analyses import entropy_cutoff
from paper_lib.config import CaseConfig
from paper_lib.published import CAPACITY_COLUMNS
from paper_lib.reproduce.manifest import write_manifest

LENGTHS = (4, 8, 16)
EXACT_UP_TO = {"a@1": 8, "a@9": 4, "b@5": 0}  # tokens, by text; two texts of book a, one of book b


def frozen_cases(model="my/toy", protocol="strict"):
    """Records as a sweep freezes them: texts that are exact up to a length and gain 3 nats beyond."""
    rows = []
    for text, longest in EXACT_UP_TO.items():
        for length in LENGTHS:
            exact = length <= longest
            rows.append(
                {
                    "key": f"{model}{text}{length}", "model": model, "source": "novels", "n_mem": 2,
                    "protocol": protocol, "length": length, "text_id": text, "cluster_id": text[0],
                    "n_targets": length, "solved": exact, "exact": exact, "tf_accuracy": 1.0 if exact else 0.5,
                    "n_correct_lm": 1, "n_correct_mem": length if exact else length // 2,
                    "ce_lm_nats": 2.0 * length, "ce_mem_nats": 0.1 if exact else 2.0 * length - 3,
                    "ce_mem_min_nats": 0.1 if exact else 2.0 * length - 4, "text_bytes": 3 * length,
                    "d_embed": 10, "vocab_size": 50, "vector_bytes": 20, "ended": "reached" if exact else "budget",
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def data(tmp_path):
    (tmp_path / "runs").mkdir()
    frozen_cases().to_parquet(tmp_path / "runs" / "toy.parquet")
    write_manifest(tmp_path)
    return tmp_path


def test_a_model_is_named_as_the_paper_names_it_or_by_its_last_part(data):
    frozen_cases("EleutherAI/pythia-160m").to_parquet(data / "runs" / "known.parquet")
    write_manifest(data)
    names = measured.load_cases(data).groupby("model")[["name", "family"]].first()
    assert tuple(names.loc["my/toy"]) == ("toy", "other")
    assert tuple(names.loc["EleutherAI/pythia-160m"]) == ("Pythia-160M", "Pythia")


def test_runs_are_described_by_what_is_in_them(data):
    cases = measured.load_cases(data).assign(n_parameters=2_500_000, optimiser_max_steps=1000.0, optimiser_lr=math.nan)
    (row,) = measured.describe_runs(cases).to_dict("records")
    assert (row["model"], row["parameters (millions)"], row["vectors"], row["texts"]) == ("toy", 2.5, 2, 3)
    assert (row["clusters"], row["lengths (tokens)"], row["protocols"]) == (2, "4, 8, 16", "strict")
    assert (row["steps at most"], row["learning rate"]) == ("1000", "")


def test_two_sweeps_of_one_thing_stay_apart_and_say_which_they_are(data):
    other = frozen_cases().assign(exact=False, key=lambda f: f["key"] + "x")
    other.to_parquet(data / "runs" / "toy-fast.parquet")
    write_manifest(data)
    held = measured.compute_capacities(measured.load_cases(data), n_resamples=0, seed=0).set_index("sweep")
    assert dict(held["name"]) == {"toy": "toy (toy)", "toy-fast": "toy (toy-fast)"}
    assert dict(held["exact_tokens_mean"]) == {"toy": 4, "toy-fast": 0}


def test_settings_that_differ_are_in_the_name_and_one_setting_is_one_curve(data):
    settings = {"optimiser_lr": 0.05, "storage": "float16", "autocast": None}
    for sweep, n_mem, change in (("toy", 1, {}), ("toy-x4", 4, {}), ("fast", 1, {"optimiser_lr": 0.1})):
        frozen_cases().assign(n_mem=n_mem, **(settings | change)).to_parquet(data / "runs" / f"{sweep}.parquet")
    write_manifest(data)
    names = measured.load_cases(data).groupby("sweep")["name"].unique().str.join("")
    assert dict(names) == {"toy": "toy (lr 0.05)", "toy-x4": "toy (lr 0.05)", "fast": "toy (lr 0.1)"}


def test_models_that_end_alike_have_their_whole_names(data):
    frozen_cases("your/toy").to_parquet(data / "runs" / "yours.parquet")
    write_manifest(data)
    assert set(measured.load_cases(data)["name"]) == {"my/toy", "your/toy"}


def test_the_published_criterion_looks_at_the_best_step(data):
    # what was found in bf16 may be another thing in fp32
    frozen_cases().assign(tf_accuracy=0.25).to_parquet(data / "runs" / "toy.parquet")
    write_manifest(data)
    cases = measured.load_cases(data)
    assert (cases["tf_accuracy"] == cases["n_correct_mem"] / cases["n_targets"]).all()
    assert set(cases["ladder_tf_accuracy"]) == {0.25}


def test_a_loss_that_was_never_finite_leaves_the_other_cases_their_numbers(data):
    cases = measured.load_cases(data)
    lost = cases["text_id"].eq("b@5") & cases["length"].eq(16)
    cases.loc[lost, ["ce_mem_nats", "ce_mem_min_nats", "paper_ce_mem_nats"]] = math.nan
    (row,) = measured.compute_capacities(cases, n_resamples=50, seed=0).to_dict("records")
    assert row["info_gain_nats_mean"] == pytest.approx(3)
    assert row["exact_tokens_mean"] == 4
    table = measured.compute_capacity_table(cases, measured.compute_capacities(cases, n_resamples=0, seed=0))
    assert table["info_gain_nats_mean"].notna().all()
    for compute in (entropy_cutoff.compute_entropy_test, entropy_cutoff.compute_slopes):
        whole, left = (compute(frame, n_resamples=50, seed=0) for frame in (cases, cases[~lost]))
        pd.testing.assert_frame_equal(whole, left)
        assert len(left) == 1


def test_capacities_are_those_counted_by_hand(data):
    (row,) = measured.compute_capacities(measured.load_cases(data), n_resamples=500, seed=0).to_dict("records")
    assert row["exact_tokens_mean"] == (8 + 4 + 0) / 3
    assert row["exact_bytes_mean"] == 3 * (8 + 4 + 0) / 3
    assert row["gain_length_tokens"] == 16
    assert row["info_gain_nats_mean"] == pytest.approx(3)
    assert row["decoding_capacity_tokens"] == 0  # a third of the texts fails at every length
    assert (row["n_texts"], row["n_clusters"]) == (3, 2)
    # resampled are the books: a alone gives (8 + 4) / 2 texts, b alone 0
    assert (row["exact_bytes_low"], row["exact_bytes_high"]) == (0, 18)
    assert 4 < row["exact_tokens_estimate"] < (16 + 8 + 4) / 3  # between the lower ends of the bins and the upper
    assert row["exact_tokens_low"] < row["exact_tokens_estimate"] < row["exact_tokens_high"]
    assert row["capacity_next_tokens"] == 4
    assert row["share_ended_by_budget"] == 1


def test_no_length_without_an_exact_text_leaves_the_gain_open(data):
    cases = measured.load_cases(data).query("length <= 8")
    (row,) = measured.compute_capacities(cases, n_resamples=50, seed=0).to_dict("records")
    assert pd.isna(row["gain_length_tokens"])
    assert math.isnan(row["info_gain_nats_mean"])
    assert row["exact_tokens_mean"] == 4


def test_the_capacity_table_has_a_row_for_each_convention(data):
    cases = measured.load_cases(data)
    held = measured.compute_capacities(cases, n_resamples=0, seed=0)
    table = measured.compute_capacity_table(cases, held)
    assert list(table.columns) == CAPACITY_COLUMNS
    rows = table.set_index("convention")
    assert set(rows["origin"]) == {"measured"}
    assert rows.loc["exact", "exact_tokens_mean"] == held["exact_tokens_mean"][0]
    assert rows.loc["exact", "info_gain_nats_mean"] == pytest.approx(3)
    assert rows.loc["exact", "text_bytes_per_vector"] == 12 / 2
    assert rows.loc["paper", "info_gain_nats_mean"] == pytest.approx(4)  # minimum loss, all failures pooled
    assert rows.loc["paper", "text_bytes_per_vector"] == 0
    assert set(rows["vector_bytes"]) == {20}


def test_shares_are_means_over_texts(data):
    shares = measured.compute_shares(measured.load_cases(data), n_resamples=200, seed=0).set_index("length")
    assert list(shares["exact"]) == pytest.approx([2 / 3, 1 / 3, 0])
    assert set(shares["n_texts"]) == {3}
    assert (shares["exact_low"][4], shares["exact_high"][4]) == (0, 1)  # book b alone, book a alone


def test_share_curves_are_those_of_each_protocol_the_published_one_with_two(data):
    for protocol in ("kuratov2025", "own"):
        frozen_cases(protocol=protocol).to_parquet(data / "runs" / f"{protocol}.parquet")
    write_manifest(data)
    curves = measured.compute_share_curves(measured.compute_shares(measured.load_cases(data), n_resamples=0, seed=0))
    assert list(curves["curve"].unique()) == [
        "kuratov2025, solved",
        "kuratov2025, exact",
        "own, exact",
        "strict, exact",
    ]
    assert list(curves.query("curve == 'own, exact'")["share"]) == pytest.approx([2 / 3, 1 / 3, 0])


def test_exact_capacity_is_the_same_by_either_way(data):
    cases = measured.load_cases(data)
    held = measured.compute_capacities(cases, n_resamples=0, seed=0)
    assert capacity.compute_exact_capacity(cases)["exact_bytes_mean"][0] == held["exact_bytes_mean"][0]


def test_the_key_of_every_frozen_run_is_that_of_its_settings():
    cases = frozen.load_runs()
    assert len(cases) >= 768
    for record in cases.to_dict("records"):
        settings = CaseConfig.from_record(record)
        assert settings.run_key == record["key"]
    for record in cases.groupby("sweep").head(1).to_dict("records"):
        settings = CaseConfig.from_record(record)
        for later, value in (
            ("restart", settings.restart + 1),
            ("loss", "tempered"),
            ("parametrisation", "affine(d_low=3)"),
            ("finder", "given"),
        ):
            assert settings.model_copy(update={later: value}).run_key != record["key"]


def test_the_repositorys_own_runs_are_complete():
    cases = frozen.load_runs().query("model == 'data/models/novels-5m' and arm == ''")
    grids = cases.groupby(["sweep", *capacity.GROUP_COLUMNS])
    assert (grids["text_id"].nunique() >= 32).all()
    assert (grids["length"].nunique() == 4).all()
    longest = cases[cases["length"] == grids["length"].transform("max")]
    assert not longest["exact"].any()  # so that the gain at the first length without success is defined
    assert not cases.duplicated("key").any()
