"""Texts that grow in one batch, each at its own length, against one text at a time: time, and how far each comes.

Texts are sampled from the shipped model.
"""

import tempfile
import time
from pathlib import Path

import pandas as pd
import typer
from shapes import SHIPPED, make_lm
from throughput import sample_texts

from paper_lib.config import Sweep
from paper_lib.live.sweep import run_sweep
from paper_lib.store import Store
from paper_lib.tables import to_markdown


def find_horizons(texts: tuple[str, ...], n_steps: int, batch_size: int | None) -> tuple[float, pd.Series]:
    """Return the seconds of a sweep of growing targets, and by text how many targets it reached."""
    sweep = Sweep(
        name="benchmark", model={"name": SHIPPED}, texts={"source": "strings", "texts": texts}, n_texts=len(texts),
        lengths=(64,), recipe="fast", protocols=("strict",), stopping="growing(stage_tokens=4, stage_steps=100)",
        optimiser={"max_steps": n_steps}, batch_size=batch_size,
    )  # fmt: skip
    records = []
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        run_sweep(sweep, Store(sweep.name, Path(folder)), on_case=records.append)
        seconds = time.perf_counter() - started
    reached = {record["text_id"]: max(record["stage_targets_each"], default=0) for record in records}
    return seconds, pd.Series(reached).sort_index()


def main(n_texts: int = 16, n_steps: int = 300) -> None:
    """Print how many times faster a batch is, and how its horizons differ."""
    lm = make_lm("shipped")
    texts = tuple(lm.tokenizer.batch_decode(sample_texts(lm, n_texts, 120), skip_special_tokens=True))
    (alone, one_by_one), (together, batched) = (find_horizons(texts, n_steps, size) for size in (1, None))
    row = {
        "texts": n_texts,
        "times faster": alone / together,
        "mean horizon, one at a time": one_by_one.mean(),
        "in a batch": batched.mean(),
        "median difference": (batched - one_by_one).abs().median(),
    }
    print(to_markdown(pd.DataFrame([row])))


if __name__ == "__main__":
    typer.run(main)
