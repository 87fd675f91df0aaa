"""Storage: the precision that vectors are rounded to before they are measured and kept.

Floating-point numbers, or a few bits for each number and one scale for each vector. Tensors are rounded by their own
methods, so that this module, which freezing needs too, needs no torch. A storage of your own is an object of a subclass
of ``Storage``, entered in ``STORAGES``.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .parts import find_part

# Four steps to each power of two, of 12 significant bits: times a level of 9 bits that is exact in fp32, so the numbers
# are the same wherever they are computed. One of them is named in 7 bits.
SCALES = [round(2 ** (11 + n / 4)) * 2.0 ** (power - 11) for power in range(-16, 16) for n in range(4)]


class Storage(ABC):
    """What a storage does. ``dtype`` is that of the arrays that hold rounded vectors while one works with them."""

    dtype: ClassVar[str]

    @abstractmethod
    def round(self, vectors):
        """Return ``vectors`` (..., width), a tensor, as they are after being stored, in their own dtype."""

    @abstractmethod
    def n_bits(self, width: int) -> int:
        """Return how many bits one vector of ``width`` numbers takes."""

    def pack(self, vectors: np.ndarray) -> np.ndarray:
        """Return rounded vectors (..., width) in the form that they are frozen in."""
        return vectors


@dataclass(frozen=True)
class Float32(Storage):
    """IEEE numbers of 32 bits."""

    dtype = "float32"

    def round(self, vectors):
        """Round to the nearest number of that precision."""
        return vectors.float().to(vectors.dtype)

    def n_bits(self, width: int) -> int:
        """Return the bits of all numbers."""
        return 8 * np.dtype(self.dtype).itemsize * width


@dataclass(frozen=True)
class Float16(Float32):
    """IEEE numbers of 16 bits."""

    dtype = "float16"

    def round(self, vectors):
        """Round to the nearest number of that precision."""
        return vectors.half().to(vectors.dtype)


@dataclass(frozen=True)
class Levels(Storage):
    """``bits`` (2 to 8) for each number: one of 2**bits evenly spaced levels around zero, half a step from it first.

    The step, one of SCALES, is that of least squared error for each vector. Rounding twice is rounding once.
    """

    bits: int = 8
    dtype = "float32"

    def __post_init__(self):
        if not (isinstance(self.bits, int) and 2 <= self.bits <= 8):
            raise ValueError(f"{self.bits} bits for each number; use 2 to 8")

    def round(self, vectors):
        """Round each vector (..., width) to the levels of its best step; an array too."""
        best, least = vectors + math.inf, vectors[..., 0] + math.inf
        for scale in SCALES:
            rounded = (self._levels(vectors, scale) + 0.5) * scale
            error = ((rounded - vectors) ** 2).sum(-1)
            better = error < least
            best[better], least[better] = rounded[better], error[better]
        return best

    def n_bits(self, width: int) -> int:
        """Return the bits of all numbers and of the name of the step."""
        return self.bits * width + math.ceil(math.log2(len(SCALES)))

    def pack(self, vectors: np.ndarray) -> np.ndarray:
        """Return int8 (..., 1 + width): the number of the step, then the levels."""
        flat, packed = vectors.reshape(-1, vectors.shape[-1]), []
        for vector in flat.astype(np.float32):
            number = next(n for n in reversed(range(len(SCALES))) if self._is_exact(vector, SCALES[n]))
            packed.append([number, *self._levels(vector, SCALES[number])])
        return np.array(packed, np.int8).reshape(*vectors.shape[:-1], -1)

    def _levels(self, vectors, scale):
        half = 2 ** (self.bits - 1)
        return (vectors / scale - 0.5).round().clip(-half, half - 1)

    def _is_exact(self, vector, scale):
        return np.array_equal((self._levels(vector, scale) + np.float32(0.5)) * np.float32(scale), vector)


def unpack(packed: np.ndarray) -> np.ndarray:
    """Return vectors from the form that they are frozen in, bit for bit."""
    if packed.dtype != np.int8:
        return packed
    step = np.array(SCALES, np.float32)[packed[..., :1]]
    return (packed[..., 1:].astype(np.float32) + np.float32(0.5)) * step


STORAGES: dict[str, Storage] = {"float32": Float32(), "float16": Float16(), "levels": Levels()}


def find_storage(name: str) -> Storage:
    """Return the storage of that name, such as ``float16`` or ``levels(bits=4)``; InputError naming the known ones."""
    return find_part("storage", name, STORAGES)
