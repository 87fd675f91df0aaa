"""How fast texts are read off their vectors: one pass against one token after the other, in one run on one machine."""

import time
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from ..errors import InputError
from ..frozen import load_runs, write_findings
from ..paths import DATA
from .load import load_same
from .protocols import find_protocol

LENGTHS = (8, 16, 32, 64, 128, 256)
N_REPEATS = 7


def measure_throughput(sweep: str, data: Path = DATA) -> list[Path]:
    """Time the decoding of one text by every protocol of a frozen sweep; write data/throughput/<sweep>.parquet.

    A row for each protocol, ``n_mem``, ``length`` and ``repeat``, with ``how`` (the protocol's quickest way: in one
    pass, or with the cache), ``seconds``, ``model``, ``n_threads`` and ``device``. Vectors are random, since the time
    does not depend on what they say; protocols take turns in each repeat, after one that does not count. InputError for
    a sweep that is not frozen.
    """
    cases = load_runs(data, name=sweep)
    if cases.empty:
        raise InputError(f"{sweep} is not frozen; run: python -m paper_lib freeze {sweep}")
    lm, rows = load_same(cases.iloc[0].to_dict()), []
    kinds = cases[["protocol", "n_mem"]].drop_duplicates().sort_values(["protocol", "n_mem"])
    ways = [(find_protocol(name), n_mem) for name, n_mem in kinds.itertuples(index=False)]
    trials = [(length, repeat) for length in LENGTHS for repeat in range(-1, N_REPEATS)]
    for length, repeat in tqdm([trial for trial in trials if trial[0] < lm.context_tokens], desc=sweep, unit="repeat"):
        for protocol, n_mem in ways:
            how = protocol.decodings[-1]
            seconds = _time(lm, protocol, n_mem, length, how)
            what = {"protocol": protocol.name, "n_mem": n_mem, "length": length, "how": how, "repeat": repeat}
            rows += [what | {"seconds": seconds}] if repeat >= 0 else []
    frame = pd.DataFrame(rows).assign(
        sweep=sweep, model=cases["model"].iloc[0], n_threads=torch.get_num_threads(), device=lm.device.type
    )
    return [write_findings("throughput", sweep, frame, data)]


def _time(lm, protocol, n_mem, length, how):
    shape, draw = protocol.vector_shape(lm, n_mem), torch.Generator().manual_seed(0)
    vectors = (torch.randn(1, *shape, generator=draw) * protocol.start_std(lm)).to(lm.device)
    given = torch.zeros(1, protocol.n_given, dtype=torch.long, device=lm.device)
    started = time.perf_counter()
    protocol.decode(lm, vectors, given, length, how=how).cpu()  # waits for a GPU
    return time.perf_counter() - started
