"""One vector for many texts: the last of each case is the same, trained with all of them; the others are its own.

In one-step generation the last vector is m (Mezentsev and Oseledets 2025, Table 2: shared by groups of texts). Every
step moves it by the sum of what all texts ask of it. The best step is that of the group: most texts right, then most
tokens, so that what is kept does share it.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..errors import InputError
from .goals import GOALS
from .lm import FrozenLM
from .measure import fill_batch, measure_with_gradient, run_in_parts
from .movers import AdamW
from .parametrisations import Free
from .protocols import Protocol
from .rows import (
    ENDED,
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
    start_row,
)


def optimise_together(
    lm: FrozenLM,
    protocol: Protocol,
    cases: list[Case],
    recipe: Recipe,
    *,
    save_every_seconds: float = math.inf,
    on_step: Callable[[dict[str, Tensor]], None] = lambda now: None,
) -> Iterator[list[Finished] | list[Unfinished]]:
    """Optimise ``cases`` of one length whose last vectors are one; yield all of them once, when they end together.

    They end when every text has reached the goal at the same step, with the budget, or when one of them diverges. The
    shared vector starts as that of the first case. InputError for a mover or parametrisation under which rows that are
    pulled alike would part.
    """
    if not isinstance(recipe.mover, AdamW) or recipe.mover.normalised or type(recipe.parametrisation) is not Free:
        raise InputError("finder shared_last moves by adamw(normalised=False) and free vectors; name those")
    apart = dataclasses.replace(recipe, goal=GOALS["never"])
    rows = append({}, [start_row(lm, protocol, case, apart, len(case.ids)) for case in cases])
    rows["param.vectors"][:, -1] = rows["param.vectors"][:1, -1]
    compute = functools.partial(measure_with_gradient, lm, protocol, recipe.loss)
    n_at_once = fill_batch(lm.device, protocol.n_inputs(len(cases[0].ids), cases[0].n_mem))
    saved_at, done = time.perf_counter(), False
    while not done:
        started, params = time.perf_counter(), part_of(rows, "param")
        vectors = params["vectors"] if recipe.storage is None else recipe.storage.round(params["vectors"])
        parts, n_at_once = run_in_parts(compute, n_at_once, vectors.detach().clone(), rows["ids"])
        now = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        _record_together(rows, now, vectors, apart)
        on_step(now)
        reached, stopped = bool(recipe.goal.reached(now).all()), rows["ended"] != RUNNING  # by budget, or diverged
        done = reached or bool(stopped.any())
        pull = now["gradient"].clone()
        pull[:, -1] = pull[:, -1].sum(0)
        moved, state = recipe.mover.move(
            params, {"vectors": pull}, now["mean_loss"], part_of(rows, "mover"), rows["n_steps"], recipe.settings
        )
        rows |= name_part_of("param", moved) | name_part_of("mover", state)
        rows["seconds"] += (time.perf_counter() - started) / len(cases)
        if not done and time.perf_counter() - saved_at > save_every_seconds:
            yield copy_rows(cases, rows)
            saved_at = time.perf_counter()
    diverged = bool((rows["ended"] == ENDED.index("diverged")).any())
    ended = "reached" if reached else "diverged" if diverged else "budget"
    results = [finish_row(case, rows, number, protocol, apart.goal) for number, case in enumerate(cases)]
    yield [dataclasses.replace(result, ended=ended, state=None) for result in results]


def _record_together(rows, now, vectors, recipe):
    # What is best is best for the group: taken, or left as it was, for all rows at once.
    best = {name: values.clone() for name, values in rows.items() if name.startswith("best_")}
    record(rows, now, vectors, recipe)
    n_right = now["n_correct"]
    score = (int((n_right == rows["n_targets"]).sum()), int(n_right.sum()))
    before = (int((best["best_n_correct"] == rows["n_targets"]).sum()), int(best["best_n_correct"].sum()))
    if score > before:
        best |= {
            "best_vectors": vectors.detach().clone(),
            "best_n_correct": n_right.clone(),
            "best_margin": now["margin"].double(),
            "best_ce": now["ce_nats"].clone(),
            "best_step": rows["n_steps"].clone(),
        }
    rows |= best
