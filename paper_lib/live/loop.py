"""The per-sample optimiser: many texts of one length share each forward and backward, and no text feels the others.

The loss is the sum over rows of each text's mean over its targets, and movers keep rows apart; so a row's trajectory is
that of a run of its own, up to rounding. Finished rows leave and waiting texts enter at once. Each step measures first
and moves afterwards: the vector that is kept is the one that was measured, rounded to its storage precision.
"""

import functools
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from ..errors import InputError
from .lm import FrozenLM
from .measure import fill_batch, measure, measure_with_gradient, run_in_parts
from .protocols import Protocol
from .rows import (
    RUNNING,
    Case,
    Finished,
    Recipe,
    Unfinished,
    append,
    copy_rows,
    finish_row,
    keep_still,
    name_part_of,
    part_of,
    record,
    select,
    start_row,
)


def optimise(
    lm: FrozenLM,
    protocol: Protocol,
    cases: Iterable[Case],
    recipe: Recipe,
    *,
    batch_size: int | None = None,
    check_every: int = 1,
    save_every_seconds: float = math.inf,
    on_step: Callable[[dict[str, Tensor]], None] = lambda now: None,
) -> Iterator[list[Finished] | list[Unfinished]]:
    """Optimise the vectors of ``cases``, all of one n_mem, yielding at once those that have ended.

    Texts may differ in length, at the price of the longest of a batch.

    ``batch_size`` rows at a time, by default as many as keep the device busy; where memory runs out, half as many go
    through the model at once. Every ``check_every`` steps the device is asked which rows have ended; such a row stands
    still, so the results do not depend on it, but a GPU need not wait each step. Every ``save_every_seconds`` the rows
    that have not ended are yielded too, so that they can go on from there when this process is killed. ``on_step`` sees
    what each step measured, with ``vectors``, where, and ``n_unasked``, the targets of each row, of those of the
    longest text, that do not count.
    """
    waiting, running, rows, saved_at = deque(cases), [], {}, time.perf_counter()
    lengths, n_at_once = {len(case.ids) for case in waiting}, sys.maxsize
    if not protocol.extends and (len(lengths) > 1 or recipe.goal.grows):
        raise InputError(f"protocol {protocol.name}: texts of one length only, with targets that do not grow")
    check_again = lm.autocast is not None and recipe.goal.without_autocast
    compute = functools.partial(measure_with_gradient, lm, protocol, recipe.loss)
    again = functools.partial(measure, lm.without_autocast(), protocol) if check_again else None
    count = functools.partial(_count_rows, lm, protocol, recipe.goal.grows)
    step = functools.partial(_step, recipe=recipe, compute=compute, again=again, on_step=on_step)
    while waiting or running:
        started = time.perf_counter()
        new = []
        while waiting and len(running) < min(n_at_once, batch_size or count([*running, waiting[0]])):
            new.append(waiting.popleft())
            running.append(new[-1])
        rows = append(rows, [start_row(lm, protocol, case, recipe, max(lengths)) for case in new])
        padding = torch.tensor([max(lengths) - len(case.ids) for case in running])
        for _ in range(1 if check_again else check_every):
            n_at_once = step(rows, n_at_once, padding)
        ended = rows["ended"].tolist()
        rows["seconds"] += (time.perf_counter() - started) / len(running)
        if any(ended):
            yield [finish_row(case, rows, i, protocol, recipe.goal) for i, case in enumerate(running) if ended[i]]
            running = [case for case, reason in zip(running, ended, strict=True) if reason == RUNNING]
            rows = select(rows, rows["ended"] == RUNNING)
        if running and time.perf_counter() - saved_at > save_every_seconds:
            yield copy_rows(running, rows)
            saved_at = time.perf_counter()


def _count_rows(lm, protocol, grows, cases):
    # How many rows as wide as the widest keep the device busy; targets that grow are on average half as wide.
    n_inputs = max(protocol.n_inputs(len(case.ids), case.n_mem) for case in cases)
    return fill_batch(lm.device, max(1, n_inputs // 2) if grows else n_inputs)


def _step(rows, n_at_once, padding, *, recipe, compute, again, on_step):
    # Measure all rows, keep what is better, move; return how many rows at a time memory allowed. What is known without
    # asking a GPU (padding, on the CPU) is not asked of it.
    active, before = rows["ended"] == RUNNING, dict(rows)
    params = {name: value.detach().requires_grad_() for name, value in part_of(rows, "param").items()}
    with torch.enable_grad():
        trained = recipe.parametrisation.vectors(params)
    vectors = (trained if recipe.storage is None else recipe.storage.round(trained.detach())).detach()
    n_active, n_unasked = recipe.goal.n_active(part_of(rows, "goal")), padding
    if n_active is not None:
        n_unasked = padding + (rows["n_targets"] - n_active).cpu()
    elif padding.any():
        n_active = rows["n_targets"]
    n_left_out = int(n_unasked.min())
    inputs = vectors, rows["ids"][:, : rows["ids"].shape[1] - n_left_out], n_active
    parts, n_at_once = run_in_parts(compute, n_at_once, *inputs)
    now = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    if again:
        _measure_again(again, rows, now, inputs, n_at_once, recipe.goal)
    record(rows, now, vectors, recipe)
    on_step(now | {"n_unasked": n_unasked, "vectors": vectors})
    _move(rows, now, params, trained, recipe)
    if n_active is not None:
        _turn(rows, n_active, recipe)
    keep_still(rows, before, active)
    return n_at_once


def _move(rows, now, params, trained, recipe):
    slopes = torch.autograd.grad(trained, list(params.values()), now["gradient"])
    with torch.no_grad():
        moved, state = recipe.mover.move(
            params,
            dict(zip(params, slopes, strict=True)),
            now["mean_loss"],
            part_of(rows, "mover"),
            rows["n_steps"],
            recipe.settings,
        )
    rows |= name_part_of("param", moved) | name_part_of("mover", state)


def _turn(rows, n_active, recipe):
    # Where other targets count from here on, the mover is told.
    now_active = recipe.goal.n_active(part_of(rows, "goal"))
    if now_active is not None and (turned := now_active != n_active).any():
        rows |= name_part_of("mover", recipe.mover.turn(part_of(rows, "mover"), turned))


def _measure_again(again, rows, now, inputs, n_at_once, goal):
    # Autocast rounds logits: where that alone may have reached a goal, what counts is measured without it.
    (reached,) = (goal.reached(now) & (rows["ended"] == RUNNING)).nonzero(as_tuple=True)
    if len(reached):
        with torch.no_grad():
            parts, _ = run_in_parts(again, n_at_once, *(None if part is None else part[reached] for part in inputs))
        for name in ("all_correct", "n_correct", "margin", "first_error"):
            now[name][reached] = torch.cat([part[name] for part in parts]).to(now[name].dtype)
