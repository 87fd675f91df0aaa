"""Protocols: where trained vectors enter the frozen LM, which tokens are targets, what else decoding is given.

Both protocols put the vectors in front of the token embeddings and predict the text under teacher forcing. They differ
in where prediction begins:

``kuratov2025``  [mem, t1..tN] -> t2..tN. The first token (the tokenizer's start token, if it has one) is given, counted
                 in N and never predicted, as in the authors' code.
``strict``       [mem, t1..tN-1] -> t1..tN. No start token: its place is the vectors'. Decoding needs the vectors and N.

A protocol of your own is an object with the same fields and ``name``; see ``Protocol``.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import InputError, unknown_name
from .lm import FrozenLM


@dataclass(frozen=True)
class Protocol:
    """Memory vectors in front of a text of which the first ``n_given`` tokens are given, not predicted."""

    name: str
    n_given: int
    needs_start: bool  # the baseline without vectors begins with the model's start token
    special_tokens: bool = True  # whether texts are tokenised with the tokenizer's default special tokens

    def n_targets(self, length: int) -> int:
        """Return how many of ``length`` tokens are predicted."""
        return length - self.n_given

    def targets(self, ids: Int[Tensor, "case pos"]) -> Int[Tensor, "case target"]:
        """Return the predicted tokens."""
        return ids[:, self.n_given :]

    def build(
        self, lm: FrozenLM, vectors: Float[Tensor, "case n_mem d_embed"], ids: Int[Tensor, "case pos"]
    ) -> tuple[Float[Tensor, "case input d_embed"], Int[Tensor, " target"]]:
        """Return the inputs with the vectors in front, under teacher forcing, and where the targets are predicted."""
        n_mem, length = vectors.shape[1], ids.shape[1]
        inputs = torch.cat([vectors.to(lm.dtype), lm.embed(ids[:, : length - 1])], dim=1)
        return inputs, torch.arange(n_mem + self.n_given - 1, n_mem + length - 1, device=ids.device)

    def build_alone(
        self, lm: FrozenLM, ids: Int[Tensor, "case pos"]
    ) -> tuple[Float[Tensor, "case input d_embed"], Int[Tensor, " target"]]:
        """Return the same without vectors: the inputs of the baseline, after the start token where needed."""
        context = ids[:, :-1]
        if self.needs_start:
            start = torch.full_like(ids[:, :1], self.start_id(lm))
            context = torch.cat([start, context], dim=1)
        n_targets = self.n_targets(ids.shape[1])
        positions = torch.arange(context.shape[1] - n_targets, context.shape[1], device=ids.device)
        return lm.embed(context), positions

    def decode(
        self,
        lm: FrozenLM,
        vectors: Float[Tensor, "case n_mem d_embed"],
        given: Int[Tensor, "case n_given"],
        length: int,
        *,
        cached: bool,
    ) -> Int[Tensor, "case length"]:
        """Return the text decoded greedily and freely from the vectors, the given tokens and the length alone."""
        inputs = torch.cat([vectors.to(lm.dtype), lm.embed(given)], dim=1)
        return torch.cat([given, lm.greedy(inputs, self.n_targets(length), cached=cached)], dim=1)

    def side_information_bits(self, lm: FrozenLM, length: int) -> float:
        """Return what decoding is told beside the vectors: given tokens at log2(vocabulary) each, the length in 16."""
        return 16 + self.n_given * math.log2(lm.vocab_size)

    def start_id(self, lm: FrozenLM) -> int | None:
        """Return the start token of the baseline, None where it needs none; InputError where the model has none."""
        if self.needs_start and lm.start_id is None:
            raise InputError(
                f"protocol {self.name}: the model has neither BOS nor EOS to start a text; use kuratov2025"
            )
        return lm.start_id if self.needs_start else None


PROTOCOLS = {
    "kuratov2025": Protocol("kuratov2025", n_given=1, needs_start=False),
    "strict": Protocol("strict", n_given=0, needs_start=True, special_tokens=False),
}


def find_protocol(name: str) -> Protocol:
    """Return the protocol of that name; raise InputError naming the known ones."""
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]
