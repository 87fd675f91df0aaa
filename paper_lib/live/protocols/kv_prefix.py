"""Keys and values in every layer instead of input vectors: [kv × n, start, t1..tN-1] -> t1..tN.

An input vector is the narrowest door into a frozen model; trained keys and values of ``n_mem`` positions in front of
the text are the widest that leaves the model as it is. They go into transformers' own cache, so positions, grouped
heads and sliding windows are the model's.
"""

import functools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from ...errors import InputError
from ..lm import FrozenLM, Inputs
from .base import Protocol

N_PROBED = 16  # tokens whose keys and values say how large such numbers are


@dataclass(frozen=True)
class KVPrefix(Protocol):
    """Keys and values of ``n_mem`` positions in all layers are trained; the start token, a constant, comes after them.

    What is trained has a row for each of keys and values, layer and position, as wide as all heads of a layer.
    """

    def build(self, lm: FrozenLM, vectors: Float[Tensor, "case row width"], ids: Int[Tensor, "case pos"]) -> Inputs:
        """Return the start token and all tokens but the last, behind the cache."""
        embeds = self._embed(lm, ids[:, : ids.shape[1] - 1])
        return Inputs(embeds, torch.arange(ids.shape[1], device=ids.device), _fill_cache(lm, vectors))

    def decode(
        self,
        lm: FrozenLM,
        vectors: Float[Tensor, "case row width"],
        given: Int[Tensor, "case n_given"],
        length: int,
        *,
        how: str,
    ) -> Int[Tensor, "case length"]:
        """Return the model's own continuation, by ``full`` forwards behind the trained cache, or adding to it."""
        fill = functools.partial(_fill_cache, lm, vectors)
        return lm.greedy(self._embed(lm, given), self.n_targets(length), cached=how == "cached", before=fill)

    def n_inputs(self, length: int, n_mem: int) -> int:
        """Return the positions of the start token and all tokens but the last; trained ones are not computed."""
        return length

    def vector_shape(self, lm: FrozenLM, n_mem: int) -> tuple[int, int]:
        """Return (keys and values × layers × positions, heads × width of a head)."""
        shape = _probe(lm)
        return 2 * shape.n_layers * n_mem, shape.n_heads * shape.head_width

    def start_std(self, lm: FrozenLM) -> float:
        """Return the standard deviation of the keys and values of some tokens of the model."""
        return _probe(lm).std

    def check(self, lm: FrozenLM, length: int, n_mem: int) -> None:
        """Raise InputError also for a model without keys and values, and count the trained positions as context."""
        super().check(lm, length, n_mem)
        _probe(lm)
        if n_mem + length + 1 > lm.context_tokens:
            raise InputError(
                f"length {length} behind {n_mem} positions exceeds the model's context of {lm.context_tokens} tokens; "
                f"use lengths up to {lm.context_tokens - n_mem - 1}"
            )

    def _embed(self, lm, ids):
        start = torch.full((len(ids), 1), lm.start_id, dtype=torch.long, device=ids.device)
        return lm.embed(torch.cat([start, ids], dim=1))


@dataclass(frozen=True)
class _Shape:
    n_layers: int
    n_heads: int  # of keys and values
    head_width: int
    std: float


@functools.lru_cache(maxsize=1)  # of the model that is there
@torch.no_grad()
def _probe(lm: FrozenLM) -> _Shape:
    # From a cache that the model fills itself, whatever its settings are called.
    n_tokens = int(min(N_PROBED, lm.context_tokens - 1, lm.vocab_size))
    ids = torch.arange(n_tokens, device=lm.device).unsqueeze(0)
    cache = lm.model(inputs_embeds=lm.embed(ids), use_cache=True).get("past_key_values")
    layers = [layer for layer in getattr(cache, "layers", ()) if isinstance(getattr(layer, "keys", None), Tensor)]
    shapes = {tuple(tensor.shape[1::2]) for layer in layers for tensor in (layer.keys, layer.values)}
    if len(shapes) != 1 or len(layers) != len(cache.layers):
        kind = "none in some layers" if cache is not None and layers else "none"
        raise InputError(
            f"protocol kv_prefix needs keys and values, the same number in every layer, and {type(lm.model).__name__} "
            f"has {'several kinds' if len(shapes) > 1 else kind}; choose another model or strict"
        )
    numbers = torch.cat([tensor.double().flatten() for layer in layers for tensor in (layer.keys, layer.values)])
    return _Shape(len(layers), *shapes.pop(), std=numbers.std().item())


def _fill_cache(lm, vectors):
    # The options of a forward pass that begins behind the trained positions; used up by it.
    shape = _probe(lm)
    n_mem = math.prod(vectors.shape[1:]) // (2 * shape.n_layers * shape.n_heads * shape.head_width)
    split = vectors.view(len(vectors), 2, shape.n_layers, n_mem, shape.n_heads, shape.head_width).to(lm.dtype)
    cache = DynamicCache(config=lm.model.config)
    for layer in range(shape.n_layers):
        keys, values = (split[:, kind, layer].transpose(1, 2) for kind in (0, 1))
        cache.update(keys, values, layer)
    return {"past_key_values": cache}
