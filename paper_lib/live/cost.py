"""What a sweep will cost, before it runs: cases, token-steps, FLOPs, time and memory.

A token-step is one token in one optimiser step, vectors included. Cases that stop early cost less.
"""

import contextlib
import dataclasses
import itertools
import math
import resource
import statistics
import time
from datetime import timedelta

import pandas as pd
import torch

from ..config import Sweep
from ..errors import InputError, unknown_name
from ..store import Store
from ..tables import to_markdown
from .cases import find_waiting, group_cases
from .goals import GOALS
from .lm import FrozenLM
from .loop import optimise
from .measure import fill_batch
from .protocols import Protocol, find_protocol
from .rows import Case, Recipe, make_recipe

MOST_STEPS = 10**6
# Dense matrix products per second as the makers state them; a run takes longer than at this rate.
PEAK_FLOPS = {
    "a100": {"float32": 19.5e12, "bfloat16": 312e12, "float16": 312e12, "float64": 19.5e12},
    "h100": {"float32": 67e12, "bfloat16": 989e12, "float16": 989e12, "float64": 67e12},
    "h200": {"float32": 67e12, "bfloat16": 989e12, "float16": 989e12, "float64": 67e12},
}


def compute_cost(
    sweep: Sweep, lm: FrozenLM, store: Store, gpu: str | None = None, *, timing_seconds: float = 2.0
) -> pd.DataFrame:
    """Return one row per protocol, n_mem, length and arm of the cases that the store does not have.

    Columns: ``n_cases``, ``token_steps``, ``flops`` (4 per matrix weight and token: forward, and backward to the
    inputs; attention's own products are not counted), ``hours`` and ``memory_gb``. The hours are those of the steps
    that fit into ``timing_seconds``, per group of cases and batch size, on the device that ``lm`` is on, and the memory
    is the peak there so far. With the name of a ``gpu`` (see
    PEAK_FLOPS) the hours are what its stated rate would take at least, and there is no memory.
    """
    if gpu and gpu not in PEAK_FLOPS:
        raise unknown_name("GPU", gpu, PEAK_FLOPS)
    rows = []
    for (length, n_mem, protocol, arm), group in group_cases(find_waiting(sweep, lm, store)).items():
        n_steps = sum(case.n_steps_left for case in group)
        token_steps = group[0].n_tokens * n_steps
        row = ({"arm": arm} if arm else {}) | {
            "protocol": protocol,
            "n_mem": n_mem,
            "length": length,
            "n_cases": len(group),
            "token_steps": token_steps,
            "flops": 4 * lm.n_matrix_weights * token_steps,
        }
        if gpu:
            rate = PEAK_FLOPS[gpu][sweep.model.autocast or sweep.model.dtype]
            row |= {"hours": row["flops"] / rate / 3600, "memory_gb": math.nan}
        else:
            seconds, memory_bytes = _measure(sweep, lm, group, timing_seconds)
            row |= {"hours": n_steps * seconds / 3600, "memory_gb": memory_bytes / 1e9}
        rows.append(row)
    return pd.DataFrame(rows)


def describe_cost(table: pd.DataFrame, gpu: str | None = None) -> str:
    """Return a table of costs and their sum, as they are shown; ``gpu``: the one whose stated rate was asked for."""
    *each, total = (timedelta(seconds=round(3600 * hours)) for hours in [*table["hours"], table["hours"].sum()])
    shown = table.drop(columns="hours").assign(
        flops=[f"{flops:.1e}" for flops in table["flops"]], time=[str(t) for t in each]
    )
    duration = (
        f"at least {total}, at the stated rate of the {gpu}" if gpu else f"about {total}; less where cases stop early"
    )
    return f"{to_markdown(shown)}\n{table['n_cases'].sum()} cases, {table['flops'].sum():.1e} FLOPs, {duration}"


def time_step(lm: FrozenLM, protocol: Protocol, cases: list[Case], recipe: Recipe, timing_seconds: float) -> float:
    """Return the seconds of a step with all ``cases`` in one batch: the median over ``timing_seconds`` of steps.

    The first step, which warms up, does not count.
    """
    ticks = []

    class Enough(Exception):
        pass

    def on_step(now):
        if lm.device.type == "cuda":
            torch.cuda.synchronize()
        ticks.append(time.perf_counter())
        if len(ticks) > 2 and ticks[-1] - ticks[1] > timing_seconds:
            raise Enough

    endless = recipe.settings.model_copy(update={"max_steps": MOST_STEPS})
    recipe = dataclasses.replace(recipe, goal=GOALS["never"], settings=endless)
    with contextlib.suppress(Enough):
        list(optimise(lm, protocol, cases, recipe, batch_size=len(cases), on_step=on_step))
    if len(ticks) < 3:
        raise InputError("no loss is finite, so there is nothing to time; use float32 or bfloat16")
    return statistics.median(later - earlier for earlier, later in itertools.pairwise(ticks[1:]))


def _measure(sweep, lm, group, timing_seconds):
    # Seconds of a step of one case, from a batch as the sweep will run it and the smaller last one; peak memory so far.
    n_rows = min(sweep.batch_size or fill_batch(lm.device, group[0].n_tokens), len(group))
    cases = [Case(case.key, torch.tensor(case.sample.ids), case.config.n_mem) for case in group]
    protocol, recipe = find_protocol(group[0].config.protocol), make_recipe(group[0].config)
    n_full, n_rest = divmod(len(group), n_rows)
    seconds = n_full * time_step(lm, protocol, cases[:n_rows], recipe, timing_seconds)
    if n_rest:
        seconds += time_step(lm, protocol, cases[:n_rest], recipe, timing_seconds)
    peak = (
        torch.cuda.max_memory_allocated(lm.device)
        if lm.device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return seconds / len(group), peak
