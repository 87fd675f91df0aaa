"""What ``plan`` says against what a sweep takes, and a sweep on Ray against the same sweep in this process.

Texts are sampled from the shipped model. Without early stops the plan is to be met, with them it is an upper bound.
"""

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import pandas as pd
import ray
import typer
from shapes import SHIPPED, make_lm
from throughput import sample_texts

from paper_lib.config import Sweep
from paper_lib.live.cluster import run_on_ray
from paper_lib.live.cost import compute_cost
from paper_lib.live.sweep import run_sweep
from paper_lib.store import Store
from paper_lib.tables import to_markdown


def make_sweep(n_texts: int, n_steps: int, stopping: str) -> Sweep:
    """Return a sweep over texts of 4, 8 and 16 tokens that the model has said."""
    lm = make_lm("shipped")
    texts = tuple(lm.tokenizer.batch_decode(sample_texts(lm, n_texts, 80), skip_special_tokens=True))
    return Sweep(
        name="benchmark", model={"name": SHIPPED}, texts={"source": "strings", "texts": texts}, n_texts=n_texts,
        lengths=(4, 8, 16), protocols=("strict",), stopping=stopping, optimiser={"lr": 0.05, "max_steps": n_steps},
    )  # fmt: skip


def time_sweep(sweep: Sweep, run=None) -> dict:
    """Return seconds of a whole sweep, of its steps alone, and its exact cases."""
    records = []
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run_sweep(sweep, Store(sweep.name, Path(folder)), run=run, on_case=records.append)
        seconds = time.perf_counter() - started
    frame = pd.DataFrame(records)
    return {"seconds": seconds, "steps": frame["wall_seconds"].sum(), "exact": int(frame["exact"].sum())}


def compare_plan(n_texts: int, n_steps: int) -> pd.DataFrame:
    """Return a row for a sweep of fixed steps and one that stops early: run against plan."""
    rows = []
    for stopping, name in (("never", "fixed steps"), ("strict", "early stops")):
        sweep = make_sweep(n_texts, n_steps, stopping)
        with tempfile.TemporaryDirectory() as folder:
            plan = compute_cost(sweep, make_lm("shipped"), Store(sweep.name, Path(folder)))
        planned = plan["hours"].sum() * 3600
        rows.append(
            {"sweep": name, "cases": int(plan["n_cases"].sum()), "run, of plan": time_sweep(sweep)["seconds"] / planned}
        )
    return pd.DataFrame(rows)


def compare_ray(n_texts: int, n_steps: int) -> pd.DataFrame:
    """Return a row for this process and for 1 and 2 workers of one core each: time relative to this process."""
    sweep = make_sweep(n_texts, n_steps, "strict")
    local = time_sweep(sweep)
    rows = [{"engine": "this process, 2 threads", "time": 1.0, "exact": local["exact"]}]
    for n_workers in (1, 2):
        ray.init("local", num_cpus=n_workers, include_dashboard=False, log_to_driver=False, logging_level="error")
        spread = time_sweep(sweep, partial(run_on_ray, num_cpus=1))
        ray.shutdown()
        name = f"Ray, {n_workers} worker{'s'[: n_workers - 1]} of 1 thread, with their start"
        rows.append({"engine": name, "time": spread["seconds"] / local["seconds"], "exact": spread["exact"]})
    return pd.DataFrame(rows)


def main(
    n_texts: int = 32,
    n_steps: Annotated[int, typer.Option(help="Most steps of a text.")] = 500,
) -> None:
    """Print two tables: plan against run, Ray against this process."""
    print(to_markdown(compare_plan(n_texts, n_steps)))
    print("\n" + to_markdown(compare_ray(n_texts, n_steps)))


if __name__ == "__main__":
    typer.run(main)
