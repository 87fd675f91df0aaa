"""Where solutions lie and how much room they have: paths between vectors of one text, and vectors perturbed.

The paper's appendix E and Figure 8; curved paths are those of Mezentsev and Oseledets (2025), section 4. Only exact
vectors are looked at, in the precision of the model's weights. What is measured is teacher-forced, since a path has too
many points to decode.
"""

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from ..errors import InputError
from ..frozen import load_runs, load_vectors, write_findings
from ..paths import DATA
from .lm import FrozenLM
from .load import load_same
from .loss import Loss
from .measure import fill_batch, measure, measure_with_gradient
from .proofs import decode_together
from .protocols import Protocol, find_protocol
from .reading import describe_neighbours, describe_other_text, measure_attention

N_PAIRS = 3  # of solutions of each text, each solution with the next
N_PERTURBED = 3  # solutions of each text
N_DIRECTIONS = 4  # of noise, and draws of coordinates that are dropped
PLACES = np.linspace(0, 1, 21)  # along a path
RADII = 2.0 ** np.arange(-7, 1.01, 0.5)  # lengths of noise, in those of the vector
SCALES = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.05, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0])
DROPPED = np.array([0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2])  # shares of the coordinates
# The middle point of a curve: how it is trained. The rate is a share of how far apart the two ends are in a coordinate.
CURVE_STEPS, CURVE_RATE, CURVE_POINTS, CURVE_LOSS = 300, 0.05, 2, Loss(temperature=0.5)


def measure_geometry(sweep: str, data: Path = DATA) -> list[Path]:
    """Measure a frozen sweep with several exact solutions of each text; write data/<kind>/<sweep>.parquet, four kinds.

    ``paths``: a row for each pair of solutions (``key``, ``other_key``), ``path`` (straight, or curved: a quadratic
    Bézier with a trained middle point) and place ``at`` from 0 to 1; ``length_ratio`` is the path's length over that of
    the straight line. ``perturbed``: a row for each solution, ``how`` (noise of so many of the vector's lengths,
    scaled, dropped coordinates), size ``at`` and ``draw``. Both have ``accuracy`` and ``all_right``. ``neighbours`` and
    ``attention``: a row for each solution (and layer), see ``reading.py``. InputError for a sweep that has no text with
    two exact solutions.
    """
    cases = load_runs(data).query("sweep == @sweep and exact").sort_values(["text_id", "key"])
    vectors = load_vectors(sweep, data)
    cases = cases[cases["key"].isin(vectors)]
    texts = [group.to_dict("records") for _, group in cases.groupby(["arm", "text_id", "length"]) if len(group) > 1]
    if not texts:
        raise InputError(f"no text of {sweep} has two exact solutions; give it n_restarts, freeze it with --keep all")
    lm, autocast = load_same(texts[0][0]), texts[0][0]["autocast"]
    quick = dataclasses.replace(lm, autocast=getattr(torch, autocast) if autocast else None)  # to train curves
    spelled = [decode_together(lm, some[:1], [vectors[some[0]["key"]]])[0].unsqueeze(0) for some in texts]
    found = defaultdict(list)
    for number, records in enumerate(tqdm(texts, desc=sweep, unit="text")):
        protocol, ids = find_protocol(records[0]["protocol"]), spelled[number]
        solutions = torch.stack([torch.from_numpy(vectors[record["key"]]).float() for record in records])
        found["paths"] += _measure_paths(quick, protocol, ids, records[: N_PAIRS + 1], solutions[: N_PAIRS + 1])
        for record, vector in zip(records[:N_PERTURBED], solutions, strict=False):
            found["perturbed"] += _measure_perturbed(lm, protocol, ids, record, vector)
        others = describe_other_text(lm, protocol, solutions, spelled[number - 1])
        for record, near, other in zip(records, describe_neighbours(lm, solutions), others, strict=True):
            found["neighbours"].append(_describe(record) | near | other)
        for case, shares in measure_attention(lm, protocol, solutions, ids):
            found["attention"].append(_describe(records[case]) | shares)
    return [write_findings(kind, sweep, pd.DataFrame(rows).assign(sweep=sweep), data) for kind, rows in found.items()]


# --- paths ---------------------------------------------------------------------------------------------------------


def _measure_paths(lm, protocol, ids, records, solutions) -> Iterator[dict]:
    first, last = solutions[:-1], solutions[1:]
    middles = {"straight": (first + last) / 2, "curved": train_middles(lm, protocol, ids, first, last)}
    places = torch.from_numpy(PLACES).to(first.dtype).view(1, -1, 1, 1)
    for path, middle in middles.items():
        points = bezier(*(ends.unsqueeze(1) for ends in (first, middle, last)), places)
        lengths = (points[:, 1:] - points[:, :-1]).flatten(2).norm(dim=-1).sum(1)
        ratios = (lengths / (last - first).flatten(1).norm(dim=-1)).tolist()
        right = iter(_measure_all(lm, protocol, points.flatten(0, 1), ids))
        for (record, other), ratio in zip(itertools.pairwise(records), ratios, strict=True):
            pair = {"other_key": other["key"], "path": path, "length_ratio": ratio}
            yield from (_describe(record) | pair | {"at": at} | next(right) for at in PLACES)


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


# --- perturbed vectors ---------------------------------------------------------------------------------------------


def _measure_perturbed(lm, protocol, ids, record, vector) -> Iterator[dict]:
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
        right = _measure_all(lm, protocol, torch.stack([apply(float(at), n) for at, n in trials]), ids)
        for (at, n), facts in zip(trials, right, strict=True):
            yield _describe(record) | {"how": how, "at": at, "draw": n} | facts


@torch.no_grad()
def _measure_all(lm, protocol, vectors, ids) -> list[dict]:
    lm, n_targets, facts = lm.without_autocast(), protocol.n_targets(ids.shape[1]), []
    for some in vectors.split(fill_batch(lm.device, ids.shape[1])):
        now = measure(lm, protocol, some, ids.expand(len(some), -1))
        shares = (now["n_correct"] / n_targets).tolist()
        facts += zip(shares, now["all_correct"].tolist(), strict=True)
    return [{"accuracy": share, "all_right": right} for share, right in facts]


def _describe(record):
    return {name: record[name] for name in ("key", "arm", "text_id", "cluster_id", "protocol", "length")}
