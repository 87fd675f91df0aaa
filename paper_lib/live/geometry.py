"""Where solutions lie and how much room they have: vectors perturbed, their neighbours, what they say otherwise.

The paper's appendix E. Only exact vectors are looked at, in the precision of the model's weights. What is measured is
teacher-forced.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional
from tqdm.auto import tqdm

from ..frozen import write_findings
from ..paths import DATA
from .reading import describe_neighbours, describe_other_text, measure_attention
from .solutions import Solutions, describe_case, load_solutions, measure_all

N_PERTURBED = 3  # solutions of each text
N_DIRECTIONS = 4  # of noise, and draws of coordinates that are dropped
RADII = 2.0 ** np.arange(-7, 1.01, 0.5)  # lengths of noise, in those of the vector
SCALES = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.05, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0])
DROPPED = np.array([0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2])  # shares of the coordinates


def measure_geometry(sweep: str, data: Path = DATA) -> list[Path]:
    """Measure a frozen sweep with several exact solutions of each text; write data/<kind>/<sweep>.parquet, three kinds.

    ``perturbed``: a row for each solution, ``how`` (noise of so many of the vector's lengths, scaled, dropped
    coordinates), size ``at`` and ``draw``, with ``accuracy`` and ``all_right``. ``neighbours`` and ``attention``: a row
    for each solution (and layer), see ``reading.py``. InputError for a sweep without two exact solutions of one text.
    """
    lm, _, texts = load_solutions(sweep, data)
    found = defaultdict(list)
    for number, text in enumerate(tqdm(texts, desc=sweep, unit="text")):
        for record, vector in zip(text.records[:N_PERTURBED], text.vectors, strict=False):
            found["perturbed"] += _measure_perturbed(lm, text, record, vector)
        others = describe_other_text(lm, text.protocol, text.vectors, texts[number - 1].ids)
        for record, near, other in zip(text.records, describe_neighbours(lm, text.vectors), others, strict=True):
            found["neighbours"].append(describe_case(record) | near | other)
        for case, shares in measure_attention(lm, text.protocol, text.vectors, text.ids):
            found["attention"].append(describe_case(text.records[case]) | shares)
    return [write_findings(kind, sweep, pd.DataFrame(rows).assign(sweep=sweep), data) for kind, rows in found.items()]


def _measure_perturbed(lm, text: Solutions, record, vector) -> Iterator[dict]:
    draw = torch.Generator().manual_seed(int(record["key"][:12], 16))  # so that each vector has draws of its own
    noise = functional.normalize(torch.randn(N_DIRECTIONS, *vector.shape, generator=draw).flatten(1)).view(
        -1, *vector.shape
    )
    order = torch.rand(N_DIRECTIONS, vector.numel(), generator=draw).argsort(dim=1).view(-1, *vector.shape)
    perturb: dict[str, tuple[np.ndarray, int, Callable]] = {
        "noise": (RADII, N_DIRECTIONS, lambda at, n: vector + at * vector.norm() * noise[n]),
        "scaled": (SCALES, 1, lambda at, n: at * vector),
        "dropped": (DROPPED, N_DIRECTIONS, lambda at, n: vector * (order[n] >= at * vector.numel())),
    }
    for how, (sizes, n_draws, apply) in perturb.items():
        trials = list(itertools.product(sizes, range(n_draws)))
        right = measure_all(lm, text.protocol, torch.stack([apply(float(at), n) for at, n in trials]), text.ids)
        for (at, n), facts in zip(trials, right, strict=True):
            yield describe_case(record) | {"how": how, "at": at, "draw": n} | facts
