"""Do vectors that were exact here decode elsewhere? Frozen vectors, decoded again under other precisions and shapes.

What changes between machines is how sums are rounded. On one machine that is changed by the precision of weights and
products, by how many texts are decoded at a time, with the cache or by whole forward passes, by the number of threads;
what was measured on other processors is kept beside it.
"""

import contextlib
import os
import platform
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from ..errors import InputError
from ..frozen import load_findings, load_runs, load_vectors, write_findings
from ..paths import DATA
from .load import load_lm, load_same
from .proofs import decode_together, is_its_text
from .protocols import find_protocol


@dataclass(frozen=True)
class Condition:
    """How vectors are decoded: the precision of weights and, if lower, of products; texts at a time; threads."""

    dtype: str = "float32"
    autocast: str | None = None
    how: str = "cached"
    n_at_once: int = 8
    all_threads: bool = False


CONDITIONS = {
    "fp64, cache, 8 at a time": Condition("float64"),
    "fp32, cache, one at a time": Condition(n_at_once=1),
    "fp32, cache, 8 at a time": Condition(),
    "fp32, whole forward, 8 at a time": Condition(how="full"),
    "fp32, cache, 8 at a time, more threads": Condition(all_threads=True),
    "bf16 products, cache, 8 at a time": Condition(autocast="bfloat16"),
    "fp16 weights, cache, 8 at a time": Condition("float16"),
    "bf16 weights, cache, one at a time": Condition("bfloat16", n_at_once=1),
    "bf16 weights, cache, 8 at a time": Condition("bfloat16"),
    "bf16 weights, whole forward, 8 at a time": Condition("bfloat16", how="full"),
}


def measure_portability(sweep: str, data: Path = DATA) -> list[Path]:
    """Decode the frozen exact vectors of a sweep under each of CONDITIONS; write data/portability/<sweep>.parquet.

    Columns: ``sweep``, ``key``, ``condition``, ``survives`` (the text comes back whole) and ``processor``, named by its
    instructions ("x86_64, AVX2"). Rows of other processors stay. InputError for a sweep that has no exact vectors.
    """
    cases = load_runs(data, name=sweep).query("exact").set_index("key", drop=False)
    vectors = {key: v for key, v in load_vectors(sweep, data).items() if key in cases.index}
    if not vectors:
        raise InputError(f"no vector of {sweep} is exact; give a sweep in which some text was")
    groups = defaultdict(list)
    for key in sorted(vectors):
        record = cases.loc[key].to_dict()
        length = None if find_protocol(record["protocol"]).extends else record["length"]
        groups[record["protocol"], vectors[key].shape, length].append(record)
    rows = []
    for name, condition in tqdm(CONDITIONS.items(), desc=sweep, unit="condition"):
        lm = _load_under(condition, cases.iloc[0].to_dict())
        with _threads(os.cpu_count() if condition.all_threads else 1):
            for group in groups.values():
                rows += _decode(lm, condition, name, group, vectors)
    here, before = name_processor(), load_findings("portability", data, name=sweep)
    found = pd.DataFrame(rows).assign(sweep=sweep, processor=here)
    if len(before):
        found = pd.concat([before[before["processor"] != here], found], ignore_index=True)
    return [write_findings("portability", sweep, found, data)]


def name_processor() -> str:
    """Return the architecture of this processor and the widest vector instructions that torch uses on it."""
    return f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def _load_under(condition, record):
    def load(name, **options):
        return load_lm(name, **options | {"dtype": condition.dtype, "autocast": condition.autocast})

    return load_same(record, load)


@contextlib.contextmanager
def _threads(n):
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _decode(lm, condition, name, records, vectors):
    rows = []
    for start in range(0, len(records), condition.n_at_once):
        some = records[start : start + condition.n_at_once]
        texts = decode_together(lm, some, [vectors[record["key"]] for record in some], how=condition.how)
        for record, ids in zip(some, texts, strict=True):
            rows.append({"key": record["key"], "condition": name, "survives": is_its_text(lm, record, ids)})
    return rows
