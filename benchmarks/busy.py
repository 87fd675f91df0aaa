"""What a run keeps of its speed on a machine that does something else, by how OpenMP's threads wait for each other.

A run is the optimiser on the shipped model, one batch as a sweep makes it. Each measurement is a new process, since
OpenMP reads its settings once.
"""

import os
import statistics
import subprocess
import sys
from typing import Annotated

import pandas as pd
import typer

from paper_lib.paths import SHIPPED
from paper_lib.tables import to_markdown

# libgomp's default, what its setting for busy machines means, and what this library sets.
WAITING = {"spinning": {"GOMP_SPINCOUNT": "300000"}, "passive": {"OMP_WAIT_POLICY": "PASSIVE"}, "here": {}}
SETTINGS = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
LENGTH = 32  # tokens


def run_steps(seconds: float) -> None:
    """Load the model, say so, wait for a line, then optimise; print token-steps per second."""
    # torch comes through this library, which asks OpenMP before it is imported.
    from paper_lib.live.cost import time_step
    from paper_lib.live.goals import GOALS
    from paper_lib.live.load import load_lm, torch
    from paper_lib.live.measure import fill_batch
    from paper_lib.live.protocols import find_protocol
    from paper_lib.live.rows import Case, Recipe

    lm = load_lm(SHIPPED)
    ids = torch.randint(3, lm.vocab_size, (fill_batch(lm.device, LENGTH), LENGTH))
    cases = [Case(str(number), row) for number, row in enumerate(ids)]
    print("ready", flush=True)
    sys.stdin.readline()
    print(ids.numel() / time_step(lm, find_protocol("strict"), cases, Recipe(GOALS["never"]), seconds))


def measure_speeds(n_runs: int, n_loops: int, waiting: str, seconds: float) -> float:
    """Return mean token-steps per second of ``n_runs`` runs at once, beside ``n_loops`` processes that only count."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n_loops)]
    command = [sys.executable, __file__, "--seconds", str(seconds), "--only-run"]
    environment = {k: v for k, v in os.environ.items() if k not in SETTINGS} | WAITING[waiting]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen(command, env=environment, **pipes) for _ in range(n_runs)]
    try:
        for run in runs:
            run.stdout.readline()
        for run in runs:
            run.stdin.write("go\n")
            run.stdin.flush()
        return statistics.mean(float(run.communicate()[0]) for run in runs)
    finally:
        for process in (*loops, *runs):
            process.kill()


def main(
    seconds: Annotated[float, typer.Option(help="Of every measurement.")] = 6.0,
    n_repeats: int = 5,
    only_run: Annotated[bool, typer.Option(help="Be one of the measured processes.")] = False,
) -> None:
    """Print what each way of waiting keeps, relative to spinning alone: medians, with the least and the most."""
    if only_run:
        run_steps(seconds)
        return
    company = {"alone": (1, 0), "beside a process that counts": (1, 1), "two runs, each": (2, 0)}
    kept = {}
    for _ in range(n_repeats):
        speeds = {(w, c): measure_speeds(*company[c], w, seconds) for c in company for w in WAITING}
        for key, speed in speeds.items():
            kept.setdefault(key, []).append(speed / speeds["spinning", "alone"])
    rows = [
        {"threads": w, "": c, "speed": statistics.median(values), "least": min(values), "most": max(values)}
        for (w, c), values in kept.items()
    ]
    print(to_markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    typer.run(main)
