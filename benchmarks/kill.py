"""A sweep killed again and again, finished by two writers at once, against the same sweep left undisturbed.

Each process is killed by an alarm that nobody handles, which ends it on the spot, as SIGKILL would: mostly a random
moment after it has stored something new, now and then while it starts or writes. The next one goes on in the middle of
the cases. At the end every case must be there once and say what it says without the kills. Linux or macOS.
"""

import json
import os
import random
import shutil
import signal
import tempfile
from collections import Counter
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from transformers import AutoConfig, AutoModelForCausalLM

from paper_lib.config import Sweep
from paper_lib.live.sweep import run_sweep
from paper_lib.paths import ROOT
from paper_lib.store import Store
from paper_lib.tables import to_markdown

SHIPPED = ROOT / "data" / "models" / "novels-5m"
AIMS = {"starting": (1, 0.03), "cramming": (8, 0.1), "storing": (1, 0.001)}  # weight, seconds at most until the alarm
PHASES = tuple(AIMS)
CASES_PER_KILL = 8  # more than a process gets done before its alarm
MAY_DIFFER = {"wall_seconds", "vectors_sha256"}  # the hash changes with the last bit
# Processes are forked, so that torch is imported once; a fork must find no threads.
FORK = get_context("fork")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
torch.set_num_threads(1)


class WatchedStore(Store):
    """A store that says when it is writing, and sets the alarm of a process that is to die after or while it does.

    The process itself sets it: one that watches from outside would be late on a busy machine.
    """

    def __init__(self, name, root, phase, aim, seconds):
        super().__init__(name, root)
        self.phase, self.aim, self.seconds, self.n_stored = phase, aim, seconds, 0

    def put(self, record, vectors):
        self.phase.value = PHASES.index("storing")
        if self.aim == "storing" and self.n_stored == 1:  # the first is stored whole, so that the sweep gets on
            signal.setitimer(signal.ITIMER_REAL, self.seconds)
        super().put(record, vectors)
        self.phase.value = PHASES.index("cramming")
        if self.aim == "cramming" and self.n_stored == 0:
            signal.setitimer(signal.ITIMER_REAL, self.seconds)
        self.n_stored += 1


def make_sweep(folder: Path, n_cases: int, dtype: str) -> Sweep:
    """Return a sweep of ``n_cases`` texts of 4 tokens on a tiny random model, which is written to ``folder``."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = AutoConfig.from_pretrained(SHIPPED, **sizes, head_dim=32, num_key_value_heads=1, initializer_range=0.3)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    for path in SHIPPED.glob("token*.json"):
        shutil.copy(path, folder)
    draw = random.Random(0)
    texts = tuple(f"{number} years had passed before" for number in draw.sample(range(1000, 10_000), n_cases))
    return Sweep(
        name="killed",
        model={"name": str(folder), "dtype": dtype},
        texts={"source": "strings", "texts": texts},
        n_texts=n_cases,
        lengths=[4],
        protocols=["strict"],
        optimiser={"lr": 0.1, "max_steps": 40},
        batch_size=3,
    )


def start(sweep: Sweep, root: Path, aim: str = "", seconds: float = 0):
    """Start a process that runs the sweep and, if it is to die, sets its alarm when it does what ``aim`` says.

    Return it and the number of the phase that it is in.
    """
    phase = FORK.RawValue("i", 0)

    def work():
        def cramming(_):
            phase.value = PHASES.index("cramming")

        if aim == "starting":
            signal.setitimer(signal.ITIMER_REAL, seconds)
        store = WatchedStore(sweep.name, root, phase, aim, seconds)
        run_sweep(sweep, store, on_start=cramming, save_every_seconds=0.02)

    process = FORK.Process(target=work)
    process.start()
    return process, phase


def kill_once(sweep: Sweep, root: Path, aim: str, seconds: float) -> str | None:
    """Let a run die so many seconds after it does what ``aim`` says; return what it did then (None: it finished)."""
    process, phase = start(sweep, root, aim, seconds)
    process.join()
    return PHASES[phase.value] if process.exitcode == -signal.SIGALRM else None


def count_halfway(folder: Path) -> int:
    """Return how many cases of a store were left in the middle."""
    return len(list(folder.glob("*.halfway")))


def compare(sweep: Sweep, root: Path, straight: Path) -> dict:
    """Return how the killed sweep differs from the one left undisturbed."""
    killed, peaceful = Store(sweep.name, root), Store(sweep.name, straight)
    worst, n_exact, worst_vector = 0.0, 0, 0.0
    for key in set(killed) & set(peaceful):
        (one, v), (other, w) = killed.get(key), peaceful.get(key)
        n_exact += one["exact"] != other["exact"]
        worst_vector = max(worst_vector, float(np.abs(v - w).max()))
        for name in one.keys() - MAY_DIFFER:
            if isinstance(one[name], float):
                worst = max(worst, abs(one[name] - other[name]) / max(abs(other[name]), 1e-9))
            elif one[name] != other[name]:
                worst = float("inf")
    exact = [sum(store.get(key)[0]["exact"] for key in store) for store in (killed, peaceful)]
    return {
        "missing": len(set(peaceful) - set(killed)),
        "too many": len(set(killed) - set(peaceful)),
        "partial files": len([path for path in killed.folder.iterdir() if path.suffix == ".partial"]),
        "left halfway": count_halfway(killed.folder),
        "other exactness": n_exact,
        "exact": exact[0],
        "exact undisturbed": exact[1],
        "fields off by": worst,
        "vectors off by": worst_vector,
    }


def kill_and_continue(n_kills: int, dtype: str, seed: int = 0) -> dict:
    """Return what became of a sweep whose processes were killed ``n_kills`` times."""
    draw, phases, n_resumed = random.Random(seed), Counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        root, straight = Path(folder) / "killed", Path(folder) / "straight"
        sweep = make_sweep(Path(folder) / "model", CASES_PER_KILL * n_kills, dtype)
        for _ in range(n_kills):
            (aim,) = draw.choices(PHASES, weights=[weight for weight, _ in AIMS.values()])
            _, longest = AIMS[aim]
            at = kill_once(sweep, root, aim, draw.uniform(1e-4, longest))
            if at is None:
                raise RuntimeError("a run ended before its alarm; give the sweep more cases")
            phases[at] += 1
            n_resumed += count_halfway(root / sweep.name)
        n_left = CASES_PER_KILL * n_kills - len(list(Store(sweep.name, root)))
        finishers = [start(sweep, root)[0] for _ in range(2)]
        finishers.append(start(sweep, straight)[0])
        for process in finishers:
            process.join()
        if any(process.exitcode for process in finishers):
            raise RuntimeError("a process that was left undisturbed failed")
        kills = {"weights": dtype, "kills": n_kills} | {f"while {phase}": phases[phase] for phase in PHASES}
        kills["resumed"] = n_resumed
        stored = {
            "cases": CASES_PER_KILL * n_kills,
            "stored": len(list(Store(sweep.name, root))),
            "by two writers": n_left,
        }
        return kills | stored | compare(sweep, root, straight)


def main(
    n_kills: int = 200,
    dtypes: Annotated[str, typer.Option(help="Precisions of the weights, with commas between.")] = "float64,float32",
    as_json: Annotated[bool, typer.Option(help="Print JSON for programs in place of a table.")] = False,
) -> None:
    """Print one row per precision: kills by phase, cases missing or doubled, differences."""
    rows = [kill_and_continue(n_kills, dtype) for dtype in dtypes.split(",")]
    print(json.dumps(rows) if as_json else to_markdown(pd.DataFrame(rows).T.reset_index()))


if __name__ == "__main__":
    typer.run(main)
