"""What a protocol is: where trained vectors enter the frozen LM, which tokens are targets, what else decoding is given.

Everything about the geometry of a case is asked here: how many positions it takes, the shape and scale of what is
trained, and which ways there are to decode it.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...errors import InputError
from ..lm import FrozenLM, Inputs


@dataclass(frozen=True)
class Protocol(ABC):
    """A protocol for texts of which the first ``n_given`` tokens are given, not predicted.

    ``needs_start``: the baseline without vectors begins with the model's start token. ``special_tokens``: texts are
    tokenised with the tokenizer's default special tokens. ``decodings`` are the ways to decode freely; a text is exact
    only if all of them return it.
    """

    name: str
    n_given: int
    needs_start: bool
    special_tokens: bool = True
    decodings: tuple[str, ...] = ("full", "cached")

    @abstractmethod
    def build(self, lm: FrozenLM, vectors: Float[Tensor, "case row width"], ids: Int[Tensor, "case pos"]) -> Inputs:
        """Return the inputs that the targets are predicted from, with the vectors in them."""

    @abstractmethod
    def decode(
        self,
        lm: FrozenLM,
        vectors: Float[Tensor, "case row width"],
        given: Int[Tensor, "case n_given"],
        length: int,
        *,
        how: str,
    ) -> Int[Tensor, "case length"]:
        """Return the text decoded greedily from vectors, given tokens and length alone; ``how``: one of decodings."""

    @abstractmethod
    def n_inputs(self, length: int, n_mem: int) -> int:
        """Return how many positions a step takes through the model for a text of ``length`` tokens."""

    @property
    def extends(self) -> bool:
        """Whether the inputs of a text are the beginning of those of any longer text that begins with it.

        Then texts of different lengths can share a batch, and a target can grow.
        """
        return True

    def n_targets(self, length: int) -> int:
        """Return how many of ``length`` tokens are predicted."""
        return length - self.n_given

    def targets(self, ids: Int[Tensor, "case pos"]) -> Int[Tensor, "case target"]:
        """Return the predicted tokens."""
        return ids[:, self.n_given :]

    def vector_shape(self, lm: FrozenLM, n_mem: int) -> tuple[int, int]:
        """Return the shape (row, width) of what is trained for one text."""
        return n_mem, lm.d_embed

    def start_std(self, lm: FrozenLM) -> float:
        """Return the standard deviation of random starts: that of the embeddings as the model sees them."""
        return lm.embedding_std

    def adopt(self, lm: FrozenLM, vectors: Float[Tensor, "row width"]) -> Float[Tensor, "trained_row trained_width"]:
        """Return a start made of vectors that another protocol found; by default the same vectors."""
        return vectors

    def combine(
        self, lm: FrozenLM, first: Float[Tensor, "case row width"], second: Float[Tensor, "case row width"]
    ) -> Float[Tensor, "case both width"]:
        """Return the vectors of two texts as one memory, one behind the other; InputError where there is no such."""
        raise InputError(f"protocol {self.name} has no place for the vectors of two texts; use strict or kv_prefix")

    def check(self, lm: FrozenLM, length: int, n_mem: int) -> None:
        """Raise InputError where this model cannot follow the protocol at this length and number of vectors."""
        self.start_id(lm)
        if self.n_targets(length) < 1:
            raise InputError(
                f"length {length} leaves protocol {self.name} nothing to predict; use {self.n_given + 1} or more"
            )
        excess = self.n_inputs(length, n_mem) + 1 - lm.context_tokens  # the last token is decoded, never read
        if excess > 0:
            raise InputError(
                f"length {length} with n_mem {n_mem} exceeds the model's context of {lm.context_tokens} tokens; "
                f"use lengths up to {length - excess}"
            )

    def baseline(self, lm: FrozenLM, ids: Int[Tensor, "case pos"]) -> Inputs:
        """Return the inputs of the model alone, without vectors: after its start token where needed."""
        context = ids[:, :-1]
        if self.needs_start:
            start = torch.full_like(ids[:, :1], self.start_id(lm))
            context = torch.cat([start, context], dim=1)
        n_targets = self.n_targets(ids.shape[1])
        positions = torch.arange(context.shape[1] - n_targets, context.shape[1], device=ids.device)
        return Inputs(lm.embed(context), positions)

    def side_information_bits(self, lm: FrozenLM, length: int) -> float:
        """Return what decoding is given beside the vectors: given tokens at log2(vocabulary) each, the length in 16."""
        return 16 + self.n_given * math.log2(lm.vocab_size)

    def start_id(self, lm: FrozenLM) -> int | None:
        """Return the start token of the baseline, None where it needs none; InputError where the model has none."""
        if self.needs_start and lm.start_id is None:
            raise InputError(
                f"protocol {self.name}: the model has neither BOS nor EOS to start a text; use kuratov2025"
            )
        return lm.start_id if self.needs_start else None
