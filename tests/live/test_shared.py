"""A vector shared by all texts: against a plain loop, kept together, given to new texts; and what must not be."""

import itertools

import numpy as np
import pytest
import torch
from tiny import make_lm, random_ids

from paper_lib.config import Optimiser, Sweep
from paper_lib.errors import InputError
from paper_lib.live.finders import FINDERS
from paper_lib.live.goals import GOALS
from paper_lib.live.measure import measure_with_gradient
from paper_lib.live.movers import AdamW
from paper_lib.live.protocols import find_protocol
from paper_lib.live.rows import Case, Finished, Recipe, Unfinished, draw_start
from paper_lib.live.sweep import run_sweep
from paper_lib.store import Store
from sweeps import run

pytestmark = pytest.mark.slow
PROTOCOL = find_protocol("one_step")
RECIPE = Recipe(GOALS["never"], Optimiser(lr=0.1, weight_decay=0.0, max_steps=12))


def make_cases(n=3, length=6):
    return [Case(str(number), ids) for number, ids in enumerate(random_ids(n, length))]


def find(lm, cases, recipe=RECIPE, **running):
    return list(FINDERS["shared_last"].find(lm, PROTOCOL, cases, recipe, **running))


def test_it_is_adam_on_the_sum_over_texts():
    lm, cases = make_lm("llama"), make_cases()
    starts = [draw_start(lm, PROTOCOL, case)["vectors"] for case in cases]
    own, common = torch.stack(starts)[:, :1].clone(), starts[0][1:].clone()
    own.requires_grad_(), common.requires_grad_()
    adam = torch.optim.AdamW([own, common], lr=0.1, betas=(0.9, 0.9), weight_decay=0.0)
    ids, losses = torch.stack([case.ids for case in cases]), []
    for _ in range(12):
        vectors = torch.cat([own, common.expand(3, 1, -1)], dim=1)
        now = measure_with_gradient(lm, PROTOCOL, RECIPE.loss, vectors.detach(), ids)
        losses.append(now["mean_loss"])
        grad_own, grad_common = torch.autograd.grad(vectors, [own, common], now["gradient"])
        own.grad, common.grad = grad_own, grad_common
        adam.step()
    seen = []
    find(lm, cases, on_step=lambda now: seen.append(now["mean_loss"]))
    torch.testing.assert_close(torch.stack(seen), torch.stack(losses), rtol=1e-6, atol=1e-9)


def test_what_is_kept_is_shared_and_of_one_step():
    lm, cases = make_lm("llama"), make_cases()
    (finished,) = find(lm, cases, Recipe(GOALS["strict"], Optimiser(lr=0.1, max_steps=150)))
    assert [result.case.key for result in finished] == ["0", "1", "2"]
    last = np.stack([result.vectors[-1].numpy() for result in finished])
    assert (last == last[0]).all()
    assert len({result.ended for result in finished}) == 1
    first = np.stack([result.vectors[0].numpy() for result in finished])
    assert len(np.unique(first, axis=0)) == 3


def test_it_goes_on_from_where_it_was_saved():
    lm, cases = make_lm("llama"), make_cases()
    (whole,) = find(lm, cases)
    halfway = next(batch for batch in find(lm, cases, save_every_seconds=0.0) if isinstance(batch[0], Unfinished))
    again = [Case(left.case.key, left.case.ids, state=left.state) for left in halfway]
    (resumed,) = find(lm, again)
    for before, after in zip(whole, resumed, strict=True):
        torch.testing.assert_close(before.vectors, after.vectors)
        assert before.n_steps == after.n_steps == 12


def test_a_group_that_diverges_ends():
    (finished,) = find(make_lm("llama"), make_cases(), Recipe(GOALS["strict"], Optimiser(lr=1e308, max_steps=10**6)))
    assert {result.ended for result in finished} == {"diverged"}
    assert all(result.vectors.isfinite().all() for result in finished)


def test_lengths_are_groups_of_their_own():
    lm = make_lm("llama")
    cases = [*make_cases(2, 6), *[Case(f"long {n}", ids) for n, ids in enumerate(random_ids(2, 9))]]
    batches = find(lm, cases)
    assert [len(batch) for batch in batches] == [2, 2]
    assert all(isinstance(result, Finished) for result in itertools.chain(*batches))


def test_only_movers_that_keep_alike_what_is_pulled_alike():
    lm, cases = make_lm("llama"), make_cases()
    with pytest.raises(InputError, match="finder shared_last moves by adamw"):
        find(lm, cases, Recipe(GOALS["never"], mover=AdamW(normalised=True)))


@pytest.fixture
def shared(settings):
    optimiser = {"max_steps": 40, "lr": 0.1, "weight_decay": 0.0}
    return settings | {"protocols": ["one_step"], "n_mem": [1], "optimiser": optimiser, "finder": "shared_last"}


def test_new_texts_are_given_the_shared_vector_and_it_is_held(shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("paper_lib.store.BUILD", tmp_path / "build")
    group = Store("group")
    run(shared | {"name": "group"}, group)
    vectors = {r["length"]: v for r, v in map(group.get, group)}
    texts = {"source": "strings", "label": "new", "texts": ["dogs say nothing", "the mat is flat"]}
    new = {"texts": texts, "finder": "optimise"}
    held = shared | new | {"name": "new", "parametrisation": "held_last", "init_from": "group"}
    store = Store("new")
    n, records = run(held, store)
    assert n == len(records) == 4
    moved = []
    for record, found in map(store.get, store):
        np.testing.assert_array_equal(found[-1], vectors[record["length"]][-1])
        moved.append((found[0] != vectors[record["length"]][0]).any())
        assert record["init_from"] in set(group)
    assert any(moved)
    with pytest.raises(InputError, match="weight decay would move what is held; set weight_decay: 0"):
        run_sweep(Sweep(**held | {"name": "other", "optimiser": {"max_steps": 5}}), Store("other"))
