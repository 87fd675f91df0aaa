"""What one step holds, from cases that can be counted by hand."""

import pandas as pd
import pytest

from paper_lib import published
from paper_lib.analyses import one_step
from paper_lib.paths import FIGURES

NONE = {"n_resamples": 0, "seed": 0}


WAYS = [("one_step", "one_pass", 0.1), ("strict", "cached", 0.4)]


def case(arm, text, length, exact, n_mem=1, steps=10):
    return {
        "arm": arm, "n_mem": n_mem, "text_id": text, "cluster_id": text, "length": length, "exact": exact,
        "ce_lm_nats_each": [3.0] * length, "exact_length_tokens": length * exact,
        "n_steps": steps, "vector_bytes": 1280 if "m" in arm.split() else 640,
        "n_correct_mem": length if exact else 1, "n_targets": length, "name": "small",
        "finder": "shared_last" if "shared" in arm else "optimise",
        "parametrisation": "held_last" if "held" in arm else "free",
    }  # fmt: skip


@pytest.fixture
def cases():
    reference = one_step.AUTOREGRESSIVE
    return pd.DataFrame(
        [
            case(reference, "a", 8, True), case(reference, "a", 16, True, steps=40), case(reference, "b", 8, True),
            case(reference, "b", 16, False),
            case("one step, e and m", "a", 8, True, steps=30), case("one step, e and m", "a", 16, False),
            case("one step, e and m", "b", 8, False), case("one step, e and m", "b", 16, False),
            case("held m", "c", 8, True),
        ]
    )  # fmt: skip


def test_what_is_held_is_the_longest_exact_length(cases):
    held = one_step.compute_held(cases).set_index(["arm", "text_id"])
    assert held.loc[(one_step.AUTOREGRESSIVE, "a"), ["tokens", "nats", "evaluations", "at_most"]].tolist() == [
        16,
        48,
        40,
        16,
    ]
    assert held.loc[("one step, e and m", "b"), ["tokens", "nats"]].tolist() == [0, 0]


def test_bytes_are_those_of_the_texts_own_vectors(cases):
    more = pd.DataFrame([case("autoregressive, 2 vectors", "a", 8, True, n_mem=2), case("shared m", "a", 8, True)])
    sizes = one_step.compute_held(pd.concat([cases, more])).groupby("arm")["own_bytes"].first()
    assert sizes.to_dict() == {
        one_step.AUTOREGRESSIVE: 640, "autoregressive, 2 vectors": 1280, "one step, e and m": 1280, "held m": 640,
        "shared m": 640,
    }  # fmt: skip


def test_ratios_are_of_the_same_texts_only(cases):
    held = one_step.compute_held(cases)
    rows = one_step.summarise_held(held, {"ratio": one_step.AUTOREGRESSIVE}, **NONE).set_index("arm")
    assert rows.loc["one step, e and m", "ratio"] == pytest.approx((24 + 0) / (48 + 24))
    assert pd.isna(rows.loc["held m", "ratio"])
    assert rows.loc[one_step.AUTOREGRESSIVE, ["tokens", "at_longest", "passes"]].tolist() == [12, 1, "one a token"]
    assert rows.loc["one step, e and m", "passes"] == "one"


def test_of_targets_that_grew_what_was_reached_counts(cases):
    grown = case("one step, growing by 4", "a", 16, False) | {"exact_length_tokens": 12}
    held = one_step.compute_held(pd.DataFrame([grown])).iloc[0]
    assert held[["tokens", "nats", "at_most"]].tolist() == [12, 36, 16]


def test_speed_is_over_decoding_with_the_cache_at_that_length():
    found = pd.DataFrame(
        [
            {"model": "a/some", "protocol": protocol, "n_mem": 1, "length": length, "how": how, "repeat": repeat,
             "seconds": seconds * (1 + repeat) * length, "n_threads": 1, "device": "cpu"}
            for protocol, how, seconds in WAYS
            for length in (8, 16)
            for repeat in range(3)
        ]
    )  # fmt: skip
    speed = one_step.compute_speed(found, n_resamples=50, seed=0).set_index(["how", "length"])
    assert set(speed.index) == {("one_pass", 8), ("one_pass", 16), ("cached", 8), ("cached", 16)}
    assert speed.loc[("one_pass", 8), ["ratio", "ratio_low", "ratio_high"]].tolist() == pytest.approx([4, 4, 4])
    assert speed.loc[("cached", 16), ["tokens_a_second", "ratio"]].tolist() == pytest.approx([1 / 0.8, 1])


def test_arrangements_stand_beside_the_printed_ones():
    cases = pd.DataFrame([case("e*", "a", 2, True), case("e*", "b", 2, False), case("e m*", "a", 2, True)])
    table = one_step.compute_arrangements(cases, published.load_followup("one_step_arrangement"), **NONE)
    here = table[table["origin"] == "measured"].set_index("arrangement")["accuracy"]
    assert here.to_dict() == {"e m*": 1.0, "e*": 0.75}
    shown = one_step.arrange_arrangements(table)
    assert set(zip(shown["name"], shown["positions"], strict=True)) == {("Llama-3.2-1B", "rotary"), ("small", "")}
    assert shown.iloc[0].tolist()[:4] == ["e m*", "Llama-3.2-1B", "rotary", "1.00"]
    assert shown[shown["name"] == "Llama-3.2-1B"].set_index("arrangement").loc["e m*", "N = 256"] == "0.99 ± 0.10"


def test_what_comes_out_at_the_longest_length_leaves_the_ratio_open():
    arrangements = pd.read_csv(FIGURES / "table_one_step.csv")
    paths = pd.read_csv(FIGURES / "table_one_step_paths.csv")
    held = pd.DataFrame(
        {
            "name": "small", "arm": [one_step.ONE_STEP, one_step.AUTOREGRESSIVE], "n_mem": 1, "at_longest": [0, 0],
            "ratio": [0.5, 1.0], "ratio_low": [0.4, 1.0], "ratio_high": [0.6, 1.0],
        }
    )  # fmt: skip
    found = {}
    for above, below in ((0, 0), (1, 0), (0, 1)):
        rows = one_step.judge(arrangements, held.assign(at_longest=[above, below]), paths)
        row = next(row for row in rows if row["claim"].startswith("small"))
        found[above, below] = row["low"], row["high"], row["verdict"]
    assert found[0, 0] == (0.4, 0.6, "supported")
    assert found[1, 0] == (0.4, float("inf"), "undecided")
    assert found[0, 1] == (0.0, 0.6, "undecided")
