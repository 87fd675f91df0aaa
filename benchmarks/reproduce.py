"""Times of what a reader waits for, each against a named reference in the same run. Run it with `make bench`.

Absolute seconds depend on the machine; the ratios carry over.
"""

import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from paper_lib.paths import BUILD, ROOT
from paper_lib.tables import to_markdown

N_REPEATS = 5


def time_command(command: list[str], before=lambda: None, n_repeats: int = N_REPEATS) -> float:
    """Return the median wall-clock seconds of a command; ``before`` runs untimed before each repeat."""
    seconds = []
    for _ in range(n_repeats):
        before()
        started = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    """Print one table: what, seconds, reference, ratio."""

    def forget_stamps():
        shutil.rmtree(BUILD / "stamps", ignore_errors=True)

    python = str(Path(sys.executable))
    interpreter = time_command([python, "-c", "pass"])
    library = time_command([python, "-c", "import paper_lib, sys; assert 'torch' not in sys.modules"])
    one_by_one = time_command(["make", "-j1", "reproduce"], forget_stamps, n_repeats=1)
    two_at_once = time_command(["make", "reproduce"], forget_stamps, n_repeats=1)
    rows = [
        ("import paper_lib", library, "start of Python", library / interpreter),
        ("make -j1 reproduce", one_by_one, "itself", 1.0),
        ("make reproduce", two_at_once, "make -j1 reproduce", two_at_once / one_by_one),
    ]
    print(to_markdown(pd.DataFrame(rows, columns=["what", "seconds", "reference", "ratio"])))


if __name__ == "__main__":
    main()
