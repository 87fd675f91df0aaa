"""What keys and values hold, from cases that can be counted by hand."""

import pandas as pd
import pytest

from paper_lib.analyses import kv_memory
from paper_lib.stats import Interval

NONE = {"n_resamples": 0, "seed": 0}


def case(arm, text, length, exact, gain, vector_bytes=2560):
    return {
        "name": "small", "arm": arm, "text_id": text, "cluster_id": text, "length": length, "exact": exact,
        "n_mem": 1, "vector_bytes": vector_bytes, "storage": "float16", "ce_lm_nats": 3.0 * length,
        "ce_mem_nats": 3.0 * length - gain, "n_correct_mem": length if exact else length // 2, "n_targets": length,
        "n_steps": 10,
    }  # fmt: skip


@pytest.fixture
def held():
    cases = [
        case(kv_memory.BOTH, "a", 16, True, 40), case(kv_memory.BOTH, "a", 32, True, 90),
        case(kv_memory.BOTH, "b", 16, True, 40), case(kv_memory.BOTH, "b", 32, False, 30),
        case(kv_memory.VECTOR, "a", 16, True, 40, 320), case(kv_memory.VECTOR, "a", 32, False, 20, 320),
        case(kv_memory.VECTOR, "b", 16, False, 25, 320), case(kv_memory.VECTOR, "b", 32, False, 10, 320),
    ]  # fmt: skip
    return kv_memory.compute_held(pd.DataFrame(cases))


def test_what_is_held_is_the_longest_exact_length_and_the_most_nats_of_any(held):
    at = held.set_index(["arm", "text_id"])
    columns = ["tokens", "gain_nats", "at_most", "evaluations", "real_numbers", "own_bytes"]
    assert at.loc[(kv_memory.BOTH, "b"), columns].tolist() == [16, 40, 32, 20, 1280, 2560]
    assert at.loc[(kv_memory.VECTOR, "b"), columns].tolist() == [0, 25, 32, 20, 160, 320]
    assert at.loc[(kv_memory.BOTH, "b"), "accuracy"] == 0.5


def test_what_is_held_is_compared_in_all_and_for_each_number(held):
    rows = kv_memory.summarise_held(held, **NONE).set_index("arm")
    both, vector = rows.loc[kv_memory.BOTH], rows.loc[kv_memory.VECTOR]
    assert both[["tokens", "gain_nats", "whole_texts"]].tolist() == [24, 65, 1]
    assert both["gain_per_number"] == pytest.approx(65 / 1280)
    assert both[["nats", "nats_per_number"]].tolist() == pytest.approx([72, 72 / 1280])
    assert both["nats_ratio"] == pytest.approx((96 + 48) / (48 + 0))
    assert both["per_number_ratio"] == pytest.approx(3 / 8)
    assert vector[["nats_ratio", "per_number_ratio"]].tolist() == [1, 1]
    assert kv_memory.compare_arms(held, kv_memory.BOTH, kv_memory.VECTOR, **NONE).value == 3


def test_a_memory_in_company_is_measured_against_none():
    found = pd.DataFrame(
        [
            {
                "arm": kv_memory.BOTH,
                "length": 16,
                "cluster_id": text,
                "text_id": text,
                "place": place,
                "accuracy": share,
            }
            for text in "ab"
            for place, share in zip(kv_memory.PLACES, [1.0, 0.25 if text == "a" else 0.75, 0.3, 0.2], strict=True)
        ]
    )
    places = kv_memory.average_places(found, **NONE).set_index("place")
    assert places.loc["in front", ["accuracy", "above_none"]].tolist() == pytest.approx([0.5, 0.3])
    assert places.loc["none", "above_none"] == 0


def test_what_comes_out_at_the_longest_length_leaves_the_verdict_open(held):
    rows = kv_memory.summarise_held(held, **NONE)
    for end in ("low", "high"):
        rows[[f"nats_ratio_{end}", f"per_number_ratio_{end}"]] = rows[["nats_ratio", "per_number_ratio"]]
    values, places = Interval(0.5, 0.4, 0.6), pd.DataFrame({"arm": kv_memory.BOTH, "place": kv_memory.PLACES})
    places[["above_none", "above_none_low", "above_none_high"]] = 0.0
    first, second = kv_memory.judge(rows, values, places)[:2]
    assert (first["low"], first["high"], first["verdict"]) == (3, float("inf"), "supported")
    assert (second["high"], second["verdict"]) == (float("inf"), "undecided")
    rows["whole_texts"] = [0, 1] if rows["arm"].iloc[1] == kv_memory.VECTOR else [1, 0]
    first, second = kv_memory.judge(rows, values, places)[:2]
    assert (first["low"], first["verdict"], second["verdict"]) == (0, "undecided", "supported")
