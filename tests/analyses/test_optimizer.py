"""Notebook 11's numbers from cases whose answers can be counted by hand."""

import numpy as np
import pandas as pd
import pytest

from paper_lib.analyses import anchor, optimizer

NONE = {"n_resamples": 0, "seed": 0}


def case(arm, text, length, n_steps, exact=True, **more):
    row = {"arm": arm, "text_id": text, "cluster_id": f"book {text}", "length": length, "n_steps": n_steps}
    row |= {"exact": exact, "optimiser_max_steps": 1000 if arm == "published" else 400, "ce_lm_nats": 3.0 * length}
    row |= {"text_bytes": 4 * length, "n_correct_mem": length, "n_targets": length, "ce_mem_nats": 0.5}
    return row | {"ended": "reached" if exact else "budget", "protocol": "strict", "name": "m"} | more


@pytest.fixture
def cases():
    # fast holds 8 and 4 tokens, published 4 and 2, and needs 100 and 50 evaluations for its 4 and 2.
    return pd.DataFrame(
        [
            case("fast", "a", 4, 10), case("fast", "a", 8, 90), case("fast", "a", 12, 400, False),
            case("fast", "b", 4, 20), case("fast", "b", 8, 400, False), case("fast", "b", 12, 400, False),
            case("published", "a", 2, 50), case("published", "a", 4, 390), case("published", "a", 8, 999, False),
            case("published", "b", 2, 60), case("published", "b", 4, 900, False), case("published", "b", 8, 999, False),
        ]
    )  # fmt: skip


def test_what_is_held_is_the_longest_exact_length_of_each_text(cases):
    held = optimizer.compute_held(cases, 400).set_index(["arm", "text_id"])["tokens"]
    assert held.to_dict() == {("fast", "a"): 8, ("fast", "b"): 4, ("published", "a"): 4, ("published", "b"): 2}
    early = optimizer.compute_held(cases, 15).set_index(["arm", "text_id"])
    assert early.loc[("fast", "a"), ["tokens", "nats", "bytes"]].tolist() == [4, 12, 16]
    assert early.loc[("fast", "b"), "tokens"] == 0


def test_the_curve_ends_where_the_arm_does(cases):
    curve = optimizer.compute_held_curve(cases, ["published", "fast"], n_points=20, **NONE)
    assert list(curve["arm"].unique()) == ["published", "fast"]
    ends = curve.groupby("arm")[["evaluations", "tokens"]].last()
    assert ends.loc["published"].tolist() == [1000, 3]
    assert ends.loc["fast"].tolist() == [400, 6]


def test_ratios_and_evaluations_saved(cases):
    ratio = optimizer.compare_held(cases, "fast", "published", evaluations=400, **NONE)
    assert ratio.value == pytest.approx((8 + 4) / (4 + 2))
    # published holds 4 and 2 at its end; fast holds 4 and 0 after 10, 4 and 4 after 20 evaluations
    assert optimizer.count_saved(cases, "fast", "published", **NONE).value == pytest.approx(1000 / 20)
    assert optimizer.count_saved(cases, "published", "fast", **NONE).value == 0
    table = optimizer.compare_recipes(cases, ["published"], n_resamples=50, seed=0)
    assert table["quantity"].tolist()[0] == "tokens held after 400"
    assert table["ratio"].tolist() == pytest.approx([2, 2, 2, 50])
    assert (table["ratio_low"] <= table["ratio"]).all()


def test_when_a_share_of_texts_is_exact():
    steps = [30, 10, 20, 40, 400, 50, 60, 70, 80, 90]
    cases = pd.DataFrame([case("fast", str(n), 8, s, s < 400) for n, s in enumerate(steps)])
    assert optimizer.count_until(cases, 0.9, **NONE).value == 90
    assert optimizer.count_until(cases, 0.5, **NONE).value == 50
    assert optimizer.count_until(cases, 1.0, **NONE).value == np.inf
    curve = optimizer.compute_share_curve(cases, **NONE).set_index("evaluations")["share"]
    assert curve.loc[[1, 50, 90, 400]].tolist() == pytest.approx([0, 0.5, 0.9, 0.9])


def test_the_real_model_is_given_ten_times_as_many_evaluations():
    fast = [case("fast", str(n), 32, 96 + n, protocol="anchored") for n in range(10)]
    slow = [case("published", str(n), 32, 985 if n == 0 else 1000, n == 0) for n in range(8)]
    table = optimizer.compare_real(pd.DataFrame(fast), pd.DataFrame(slow), **NONE)
    assert table["value"].tolist() == pytest.approx([104, 1 / 8, 5 / 8, 4 / 8])
    assert table["n_texts"].tolist() == [10, 8, 8, 8]
    again = [case("fast", str(n), 32, 400, False, protocol="anchored") for n in range(8)]  # a second start of some
    table = optimizer.compare_real(pd.DataFrame(fast + again), pd.DataFrame(slow), **NONE)
    assert table["value"].tolist() == pytest.approx([np.inf, 1 / 8, 5 / 16, 3 / 16])
    assert table["n_texts"].tolist() == [10, 8, 8, 8]
    assert "published after 1000" in table["quantity"].iloc[1]
    assert "fast after 100" in table["quantity"].iloc[2]


def test_orders_are_compared_on_the_same_texts_and_say_which_token_is_wrong():
    more = {"stopping": "strict", "start_attention": 0.4, "optimiser_max_steps": 400}
    first = [case("fast", str(n), 4, 400, False, margin_each=[1, -2, 1, -0.1 if n else 3], **more) for n in range(4)]
    front = [
        case("fast", str(n), 4, 50 + n, n < 3, margin_each=[1, -2, 1, 1], protocol="anchored", **more) for n in range(4)
    ]
    front[2] = front[2] | {"n_steps": 450, "optimiser_max_steps": 500}  # exact, but after more than the others had
    alone = [case("other", "0", 4, 9, margin_each=[1] * 4, **more)]  # in one order only
    chosen = anchor.select_orders(pd.DataFrame(first + front + alone))
    assert set(chosen["optimiser"]) == {"fast"}
    table = anchor.compute_anchor(chosen, **NONE).set_index("order")
    assert table["exact_share"].to_dict() == {anchor.ORDERS["strict"]: 0, anchor.ORDERS["anchored"]: 0.5}
    assert table["gained"].tolist() == [0, 0.5]
    assert table["wrong_index"].tolist() == [1, 1]
    assert table["wrong_share"].tolist() == [1, 1]
    assert table.loc[anchor.ORDERS["anchored"], "evaluations"] == 50.5


def test_each_place_in_a_text_has_its_share_of_wrong_tokens_and_what_is_left():
    each = {"ce_lm_nats_each": [5.0, 4.0], "ce_mem_nats_each": [1.0, 3.0], "margin_each": [-0.1, 2.0]}
    other = {"ce_lm_nats_each": [7.0, 4.0], "ce_mem_nats_each": [2.0, 3.5], "margin_each": [0.1, 2.0]}
    rows = [case("fast", "a", 2, 9, **each), case("fast", "b", 2, 9, **other), case("slow", "a", 2, 9, **each)]
    table = anchor.compute_positions(pd.DataFrame(rows), **NONE).set_index(["arm", "index"])
    assert table["wrong"].tolist() == [0.5, 0, 1, 0]
    assert table["left_nats"].tolist() == [1.5, 3.25, 1, 3]
    assert table["alone_nats"].tolist() == [6, 4, 5, 4]


def test_the_price_of_a_margin_counts_texts_that_reached_it():
    arms = {"fast, accuracy 1": "accuracy 1", "fast": "margin .001"}
    rows = [case("fast, accuracy 1", str(n), 8, 20 + n, n > 0, ended="reached") for n in range(4)]
    rows += [case("fast", str(n), 8, 40 + n, n > 1) for n in range(4)] + [case("fast", "0", 12, 1)]
    table = optimizer.compute_margin_price(pd.DataFrame(rows), arms, **NONE)
    assert table["reached"].tolist() == [1, 0.5]
    assert table["exact_share"].tolist() == [0.75, 1]
    assert table["evaluations"].tolist() == [21.5, 42.5]


def test_the_search_lists_the_best_arm_first(cases):
    table = optimizer.compute_search(cases)
    assert table.loc[table["length"] == 8, "arm"].tolist() == ["fast", "published"]
    assert table.query("arm == 'fast' and length == 8")["exact_at_100"].item() == 0.5
