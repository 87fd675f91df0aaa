"""Memory vectors in front of the token embeddings; the text is predicted under teacher forcing.

``kuratov2025``  [mem, t1..tN] -> t2..tN. The first token (the tokenizer's start token, if it has one) is given, counted
                 in N and never predicted, as in the authors' code.
``strict``       [mem, t1..tN-1] -> t1..tN. No start token: its place is the vectors'. Decoding needs the vectors and N.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..lm import FrozenLM, Inputs
from .base import Protocol


@dataclass(frozen=True)
class Prefix(Protocol):
    """Memory vectors in front of a text of which the first ``n_given`` tokens are given."""

    def build(self, lm: FrozenLM, vectors: Float[Tensor, "case n_mem d_embed"], ids: Int[Tensor, "case pos"]) -> Inputs:
        """Return the vectors and all tokens but the last; each target is predicted one position before its own."""
        n_mem, length = vectors.shape[1], ids.shape[1]
        embeds = torch.cat([vectors.to(lm.dtype), lm.embed(ids[:, : length - 1])], dim=1)
        return Inputs(embeds, torch.arange(n_mem + self.n_given - 1, n_mem + length - 1, device=ids.device))

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
        embeds = torch.cat([vectors.to(lm.dtype), lm.embed(given)], dim=1)
        return torch.cat([given, lm.greedy(embeds, self.n_targets(length), cached=how == "cached")], dim=1)

    def n_inputs(self, length: int, n_mem: int) -> int:
        """Return the positions of the vectors and of all tokens but the last."""
        return n_mem + length - 1
