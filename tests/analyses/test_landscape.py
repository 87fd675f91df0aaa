"""The landscape of results."""

import pytest

from paper_lib import figures, measured, published
from paper_lib.analyses import landscape


def collect():
    return landscape.collect_landscape(measured.load_cases())


def test_every_result_of_the_landscape_has_a_proof_that_the_figure_knows():
    results = collect()
    assert tuple(figures.PROOF_STYLES) == landscape.PROOFS
    assert set(results["proof"]) == set(landscape.PROOFS)
    assert results["tokens_per_vector"].gt(0).all()
    ranges = results.dropna(subset="tokens_per_vector_high")
    assert len(ranges)
    assert (ranges["tokens_per_vector_high"] >= ranges["tokens_per_vector"]).all()


def test_several_vectors_are_divided_by_their_number():
    results = collect().set_index("row")
    several = results.loc["original, 2-16 vectors"]
    sixteen = several[several["detail"] == "mean over texts, n_mem = 16"].set_index("model")["tokens_per_vector"]
    printed = published.load_capacities().query("n_mem == 16").set_index("model")["decoding_capacity_tokens"]
    assert (sixteen * 16).to_dict() == printed.to_dict()


def test_what_was_measured_here_is_each_texts_longest_exact_length():
    texts = ["a", "a", "b", "b"]
    cases = measured.load_cases().query("sweep == 'novels-5m_books_strict' and n_mem == 1").iloc[:4]
    cases = cases.assign(text_id=texts, length=[8, 16, 8, 16], exact=[True, True, False, False])
    rows = landscape.collect_landscape(cases).query("origin == 'measured'")
    assert rows[["row", "tokens_per_vector", "proof"]].values.tolist() == [["here, strict", 8, landscape.GREEDY]]


def test_keys_and_values_stand_apart_from_vectors():
    rows = list(dict.fromkeys(collect()["row"]))
    first = rows.index(landscape.ORIGINAL_ONE)
    assert rows[first - 2 : first] == ["500xCompressor (keys, values)", "Gisting (keys, values)"]


def test_the_best_vector_and_its_own_model_stand_among_the_coders(models):
    coders = landscape.compare_coders(
        collect(),
        published.load_followup("classical_coders"),
        models,
        published.load_ablations("text_prefix_vs_mem"),
    ).set_index("coder")
    assert coders["ratio_mean"].is_monotonic_increasing
    llama = models.set_index("name").loc["Llama-3.1-8B"]
    vector, code = coders.loc["vector of\nLlama-3.1-8B"], coders.loc["ideal code by\nLlama-3.1-8B"]
    assert vector["ratio_mean"] == pytest.approx(1568 / llama["tokens_per_byte"] / (2 * 4096))
    assert vector["coded_bytes"] == 8192
    assert round(code["coded_bytes"]) == 661  # 3,664.6 nats


def test_the_headlines_are_those_of_the_tables():
    headlines = published.load_followup("encoder_ratios").set_index("work")["tokens_per_vector"].astype(str)
    results = collect()
    largest = results.groupby("row")["tokens_per_vector"].max()
    assert float(headlines["Kuratov et al."]) == largest[landscape.ORIGINAL_ONE]
    assert float(headlines["Progressive Cramming"]) == pytest.approx(largest["progressive"], abs=0.5)


def test_what_was_varied_are_the_printed_numbers(models):
    for name, x, _ in landscape.VARIED:
        runs = landscape.collect_varied(name, x, models)
        assert runs[x].gt(0).all()
        assert runs["tokens"].notna().all()
    stages = landscape.collect_varied("progressive_stage_size", "tokens_per_stage", models)
    assert stages.set_index("tokens_per_stage")["tokens"][32] == 367
    assert "Llama-3.1-8B" in set(landscape.collect_varied("progressive_learning_rate", "learning_rate", models)["name"])


def test_two_orders_of_magnitude_hold_against_lossless_encoders_only():
    results, headlines = collect(), published.load_followup("encoder_ratios")
    assert [row["verdict"] for row in landscape.judge(results, headlines)] == ["contradicted", "supported"]
    smaller = headlines.assign(tokens_per_vector="12", lossless_up_to=16.0)
    assert [row["verdict"] for row in landscape.judge(results, smaller)] == ["supported", "contradicted"]
