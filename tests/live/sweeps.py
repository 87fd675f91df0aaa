"""Running a small sweep in the tests."""

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path

from paper_lib.config import Sweep
from paper_lib.files import make_folder
from paper_lib.live.sweep import run_sweep
from paper_lib.paths import BUILD
from paper_lib.store import Store


def run(settings, store):
    """Run a sweep; return the number of its cases and their records."""
    records = []
    n = run_sweep(Sweep(**settings), store, on_case=records.append)
    return n, records


def copy_run(settings, store):
    """Fill ``store`` as a run would; for the same settings there is one run, which all tests copy."""
    shutil.copytree(_run_once(json.dumps(settings, sort_keys=True)), store.folder)


@cache
def _run_once(settings):
    store = Store("once", Path(tempfile.mkdtemp(dir=make_folder(BUILD))))
    run(json.loads(settings), store)
    return store.folder
