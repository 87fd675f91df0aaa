"""The published half holds: every printed number that the data allow to recompute comes out as printed."""

import math
import shutil

import numpy as np
import pandas as pd
import pytest

from paper_lib import capacity, published, stats
from paper_lib.capacity import GROUP_COLUMNS
from paper_lib.errors import InputError
from paper_lib.paths import DATA, PUBLISHED
from paper_lib.reproduce import manifest
from paper_lib.reproduce.manifest import read_csv


@pytest.fixture(scope="module")
def printed() -> pd.DataFrame:
    return published.load_capacities()


@pytest.fixture(scope="module")
def table(points, printed, models) -> pd.DataFrame:
    return published.compute_capacity_table(points, printed, published.load_length_means(), models)


def test_all_points_are_there(points):
    assert len(points) == 8736
    assert points["model"].nunique() == 14
    assert points["source"].value_counts().to_dict() == {"pg19": 7457, "random": 1279}
    assert points["origin"].eq("published").all()
    assert list(points.columns[: len(capacity.CASE_COLUMNS)]) == capacity.CASE_COLUMNS
    capacity.check_cases(points)


def test_each_length_has_its_fifty_texts_once_but_for_the_repeated_runs(points):
    books = points[points["source"] == "pg19"]
    texts = books.groupby(["model", "length"])["text_id"].agg(["size", "nunique"])
    assert (texts["nunique"] == 50).all()
    repeated = texts[texts["size"] != 50]
    assert repeated.index.tolist() == [("state-spaces/mamba-370m-hf", 8)]
    assert repeated["size"].tolist() == [57]


def test_true_sums_leave_out_the_given_token_and_random_points_have_none(points):
    books, random = points[points["source"] == "pg19"], points[points["source"] == "random"]
    shortened = books["paper_ce_lm_nats"] * (books["length"] - 1) / books["length"]
    np.testing.assert_allclose(books["ce_lm_nats"], shortened.astype(float))
    assert random[["length", "ce_lm_nats", "ce_mem_min_nats"]].isna().all(axis=None)
    assert random["paper_ce_lm_nats"].notna().all()


def test_the_means_behind_the_gains_are_those_of_the_points(points):
    components = read_csv(PUBLISHED / "table1_components.csv").query("source == 'pg19'").set_index("model")
    unsolved = points[(points["source"] == "pg19") & ~points["solved"]]
    means = unsolved.groupby("model")[["paper_ce_lm_nats", "paper_ce_mem_nats"]].mean().loc[components.index]
    np.testing.assert_allclose(means["paper_ce_lm_nats"], components["original_CE_mean"], rtol=1e-6)
    np.testing.assert_allclose(means["paper_ce_mem_nats"], components["best_CE_mean"], rtol=1e-6)


def test_printed_single_runs_are_among_the_points(points):
    runs = read_csv(PUBLISHED / "per_sample_printed.csv").query("source == 'pg19' and n_mem == 1")
    runs = runs[runs["best_loss_definition"] == "min_over_iterations"].dropna(subset=["sample_idx"])
    runs["text_id"] = runs["sample_idx"].astype(int).map("text-{}".format)
    pairs = runs.merge(points, on=["model", "source", "length", "text_id"])
    assert len(pairs) == 18
    for loss, point in (("original_loss", "paper_ce_lm_nats"), ("best_loss", "paper_ce_mem_nats")):
        np.testing.assert_allclose(pairs[point], pairs[loss] * pairs["length"], rtol=1e-5, atol=2e-3)


@pytest.mark.parametrize("source", ["pg19", "random"])
def test_information_gains_are_those_printed(points, printed, source):
    complete = published.select_complete(points)
    gains = capacity.compute_gains(complete[complete["source"] == source], convention="paper")
    pairs = gains.merge(printed, on=GROUP_COLUMNS, suffixes=("", "_printed"))
    assert len(pairs) == {"pg19": 14, "random": 6}[source]
    tolerance = np.where(pairs["decimals"] == 6, 2e-4, 0.05)
    for part in ("mean", "std"):
        difference = (pairs[f"info_gain_nats_{part}"] - pairs[f"info_gain_nats_{part}_printed"]).abs()
        assert (difference <= tolerance).all(), pairs.loc[difference > tolerance, "model"].tolist()


def test_b_are_the_printed_labels(points):
    for row in published.load_fits().itertuples():
        cases = points[(points["model"] == row.model) & (points["source"] == "pg19") & ~points["solved"]]
        fit = stats.fit_unit_slope(cases["paper_ce_lm_nats"], cases["paper_ce_mem_nats"])
        assert f"{fit.b:.1f}" == f"{row.b_nats_label:.1f}", row.model


def test_the_drawn_threshold_is_the_highest_solved_point(points):
    solved = points[points["solved"] & (points["source"] == "pg19")].groupby("model")["paper_ce_mem_nats"].max()
    for row in published.load_fits().itertuples():
        assert solved[row.model] == pytest.approx(row.red_line_nats, abs=2e-4)


def test_counts_of_solved_texts_agree_with_the_mean_accuracies(points):
    # An independent file: a mean accuracy of 1 needs all texts solved; the counts per length are published too.
    means = published.load_length_means().query("n_mem == 1")
    counts = points[points["source"] == "pg19"].groupby(["model", "length"])["solved"].agg(["sum", "size"])
    pairs = means.set_index(["model", "length"]).join(counts)
    assert (pairs["sum"] == pairs["n_acc_ge_0.99"]).all()
    assert (pairs["size"] == pairs["n_samples"]).all()
    # where every run is counted, the printed mean gain per length is the mean over points
    gain = (
        (points["paper_ce_lm_nats"] - points["paper_ce_mem_nats"]).groupby([points["model"], points["length"]]).mean()
    )
    np.testing.assert_allclose(pairs["info_gain_nats_mean"], gain.reindex(pairs.index), atol=2e-3)


def test_decoding_capacities_are_those_printed_wherever_accuracies_decide(printed):
    recomputed = published.compute_decoding_capacity(published.load_length_means())
    pairs = printed.merge(recomputed, on=GROUP_COLUMNS).dropna(subset="recomputed_capacity_tokens")
    assert len(pairs) == 15
    assert (pairs["recomputed_capacity_tokens"] == pairs["decoding_capacity_tokens"]).all()


def test_theory_and_utilisation_are_those_printed(models, printed):
    for row in models.itertuples():
        theory = capacity.theoretical_capacity_tokens(row.d_model, row.vocab_size)
        assert round(theory) == row.max_theoretical_tokens, row.model
        gain = printed.query("model == @row.model and source == 'pg19' and n_mem == 1")["token_gain_mean"].item()
        assert round(round(gain, 1) / theory, 4) == round(row.utilisation_pg19, 4), row.model


def test_capacity_table_has_the_agreed_columns_and_one_row_each(table):
    assert list(table.columns) == published.CAPACITY_COLUMNS
    assert not table.duplicated(["origin", "model", "source", "n_mem", "protocol", "convention"]).any()
    assert table.groupby("convention").size().to_dict() == {"paper": 45, "sums": 14}
    assert table["exact_tokens_mean"].isna().all()  # nobody decoded the published vectors freely
    undecided = table[table["capacity_how"] == "undecided"]
    assert undecided[["model", "n_mem"]].to_numpy().tolist() == [["EleutherAI/pythia-160m", 8]]  # .989 ± .0015 at 768
    assert set(table["capacity_how"]) == {"recomputed", "printed", "undecided"}


def test_a_capacity_lies_below_the_next_length_tried(table):
    one = table.query("convention == 'paper' and source == 'pg19' and n_mem == 1").set_index("model")
    assert (one["capacity_next_tokens"] > one["decoding_capacity_tokens"]).all()
    assert (one["capacity_next_tokens"] == 768).sum() == 3
    assert table.loc[table["source"] != "pg19", "capacity_next_tokens"].isna().all()


def test_the_criterion_holds_with_the_probability_of_its_printed_spread(table):
    printed = table[table["p_criterion"].notna()].set_index(["model", "n_mem", "convention"])["p_criterion"]
    z = (0.9934 - 0.99) / (0.0264 / 50**0.5)
    assert printed["EleutherAI/pythia-160m", 1, "paper"] == pytest.approx(0.5 * (1 + math.erf(z / 2**0.5)))
    assert printed.between(0.5, 1).all()


def test_recomputed_gains_are_marked(table):
    paper = table[table["convention"] == "paper"]
    assert (paper["info_gain_how"] == "recomputed").sum() == 20  # 14 on books, 6 on random words
    assert set(paper.loc[paper["source"] == "fanfics", "info_gain_how"]) == {"printed"}


def test_capacity_table_marks_what_is_only_printed(table):
    books = table.query("convention == 'paper' and source == 'pg19' and n_mem == 1").set_index("model")["capacity_how"]
    only_printed = {"facebook/opt-1.3b"} | {model for model in books.index if "mamba" in model}
    assert set(books.index[books == "printed"]) == only_printed
    assert (table.query("source != 'pg19'")["capacity_how"] == "printed").all()


def test_sums_are_those_of_the_published_means_per_length(table):
    means = published.load_length_means().query("n_mem == 1 and `n_acc_ge_0.99` == 0")
    first = means.sort_values("length").groupby("model").first()
    expected = first["info_gain_nats_mean"] * (first["length"] - 1) / first["length"]
    sums = table.query("convention == 'sums'").set_index("model")["info_gain_nats_mean"]
    assert sums[sums.isna()].index.tolist() == ["meta-llama/Meta-Llama-3.1-8B"]
    np.testing.assert_allclose(sums.dropna(), expected.reindex(sums.dropna().index), atol=2e-3)


def test_text_bytes_exist_only_where_the_density_was_measured(table, models):
    books = table.query("source == 'pg19'").set_index("model")["text_bytes_per_vector"]
    assert books[books.isna()].index.unique().tolist() == ["facebook/opt-1.3b"]
    assert table.query("source != 'pg19'")["text_bytes_per_vector"].isna().all()
    density = models.set_index("model")["tokens_per_byte"]
    assert density["state-spaces/mamba-130m-hf"] == density["EleutherAI/pythia-160m"]
    largest = table.query(
        "model == 'meta-llama/Meta-Llama-3.1-8B' and source == 'pg19' and convention == 'paper'"
    ).iloc[0]
    assert (largest["decoding_capacity_tokens"], largest["vector_bytes"]) == (1568, 8192)
    assert largest["text_bytes_per_vector"] == pytest.approx(6841, abs=1)


def test_text_bytes_are_per_vector(table, models):
    row = table.query("model == 'EleutherAI/pythia-160m' and n_mem == 4").iloc[0]
    density = models.set_index("model").loc["EleutherAI/pythia-160m", "tokens_per_byte"]
    assert row["text_bytes_per_vector"] == pytest.approx(384 / 4 / density)
    assert row["vector_bytes"] == 2 * 768


def test_capacity_table_holds_recomputed_gains_in_nats_and_bits(points, table):
    gains = capacity.compute_gains(published.select_complete(points), convention="paper").set_index(["model", "source"])
    rows = table.query("convention == 'paper' and n_mem == 1").set_index(["model", "source"]).loc[gains.index]
    np.testing.assert_array_equal(rows["info_gain_nats_mean"], gains["info_gain_nats_mean"])
    np.testing.assert_array_equal(rows["info_gain_nats_std"], gains["info_gain_nats_std"])
    bits = table["info_gain_nats_mean"] * np.log2(np.e)
    np.testing.assert_allclose(table["info_gain_bits_mean"], bits)


def test_capacity_table_names_criterion_and_texts(table):
    random = table["source"] == "random"
    assert (table.loc[random, "criterion"] == "longest_solved_text").all()
    assert (table.loc[~random, "criterion"] == "mean_tf_accuracy>=0.99").all()
    assert (table.loc[~random, "n_texts"] == 50).all()
    counted = table[random].set_index("model")["n_texts"]
    assert (counted[list(published.COMPLETE_RANDOM_PANELS)] == 100).all()
    assert counted.drop(list(published.COMPLETE_RANDOM_PANELS)).isna().all()


def test_models_have_the_papers_names_and_stale_rows_their_first_numbers(models):
    assert "Sheared-LLaMA-1.3B" in set(models["name"])
    stale = published.load_stale_capacities().set_index("model")["max_tokens"]
    assert stale.to_dict() == {"EleutherAI/pythia-2.8b": 129, "facebook/opt-1.3b": 116}


def test_inferred_text_identities_carry_their_probability(points):
    books = points[points["source"] == "pg19"]
    certain = books["sample_idx_prob"] > 0.95
    assert 0.9 < certain.mean() < 1
    assert books["sample_idx_prob"].between(0, 1).all()


def test_nothing_is_averaged_over_cut_off_random_panels(points):
    complete = published.select_complete(points)
    assert set(complete.loc[complete["source"] == "random", "model"]) == set(published.COMPLETE_RANDOM_PANELS)
    assert (complete[complete["source"] == "random"].groupby("model").size() == 100).all()


@pytest.mark.parametrize(
    ("load", "says"),
    [
        (lambda: published.load_points(["gpt-5"]), "unknown model 'gpt-5'"),
        (lambda: published.load_points(source="poems"), "unknown source 'poems'"),
        (lambda: published.load_ablations("sleep"), "unknown experiment 'sleep'"),
        (lambda: published.load_followup("nothing"), "unknown follow-up table 'nothing'"),
    ],
)
def test_unknown_names_are_answered_with_the_known_ones(load, says):
    with pytest.raises(InputError, match=f"{says}; choose from: "):
        load()


def test_a_lost_followup_file_is_missing_not_unknown(tmp_path, monkeypatch):
    data = tmp_path / "data"
    shutil.copytree(DATA, data)
    (data / "published" / "followups" / "encoder_ratios.csv").unlink()
    monkeypatch.setattr(published, "PUBLISHED", data / "published")
    monkeypatch.setattr(published, "list_files", lambda folder: manifest.list_files(folder, data))
    monkeypatch.setattr(published, "read_csv", lambda path: manifest.read_csv(path, data))
    with pytest.raises(InputError, match=r"encoder_ratios\.csv is missing; restore it"):
        published.load_followup("encoder_ratios")


def test_one_model_may_be_named_without_a_list(points):
    assert len(published.load_points("EleutherAI/pythia-160m")) == (points["model"] == "EleutherAI/pythia-160m").sum()


def test_a_model_without_facts_is_named(points, printed, models):
    with pytest.raises(InputError, match="no row for EleutherAI/pythia-160m"):
        published.compute_capacity_table(points, printed, published.load_length_means(), models.iloc[1:])
