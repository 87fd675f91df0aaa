"""Movers: AdamW's arithmetic bit for bit, row by row, and a trajectory of the whole loop as it was first stored."""

import json
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_lm, random_ids

from paper_lib.config import Optimiser
from paper_lib.live.goals import GOALS
from paper_lib.live.loop import optimise
from paper_lib.live.movers import AdamW
from paper_lib.live.protocols import find_protocol
from paper_lib.live.rows import Case, Recipe

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
    lm, recipe = make_lm("llama"), Recipe(GOALS["strict"], Optimiser(lr=0.05, max_steps=60), storage=torch.float16)
    cases = [Case(f"trajectory-{n}", ids, 2) for n, ids in enumerate(random_ids(6, 5))]
    results = {}
    for batch in optimise(lm, find_protocol("strict"), cases, recipe, batch_size=3):
        for result in batch:
            numbers = [result.n_steps, *result.measured.values(), *result.vectors.flatten()[::8].tolist()]
            results[result.case.key] = [round(float(number), 6) for number in numbers]
    return results


def test_the_loop_follows_the_trajectory_that_was_stored():
    stored, now = json.loads(TRAJECTORY.read_text()), follow_trajectory()
    assert stored.keys() == now.keys()
    assert len({numbers[0] for numbers in stored.values()}) > 1  # some rows end early and others take their place
    for key, numbers in stored.items():
        torch.testing.assert_close(torch.tensor(now[key]), torch.tensor(numbers), atol=2e-3, rtol=1e-4)
