"""The run store at scale: frozen tables of up to a million records, working stores of up to a hundred thousand files.

References: reading the bytes of the same table without looking at them; the cost per case at a hundred files.
"""

import hashlib
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from paper_lib.frozen import load_runs
from paper_lib.paths import DATA
from paper_lib.reproduce.manifest import write_manifest
from paper_lib.store import Store
from paper_lib.tables import to_markdown

N_REPEATS = 3


def time_call(call) -> float:
    """Return the median seconds of a call."""
    seconds = []
    for _ in range(N_REPEATS):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def make_records(n_records: int) -> pd.DataFrame:
    """Return that many records: frozen ones, with keys, hashes and measurements of their own."""
    frozen = pd.read_parquet(next((DATA / "runs").glob("*.parquet")))
    records = frozen.iloc[np.arange(n_records) % len(frozen)].reset_index(drop=True)
    hashes = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(n_records)]
    random = np.random.default_rng(0)
    numbers = {name: random.normal(size=n_records) for name in ("ce_lm_nats", "ce_mem_nats", "ce_mem_min_nats")}
    return records.assign(key=hashes, ids_sha256=hashes, vectors_sha256=hashes, **numbers)


def measure_frozen(n_records: int) -> dict:
    """Return seconds to load and verify a frozen table, to filter it, and to read its bytes only."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        (data / "runs").mkdir()
        table = data / "runs" / "big.parquet"
        make_records(n_records).to_parquet(table, index=False)
        write_manifest(data)
        cases = load_runs(data)
        assert len(cases) == n_records
        load, read = time_call(lambda: load_runs(data)), time_call(table.read_bytes)
        wanted = lambda: cases[(cases["length"] == 8) & cases["exact"] & (cases["ce_lm_nats"] > 0)]  # noqa: E731
        return {
            "records": n_records,
            "file (MB)": table.stat().st_size / 1e6,
            "load and verify (s)": load,
            "of reading alone": load / read,
            "filter (s)": time_call(wanted),
        }


def measure_working(n_cases: int) -> dict:
    """Return seconds per case to store, to look up, to open, and those of the whole index."""
    records = make_records(n_cases).drop(columns=["given_ids", "vectors_sha256"]).to_dict("records")
    vectors = np.zeros((1, 320), np.float16)
    with tempfile.TemporaryDirectory() as folder:
        store = Store("many", Path(folder))

        def put():
            for record in records:
                store.put(record, vectors)

        started = time.perf_counter()
        put()
        stored = time.perf_counter() - started
        some = [record["key"] for record in records[:: max(1, n_cases // 1000)]]
        index = time_call(store.index)
        assert len(store.index()) == n_cases
        return {
            "files": n_cases,
            "store": stored / n_cases,
            "look up": time_call(lambda: [key in store for key in some]) / len(some),
            "open": time_call(lambda: [store.get(key) for key in some]) / len(some),
            "index, whole (s)": index,
        }


def main(
    n_records_max: Annotated[int, typer.Option(help="Largest frozen table.")] = 10**6,
    n_files_max: Annotated[int, typer.Option(help="Largest working store.")] = 10**5,
) -> None:
    """Print two tables: frozen records, and the working store with costs per case relative to the smallest one."""
    powers = [10**power for power in range(2, 8)]
    print(to_markdown(pd.DataFrame([measure_frozen(n) for n in powers if 1000 <= n <= n_records_max])))
    working = pd.DataFrame([measure_working(n) for n in powers if n <= n_files_max])
    per_case = ["store", "look up", "open"]
    working[per_case] /= working[per_case].iloc[0]
    print("\n" + to_markdown(working.rename(columns={name: f"{name}, per case" for name in per_case})))


if __name__ == "__main__":
    typer.run(main)
