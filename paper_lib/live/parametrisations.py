"""Parametrisations: what is trained, and how it becomes the vectors that enter the model.

One of your own is an object of a subclass of ``Parametrisation``, entered in ``PARAMETRISATIONS``. Rounding to the
storage precision comes after it, and the gradient passes that rounding as if it were not there.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..config import Optimiser
from ..errors import InputError


class Parametrisation(ABC):
    """What a parametrisation does."""

    @abstractmethod
    def start(self, shape: tuple[int, int], std: float, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the random start of one case in float64, on the CPU, from the ``generator`` alone.

        ``shape`` (row, width) and ``std`` are those of the vectors (see ``Protocol.vector_shape``, ``start_std``).
        """

    def take(self, vectors: Float[Tensor, "row width"]) -> dict[str, Tensor]:
        """Return what is trained where a case starts from given vectors; InputError where there is no such start."""
        raise InputError(f"parametrisation {type(self).__name__.lower()} cannot start from stored vectors; use free")

    def check(self, settings: Optimiser) -> None:  # noqa: B027, by default nothing is wrong
        """Raise InputError for an optimiser under which this does not do what it says."""

    @abstractmethod
    def vectors(self, params: dict[str, Tensor]) -> Float[Tensor, "case row width"]:
        """Return the vectors of a batch, differentiable in ``params`` (case first)."""


@dataclass(frozen=True)
class Free(Parametrisation):
    """The vectors themselves are trained, from a normal start of ``scale`` times the protocol's deviation.

    With ``uniform`` above 0 from a uniform one between 0 and that, whatever the model (Progressive Cramming has .02).
    """

    scale: float = 1.0
    uniform: float = 0.0

    def __post_init__(self):
        if self.uniform < 0 or (self.uniform and self.scale != 1):
            raise ValueError("uniform is at least 0, and takes no scale")

    def start(self, shape: tuple[int, int], std: float, generator: torch.Generator) -> dict[str, Tensor]:
        """Return normal vectors of deviation ``scale * std``, or uniform ones."""
        if self.uniform > 0:
            return {"vectors": torch.rand(shape, generator=generator, dtype=torch.float64) * self.uniform}
        return {"vectors": torch.randn(shape, generator=generator, dtype=torch.float64) * std * self.scale}

    def take(self, vectors: Float[Tensor, "row width"]) -> dict[str, Tensor]:
        """Return the vectors."""
        return {"vectors": vectors}

    def vectors(self, params: dict[str, Tensor]) -> Float[Tensor, "case row width"]:
        """Return the parameters as they are."""
        return params["vectors"]


@dataclass(frozen=True)
class Affine(Parametrisation):
    """e = Wz + b with all three trained for each text, z of ``d_low`` numbers (Progressive Cramming, section 3).

    More numbers are trained than the vectors have, so it changes the path to them, not what they hold.
    """

    d_low: int = 32

    def start(self, shape: tuple[int, int], std: float, generator: torch.Generator) -> dict[str, Tensor]:
        """Return normal W, z and b; the deviation of Wz and of b is ``std``."""
        n_rows, width = shape

        def draw(*sizes):
            return torch.randn(sizes, generator=generator, dtype=torch.float64)

        return {
            "w": draw(width, self.d_low) / self.d_low**0.5,
            "z": draw(n_rows, self.d_low) * std,
            "b": draw(width) * std,
        }

    def vectors(self, params: dict[str, Tensor]) -> Float[Tensor, "case row width"]:
        """Return Wz + b."""
        return torch.einsum("cwd,crd->crw", params["w"], params["z"]) + params["b"].unsqueeze(1)


@dataclass(frozen=True)
class HeldLast(Free):
    """All vectors but the last are trained; the last stays as it is given (``init_from``)."""

    def start(self, shape: tuple[int, int], std: float, generator: torch.Generator) -> dict[str, Tensor]:
        """Return a random start; of the last vector too, where none is given."""
        return self._part(super().start(shape, std, generator)["vectors"])

    def take(self, vectors: Float[Tensor, "row width"]) -> dict[str, Tensor]:
        """Return the vectors, the last one apart."""
        return self._part(vectors)

    def vectors(self, params: dict[str, Tensor]) -> Float[Tensor, "case row width"]:
        """Return the trained vectors and behind them the one that is held, which gets no gradient."""
        return torch.cat([params["vectors"], params["held"].detach() + 0 * params["held"]], dim=1)

    def check(self, settings: Optimiser) -> None:
        """Raise InputError for weight decay, which moves also what has no gradient."""
        if settings.weight_decay:
            raise InputError("parametrisation held_last: weight decay would move what is held; set weight_decay: 0")

    def _part(self, vectors):
        if len(vectors) < 2:
            raise InputError("parametrisation held_last needs two vectors or more; use free")
        return {"vectors": vectors[:-1], "held": vectors[-1:]}


PARAMETRISATIONS: dict[str, Parametrisation] = {"free": Free(), "affine": Affine(), "held_last": HeldLast()}
