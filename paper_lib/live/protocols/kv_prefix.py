"""Keys and values in every layer instead of input vectors: [kv × n, start, t1..tN-1] -> t1..tN.

An input vector is the narrowest door into a frozen model; trained keys and values of ``n_mem`` positions in front of
the text are the widest that leaves the model as it is. They go into transformers' own cache, so positions, grouped
heads and sliding windows are the model's. What is not trained, keys or whole layers, is as if start tokens stood there.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from ...errors import InputError, unknown_name
from ..lm import FrozenLM, Inputs
from .base import Protocol

TRAINED = {"both": (0, 1), "values": (1,)}  # of keys (0) and values (1)
# Which of n layers; all but the first the same number of them.
LAYERS: dict[str, Callable[[int], range]] = {
    "all": range,
    "first": lambda n: range(-(-n // 4)),
    "last": lambda n: range(n - -(-n // 4), n),
    "every fourth": lambda n: range(0, n, 4),
}
N_PROBED = 16  # tokens whose keys and values say how large such numbers are


@dataclass(frozen=True)
class KVPrefix(Protocol):
    """Keys and values of ``n_mem`` positions are trained; the start token, a constant, comes after them.

    ``trained`` is both or values, ``layers`` all, or a quarter of them: first, last, every fourth. What is trained has
    a row for each kind, layer and position, as wide as all heads of a layer.
    """

    trained: str = "both"
    layers: str = "all"

    def __post_init__(self):
        for name, known in (("trained", TRAINED), ("layers", LAYERS)):
            if getattr(self, name) not in known:
                raise ValueError(str(unknown_name(name, getattr(self, name), known)))

    def build(self, lm: FrozenLM, vectors: Float[Tensor, "case row width"], ids: Int[Tensor, "case pos"]) -> Inputs:
        """Return the start token and all tokens but the last, behind the cache."""
        embeds = self._embed(lm, ids[:, : ids.shape[1] - 1])
        return Inputs(embeds, torch.arange(ids.shape[1], device=ids.device), self._fill_cache(lm, vectors))

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
        fill = functools.partial(self._fill_cache, lm, vectors)
        return lm.greedy(self._embed(lm, given), self.n_targets(length), cached=how == "cached", before=fill)

    def n_inputs(self, length: int, n_mem: int) -> int:
        """Return the positions of the start token and all tokens but the last; trained ones are not computed."""
        return length

    def vector_shape(self, lm: FrozenLM, n_mem: int) -> tuple[int, int]:
        """Return (kinds × layers × positions, heads × width of a head)."""
        shape = _probe(lm)
        n_rows = len(TRAINED[self.trained]) * len(LAYERS[self.layers](shape.n_layers)) * n_mem
        return n_rows, shape.n_heads * shape.head_width

    def start_std(self, lm: FrozenLM) -> float:
        """Return the standard deviation of the keys and values of some tokens of the model."""
        return _probe(lm).std

    def adopt(self, lm: FrozenLM, vectors: Float[Tensor, "row width"]) -> Float[Tensor, "trained_row trained_width"]:
        """Return the keys and values that input vectors leave in the cache, one position each.

        When they come first: also where they were found behind a start token, which here comes after them.
        """
        cache = _read_cache(lm, vectors.unsqueeze(0).to(lm.device, lm.dtype))
        layers = LAYERS[self.layers](_probe(lm).n_layers)
        rows = [cache[kind, layer].transpose(1, 2).flatten(2) for kind in TRAINED[self.trained] for layer in layers]
        return torch.cat(rows, dim=1).squeeze(0)

    def combine(
        self, lm: FrozenLM, first: Float[Tensor, "case row width"], second: Float[Tensor, "case row width"]
    ) -> Float[Tensor, "case both width"]:
        """Return two memories as one: in every layer the positions of the first, then those of the second."""
        n_groups = len(TRAINED[self.trained]) * len(LAYERS[self.layers](_probe(lm).n_layers))
        split = [vectors.unflatten(1, (n_groups, -1)) for vectors in (first, second)]
        return torch.cat(split, dim=2).flatten(1, 2)

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

    def _fill_cache(self, lm, vectors):
        # The options of a forward pass that begins behind the trained positions; used up by it.
        shape = _probe(lm)
        kinds, layers = TRAINED[self.trained], LAYERS[self.layers](shape.n_layers)
        split = vectors.view(len(vectors), len(kinds), len(layers), -1, shape.n_heads, shape.head_width)
        trained = split.transpose(3, 4).to(lm.dtype)  # case, kind, layer, head, position, width
        filled = {(kind, layer): trained[:, i, j] for i, kind in enumerate(kinds) for j, layer in enumerate(layers)}
        if len(filled) < 2 * shape.n_layers:
            still = _read_starts(lm, trained.shape[4])
            filled = {place: filled.get(place, rest.expand(len(vectors), -1, -1, -1)) for place, rest in still.items()}
        cache = DynamicCache(config=lm.model.config)
        for layer in range(shape.n_layers):
            cache.update(filled[0, layer], filled[1, layer], layer)
        return {"past_key_values": cache}


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


@functools.lru_cache(maxsize=2)  # of the model with and without autocast
@torch.no_grad()
def _read_starts(lm: FrozenLM, n_tokens: int) -> dict[tuple[int, int], Tensor]:
    # Where only start tokens stand.
    ids = torch.full((1, n_tokens), lm.start_id, dtype=torch.long, device=lm.device)
    return _read_cache(lm, lm.embed(ids))


@torch.no_grad()
def _read_cache(lm, embeds):
    # Keys (0) and values (1) of each layer, (case, head, position, width), behind these inputs alone.
    layers = lm.model(inputs_embeds=embeds, use_cache=True)["past_key_values"].layers
    return {
        (kind, n): tensor for n, layer in enumerate(layers) for kind, tensor in enumerate((layer.keys, layer.values))
    }
