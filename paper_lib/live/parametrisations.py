"""Parametrisations: what is trained, and how it becomes the vectors that enter the model.

One of your own is an object of a subclass of ``Parametrisation``, entered in ``PARAMETRISATIONS``. Rounding to the
storage precision comes after it, and the gradient passes that rounding as if it were not there.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


class Parametrisation(ABC):
    """What a parametrisation does."""

    @abstractmethod
    def start(self, shape: tuple[int, int], std: float, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the random start of one case in float64, on the CPU, from the ``generator`` alone.

        ``shape`` (row, width) and ``std`` are those of the vectors (see ``Protocol.vector_shape``, ``start_std``).
        """

    @abstractmethod
    def vectors(self, params: dict[str, Tensor]) -> Float[Tensor, "case row width"]:
        """Return the vectors of a batch, differentiable in ``params`` (case first)."""


@dataclass(frozen=True)
class Free(Parametrisation):
    """The vectors themselves are trained, from a normal start."""

    def start(self, shape: tuple[int, int], std: float, generator: torch.Generator) -> dict[str, Tensor]:
        """Return normal vectors of deviation ``std``."""
        return {"vectors": torch.randn(shape, generator=generator, dtype=torch.float64) * std}

    def vectors(self, params: dict[str, Tensor]) -> Float[Tensor, "case row width"]:
        """Return the parameters as they are."""
        return params["vectors"]


PARAMETRISATIONS: dict[str, Parametrisation] = {"free": Free()}
