"""What a sweep will cost, before it runs: cases, token-steps, FLOPs, time and memory.

A token-step is one token in one optimiser step, vectors included. Cases that stop early cost less.
"""

import math
import resource
import time

import pandas as pd
import torch

from .config import Sweep
from .engine import group_cases, plan_cases
from .errors import unknown_name
from .lm import FrozenLM
from .memory import find_protocol
from .optimize import AdamW, Case, StoppingRule, optimize
from .runs import Store

NEVER = StoppingRule("never", min_margin=math.inf)
CALIBRATION_SECONDS = 2.0  # for each group of cases
# Dense matrix products per second as the makers state them; a run takes longer than at this rate.
PEAK_FLOPS = {
    "a100": {"float32": 19.5e12, "bfloat16": 312e12, "float16": 312e12, "float64": 19.5e12},
    "h100": {"float32": 67e12, "bfloat16": 989e12, "float16": 989e12, "float64": 67e12},
    "h200": {"float32": 67e12, "bfloat16": 989e12, "float16": 989e12, "float64": 67e12},
}


def compute_plan(sweep: Sweep, lm: FrozenLM, store: Store, gpu: str | None = None) -> pd.DataFrame:
    """Return one row per protocol, n_mem and length of the cases that the store does not have.

    Columns: ``n_cases``, ``token_steps``, ``flops`` (4 per matrix weight and token: forward, and backward to the
    inputs; attention's own products are not counted), ``hours`` and ``memory_gb``. The hours are those of a few steps
    timed on the device that ``lm`` is on, and the memory is the peak there so far. With the name of a ``gpu`` (see
    PEAK_FLOPS) the hours are what its stated rate would take at least, and there is no memory.
    """
    if gpu and gpu not in PEAK_FLOPS:
        raise unknown_name("GPU", gpu, PEAK_FLOPS)
    waiting = [planned for planned in plan_cases(sweep, lm) if planned.key not in store]
    rows = []
    for (length, n_mem, protocol), group in group_cases(waiting).items():
        n_tokens = length - 1 + n_mem
        token_steps = len(group) * n_tokens * sweep.optimiser.max_steps
        row = {
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
            row |= _measure(sweep, lm, group, find_protocol(protocol))
        rows.append(row)
    return pd.DataFrame(rows)


def _measure(sweep, lm, group, protocol):
    # Time a batch as the sweep will run it; the first step, which warms up, does not count.
    n_rows = min(sweep.batch_size, len(group))
    cases = [Case(planned.key, torch.tensor(planned.sample.ids), planned.config.n_mem) for planned in group[:n_rows]]
    ticks = []

    class Enough(Exception):
        pass

    def on_step(progress):
        if lm.device.type == "cuda":
            torch.cuda.synchronize()
        ticks.append(time.perf_counter())
        if len(ticks) > 2 and ticks[-1] - ticks[1] > CALIBRATION_SECONDS:
            raise Enough

    try:
        settings = AdamW(**sweep.optimiser.model_dump())
        list(optimize(lm, protocol, cases, settings, NEVER, batch_size=n_rows, on_step=on_step))
    except Enough:
        pass
    seconds_per_step = (ticks[-1] - ticks[1]) / (len(ticks) - 2) if len(ticks) > 2 else ticks[-1] - ticks[0]
    n_batches = len(group) / n_rows  # the last may have fewer rows and then takes less
    peak = (
        torch.cuda.max_memory_allocated(lm.device)
        if lm.device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return {
        "hours": seconds_per_step * n_batches * sweep.optimiser.max_steps / 3600,
        "memory_gb": peak / 1e9,
    }
