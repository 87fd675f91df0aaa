"""Are solutions of one text connected? Accuracy along straight lines and trained curves between exact vectors.

Straight lines are those of the paper's Figure 8, curves those of Mezentsev and Oseledets (2025), section 4. What is
measured is teacher-forced, since a path has too many points to decode.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from ..frozen import write_findings
from ..paths import DATA
from .lm import FrozenLM
from .loss import Loss
from .measure import measure_with_gradient
from .protocols import Protocol
from .solutions import Solutions, describe_case, load_solutions, measure_all

N_PAIRS = 3  # of solutions of each text, each solution with the next
PLACES = np.linspace(0, 1, 21)  # along a path
# The middle point of a curve: how it is trained. The rate is a share of how far apart the two ends are in a coordinate.
CURVE_STEPS, CURVE_RATE, CURVE_POINTS, CURVE_LOSS = 300, 0.05, 2, Loss(temperature=0.5)


def measure_paths(sweep: str, data: Path = DATA) -> list[Path]:
    """Measure paths between exact solutions of each text of a frozen sweep; write data/paths/<sweep>.parquet.

    A row for each pair of solutions (``key``, ``other_key``), ``path`` (straight, or curved: a quadratic Bézier with a
    trained middle point) and place ``at`` from 0 to 1, with ``accuracy`` and ``all_right`` there; ``length_ratio`` is
    the path's length over that of the straight line. InputError for a sweep without two exact solutions of one text.
    """
    lm, quick, texts = load_solutions(sweep, data)
    rows = [row for text in tqdm(texts, desc=sweep, unit="text") for row in _measure_text(lm, quick, text)]
    return [write_findings("paths", sweep, pd.DataFrame(rows).assign(sweep=sweep), data)]


def _measure_text(lm, quick, text: Solutions) -> Iterator[dict]:
    records, vectors = text.records[: N_PAIRS + 1], text.vectors[: N_PAIRS + 1]
    first, last = vectors[:-1], vectors[1:]
    middles = {
        "straight": (first + last) / 2,
        "curved": train_middles(quick, text.protocol, text.ids, first, last),
    }
    places = torch.from_numpy(PLACES).to(first.dtype).view(1, -1, 1, 1)
    for path, middle in middles.items():
        points = bezier(*(ends.unsqueeze(1) for ends in (first, middle, last)), places)
        lengths = (points[:, 1:] - points[:, :-1]).flatten(2).norm(dim=-1).sum(1)
        ratios = (lengths / (last - first).flatten(1).norm(dim=-1)).tolist()
        right = iter(measure_all(lm, text.protocol, points.flatten(0, 1), text.ids))
        for (record, other), ratio in zip(itertools.pairwise(records), ratios, strict=True):
            pair = {"other_key": other["key"], "path": path, "length_ratio": ratio}
            yield from (describe_case(record) | pair | {"at": at} | next(right) for at in PLACES)


def bezier(first: Tensor, middle: Tensor, last: Tensor, at: Tensor) -> Tensor:
    """Return the points of quadratic Bézier curves at places 0 to 1; straight with the middle point in the middle."""
    return (1 - at) ** 2 * first + 2 * at * (1 - at) * middle + at**2 * last


def train_middles(
    lm: FrozenLM,
    protocol: Protocol,
    ids: Int[Tensor, "1 pos"],
    first: Float[Tensor, "pair row width"],
    last: Float[Tensor, "pair row width"],
) -> Float[Tensor, "pair row width"]:
    """Return middle points such that curves of one text from first to last vectors stay right: Adam, from the middle.

    Each step looks at CURVE_POINTS places of each curve, drawn evenly, from a seed of its own.
    """
    middle, draw = ((first + last) / 2).requires_grad_(), torch.Generator().manual_seed(0)
    adam = torch.optim.Adam([middle], lr=CURVE_RATE * (last - first).square().mean().sqrt().item())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, CURVE_STEPS)
    n_pairs = len(first)
    for _ in range(CURVE_STEPS):
        strata = torch.arange(CURVE_POINTS) + torch.rand(n_pairs, CURVE_POINTS, generator=draw)
        at = (strata / CURVE_POINTS).view(n_pairs, -1, 1, 1)
        points = bezier(first.unsqueeze(1), middle.unsqueeze(1), last.unsqueeze(1), at).flatten(0, 1)
        now = measure_with_gradient(lm, protocol, CURVE_LOSS, points.detach(), ids.expand(len(points), -1))
        (middle.grad,) = torch.autograd.grad(points, middle, now["gradient"])
        adam.step()
        schedule.step()
    return middle.detach()
