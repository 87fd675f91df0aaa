"""Bits of vectors and texts against values worked out by hand, and entropy codes against a coder that exists."""

import math

import constriction
import numpy as np
import pandas as pd
import pytest

from paper_lib.analyses import bits
from paper_lib.storage import find_storage

NONE = {"n_resamples": 0, "seed": 0}
WIDTH = 400


@pytest.fixture
def vectors():
    draw = np.random.default_rng(0)
    return {key: draw.normal(0, 3, (1, WIDTH)).astype(np.float32) for key in "abcd"}


@pytest.fixture
def cases():
    return pd.DataFrame(
        {
            "key": list("abcd"),
            "arm": "optimised, 4",
            "storage": "levels(bits=4)",
            "cluster_id": ["b", "b", "c", "d"],
            "text_id": list("abcd"),
            "length": 24,
            "n_mem": 1,
            "text_bytes": 100,
            "exact": [True, True, True, False],
            "ce_lm_nats": 100.0,
            "ce_mem_nats": 10.0,
        }
    )


def rounded(vectors, storage):
    return {key: storage.round(vector.astype(np.float64)).astype(np.float32) for key, vector in vectors.items()}


def test_levels_coded_by_the_counts_of_other_books_take_what_a_coder_takes(cases, vectors):
    storage = find_storage("levels(bits=4)")
    vectors = rounded(vectors, storage)
    coded = bits.entropy_code_bits(cases, vectors)
    for key, others in {"a": "cd", "c": "abd"}.items():
        levels = {k: storage.pack(vectors[k])[0, 1:].astype(int) + 8 for k in "abcd"}
        counts = 1.0 + sum(np.bincount(levels[other], minlength=16) for other in others)
        coder = constriction.stream.queue.RangeEncoder()
        model = constriction.stream.model.Categorical(counts / counts.sum(), perfect=False)
        coder.encode(levels[key].astype(np.int32), model)
        ideal = coded[key] - storage.n_bits(0)
        assert ideal <= 32 * len(coder.get_compressed()) <= ideal + 32
    assert (coded < 4 * WIDTH).all()


def test_vector_and_text_bits_by_hand(cases, vectors):
    found = bits.compute_vector_bits(cases, rounded(vectors, find_storage("levels(bits=4)"))).set_index("key")
    assert found.loc["a", "vector_bits"] == 4 * WIDTH + 7 + 16
    assert found.loc["a", "text_bits"] == pytest.approx(100 / math.log(2))
    assert found.loc["a", "gain_bits"] == pytest.approx(90 / math.log(2))
    assert found.loc["d", ["text_bits", "gain_bits"]].tolist() == [0, 0]
    row = bits.summarise_vector_bits(found.reset_index(), **NONE).iloc[0]
    assert row["exact_share"] == 0.75
    assert row["text_bits_per_vector_bit"] == pytest.approx(0.75 * 100 / math.log(2) / (4 * WIDTH + 23))
    shortest = bits.compute_shortest(found.reset_index(), **NONE).iloc[0]
    assert shortest["n_texts"] == 3
    assert shortest["code_bits"] == 16 + 160  # 144.3 bits in whole words of 32
    assert shortest["factor"] == pytest.approx(shortest["vector_bits"] / 176)


def test_losses_are_paired_with_the_same_texts_at_16_bits(cases):
    sixteen = cases.assign(arm="rounded, 16", storage="float16", exact=[True, False, True, True])
    both = pd.concat([cases, sixteen], ignore_index=True)
    both[["mode", "bits"]] = [bits.read_mode(arm) for arm in both["arm"]]
    losses = bits.compute_losses(both, n_resamples=0, seed=0)
    assert set(losses) == {("optimised", 4)}
    assert losses["optimised", 4].value == pytest.approx(0)  # one gained, one lost


def test_at_capacity_each_precision_has_the_length_that_holds_most():
    rates = pd.DataFrame(
        [
            {"origin": "measured", "mode": mode, "bits": n_bits, "length": length}
            | {"gain_bits": gain, "vector_bits": vector_bits}
            for mode, n_bits, length, gain, vector_bits in (
                ("rounded", 16, 24, 90.0, 900), ("rounded", 16, 48, 120.0, 900), ("rounded", 4, 24, 0.0, 250),
                ("optimised", 4, 24, 50.0, 250), ("optimised", 4, 48, 20.0, 250),
            )
        ]
    )  # fmt: skip
    printed = pd.DataFrame(
        [{"kind": "books", "origin": "published", "name": "Some", "d_model": 100, "info_gain_bits": 80.0}]
    )
    table = bits.compute_at_capacity(printed, rates)
    assert table["gain_bits_per_vector_bit"].tolist() == pytest.approx([0.05, 120 / 900, 0.2])


def test_weights_are_compared_at_each_length(cases):
    cases = cases.assign(n_targets=24)
    table = bits.compare_weights({3: cases.assign(exact=False, ce_lm_nats=200.0), 4: cases}, **NONE)
    assert table["weight_bits"].tolist() == [4, 3]
    assert table["nats_a_token"].tolist() == pytest.approx([100 / 24, 200 / 24])
    assert table["exact_share"].tolist() == [0.75, 0]
    assert table["gain_bits"].tolist() == pytest.approx([90 / math.log(2), 190 / math.log(2)])
