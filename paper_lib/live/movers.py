"""Movers: from a gradient to the next point. Every tensor has the row first, and rows never mix.

A mover of your own is an object of a subclass of ``Mover``, entered in ``MOVERS``; ``optimiser: {mover: NAME}``
in a sweep names it. Its own settings are its fields; those that movers share are in ``config.Optimiser``.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..config import Optimiser

Tensors = dict[str, Tensor]


class Mover(ABC):
    """What a mover does. ``params``, ``gradient`` and the state are tensors by name, all with the row first."""

    @abstractmethod
    def start(self, params: Tensors) -> Tensors:
        """Return the state before the first move, for rows that start with ``params``."""

    @abstractmethod
    def move(
        self,
        params: Tensors,
        gradient: Tensors,
        loss: Float[Tensor, " row"],
        state: Tensors,
        age: Int[Tensor, " row"],
        settings: Optimiser,
    ) -> tuple[Tensors, Tensors]:
        """Return the next params and state; ``loss`` is what was measured at ``params``, the ``age``-th measurement."""


@dataclass(frozen=True)
class AdamW(Mover):
    """AdamW (Loshchilov and Hutter, algorithm 2) with bias corrections of each row's own age.

    torch's optimiser keeps one step counter per tensor, which would be wrong for a row that came later.
    """

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
            mean = torch.lerp(slope, state[f"mean.{name}"], settings.beta1)
            square = torch.lerp(slope**2, state[f"square.{name}"], settings.beta2)
            moments |= {f"mean.{name}": mean, f"square.{name}": square}
            steps = age.to(slope.dtype).view(-1, *[1] * (value.dim() - 1))
            root = (square / (1 - settings.beta2**steps)).sqrt()
            moved[name] = value * (1 - settings.lr * settings.weight_decay) - settings.lr * (
                mean / (1 - settings.beta1**steps)
            ) / (root + settings.eps)
        return moved, moments


MOVERS: dict[str, Mover] = {"adamw": AdamW()}
