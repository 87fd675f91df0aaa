"""Random words against books at equal cross-entropy, precisions, fanfics, context, averages."""

import numpy as np
import pandas as pd
import pytest

from paper_lib import published
from paper_lib.analyses import text_sources
from paper_lib.capacity import CASE_COLUMNS
from paper_lib.verdicts import CONTRADICTED, SUPPORTED, UNDECIDED

R = {"n_resamples": 400, "seed": 0}


def make_source(source, x, ratio=1.0, seed=0, **more):
    """Failed texts whose gain rises with x, 50 + x / 10 nats, times ``ratio``."""
    x = np.asarray(x, float)
    gain = ratio * (50 + x / 10) + np.random.default_rng(seed).normal(0, 2, len(x))
    cases = pd.DataFrame({"paper_ce_lm_nats": x, "paper_ce_mem_nats": x - gain, "source": source})
    cases = cases.assign(origin="published", model="m", n_mem=1, protocol="kuratov2025", solved=False, length=64)
    cases["text_id"] = [f"{source}-{i}" for i in range(len(x))]
    return cases.reindex(columns=CASE_COLUMNS).assign(n_targets=63, cluster_id=cases["text_id"], **more)


def books_and_words(ratio):
    # words lie further right, so their mean gain is larger even where the source does not matter
    return pd.concat(
        [make_source("pg19", np.linspace(200, 1000, 150)), make_source("random", np.linspace(600, 1400, 60), ratio, 1)],
        ignore_index=True,
    )


@pytest.mark.parametrize("ratio", [1.0, 1.3, 0.8])
def test_sources_are_compared_at_equal_cross_entropy(ratio):
    row, interval = text_sources.compare_sources(books_and_words(ratio), cluster="text_id", **R)
    assert row["ratio_matched"] == pytest.approx(ratio, abs=0.02)
    assert row["ratio_neighbours"] == pytest.approx(ratio, abs=0.03)
    assert row["ratio_pooled"] > ratio * 1.2
    assert row["ratio_matched_low"] < ratio < row["ratio_matched_high"]
    assert (row["n_books"], row["n_words"]) == (75, 30)
    assert len(interval.resamples) == 400


def test_texts_near_the_capacity_do_not_count():
    cases = pd.concat([books_and_words(1.0), make_source("pg19", [900.0]).assign(solved=True)], ignore_index=True)
    row, _ = text_sources.compare_sources(cases, cluster="text_id", **R)
    assert (row["n_books"], row["n_words"]) == (17, 7)  # beyond 900 nats only


def test_too_few_texts_give_no_ratio():
    cases = pd.concat([make_source("pg19", [500.0, 600]), make_source("random", [550.0])], ignore_index=True)
    row, _ = text_sources.compare_sources(cases, cluster="text_id", **R)
    assert np.isnan(row["ratio_matched"])


def test_the_papers_models_are_compared_by_an_independent_fit(points, models):
    table = text_sources.compare_published(points, models, published.load_run_grids(), n_resamples=0, seed=0)
    for row in table.itertuples():
        cases = points[(points["model"] == row.model) & ~points["solved"]]
        x = cases["paper_ce_lm_nats"]
        cases = cases[x > points.loc[(points["model"] == row.model) & points["solved"], "paper_ce_lm_nats"].max()]
        ends = cases.groupby("source")["paper_ce_lm_nats"].agg(["min", "max"])
        cases = cases[cases["paper_ce_lm_nats"].between(ends["min"].max(), ends["max"].min())]
        x, words = cases["paper_ce_lm_nats"].to_numpy(), (cases["source"] == "random").to_numpy()
        gain = x - cases["paper_ce_mem_nats"].to_numpy()
        books = np.polyval(np.polyfit(x[~words], gain[~words], 2), x[words])  # a parabola through the books alone
        assert row.ratio_matched == pytest.approx(gain[words].mean() / books.mean(), abs=0.02), row.name
        assert row.n_words == words.sum()
    assert set(table.loc[table["precision"] == "fp32", "family"]) == {"Pythia", "OPT", "Mamba"}
    assert set(table["verdict"]) == {UNDECIDED}  # without resamples nothing is decided


def test_measured_models_have_a_row_for_each_natural_source():
    news = make_source("news", np.linspace(500, 1100, 80), 0.9, 2)
    cases = pd.concat([books_and_words(1.3), news]).assign(name="M", family="other", autocast=None, dtype="float32")
    table = text_sources.compare_measured(cases, **R).set_index("source")
    assert list(table.index) == ["pg19", "news"]
    assert table["verdict"]["pg19"] == CONTRADICTED
    assert table["precision"]["pg19"] == "fp32"
    assert text_sources.compare_measured(cases[cases["source"] == "news"], **R).empty


def test_precisions_are_paired_by_text():
    fp32 = make_source("pg19", np.linspace(200, 1000, 30), weights="w", name="M", autocast=None)
    bf16 = fp32.assign(autocast="bfloat16")
    bf16["paper_ce_mem_nats"] += 0.3 * (fp32["paper_ce_lm_nats"] - fp32["paper_ce_mem_nats"])  # gains .7 as much
    (row,) = text_sources.compare_precisions(pd.concat([fp32, bf16[:-5]]), **R).to_dict("records")
    assert row["n_pairs"] == 25
    assert (row["ratio"], row["ratio_low"], row["ratio_high"]) == pytest.approx((0.7, 0.7, 0.7))
    assert row["verdict"] == CONTRADICTED


@pytest.mark.parametrize(
    ("gain", "std", "verdict"), [(100, 5, SUPPORTED), (130, 5, CONTRADICTED), (100, 80, UNDECIDED)]
)
def test_fanfics_are_compared_by_their_printed_deviations(gain, std, verdict):
    rows = [{"source": "pg19", "info_gain_nats_mean": 100.0}, {"source": "fanfics", "info_gain_nats_mean": gain}]
    printed = pd.DataFrame(rows).assign(model="m", n_mem=1, info_gain_nats_std=std)
    models = pd.DataFrame({"model": ["m"], "name": ["M"], "family": ["OPT"]})
    (row,) = text_sources.compare_fanfics(printed, models, **R).to_dict("records")
    assert row["ratio"] == gain / 100
    assert row["ratio_low"] < row["ratio"] < row["ratio_high"]
    assert row["verdict"] == verdict


def test_context_is_a_share_of_the_text_alone():
    values = {"ce": 200.0, "ce_with_text_prefix": 150.0, "ce_with_mem": 10.0}
    ablation = pd.DataFrame({"model": "m", "metric": list(values), "value": list(values.values()), "setting": 64})
    models = pd.DataFrame({"model": ["m"], "name": ["M"], "family": ["Llama"]})
    context = text_sources.compute_context(ablation, models)
    assert context[["prefix_tokens", "ce_left", "ce_left_with_vector"]].to_numpy().tolist() == [[64, 0.75, 0.05]]


def test_a_vector_leaves_less_than_a_thousand_tokens_of_context(models):
    context = text_sources.compute_context(published.load_ablations("text_prefix_vs_mem"), models)
    longest = context[context["prefix_tokens"] == 1024]
    assert (longest["ce_left_with_vector"] < longest["ce_left"]).all()  # the lengths were chosen where vectors succeed


def test_four_ways_to_average_the_same_points():
    cases = make_source("pg19", [100.0, 100.0]).assign(paper_ce_mem_nats=[80.0, 60.0], length=[64, 128])
    cases = cases.assign(n_targets=[63, 127], ce_lm_nats=90.0, ce_mem_min_nats=[80.0, 60.0])
    printed = pd.DataFrame({"model": ["m"], "source": "pg19", "n_mem": 1, "decoding_capacity_tokens": 64})
    found = text_sources.compute_pooling(cases, printed, pd.DataFrame({"model": ["m"], "name": ["M"]})).iloc[0]
    assert found["paper"] == 30
    assert found["true_count"] == pytest.approx((20 * 63 / 64 + 40 * 127 / 128) / 2)
    assert found["beyond_capacity"] == 40
    assert (found["sums"], found["sums_length_tokens"]) == (10, 64)
