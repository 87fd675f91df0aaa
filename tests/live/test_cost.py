"""What a sweep will cost, counted by hand."""

import functools

import numpy as np
import pytest
from tiny import make_lm, save_overflowing_model, save_tiny_model

from paper_lib import config
from paper_lib.errors import InputError
from paper_lib.live import cost
from paper_lib.live.cases import list_cases
from paper_lib.live.load import load_lm
from paper_lib.live.sweep import run_sweep
from paper_lib.store import Store

pytestmark = pytest.mark.slow

compute_cost = functools.partial(cost.compute_cost, timing_seconds=0.1)


@pytest.fixture
def sweep(tmp_path):
    return config.Sweep(
        name="planned", model={"name": save_tiny_model(tmp_path / "model")}, n_texts=3, lengths=(4, 6), n_mem=(2,),
        texts={"source": "strings", "texts": ("a cat sat", "the dog", "no bird")},
        protocols=("strict",), optimiser={"max_steps": 50}, batch_size=2,
    )  # fmt: skip


def test_tokens_and_flops_are_those_counted_by_hand(sweep, tmp_path):
    lm, store = load_lm(sweep.model.name), Store("planned", tmp_path)
    table = compute_cost(sweep, lm, store).set_index("length")
    assert dict(table["n_cases"]) == {4: 3, 6: 3}
    assert table.loc[4, "token_steps"] == 3 * (2 + 4 - 1) * 50
    width, inner, vocab, layers = 16, 24, 257, 2
    weights = layers * (4 * width**2 + 3 * width * inner) + vocab * width
    assert lm.n_matrix_weights == weights
    assert table.loc[6, "flops"] == 4 * weights * 3 * (2 + 6 - 1) * 50
    assert (table["hours"] > 0).all()
    assert (table["memory_gb"] > 0.05).all()


def test_only_what_is_not_stored_is_planned(sweep, tmp_path):
    store = Store("planned", tmp_path)
    run_sweep(sweep.model_copy(update={"lengths": (4,)}), store)
    assert list(compute_cost(sweep, load_lm(sweep.model.name), store)["length"]) == [6]
    run_sweep(sweep, store)
    assert compute_cost(sweep, load_lm(sweep.model.name), store).empty


def test_of_a_case_left_halfway_only_the_rest_is_planned(sweep, tmp_path, monkeypatch):
    lm, store = load_lm(sweep.model.name), Store("planned", tmp_path)
    sweep = sweep.model_copy(update={"lengths": (4,), "batch_size": 1})
    store.put_halfway(list_cases(sweep, lm)[0].key, {"n_steps": np.array(20)})
    monkeypatch.setattr(cost, "time_step", lambda lm, protocol, cases, *_: 0.1)
    table = compute_cost(sweep, lm, store)
    n_steps = 50 - 20 + 2 * 50
    assert table["token_steps"].tolist() == [(2 + 4 - 1) * n_steps]
    assert table["hours"].tolist() == [pytest.approx(0.1 * n_steps / 3600)]


def test_a_batch_and_its_smaller_rest_are_timed_each(sweep, tmp_path, monkeypatch):
    timed = []
    monkeypatch.setattr(cost, "time_step", lambda lm, protocol, cases, *_: timed.append(len(cases)) or 0.1 * len(cases))
    lm, store = load_lm(sweep.model.name), Store("planned", tmp_path)
    table = compute_cost(sweep.model_copy(update={"lengths": (4,), "batch_size": 2}), lm, store)
    assert timed == [2, 1]
    assert table["hours"].sum() == pytest.approx((0.2 + 0.1) * 50 / 3600)


def test_a_gpu_is_planned_at_its_stated_rate(sweep, tmp_path):
    lm, store = load_lm(sweep.model.name), Store("planned", tmp_path)
    table = compute_cost(sweep, lm, store, gpu="a100")
    assert (table["hours"] == table["flops"] / 19.5e12 / 3600).all()
    assert table["memory_gb"].isna().all()
    with pytest.raises(InputError, match="unknown GPU 'abacus'; choose from: a100, h100, h200"):
        compute_cost(sweep, lm, store, gpu="abacus")


def test_a_model_without_a_finite_loss_cannot_be_timed(sweep, tmp_path):
    name = save_overflowing_model(tmp_path / "overflowing")
    sweep = sweep.model_copy(update={"model": config.Model(name=name, dtype="float16")})
    with pytest.raises(InputError, match="no loss is finite, so there is nothing to time; use float32"):
        compute_cost(sweep, load_lm(name, dtype="float16"), Store("planned", tmp_path))


def test_matrices_are_counted_in_every_style():
    # GPT-2 keeps its own kind of layer
    width, vocab = 16, 40
    assert make_lm("gpt2").n_matrix_weights == 2 * 12 * width**2 + vocab * width
