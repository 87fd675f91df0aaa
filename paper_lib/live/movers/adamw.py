"""AdamW, row by row, with the learning rate constant or falling."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...config import Optimiser
from .base import Mover, Tensors

SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class AdamW(Mover):
    """AdamW (Loshchilov and Hutter, algorithm 2) with bias corrections of each row's own age.

    torch's optimiser keeps one step counter per tensor, which would be wrong for a row that came later. With
    ``schedule`` "cosine" the learning rate falls over ``n_steps``, max_steps unless given, to its share ``floor``,
    where it stays; at first it rises from zero over ``warmup`` of them. ``normalised`` divides the whole update of a
    row by one root mean square instead of each number by its own, so that it turns with the coordinates.
    """

    schedule: str = "constant"
    normalised: bool = False
    warmup: int = 0
    floor: float = 0.0
    n_steps: int | None = None

    def __post_init__(self):
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule {self.schedule!r} is not one of {', '.join(SCHEDULES)}")
        if self.warmup < 0 or not 0 <= self.floor <= 1:
            raise ValueError("warmup is at least 0, floor between 0 and 1")
        if self.schedule == "constant" and (self.floor or self.n_steps):
            raise ValueError("a floor and n_steps need schedule='cosine'")
        if self.n_steps is not None and (type(self.n_steps) is not int or self.n_steps <= self.warmup):
            raise ValueError(f"n_steps {self.n_steps} is not a whole number above the {self.warmup} of warmup")

    @property
    def counts_on_budget(self) -> bool:
        """Whether the learning rate falls over the budget."""
        return self.schedule != "constant" and self.n_steps is None

    def start(self, params: Tensors) -> Tensors:
        """Return zero first and second moments of each parameter."""
        return {
            f"{moment}.{name}": torch.zeros_like(value)
            for moment in ("mean", "square")
            for name, value in params.items()
        }

    def move(
        self,
        params: Tensors,
        gradient: Tensors,
        loss: Float[Tensor, " row"],
        state: Tensors,
        age: Int[Tensor, " row"],
        settings: Optimiser,
    ) -> tuple[Tensors, Tensors]:
        """Return params and moments after one step."""
        moved, moments = {}, {}
        for name, value in params.items():
            slope = gradient[name]
            square_now = slope**2
            if self.normalised:
                square_now = square_now.flatten(1).mean(dim=1).view(-1, *[1] * (value.dim() - 1)).expand_as(slope)
            mean = torch.lerp(slope, state[f"mean.{name}"], settings.beta1)
            square = torch.lerp(square_now, state[f"square.{name}"], settings.beta2)
            moments |= {f"mean.{name}": mean, f"square.{name}": square}
            steps = age.to(slope.dtype).view(-1, *[1] * (value.dim() - 1))
            root = (square / (1 - settings.beta2**steps)).sqrt()
            lr = settings.lr * self._share(steps, settings)
            moved[name] = value * (1 - lr * settings.weight_decay) - lr * (mean / (1 - settings.beta1**steps)) / (
                root + settings.eps
            )
        return moved, moments

    def _share(self, steps, settings):
        # Of the learning rate, at the age of each row.
        if self.schedule == "constant" and not self.warmup:
            return 1
        taken = steps - 1 - self.warmup
        n_falling = max(1, (self.n_steps or settings.max_steps) - self.warmup)
        share = torch.ones_like(steps)
        if self.schedule == "cosine":
            share = (1 + torch.cos(math.pi * (taken / n_falling).clamp(max=1))) / 2
            share = self.floor + (1 - self.floor) * share
        return torch.where(taken < 0, (steps - 1) / max(1, self.warmup), share)
