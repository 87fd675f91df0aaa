"""The state of a batch: tensors by name, one row per running case, and what is kept of the best measurement.

Names with a dot belong to a part of the recipe: ``param.*`` is what is trained, ``mover.*`` and ``goal.*`` are the
states of mover and goal. Rows come and go; each has its own counters, so its trajectory is that of a run of its own.
"""

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional

from ..config import CaseConfig, Optimiser
from ..parts import find_part
from ..storage import STORAGES, Storage, find_storage
from .goals import GOALS, Goal
from .lm import FrozenLM
from .loss import CROSS_ENTROPY, LOSSES, Loss
from .movers import MOVERS, Mover
from .parametrisations import PARAMETRISATIONS, Parametrisation
from .protocols import Protocol

ENDED = ("running", "diverged", "reached", "patience", "budget")
RUNNING, REACHED, BUDGET = (ENDED.index(reason) for reason in ("running", "reached", "budget"))

# After how many evaluations the learning curve of a row is noted: halvings and doublings of 100 and of 1,000.
CURVE_EVALUATIONS = tuple(sorted(unit * 2**power for unit in (25, 125) for power in range(10)))

Rows = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """One text to cram: its tokens (pos,), the number of vectors, and the key that its random start depends on.

    ``state`` is where an earlier run left it (see ``Unfinished``), ``start`` (row, width) the vectors to start from
    instead of random ones.
    """

    key: str
    ids: Tensor
    n_mem: int = 1
    state: Rows | None = field(default=None, repr=False)
    start: Tensor | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Recipe:
    """How vectors are found: what is trained, how it moves, what for, and what is minimised.

    ``storage`` rounds vectors before they are measured and kept, None for no rounding.
    """

    goal: Goal
    settings: Optimiser = Optimiser()
    mover: Mover = MOVERS["adamw"]
    parametrisation: Parametrisation = PARAMETRISATIONS["free"]
    loss: Loss = CROSS_ENTROPY
    storage: Storage | None = None


def make_recipe(config: CaseConfig) -> Recipe:
    """Return the recipe that the settings of a case name; raise InputError for an unknown part, or two that clash."""
    parametrisation = find_part("parametrisation", config.parametrisation, PARAMETRISATIONS)
    parametrisation.check(config.optimiser)
    return Recipe(
        goal=find_part("goal", config.stopping, GOALS),
        settings=config.optimiser,
        mover=find_part("mover", config.optimiser.mover, MOVERS),
        parametrisation=parametrisation,
        loss=find_part("loss", config.loss, LOSSES),
        storage=find_storage(config.storage),
    )


def draw_start(
    lm: FrozenLM, protocol: Protocol, case: Case, parametrisation: Parametrisation = PARAMETRISATIONS["free"]
) -> Rows:
    """Return the start of a case, without the row axis: what is trained, random from its key alone, or given."""
    seed = int.from_bytes(hashlib.sha256(case.key.encode()).digest()[:7], "big")
    generator = torch.Generator().manual_seed(seed)
    params = parametrisation.start(protocol.vector_shape(lm, case.n_mem), protocol.start_std(lm), generator)
    if case.start is not None:
        params = parametrisation.take(case.start.double())
    precision = torch.float64 if lm.dtype == torch.float64 else torch.float32
    return {name: value.to(lm.device, precision) for name, value in params.items()}


def start_row(lm: FrozenLM, protocol: Protocol, case: Case, recipe: Recipe, length: int) -> Rows:
    """Return one row: a fresh start, or where an earlier run left the case.

    A text shorter than ``length`` is padded; a causal model does not see the padding, and it is no target.
    """
    params = {
        name: value.unsqueeze(0) for name, value in draw_start(lm, protocol, case, recipe.parametrisation).items()
    }
    n_targets = protocol.n_targets(len(case.ids))
    goal = {name: value.to(lm.device).unsqueeze(0) for name, value in recipe.goal.start(n_targets).items()}
    one = torch.zeros(1, dtype=torch.float64, device=lm.device)
    fresh = {
        "ids": functional.pad(case.ids, (0, length - len(case.ids))).to(lm.device).unsqueeze(0),
        **name_part_of("param", params),
        **name_part_of("mover", recipe.mover.start(params)),
        **name_part_of("goal", goal),
        "n_targets": one.long() + n_targets,
        "n_steps": one.long(),
        "best_vectors": recipe.parametrisation.vectors(params).clone(),
        "best_step": one.long(),
        "best_n_correct": one.long() - 1,
        "best_n_active": one.long() + n_targets,
        "best_margin": one - torch.inf,
        "best_ce": one + torch.inf,
        "min_ce": one + torch.inf,
        "curve_n_correct": one.new_full((1, len(CURVE_EVALUATIONS)), math.nan),
        "curve_ce": one.new_full((1, len(CURVE_EVALUATIONS)), math.nan),
        "ended": one.long() + RUNNING,
        "seconds": one,
    }
    if case.state is None or case.state.keys() != fresh.keys() - {"ids"}:  # left by another version: begin again
        return fresh
    return {name: fresh[name] if name == "ids" else case.state[name].to(lm.device).unsqueeze(0) for name in fresh}


def append(rows: Rows, new: list[Rows]) -> Rows:
    """Return ``rows`` with new ones below; ``rows`` may be empty."""
    if not new:
        return rows
    parts = [rows, *new] if rows else new
    return {name: _stack([part[name] for part in parts], name.startswith("goal.")) for name in parts[0]}


def _stack(parts, of_targets):
    # What a goal keeps for each target is as wide as the longest text.
    if of_targets and parts[0].dim() > 1:
        width = max(part.shape[1] for part in parts)
        parts = [functional.pad(part, (0, width - part.shape[1])) for part in parts]
    return torch.cat(parts)


def keep_still(rows: Rows, before: Rows, active: Bool[Tensor, " row"]) -> None:
    """Give rows that had ended before a step what they had: what is trained, and the states of mover and goal."""
    for name in rows:
        if name.startswith(("param.", "mover.", "goal.")):
            rows[name] = torch.where(_as_wide(active, rows[name]), rows[name], before[name])


def select(rows: Rows, chosen: Bool[Tensor, " row"]) -> Rows:
    """Return the chosen rows."""
    return {name: values[chosen] for name, values in rows.items()}


def part_of(rows: Rows, part: str) -> Rows:
    """Return the tensors of one part under their own names: ``param.z`` as ``z``."""
    return {name.removeprefix(f"{part}."): values for name, values in rows.items() if name.startswith(f"{part}.")}


def name_part_of(part: str, tensors: Rows) -> Rows:
    """Return the tensors of one part under the names they have in a batch: ``z`` as ``param.z``."""
    return {f"{part}.{name}": values for name, values in tensors.items()}


def record(rows: Rows, now: Rows, vectors: Tensor, recipe: Recipe) -> None:
    """Take what was just measured into the rows: counters, the best so far, and which of them have ended, and why.

    A row that has ended stands still.
    """
    active, goal, state = rows["ended"] == RUNNING, recipe.goal, part_of(rows, "goal")
    rows["n_steps"] += active
    best = {name: rows[f"best_{name}"] for name in ("n_correct", "margin", "n_active")}
    more = active & (now["n_correct"] > best["n_correct"])
    better = active & goal.better(now, best, state)
    n_active = goal.n_active(state)
    margin = now["margin"].double()
    keep = {"vectors": vectors, "n_correct": now["n_correct"], "margin": margin, "ce": now["ce_nats"]}
    for name, value in keep.items() if n_active is None else (keep | {"n_active": n_active}).items():
        rows[f"best_{name}"] = torch.where(_as_wide(better, value), value, rows[f"best_{name}"])
    rows["best_step"] = torch.where(more, rows["n_steps"], rows["best_step"])
    whole = active if n_active is None else active & (n_active == rows["n_targets"])
    rows["min_ce"] = torch.where(whole, torch.fmin(rows["min_ce"], now["ce_nats"]), rows["min_ce"])
    _note_curve(rows, whole)
    done, advanced = goal.advance(state, active & goal.reached(now), now | {"n_steps": rows["n_steps"]})
    rows |= name_part_of("goal", advanced)
    patience = goal.patience_steps or recipe.settings.max_steps
    for reason, ends in (
        ("diverged", ~now["ce_nats"].isfinite()),
        ("reached", done),
        ("patience", (rows["n_steps"] - rows["best_step"] >= patience) | goal.gives_up(advanced)),
        ("budget", rows["n_steps"] >= recipe.settings.max_steps),
    ):
        rows["ended"] = torch.where((rows["ended"] == RUNNING) & ends, ENDED.index(reason), rows["ended"])


def _note_curve(rows, whole):
    # The best so far, where all targets count and it is one of the evaluations of the curve.
    here = rows["n_steps"].unsqueeze(1) == torch.tensor(CURVE_EVALUATIONS, device=whole.device)
    for name, best in (("curve_n_correct", "best_n_correct"), ("curve_ce", "min_ce")):
        rows[name] = torch.where(here & whole.unsqueeze(1), rows[best].double().unsqueeze(1), rows[name])


def _report_curve(rows, index):
    # Up to the last evaluation that was noted; a row that ended earlier stays as it was.
    (at,) = rows["curve_ce"][index].isfinite().nonzero(as_tuple=True)
    return {
        "curve_evaluations_each": [CURVE_EVALUATIONS[i] for i in at.tolist()],
        "curve_n_correct_each": rows["curve_n_correct"][index][at].int().tolist(),
        "curve_ce_nats_each": [float(f"{nats:.6g}") for nats in rows["curve_ce"][index][at].tolist()],
    }


def _as_wide(chosen, value):
    return chosen.view((-1,) + (1,) * (value.dim() - 1))


@dataclass(frozen=True)
class Finished:
    """What became of a case: its ``vectors`` (row, width), and why its search ``ended``.

    ``reached`` (the goal), ``budget`` (max_steps measured), ``patience`` or ``diverged`` (a loss that is not finite;
    NaN is kept), or whatever another finder gives. The vectors are for the first ``n_active`` targets, by default
    all.
    ``measured`` are columns of the record that were measured during the search, in its precision: ``n_correct_mem``
    and ``ce_mem_nats`` of ``vectors``, and ``ce_mem_min_nats``, the minimum over all steps; what is not there is taken
    from the final measurement. ``wall_seconds`` is the case's share of the time of the steps that it took part in.
    ``state`` is the last one of a search whose budget was used up, to go on from.
    """

    case: Case
    vectors: Tensor = field(repr=False)
    ended: str
    n_steps: int = 0
    n_active: int | None = None
    measured: dict[str, float | list] = field(default_factory=dict)
    margin: float = math.nan
    wall_seconds: float = 0.0
    state: Rows | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Unfinished:
    """A case that is being crammed, with all it takes to go on: what is trained, moments, counters, the best so far."""

    case: Case
    state: Rows = field(repr=False)


def finish_row(case: Case, rows: Rows, index: int, protocol: Protocol, goal: Goal) -> Finished:
    """Return what became of the case in one row."""
    n_targets, n_active = protocol.n_targets(len(case.ids)), int(rows["best_n_active"][index])
    measured = {
        "n_correct_mem": int(rows["best_n_correct"][index]),
        "ce_mem_nats": _finite(rows["best_ce"][index]),
        "ce_mem_min_nats": _finite(rows["min_ce"][index]),
    }
    return Finished(
        case=case,
        vectors=rows["best_vectors"][index].cpu(),
        ended=ENDED[rows["ended"][index]],
        n_steps=int(rows["n_steps"][index]),
        n_active=n_active,
        # Sums in a record are always over all targets.
        measured=(measured if n_active == n_targets else {})
        | _report_curve(rows, index)
        | goal.report({name: values[index].cpu() for name, values in part_of(rows, "goal").items()}),
        margin=float(rows["best_margin"][index]),
        wall_seconds=float(rows["seconds"][index]),
        state=_copy_row(rows, index) if rows["ended"][index] == BUDGET else None,
    )


def as_array(vectors: Tensor, storage: Storage | None) -> np.ndarray:
    """Return vectors as they are stored, an array of the storage's dtype."""
    storage = storage or STORAGES["float32"]
    return storage.round(vectors.detach().cpu()).numpy().astype(storage.dtype)


def copy_rows(cases: list[Case], rows: Rows) -> list[Unfinished]:
    """Return a copy of each row on the CPU, for the case to go on from."""
    here = {name: values.cpu() for name, values in rows.items()}
    return [Unfinished(case, _copy_row(here, i)) for i, case in enumerate(cases)]


def _copy_row(rows, index):
    return {name: values[index].cpu().clone() for name, values in rows.items() if name != "ids"}


def _finite(number):
    return float(number) if number.isfinite() else math.nan
