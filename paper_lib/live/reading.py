"""What else a vector is to the model: where it lies among tokens, attention it draws, other texts behind it."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from .lm import FrozenLM
from .measure import score_targets
from .protocols import Prefix, Protocol

N_RANDOM = 256


@torch.no_grad()
def describe_neighbours(lm: FrozenLM, vectors: Float[Tensor, "case row width"]) -> Iterator[dict]:
    """Yield, for each case, how its first vector lies among the token embeddings as the model sees them.

    ``norm``, and over the mean norm of tokens ``norm_ratio``; ``nearest_cosine`` and ``nearest_token``; and the nearest
    cosine of random vectors, their mean over N_RANDOM: ``random_nearest_cosine``.
    """
    table = lm.embed(torch.arange(lm.vocab_size, device=lm.device).unsqueeze(0))[0].float()
    norms, directions = table.norm(dim=1), functional.normalize(table, dim=1)
    draw = torch.Generator().manual_seed(0)
    random = functional.normalize(torch.randn(N_RANDOM, table.shape[1], generator=draw), dim=1) @ directions.T
    for vector in vectors[:, 0]:
        cosines = directions @ functional.normalize(vector, dim=0)
        yield {
            "norm": vector.norm().item(),
            "norm_ratio": (vector.norm() / norms.mean()).item(),
            "nearest_cosine": cosines.max().item(),
            "nearest_token": lm.tokenizer.decode([int(cosines.argmax())]),
            "random_nearest_cosine": random.max(dim=1).values.mean().item(),
        }


@torch.no_grad()
def describe_other_text(
    lm: FrozenLM, protocol: Protocol, vectors: Float[Tensor, "case row width"], other: Int[Tensor, "1 pos"]
) -> Iterator[dict]:
    """Yield, for each case, what an unrelated text costs behind its vectors and without them, in nats.

    All tokens but the first, of which the vector has an opinion of its own.
    """
    other = other.expand(len(vectors), -1)
    for there, alone in zip(
        score_targets(lm, protocol, vectors, other).ce[:, 1:].sum(1).tolist(),
        score_targets(lm, protocol, None, other).ce[:, 1:].sum(1).tolist(),
        strict=True,
    ):
        yield {"other_ce_behind_nats": there, "other_ce_alone_nats": alone, "n_other_targets": other.shape[1] - 1}


@torch.no_grad()
def measure_attention(
    lm: FrozenLM, protocol: Protocol, vectors: Float[Tensor, "case row width"], ids: Int[Tensor, "1 pos"]
) -> Iterator[tuple[int, dict]]:
    """Yield, by case and layer, the share of attention that text positions give to the vectors and to what is before.

    Means over heads and text positions. Nothing for models without attention and for vectors that are not in front.
    """
    if not isinstance(protocol, Prefix) or getattr(lm.model.config, "num_attention_heads", None) is None:
        return
    inputs, n_mem = protocol.build(lm, vectors, ids.expand(len(vectors), -1)), vectors.shape[1]
    first, implementation = len(protocol.front) + protocol.n_before, lm.model.config._attn_implementation
    lm.model.set_attn_implementation("eager")  # the others do not say
    try:
        layers = lm.model(inputs_embeds=inputs.embeds, use_cache=False, output_attentions=True).attentions
    finally:
        lm.model.set_attn_implementation(implementation)
    for number, weights in enumerate(layers):
        from_text = weights[:, :, first + n_mem :].float().mean(dim=(1, 2))  # (case, position)
        for case, shares in enumerate(from_text):
            where = {"on_vectors": shares[first : first + n_mem].sum().item(), "on_start": shares[:first].sum().item()}
            yield case, {"layer": number} | where
