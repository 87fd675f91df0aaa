"""Ratios of coders, against the paper's Table 4 as printed and counted by hand."""

import math

import pandas as pd
import pytest

from paper_lib import published
from paper_lib.analyses import coders

NONE = {"n_resamples": 0, "seed": 0}


def make_found(n_words=1568):
    return pd.DataFrame(
        [
            {"coder": "zlib", "source": "pg19_test_clean", "n_words": n_words, "cluster_id": book, "text_bytes": 100,
             "n_bits": n_bits, "ce_lm_nats": 100.0, "decoded": True}
            for book, n_bits in (("a", 400), ("b", 200))
        ]
    )  # fmt: skip


def test_ratios_are_bits_of_utf8_over_bits_of_code():
    printed = pd.DataFrame([{"coder": "zlib", "source": "pg19", "ratio_mean": 2.28, "ratio_std": 0.16}])
    table = coders.compute_coders(make_found(), printed, **NONE)
    assert table["ratio"].tolist() == [2.28, 3.0]
    assert table["excess"].iloc[1] == pytest.approx(600 / (200 / math.log(2)) - 1)


def test_table_4_is_as_printed_and_ours_beside_it():
    table = coders.compute_coders(make_found(64), published.load_followup("classical_coders"), **NONE)
    shown = coders.arrange_coders(table).set_index("coder")
    assert shown.loc["zlib"].tolist() == ["2.28 ± 0.16", "2.34 ± 0.07", "1.80 ± 0.06", "3.00 ± 1.41"]
    assert shown.loc["bz2"].tolist()[-1] == ""
