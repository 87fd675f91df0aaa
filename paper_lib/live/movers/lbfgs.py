"""L-BFGS, row by row: each row has its own history and its own line search."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...config import Optimiser
from .adamw import AdamW
from .base import Mover, Tensors

SUFFICIENT = 1e-4  # of the decrease that the slope promises (Nocedal and Wright, 2006, equation 3.4)
SHORTEST, LONGEST = 0.1, 0.5  # of the last trial, what the next one may be
FIRST_STEP = 0.1  # of the norm of the point, along the gradient, where there is no history
MAX_TRIALS = 8  # that fail, after which a row forgets its history
FLATTEST = 1e-10  # ratio of curvature to squared change of slope, below which a pair says nothing


@dataclass(frozen=True)
class LBFGS(Mover):
    """Limited-memory BFGS (Nocedal and Wright, 2006, chapter 7) with backtracking, after ``warmup`` steps of AdamW.

    Every measurement counts, those of failed trials too. The last ``memory`` pairs of steps and changes of slope make
    the direction. The warm-up, at the learning rate of the settings, takes the vectors to the norm at which they are
    read: from the small norm of a random start, a first step along the gradient does not get there.

    A row whose loss has not fallen by the share ``progress`` in ``patience`` measurements stands still in a minimum of
    its own, and starts again; 0 for never. The numbers of its random start, moved on by one place, are another one, so
    a restart needs no random numbers and is the same in every run.
    """

    memory: int = 20
    warmup: int = 10
    patience: int = 0
    progress: float = 0.1

    def __post_init__(self):
        if self.memory < 1 or self.warmup < 0 or self.patience < 0 or not 0 < self.progress < 1:
            raise ValueError("memory is at least 1, warmup and patience at least 0, progress between 0 and 1")

    def start(self, params: Tensors) -> Tensors:
        """Return an empty history and line search, and AdamW's moments for the warm-up."""
        flat = _flatten(params)
        zeros = {name: flat.new_zeros(len(flat), *shape) for name, shape in self._shapes(flat.shape[1]).items()}
        origin = {"origin": flat.clone()} if self.patience else {}
        return AdamW().start(params) | zeros | origin

    def _shapes(self, width):
        vectors = dict.fromkeys(("point", "slope", "direction"), (width,))
        pairs = dict.fromkeys(("steps", "turns"), (self.memory, width))
        counts = dict.fromkeys(("n_pairs", "n_failed", "n_since", "n_watched"), ())
        return vectors | pairs | counts | dict.fromkeys(("value", "length", "watched"), ())

    def move(
        self,
        params: Tensors,
        gradient: Tensors,
        loss: Float[Tensor, " row"],
        state: Tensors,
        age: Int[Tensor, " row"],
        settings: Optimiser,
    ) -> tuple[Tensors, Tensors]:
        """Return the next trial of each row: along a new direction where the last one was good, else nearer."""
        here, slope, loss = _flatten(params), _flatten(gradient), loss.to(gradient[next(iter(gradient))].dtype)
        n_since = state["n_since"] + 1  # measurements since the last start
        warmed, moments = AdamW().move(params, gradient, loss, state, n_since.long(), settings)
        search = self._take(state, here, slope, loss, first=(n_since <= self.warmup + 1) | state["value"].isinf())
        trial = search["point"] + search["length"].unsqueeze(1) * search["direction"]
        moved = _where(n_since <= self.warmup, _flatten(warmed), trial)
        state = state | moments | search | {"n_since": n_since}
        if self.patience:
            moved, state = self._start_again(moved, state)
        return _unflatten(moved, params), state

    def turn(self, state: Tensors, turned: Bool[Tensor, " row"]) -> Tensors:
        """Return the state with no history of ``turned`` rows, which take whatever is measured next as their point."""
        fresh = dict.fromkeys(("value", "watched"), torch.inf) | dict.fromkeys(("n_pairs", "n_failed", "n_watched"), 0)
        fresh |= dict.fromkeys(("steps", "turns"), 0)
        here = {name: torch.full_like(state[name], value) for name, value in fresh.items() if name in state}
        return state | {name: _where(turned, values, state[name]) for name, values in here.items()}

    def _start_again(self, moved, state):
        # Every so often the loss is compared with what it was; a row that stands still loses all but its start.
        n_watched = state["n_watched"] + 1
        due = n_watched >= self.patience
        stuck = due & (state["n_since"] > self.patience) & ~(state["value"] < (1 - self.progress) * state["watched"])
        origin = _where(stuck, state["origin"].roll(1, dims=1), state["origin"])
        state = {name: _where(stuck, torch.zeros_like(values), values) for name, values in state.items()}
        watched = torch.where(due, state["value"], state["watched"])
        n_watched = torch.where(due, torch.zeros_like(n_watched), n_watched)
        return _where(stuck, origin, moved), state | {"origin": origin, "watched": watched, "n_watched": n_watched}

    def _take(self, state, here, slope, loss, first):
        # The line search after a measurement ``here``: accept it and turn, or shorten the trial.
        promised = state["length"] * (state["slope"] * state["direction"]).sum(dim=1)
        good = first | (loss <= state["value"] + SUFFICIENT * promised)
        failed = torch.where(good, 0, state["n_failed"] + 1)
        lost = failed >= MAX_TRIALS
        pairs = _remember(state, here, slope, good & ~first, lost)
        point, value = _where(good, here, state["point"]), torch.where(good, loss, state["value"])
        slope = _where(good, slope, state["slope"])
        turned = -multiply_by_inverse_hessian(pairs["steps"], pairs["turns"], pairs["n_pairs"].long(), slope)
        uphill = (turned * slope).sum(dim=1) >= 0
        turned = _where(uphill, -slope, turned)
        careful = FIRST_STEP * point.norm(dim=1) / slope.norm(dim=1).clamp(min=torch.finfo(slope.dtype).tiny)
        careful = torch.where(lost, careful * SHORTEST, careful)
        whole = torch.where((pairs["n_pairs"] == 0) | uphill, careful, torch.ones_like(careful))
        # The minimum of the parabola through value, slope and the failed trial.
        shorter = -promised * state["length"] / (2 * (loss - state["value"] - promised))
        shorter = torch.where(shorter.isfinite(), shorter, state["length"] * LONGEST)
        shorter = shorter.clamp(min=SHORTEST * state["length"], max=LONGEST * state["length"])
        again = good | lost
        return pairs | {
            "point": point,
            "value": value,
            "slope": slope,
            "direction": _where(again, turned, state["direction"]),
            "length": torch.where(again, whole, shorter),
            "n_failed": torch.where(lost, 0, failed).to(loss.dtype),
        }


def multiply_by_inverse_hessian(
    steps: Float[Tensor, "row memory width"],
    turns: Float[Tensor, "row memory width"],
    n_pairs: Int[Tensor, " row"],
    slope: Float[Tensor, "row width"],
) -> Float[Tensor, "row width"]:
    """Return the L-BFGS estimate of the inverse Hessian times ``slope``; the newest pair is the last.

    Of each row the last ``n_pairs`` pairs count, at most all; the others are zero. The compact form (Byrd, Nocedal and
    Schnabel, 1994, equation 3.1), a few batched products in float64 in place of a loop over the pairs.
    """
    dtype, memory = slope.dtype, steps.shape[1]
    steps, turns, slope = (tensor.double() for tensor in (steps, turns, slope))
    unused = torch.arange(memory, device=slope.device) < memory - n_pairs.unsqueeze(1)
    curvature = steps @ turns.mT
    upper = curvature.triu() + torch.diag_embed(unused.double())
    bend, turn = curvature[:, -1, -1], turns[:, -1].square().sum(dim=1)
    scale = torch.where(n_pairs > 0, bend / turn.clamp(min=torch.finfo(turn.dtype).tiny), 1).view(-1, 1, 1)
    column = slope.unsqueeze(2)
    inner = torch.linalg.solve_triangular(upper, steps @ column, upper=True)
    diagonal = torch.diag_embed(curvature.diagonal(dim1=1, dim2=2))
    outer = (diagonal + scale * (turns @ turns.mT)) @ inner - scale * (turns @ column)
    outer = torch.linalg.solve_triangular(upper.mT, outer, upper=False)
    product = scale * column + steps.mT @ outer - scale * (turns.mT @ inner)
    return product.squeeze(2).to(dtype)


def _remember(state, here, slope, good, lost):
    # The history with the newest pair where it curves upwards; nothing where a row is lost.
    step, turn = here - state["point"], slope - state["slope"]
    curved: Bool[Tensor, " row"] = good & ((step * turn).sum(dim=1) > FLATTEST * turn.square().sum(dim=1))
    pairs = {}
    for name, newest in (("steps", step), ("turns", turn)):
        longer = torch.cat([state[name][:, 1:], newest.unsqueeze(1)], dim=1)
        kept = _where(curved, longer, state[name])
        pairs[name] = _where(lost, torch.zeros_like(kept), kept)
    n_pairs = (state["n_pairs"] + curved).clamp(max=state["steps"].shape[1])
    return pairs | {"n_pairs": torch.where(lost, 0, n_pairs).to(step.dtype)}


def _flatten(tensors):
    return torch.cat([values.flatten(1) for values in tensors.values()], dim=1)


def _unflatten(flat, like):
    parts = flat.split([values[0].numel() for values in like.values()], dim=1)
    return {name: part.view_as(like[name]) for name, part in zip(like, parts, strict=True)}


def _as_wide(chosen, value):
    return chosen.view((-1,) + (1,) * (value.dim() - 1))


def _where(chosen, one, other):
    return torch.where(_as_wide(chosen, one), one, other)
