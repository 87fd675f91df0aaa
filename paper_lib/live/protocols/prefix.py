"""Memory vectors in front of the token embeddings; the text is predicted under teacher forcing.

``kuratov2025``  [mem, t1..tN] -> t2..tN. The first token (the tokenizer's start token, if it has one) is given, counted
                 in N and never predicted, as in the authors' code.
``strict``       [mem, t1..tN-1] -> t1..tN. No start token: its place is the vectors'. Decoding needs the vectors and N.
``anchored``     [start, mem, t1..tN-1] -> t1..tN. Pretrained models use position 0 as a resting place of attention;
                 the start token keeps it, so the vectors are read as a memory alone. It is a constant: decoding needs
                 the vectors and N.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...errors import InputError
from ..lm import FrozenLM, Inputs
from .base import Protocol


@dataclass(frozen=True)
class Prefix(Protocol):
    """Memory vectors in front of a text of which the first ``n_given`` tokens are given.

    ``n_before`` start tokens stand in front of the vectors, ``n_after`` between them and the text; in front of all, the
    tokens ``front`` by number.
    """

    n_before: int = 0
    n_after: int = 0
    front: tuple[int, ...] = ()

    def build(self, lm: FrozenLM, vectors: Float[Tensor, "case n_mem d_embed"], ids: Int[Tensor, "case pos"]) -> Inputs:
        """Return what is constant, the vectors, all tokens but the last; a target is predicted one position before."""
        embeds = self._join(lm, vectors, ids[:, : ids.shape[1] - 1])
        end = embeds.shape[1]
        return Inputs(embeds, torch.arange(end - self.n_targets(ids.shape[1]), end, device=ids.device))

    def decode(
        self,
        lm: FrozenLM,
        vectors: Float[Tensor, "case n_mem d_embed"],
        given: Int[Tensor, "case n_given"],
        length: int,
        *,
        how: str,
    ) -> Int[Tensor, "case length"]:
        """Return the given tokens and the model's own continuation, by ``full`` forwards or with the KV cache."""
        embeds = self._join(lm, vectors, given)
        return torch.cat([given, lm.greedy(embeds, self.n_targets(length), cached=how == "cached")], dim=1)

    def combine(
        self, lm: FrozenLM, first: Float[Tensor, "case row width"], second: Float[Tensor, "case row width"]
    ) -> Float[Tensor, "case both width"]:
        """Return the vectors of the first text, then those of the second."""
        return torch.cat([first, second], dim=1)

    def n_inputs(self, length: int, n_mem: int) -> int:
        """Return the positions of what is constant, of the vectors and of all tokens but the last."""
        return self.n_constant + n_mem + length - 1

    @property
    def n_constant(self) -> int:
        """How many constant tokens there are, the same for every text."""
        return len(self.front) + self.n_before + self.n_after

    def check(self, lm: FrozenLM, length: int, n_mem: int) -> None:
        """Raise InputError also for constant tokens that are none of the model's."""
        super().check(lm, length, n_mem)
        if not all(0 <= token < lm.vocab_size for token in self.front):
            raise InputError(f"protocol {self.name}: front {self.front} has tokens outside 0 to {lm.vocab_size - 1}")

    def start_id(self, lm: FrozenLM) -> int | None:
        """Return the start token; InputError where the model has none and the protocol needs it."""
        if (self.n_before or self.n_after) and lm.start_id is None:
            raise InputError(f"protocol {self.name}: the model has neither BOS nor EOS; use strict or kuratov2025")
        return super().start_id(lm)

    def _join(self, lm, vectors, ids):
        before = [*self.front, *[lm.start_id] * self.n_before]
        after = [lm.start_id] * self.n_after
        constant = torch.tensor([before + after], dtype=torch.long, device=vectors.device).expand(len(vectors), -1)
        front, back = lm.embed(constant).split([len(before), len(after)], dim=1)
        return torch.cat([front, vectors.to(lm.dtype), back, lm.embed(ids)], dim=1)
