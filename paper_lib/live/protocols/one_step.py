"""One-step generation: [e, m, m ...] -> t1..tN, all tokens read off one forward pass, none of them fed back.

Mezentsev and Oseledets, *Exploring the Latent Capacity of LLMs for One-Step Text Generation* (EMNLP 2025), section 3: a
vector e, and a vector m that is repeated, both trained for the text. Nothing is teacher-forced, so one pass *is* free
decoding.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...errors import InputError, unknown_name
from ..lm import FrozenLM, Inputs
from .base import Protocol

# Which vector stands at each position, for N tokens (the rows of their Table 1); N outputs are read off the end.
ARRANGEMENTS: dict[str, Callable[[int], list[int]]] = {
    "e m*": lambda n: [0] + [1] * (n - 1),
    "e m* after": lambda n: [0] + [1] * n,
    "alternating": lambda n: [place % 2 for place in range(n)],
    "halves": lambda n: [0] * (n - n // 2) + [1] * (n // 2),
    "e*": lambda n: [0] * n,
}


@dataclass(frozen=True)
class OneStep(Protocol):
    """Vectors in one of ARRANGEMENTS, by default [e, m × (N − 1)]; with ``n_mem`` above 1, [e1, e2, ..., m × the rest].

    A text takes n_mem + 1 vectors, or one where m is never used. With rotary positions, identical inputs ("e*") give
    identical outputs: every key is the same vector turned, so attention averages values that are all the same, and what
    comes out of a layer is the same at all positions again.
    """

    arrangement: str = "e m*"
    decodings: tuple[str, ...] = ("one_pass",)

    def __post_init__(self):
        if self.arrangement not in ARRANGEMENTS:
            raise ValueError(str(unknown_name("arrangement", self.arrangement, ARRANGEMENTS)))

    @property
    def extends(self) -> bool:
        """Whether a longer text has more of the same inputs; where halves meet depends on its length."""
        return self.arrangement != "halves"

    def build(self, lm: FrozenLM, vectors: Float[Tensor, "case row width"], ids: Int[Tensor, "case pos"]) -> Inputs:
        """Return the vectors where the arrangement has them; of the text only its length counts."""
        return self._arrange(lm, vectors, ids.shape[1])

    def decode(
        self,
        lm: FrozenLM,
        vectors: Float[Tensor, "case row width"],
        given: Int[Tensor, "case n_given"],
        length: int,
        *,
        how: str,
    ) -> Int[Tensor, "case length"]:
        """Return the argmax at each position of one forward pass."""
        with torch.no_grad():
            return lm.logits(self._arrange(lm, vectors, length)).argmax(dim=-1)

    def n_inputs(self, length: int, n_mem: int) -> int:
        """Return the positions of the one pass."""
        return len(ARRANGEMENTS[self.arrangement](length))

    def vector_shape(self, lm: FrozenLM, n_mem: int) -> tuple[int, int]:
        """Return (vectors, width): e and m, and of n_mem above 1 as many e."""
        return n_mem + (self.arrangement != "e*"), lm.d_embed

    def start_std(self, lm: FrozenLM) -> float:
        """Return 1, as in the paper (section 3), whatever the model's embeddings are."""
        return 1.0

    def adopt(self, lm: FrozenLM, vectors: Float[Tensor, "row width"]) -> Float[Tensor, "trained_row trained_width"]:
        """Return the vectors as e, and behind them a random m, the same for every text."""
        draw = torch.Generator().manual_seed(0)
        return torch.cat([vectors, self.start_std(lm) * torch.randn(1, lm.d_embed, generator=draw)])

    def check(self, lm: FrozenLM, length: int, n_mem: int) -> None:
        """Raise InputError also for several e in an arrangement that has one, or more of them than tokens."""
        super().check(lm, length, n_mem)
        if n_mem > 1 and self.arrangement != "e m*":
            raise InputError(f"protocol {self.name}: several vectors e need the arrangement 'e m*'; use n_mem 1")
        if n_mem > length:
            raise InputError(f"protocol {self.name}: {n_mem} vectors for {length} tokens; use n_mem up to {length}")

    def _arrange(self, lm, vectors, length):
        places = torch.tensor(ARRANGEMENTS[self.arrangement](length), device=vectors.device)
        n_first = vectors.shape[1] - 1
        if n_first > 1:
            places = torch.arange(length, device=vectors.device).clamp(max=n_first)
        embeds = vectors[:, places].to(lm.dtype)
        return Inputs(embeds, torch.arange(len(places) - length, len(places), device=vectors.device))
