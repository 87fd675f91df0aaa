"""Seconds and evaluations until a real model says a sentence back from one vector, as a user waits for it.

Each sentence is crammed by the command line in a process of its own: loading the model, optimising, and proving by free
decoding. Needs `python -m paper_lib fetch smollm2-135m`.
"""

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from paper_lib.models import FIRST
from paper_lib.tables import to_markdown

TEXTS = Path(__file__).with_suffix(".txt")
SAID = re.compile(r"(\d+) tokens, (\d+) bits in .*?: (.*)")


def cram(sentence: str, model: str) -> dict:
    """Cram one sentence into one vector by the command line; return what it cost and whether it came back."""
    command = [sys.executable, "-m", "paper_lib", "cram", sentence, "--model", model, "--n-mem", "1"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - started
    tokens, bits, verdict = SAID.search(done.stderr).groups()
    evaluations = re.findall(r"(\d+)/\d+ \[", done.stderr)
    return {
        "tokens": int(tokens),
        "bits": int(bits),
        "evaluations": int(evaluations[-1]),
        "seconds": seconds,
        "exact": verdict == "exact" and done.stdout.strip() == sentence,
    }


def main(model: Annotated[str, typer.Option(help="A fetched model, a hub id, a folder.")] = FIRST) -> None:
    """Print one row per sentence, and for each group how many came back and how long they took."""
    for block in TEXTS.read_text(encoding="utf-8").strip().split("\n\n"):
        group, *sentences = block.splitlines()
        table = pd.DataFrame([cram(sentence, model) for sentence in sentences])
        print(to_markdown(table.assign(sentence=[sentence[:40] + "..." for sentence in sentences])))
        exact = table[table["exact"]]
        waited = f"median {table['seconds'].median():.0f}, largest {table['seconds'].max():.0f}"
        print(f"{group.removeprefix('# ')}: {len(exact)} of {len(table)} exact from one vector")
        print(f"seconds in all, loading too: {waited}; median evaluations: {exact['evaluations'].median():.0f}")


if __name__ == "__main__":
    typer.run(main)
