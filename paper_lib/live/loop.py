"""The per-sample optimiser: many texts of one length share each forward and backward, and no text feels the others.

The loss is the sum over rows of each text's mean over its targets, and movers keep rows apart; so a row's trajectory is
that of a run of its own, up to rounding. Finished rows leave and waiting texts enter at once. Each step measures first
and moves afterwards: the vector that is kept is the one that was measured, rounded to its storage precision.
"""

import functools
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from .lm import FrozenLM
from .measure import fill_batch, measure, measure_with_gradient, run_in_parts
from .protocols import Protocol
from .rows import (
    BUDGET,
    REACHED,
    RUNNING,
    Case,
    Finished,
    Recipe,
    Unfinished,
    append,
    copy_rows,
    finish_row,
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

    Texts may differ in length, at the price of the longest.

    ``batch_size`` rows at a time, by default as many as keep the device busy; where memory runs out, half as many go
    through the model at once. Every ``check_every`` steps the device is asked which rows have ended; such a row stands
    still, so the results do not depend on it, but a GPU need not wait each step. Every ``save_every_seconds`` the rows
    that have not ended are yielded too, so that they can go on from there when this process is killed. ``on_step`` sees
    what each step measured.
    """
    waiting, running, rows, saved_at = deque(cases), [], {}, time.perf_counter()
    lengths = {len(case.ids) for case in waiting}
    if waiting and not batch_size:
        batch_size = fill_batch(lm.device, protocol.n_inputs(max(lengths), waiting[0].n_mem))
    check_again = lm.autocast is not None and recipe.goal.without_autocast
    compute = functools.partial(measure_with_gradient, lm, protocol, recipe.loss)
    while waiting or running:
        started, n_rows = time.perf_counter(), len(running)
        while waiting and len(running) < batch_size:
            running.append(waiting.popleft())
        rows = append(rows, [start_row(lm, protocol, case, recipe, max(lengths)) for case in running[n_rows:]])
        for _ in range(1 if check_again else check_every):
            batch_size = _step(rows, recipe, compute, batch_size, on_step, ragged=len(lengths) > 1)
        if check_again:
            _send_back(lm, protocol, rows, recipe)
        ended = rows["ended"].tolist()
        rows["seconds"] += (time.perf_counter() - started) / len(running)
        if any(ended):
            yield [finish_row(case, rows, i, protocol) for i, case in enumerate(running) if ended[i]]
            running = [case for case, reason in zip(running, ended, strict=True) if reason == RUNNING]
            rows = select(rows, rows["ended"] == RUNNING)
        if running and time.perf_counter() - saved_at > save_every_seconds:
            yield copy_rows(running, rows)
            saved_at = time.perf_counter()


def _step(rows, recipe, compute, batch_size, on_step, *, ragged):
    # Measure all rows, keep what is better, move; return how many rows at a time memory allowed.
    params = {name: value.detach().requires_grad_() for name, value in part_of(rows, "param").items()}
    with torch.enable_grad():
        trained = recipe.parametrisation.vectors(params)
    vectors = _round(trained, recipe.storage)
    n_active = recipe.goal.n_active(part_of(rows, "goal"))
    if n_active is None and ragged:
        n_active = rows["n_targets"]
    parts, batch_size = run_in_parts(compute, batch_size, vectors, rows["ids"], n_active)
    now = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    record(rows, now, vectors, recipe)
    on_step(now)
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
    return batch_size


def _round(vectors, storage):
    return (vectors if storage is None else vectors.to(storage).to(vectors.dtype)).detach()


def _send_back(lm, protocol, rows, recipe):
    # Autocast rounds logits; a row that has reached its goal only by that goes on, and forgets how good it was.
    (reached,) = (rows["ended"] == REACHED).nonzero(as_tuple=True)
    if len(reached):
        with torch.no_grad():
            best = [rows[name][reached] for name in ("best_vectors", "ids", "best_n_active")]
            now = measure(lm.without_autocast(), protocol, *best)
        missed = reached[~recipe.goal.reached(now)]
        rows["best_margin"][missed] = -torch.inf
        rows["ended"][missed] = torch.where(rows["n_steps"][missed] < recipe.settings.max_steps, RUNNING, BUDGET)
