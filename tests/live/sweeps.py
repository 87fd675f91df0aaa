"""Running a small sweep in the tests."""

from paper_lib.config import Sweep
from paper_lib.live.sweep import run_sweep


def run(settings, store):
    records = []
    n = run_sweep(Sweep(**settings), store, on_case=records.append)
    return n, records
