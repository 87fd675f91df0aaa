"""The share of a vector that is used."""

import math

import pandas as pd
import pytest

from paper_lib import capacity, published
from paper_lib.analyses import capacity_utilisation


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


def test_the_first_drawn_theory_of_llama_3b_had_the_wrong_width(models):
    assert round(capacity.theoretical_capacity_tokens(4096, 128256)) == 3862
    assert models.set_index("name")["d_model"]["Llama-3.2-3B"] == 3072


def test_printed_utilisations_agree_but_for_the_replaced_gain(models):
    gains = published.load_capacities().query("n_mem == 1 and source in ('pg19', 'random')").merge(models, on="model")
    rows = capacity_utilisation.judge(
        capacity_utilisation.compute_utilisation(gains), published.load_stale_capacities()
    )
    assert [row["verdict"] for row in rows] == ["supported", "supported", "contradicted", "supported"]
    assert rows[2]["detail"] == "1 of 14 differ: Pythia-2.8B"
