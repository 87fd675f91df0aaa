"""What the notebooks compute: small frames counted by hand, and claims that can fail."""

import math

import numpy as np
import pandas as pd
import pytest

from paper_lib import figures, published
from paper_lib.analyses import (
    capacity_utilisation,
    decoding_capacity,
    entropy_cutoff,
    landscape,
    scaling_vectors,
    text_sources,
)
from paper_lib.capacity import CASE_COLUMNS


def verdicts_of(rows):
    return {row["quantity"]: row["verdict"] for row in rows}


# --- 01 ------------------------------------------------------------------------------------------------------------


def test_a_cell_holds_capacity_token_gain_and_information_gain():
    row = {"decoding_capacity_tokens": 80, "token_gain_mean": 70.892, "token_gain_std": 11.0, "name": "B"}
    row |= {"source": "pg19", "info_gain_nats_mean": 396.44, "info_gain_nats_std": 46.0}
    models = pd.DataFrame({"name": ["A", "B"], "model": ["a", "b"]})
    wide = decoding_capacity.arrange_cells(pd.DataFrame([row]), models)
    assert list(wide.columns) == ["model", "PG-19", "Fanfics", "Random words"]
    assert list(wide["model"]) == ["A", "B"]
    assert wide["PG-19"][1] == "80 / 70.9 ± 11.0 / 396.4 ± 46.0"
    assert wide["Fanfics"].isna().all()


def test_the_printed_capacities_and_gains_agree_and_a_changed_one_is_named(points, models):
    printed = published.load_capacities()
    capacity = published.compute_capacity_table(points, printed, published.load_length_means(), models)
    rows = verdicts_of(decoding_capacity.judge(printed, capacity, models))
    assert len(rows) == 8
    assert set(rows.values()) == {"agree"}
    printed.loc[(printed["model"] == "facebook/opt-1.3b") & (printed["source"] == "pg19"), "info_gain_nats_mean"] += 1
    rows = verdicts_of(decoding_capacity.judge(printed, capacity, models))
    assert [v for v in rows.values() if v != "agree"][0].endswith(": OPT-1.3B)")


# --- 02 ------------------------------------------------------------------------------------------------------------


def test_models_are_counted_and_the_shorter_list_is_named():
    names = pd.Series(["A", "B", "C"])
    assert entropy_cutoff.count_models(names, pd.Series([True, False, False])) == "1 of 3 models: A"
    assert entropy_cutoff.count_models(names, pd.Series([True, True, False])) == "2 of 3 models; not C"
    assert entropy_cutoff.count_models(names, pd.Series([True, True, True])) == "3 of 3 models"


def test_the_abstracts_claims_agree_only_where_every_model_bears_them_out():
    test = pd.DataFrame({"model": ["a", "b"], "name": ["A", "B"], "slope1_b_nats": [10.0, 20.0]})
    test = test.assign(
        auc_diff_low=[0.1, 0.2], auc_within_low=[0.6, 0.4], slope_free_low=0.9, slope_free_high=[1.1, 0.95]
    )
    slopes = pd.DataFrame({"within_low": [0.9, 0.9], "within_high": 1.2, "beyond_low": [math.nan, 0.5]})
    slopes = slopes.assign(beyond_high=[math.nan, 1.5])
    rows = entropy_cutoff.judge(test, slopes, pd.DataFrame({"model": ["b", "a"], "b_nats_label": [20.0, 10.04]}))
    verdicts = list(verdicts_of(rows).values())
    assert verdicts == ["agree", "agree", "disagree", "disagree", "agree", "disagree"]
    assert rows[2]["here"] == "1 of 2 models: A"
    assert rows[5]["here"] == "1 of 2 models: B"  # no interval does not hold


def test_models_are_named_in_the_order_of_the_paper():
    frame = pd.DataFrame({"model": ["b", "a"], "x": [2, 1]})
    models = pd.DataFrame({"model": ["a", "b"], "name": ["A", "B"], "family": "OPT", "d_model": 4})
    named = entropy_cutoff.name_models(frame, models)
    assert named[["model", "name", "family", "x"]].to_numpy().tolist() == [["a", "A", "OPT", 1], ["b", "B", "OPT", 2]]


# --- 03 ------------------------------------------------------------------------------------------------------------


def scaled_runs(model="m", exponent=0.5):
    n_mem = np.array([1, 2, 4, 8])
    return pd.DataFrame(
        {
            "model": model,
            "name": model.upper(),
            "n_mem": n_mem,
            "decoding_capacity_tokens": 10 * n_mem,
            "recomputed_capacity_tokens": [10, 20, math.nan, 80],
            "token_gain_mean": 9.0 * n_mem**0.9,
            "info_gain_nats_mean": 30.0 * n_mem**exponent,
        }
    )


def held_runs(**change):
    runs = pd.DataFrame({"model": "m", "name": "M", "protocol": "strict", "n_mem": [1, 4]})
    means = {"exact_tokens_mean": [5.0, 20.0], "exact_bytes_mean": [10.0, 20.0], "info_gain_nats_mean": [30.0, 60.0]}
    return runs.assign(**means | change)


def test_exponents_are_those_the_runs_were_made_with():
    found = scaling_vectors.compute_exponents(scaled_runs(), held_runs())
    assert found["exponent"].to_numpy() == pytest.approx([1, 0.9, 0.5, 1, 0.5, 0.5])
    assert list(found["origin"]) == ["published"] * 3 + ["measured"] * 3
    assert found["per_vector_at_max"].to_numpy() == pytest.approx([10, 9 * 8**-0.1, 30 * 8**-0.5, 5, 5, 15])
    assert found["low"].notna().tolist() == [True] * 3 + [False] * 3  # two runs have no interval


def test_runs_that_the_context_bounds_are_left_out():
    runs = scaled_runs("EleutherAI/pythia-160m").assign(n_mem=[1, 2, 16, 32])
    found = scaling_vectors.compute_exponents(runs, held_runs()[:0])
    assert set(found["n_mem_max"]) == {16}


def test_a_quantity_without_a_positive_mean_has_no_exponent():
    found = scaling_vectors.compute_exponents(scaled_runs()[:0], held_runs(exact_tokens_mean=[0.0, 0.0]))
    tokens = found[found["quantity"] == "exact capacity (tokens)"].iloc[0]
    assert found["exponent"].isna().tolist() == [True, False, False]
    assert math.isnan(tokens["per_vector_at_1"])


def test_nearly_linear_is_judged_by_the_interval():
    frames = {share: scaled_runs(exponent=share) for share in (0.5, 1.0)}
    for share, runs in frames.items():
        runs["info_gain_nats_mean"] *= [1, 1.01, 0.99, 1]
        rows = scaling_vectors.judge(runs, scaling_vectors.compute_exponents(runs, held_runs()))
        assert list(verdicts_of(rows).values()) == ["agree", "agree" if share == 1 else "disagree"]


def test_the_papers_scaled_models_are_the_two_with_several_vectors(models):
    scaled = scaling_vectors.compute_scaled(published.load_capacities(), published.load_length_means(), models)
    assert set(scaled["name"]) == {"Pythia-160M", "Llama-3.2-1B"}
    assert scaled.groupby("name")["n_mem"].apply(list)["Llama-3.2-1B"] == [1, 2, 4, 8, 16]


# --- 04 ------------------------------------------------------------------------------------------------------------


def test_utilisation_is_gain_over_theory_in_tokens_and_in_bits():
    gains = pd.DataFrame(
        {"source": ["random", "pg19"], "d_model": 64, "vocab_size": 256, "token_gain_mean": [12.84, 32]}
    )
    found = capacity_utilisation.compute_utilisation(gains.assign(info_gain_nats_mean=64 * math.log(2)))
    assert list(found["kind"]) == ["books", "random words"]
    assert found["theoretical_capacity_tokens"].tolist() == [128, 128]
    assert found["utilisation"].to_numpy() == pytest.approx([32 / 128, 12.8 / 128])  # rounded first
    assert found["bits_per_dimension"].to_numpy() == pytest.approx(1)
    assert found["utilisation_in_bits"].to_numpy() == pytest.approx(1 / 16)


# --- 05 ------------------------------------------------------------------------------------------------------------


def failed_cases(gains, source, origin="published"):
    n = len(gains)
    cases = pd.DataFrame({"paper_ce_lm_nats": 100.0, "paper_ce_mem_nats": 100.0 - np.array(gains, float)})
    cases = cases.assign(origin=origin, model="m", source=source, n_mem=1, protocol="kuratov2025", solved=False)
    cases = cases.assign(text_id=[f"{source}-{i}" for i in range(n)], length=64, n_targets=63)
    return cases.reindex(columns=CASE_COLUMNS)


def test_the_ratio_is_that_of_the_mean_gains_of_failed_texts():
    cases = pd.concat([failed_cases([30, 30, 30], "random"), failed_cases([20, 20], "pg19")], ignore_index=True)
    solved = failed_cases([90], "random").assign(solved=True, text_id="easy")
    ratio = text_sources.compute_ratio(pd.concat([cases, solved]), cluster="text_id", n_resamples=200, seed=0)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1.5, 1.5, 1.5))


def test_measured_sources_have_a_row_for_each_natural_source():
    parts = [failed_cases([30, 32], "random"), failed_cases([20, 20], "books"), failed_cases([40, 10], "news")]
    cases = pd.concat(parts, ignore_index=True).assign(name="M", family="other")
    cases["cluster_id"] = cases["text_id"]
    found = text_sources.compare_measured(cases, n_resamples=50, seed=0).set_index("ratio_how")
    assert found["ratio_random"]["per-text runs, books"] == pytest.approx(31 / 20)
    assert found["b_pg19_nats"]["per-text runs, news"] == 25
    assert text_sources.compare_measured(cases[cases["source"] == "news"], n_resamples=50, seed=0).empty


def test_context_is_a_share_of_the_text_alone():
    values = {"ce": 200.0, "ce_with_text_prefix": 150.0, "ce_with_mem": 10.0}
    ablation = pd.DataFrame({"model": "m", "metric": list(values), "value": list(values.values()), "setting": 64})
    models = pd.DataFrame({"model": ["m"], "name": ["M"], "family": ["Llama"]})
    context = text_sources.compute_context(ablation, models)
    assert context[["prefix_tokens", "ce_left", "ce_left_with_vector"]].to_numpy().tolist() == [[64, 0.75, 0.05]]


def test_four_ways_to_average_the_same_points():
    cases = failed_cases([20, 40], "pg19").assign(length=[64, 128], n_targets=[63, 127], ce_lm_nats=90.0)
    cases["ce_mem_min_nats"] = cases["ce_lm_nats"] - [10, 30]
    printed = pd.DataFrame({"model": ["m"], "source": "pg19", "n_mem": 1, "decoding_capacity_tokens": 64})
    found = text_sources.compute_pooling(cases, printed, pd.DataFrame({"model": ["m"], "name": ["M"]})).iloc[0]
    assert found["paper"] == 30
    assert found["true_count"] == pytest.approx((20 * 63 / 64 + 40 * 127 / 128) / 2)
    assert found["beyond_capacity"] == 40
    assert (found["sums"], found["sums_length_tokens"]) == (10, 64)


def test_the_claims_on_sources_can_fail():
    sources = pd.DataFrame({"name": ["A", "B"], "ratio_how": "per-text points", "ratio_fanfics": [1.0, 1.01]})
    sources = sources.assign(b_random_nats=[10.0, 12.0], b_pg19_nats=10.0, ratio_random=[1.0, 1.2])
    sources = sources.assign(ratio_random_low=[0.9, 1.1], ratio_random_high=1.3)
    context = pd.DataFrame({"prefix_tokens": [64, 1024], "ce_left": [0.01, 0.5], "ce_left_with_vector": 0.1})
    assert list(verdicts_of(text_sources.judge(sources, context)).values()) == ["agree", "disagree", "agree", "agree"]
    sources["ratio_fanfics"], context["ce_left"] = 1.06, 0.05
    assert list(verdicts_of(text_sources.judge(sources, context)).values())[2:] == ["disagree", "disagree"]


# --- 14 ------------------------------------------------------------------------------------------------------------


def test_every_result_of_the_landscape_has_a_proof_that_the_figure_knows():
    results = landscape.collect_landscape()
    assert tuple(figures.PROOF_STYLES) == landscape.PROOFS
    assert set(results["proof"]) == set(landscape.PROOFS)
    assert results["tokens_per_vector"].gt(0).all()
    ranges = results.dropna(subset="tokens_per_vector_high")
    assert len(ranges)
    assert (ranges["tokens_per_vector_high"] > ranges["tokens_per_vector"]).all()


def test_several_vectors_are_divided_by_their_number():
    results = landscape.collect_landscape().set_index("row")
    several = results.loc["original, 2-16 vectors"]
    sixteen = several[several["detail"] == "mean over texts, n_mem = 16"].set_index("model")["tokens_per_vector"]
    printed = published.load_capacities().query("n_mem == 16").set_index("model")["decoding_capacity_tokens"]
    assert (sixteen * 16).to_dict() == printed.to_dict()


def test_the_best_vector_stands_among_the_coders(models):
    coders = landscape.compute_coders(
        landscape.collect_landscape(), published.load_followup("classical_coders"), models
    )
    assert coders["ratio_mean"].is_monotonic_increasing
    vector = coders[coders["family"] == "Llama"].iloc[0]
    llama = models.set_index("name").loc["Llama-3.1-8B"]
    assert vector["coder"] == "vector of\nLlama-3.1-8B"
    assert vector["ratio_mean"] == pytest.approx(1568 / llama["tokens_per_byte"] / (2 * 4096))


def test_two_orders_of_magnitude_above_every_encoder_is_refuted(models):
    results, headlines = landscape.collect_landscape(), published.load_followup("encoder_ratios")
    coders = landscape.compute_coders(results, published.load_followup("classical_coders"), models)
    found = list(verdicts_of(landscape.judge(results, coders, headlines)).values())
    assert found == ["agree", "agree", "agree", "disagree"]
    small = results[
        (results["tokens_per_vector_high"].fillna(results["tokens_per_vector"]) < 15)
        | (results["proof"] != "quality score")
    ]
    small = small[~small["work"].eq("500xCompressor")]
    assert list(verdicts_of(landscape.judge(small, coders, headlines)).values())[3] == "agree"
