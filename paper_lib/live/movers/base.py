"""What a mover is: from a gradient to the next point. Every tensor has the row first, and rows never mix."""

from abc import ABC, abstractmethod

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...config import Optimiser

Tensors = dict[str, Tensor]


class Mover(ABC):
    """What a mover does. ``params``, ``gradient`` and the state are tensors by name, all with the row first."""

    @property
    def counts_on_budget(self) -> bool:
        """Whether a move depends on max_steps, so that a search cannot go on when it is given more."""
        return False

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

    def turn(self, state: Tensors, turned: Bool[Tensor, " row"]) -> Tensors:
        """Return the state after a move with which ``turned`` rows begin to minimise something else."""
        return state
