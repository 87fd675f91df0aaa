"""Movers: AdamW's arithmetic bit for bit and a stored trajectory; L-BFGS against the two-loop recursion; rows apart."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_lm, random_ids
from transformers import get_cosine_with_min_lr_schedule_with_warmup

from paper_lib.config import Optimiser
from paper_lib.errors import InputError
from paper_lib.live.goals import GOALS
from paper_lib.live.loop import optimise
from paper_lib.live.movers import LBFGS, AdamW
from paper_lib.live.movers.lbfgs import MAX_TRIALS, multiply_by_inverse_hessian
from paper_lib.live.parametrisations import PARAMETRISATIONS
from paper_lib.live.protocols import find_protocol
from paper_lib.live.rows import Case, Recipe
from paper_lib.parts import find_part
from paper_lib.storage import STORAGES

TRAJECTORY = Path(__file__).parent / "adamw_trajectory.json"


@settings(max_examples=30, deadline=None)
@given(
    n_steps=st.integers(1, 12), late=st.integers(0, 20), seed=st.integers(0, 99), wd=st.sampled_from([0.0, 0.01, 0.3])
)
def test_a_row_moves_as_torchs_adamw_moves_it_alone_whatever_its_age(n_steps, late, seed, wd):
    # One row has been there for ``late`` steps when the other enters.
    rule, generator = Optimiser(lr=0.05, weight_decay=wd), torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    start, slopes = draw(2, 3, 5), draw(late + n_steps, 2, 3, 5)
    params, state = {"v": start.clone()}, AdamW().start({"v": start})
    for step in range(late + n_steps):
        rows = slice(0, 1) if step < late else slice(0, 2)
        part = {name: values[rows] for name, values in params.items()}, {"v": slopes[step, rows]}
        moments = {name: values[rows] for name, values in state.items()}
        age = torch.tensor([step + 1, step + 1 - late])[rows]
        moved, moments = AdamW().move(*part, torch.zeros(2)[rows], moments, age, rule)
        params["v"][rows] = moved["v"]
        for name, values in moments.items():
            state[name][rows] = values
    for row, first in ((0, 0), (1, late)):
        alone = start[row].clone().requires_grad_()
        torchs = torch.optim.AdamW([alone], lr=0.05, betas=(0.9, 0.9), weight_decay=wd)
        for step in range(first, late + n_steps):
            alone.grad = slopes[step, row]
            torchs.step()
        torch.testing.assert_close(params["v"][row], alone.detach(), rtol=1e-12, atol=1e-12)


def test_one_step_is_the_same_bits_as_the_formula_in_single_precision():
    # The formula as it was when the frozen runs were made; every operation rounds once, on any machine.
    value, slope = torch.randn(2, 4, 1, 7, generator=torch.Generator().manual_seed(0))
    state = {"mean.v": slope * 0.3, "square.v": slope**2 * 0.2}
    moved, moments = AdamW().move(
        {"v": value}, {"v": slope}, slope[:, 0, 0], state, torch.tensor([1, 2, 30, 400]), Optimiser()
    )
    age = torch.tensor([1.0, 2, 30, 400]).view(-1, 1, 1)
    mean, square = torch.lerp(slope, state["mean.v"], 0.9), torch.lerp(slope**2, state["square.v"], 0.9)
    root = (square / (1 - 0.9**age)).sqrt()
    expected = value * (1 - 0.01 * 0.01) - 0.01 * (mean / (1 - 0.9**age)) / (root + 1e-8)
    assert torch.equal(moved["v"], expected)
    assert torch.equal(moments["mean.v"], mean)
    assert torch.equal(moments["square.v"], square)


def follow_trajectory():
    """Return what 60 steps of six texts, three at a time in float16 storage, measured: steps, sums, best vectors."""
    lm, recipe = (
        make_lm("llama"),
        Recipe(GOALS["strict"], Optimiser(lr=0.05, max_steps=60), storage=STORAGES["float16"]),
    )
    cases = [Case(f"trajectory-{n}", ids, 2) for n, ids in enumerate(random_ids(6, 5))]
    results = {}
    for batch in optimise(lm, find_protocol("strict"), cases, recipe, batch_size=3):
        for result in batch:
            sums = [value for value in result.measured.values() if not isinstance(value, list)]
            numbers = [result.n_steps, *sums, *result.vectors.flatten()[::8].tolist()]
            results[result.case.key] = [round(float(number), 6) for number in numbers]
    return results


def test_the_loop_follows_the_trajectory_that_was_stored():
    stored, now = json.loads(TRAJECTORY.read_text()), follow_trajectory()
    assert stored.keys() == now.keys()
    assert len({numbers[0] for numbers in stored.values()}) > 1  # some rows end early and others take their place
    for key, numbers in stored.items():
        torch.testing.assert_close(torch.tensor(now[key]), torch.tensor(numbers), atol=2e-3, rtol=1e-4)


def test_a_falling_learning_rate_is_torchs_cosine():
    rule = Optimiser(lr=0.5, weight_decay=0.1, max_steps=9)
    slopes = torch.randn(9, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    params, state = {"v": torch.ones(1, 4, dtype=torch.float64)}, AdamW().start({"v": slopes[0]})
    theirs = torch.ones(1, 4, dtype=torch.float64, requires_grad=True)
    torchs = torch.optim.AdamW([theirs], lr=0.5, betas=(0.9, 0.9), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(torchs, T_max=9)
    for step, slope in enumerate(slopes):
        params, state = AdamW("cosine").move(params, {"v": slope}, slope[:, 0], state, torch.tensor([step + 1]), rule)
        theirs.grad = slope
        torchs.step()
        schedule.step()
    torch.testing.assert_close(params["v"], theirs.detach(), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="schedule 'linear' is not one of constant, cosine"):
        AdamW("linear")


@pytest.mark.parametrize(("max_steps", "n_steps"), [(20, None), (7, 20)])
def test_a_learning_rate_that_rises_and_falls_to_a_floor_is_that_of_transformers(max_steps, n_steps):
    rule = Optimiser(lr=0.5, weight_decay=0.0, max_steps=max_steps)
    theirs = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = get_cosine_with_min_lr_schedule_with_warmup(theirs, 5, 20, min_lr_rate=0.1)
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    for age in range(1, 25):
        # From the same moments, an update is as large as its learning rate.
        fresh = AdamW().start({"v": zero})
        later = AdamW("cosine", warmup=5, floor=0.1, n_steps=n_steps).move(
            {"v": zero}, {"v": one}, one[:, 0], fresh, torch.tensor([age]), rule
        )
        plain = AdamW().move({"v": zero}, {"v": one}, one[:, 0], fresh, torch.tensor([age]), rule)
        expected = schedule.get_last_lr()[0] if age <= 20 else 0.1
        assert later[0]["v"].item() == pytest.approx(expected * plain[0]["v"].item(), abs=1e-12)
        theirs.step()
        schedule.step()


def test_a_schedule_that_cannot_be_is_refused():
    for wrong, says in (
        ({"floor": 2.0}, "floor between 0 and 1"),
        ({"floor": 0.1}, "a floor and n_steps need schedule='cosine'"),
        ({"n_steps": 9}, "a floor and n_steps need schedule='cosine'"),
        ({"schedule": "cosine", "warmup": 9, "n_steps": 9}, "n_steps 9 is not a whole number above the 9 of warmup"),
    ):
        with pytest.raises(ValueError, match=says):
            AdamW(**wrong)


def test_a_uniform_start_is_small_and_positive():
    free = find_part("parametrisation", "free(uniform=0.02)", PARAMETRISATIONS)
    start = free.start((3, 400), 1.0, torch.Generator().manual_seed(0))["vectors"]
    assert start.min() >= 0
    assert start.max() <= 0.02
    assert start.mean().item() == pytest.approx(0.01, abs=0.001)
    for wrong in ("free(uniform=-0.02)", "free(uniform=0.02, scale=3.0)"):
        with pytest.raises(InputError, match="uniform is at least 0, and takes no scale"):
            find_part("parametrisation", wrong, PARAMETRISATIONS)


def test_normalised_moves_turn_with_the_coordinates():
    slopes = torch.randn(5, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turn, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))

    def move(slopes, mover):
        params, state = {"v": torch.zeros_like(slopes[0])}, mover.start({"v": slopes[0]})
        for step, slope in enumerate(slopes):
            params, state = mover.move(params, {"v": slope}, slope[:, 0], state, torch.tensor([step + 1]), Optimiser())
        return params["v"]

    for mover, same in ((AdamW(normalised=True), True), (AdamW(), False)):
        assert torch.allclose(move(slopes @ turn, mover), move(slopes, mover) @ turn, atol=1e-9) == same


# --- L-BFGS --------------------------------------------------------------------------------------------------------


def two_loops(steps, turns, slope):
    """Return the inverse Hessian's product by the two-loop recursion (Nocedal and Wright, 2006, algorithm 7.4)."""
    shares, product = [], slope.clone()
    for step, turn in zip(reversed(steps), reversed(turns), strict=True):
        share = (step @ product) / (step @ turn)
        product = product - share * turn
        shares.append(share)
    if len(steps):
        product = product * (steps[-1] @ turns[-1]) / (turns[-1] @ turns[-1])
    for step, turn, share in zip(steps, turns, reversed(shares), strict=True):
        product = product + step * (share - (turn @ product) / (step @ turn))
    return product


@settings(max_examples=50, deadline=None)
@given(memory=st.integers(1, 6), width=st.integers(2, 9), seed=st.integers(0, 999), data=st.data())
def test_the_batched_product_is_that_of_the_two_loop_recursion(memory, width, seed, data):
    generator = torch.Generator().manual_seed(seed)
    steps, turns = torch.randn(2, 3, memory, width, dtype=torch.float64, generator=generator)
    turns = torch.where(((steps * turns).sum(dim=2, keepdim=True) > 0), turns, -turns) + 0.5 * steps
    slope = torch.randn(3, width, dtype=torch.float64, generator=generator)
    n_pairs = torch.tensor([data.draw(st.integers(0, memory)) for _ in range(3)])
    for row, n in enumerate(n_pairs.tolist()):
        steps[row, : memory - n] = turns[row, : memory - n] = 0
    product = multiply_by_inverse_hessian(steps, turns, n_pairs, slope)
    for row, n in enumerate(n_pairs.tolist()):
        first = memory - n
        expected = two_loops(list(steps[row, first:]), list(turns[row, first:]), slope[row])
        torch.testing.assert_close(product[row], expected, rtol=1e-7, atol=1e-7)


def minimise(mover, of, start, n_steps, rule=Optimiser(lr=0.1)):  # noqa: B008, frozen
    """Return all points, and the loss at each, that a mover visits on a function of rows."""
    params, state, visited, losses = {"v": start}, mover.start({"v": start}), [], []
    for age in range(1, n_steps + 1):
        leaf = params["v"].detach().requires_grad_()
        loss = of(leaf)
        (slope,) = torch.autograd.grad(loss.sum(), leaf)
        visited.append(leaf.detach())
        losses.append(loss.detach())
        ages = torch.full((len(start),), age)
        params, state = mover.move({"v": leaf.detach()}, {"v": slope}, loss.detach(), state, ages, rule)
    return torch.stack(visited), torch.stack(losses)


def rosenbrock(rows):
    x, y = rows[:, 0, 0], rows[:, 0, 1]
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


@pytest.mark.parametrize("warmup", [0, 5])
def test_a_curved_valley_is_followed_to_its_end(warmup):
    start = torch.tensor([[[-1.2, 1.0]], [[2.0, -1.0]]], dtype=torch.float64)
    visited, losses = minimise(LBFGS(memory=5, warmup=warmup), rosenbrock, start, 150)
    assert losses[-1].max() < 1e-12
    torch.testing.assert_close(visited[-1], torch.ones_like(start), atol=1e-5, rtol=0)
    _, adams = minimise(AdamW(), rosenbrock, start, 150)
    assert adams[-1].min() > 1e-3


def test_what_is_kept_never_gets_worse_and_a_failed_trial_is_shortened():
    start = torch.tensor([[[-1.2, 1.0]]], dtype=torch.float64)
    visited, losses = minimise(LBFGS(warmup=0), rosenbrock, start, 60)
    kept, point = losses[0], visited[0]
    n_failed = 0
    for here, loss, before in zip(visited[1:], losses[1:], visited, strict=False):
        if loss <= kept:
            kept, point, n_failed = loss, here, 0
        elif n_failed:
            shorter = (here - point).norm() / (before - point).norm()
            assert 0.1 - 1e-9 <= shorter <= 0.5 + 1e-9 or n_failed >= MAX_TRIALS
            n_failed += 1
        else:
            n_failed = 1
    assert (losses > losses.cummin(dim=0).values).any(), "some trial must fail for the test to see one"


def test_a_loss_that_is_not_finite_is_a_failed_trial():
    start = torch.full((2, 1, 3), 2.0, dtype=torch.float64)
    wall = lambda rows: torch.where((rows > 0.5).all(dim=(1, 2)), rows.square().sum(dim=(1, 2)), torch.nan)  # noqa: E731
    visited, losses = minimise(LBFGS(warmup=0), wall, start, 40)
    assert losses.isnan().any()
    assert visited.isfinite().all()
    assert losses[0].isfinite().all()
    assert losses.nan_to_num(torch.inf).amin(dim=0).max() < 1.0


@pytest.mark.slow
def test_rows_of_lbfgs_are_what_they_are_alone_also_when_they_enter_late():
    lm, protocol = make_lm("llama"), find_protocol("strict")
    recipe = Recipe(GOALS["strict"], Optimiser(lr=0.3, max_steps=50, mover="lbfgs"), mover=LBFGS())
    some = [Case(f"lbfgs-{n}", ids) for n, ids in enumerate(random_ids(6, 4))]
    alone = {r.case.key: r for case in some for batch in optimise(lm, protocol, [case], recipe) for r in batch}
    together = {r.case.key: r for batch in optimise(lm, protocol, some, recipe, batch_size=2) for r in batch}
    assert len({result.n_steps for result in alone.values()}) > 1, "some must end early for others to enter late"
    for key, result in together.items():
        assert (result.ended, result.n_steps) == (alone[key].ended, alone[key].n_steps)
        torch.testing.assert_close(result.vectors, alone[key].vectors, atol=1e-8, rtol=0)


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="memory is at least 1, warmup and patience at least 0"):
        LBFGS(memory=0)


def test_a_row_that_stands_still_starts_again_and_others_do_not():
    # A flat floor beside a slope: the first row falls on the floor and stays, the other goes on down.
    start = torch.tensor([[[3.0, -1.0, 0.5]], [[-1.0, 3.0, 0.5]]], dtype=torch.float64)

    def floor(rows):
        x = rows[:, 0, 0]
        return torch.where(x > 0, 5.0 + 0 * x, (rows[:, 0] - torch.tensor([-9.0, 1, 1])).square().sum(dim=1))

    visited, losses = minimise(LBFGS(warmup=2, patience=6), floor, start, 60)
    origins = [n for n in range(60) if torch.equal(visited[n, 0], start[0].roll(1, dims=1))]
    assert origins  # its numbers moved on by one place: the slope, from where it gets down
    assert origins[0] <= 3 * 6
    assert losses.amin(dim=0).max() < 1e-6  # at the end of the slope it stands still too, and starts again
    again = [n for n in range(1, 60) if torch.equal(visited[n, 1], start[1].roll(1, dims=1))]
    assert not [n for n in again if losses[:n, 1].min() > 1e-6]
    never, _ = minimise(LBFGS(warmup=2), floor, start, 60)
    assert (never[:, 0, 0, 0] > 0).all()
