"""Ideas for speed on one model, against its plain fp32 steps: measured in turn in one run, on the same texts.

A step is a forward and a backward pass to the vectors. "Half of the head" asks for the last half of the targets only:
the most that leaving out tokens that are already safe could bring. Weights in bf16 would need an fp32 copy for the
proof.
"""

import copy
import dataclasses
import statistics
import time
import unittest.mock
from collections.abc import Callable
from typing import Annotated

import pandas as pd
import torch
import typer
from shapes import NAMES, make_lm, synchronize

import paper_lib.live.lm
from paper_lib.live.lm import FrozenLM, Inputs
from paper_lib.live.loss import CROSS_ENTROPY
from paper_lib.live.measure import fill_batch, score_targets
from paper_lib.live.protocols import find_protocol
from paper_lib.tables import to_markdown

PROTOCOL = find_protocol("strict")


def step(lm: FrozenLM, ids: torch.Tensor) -> None:
    """Forward and backward of all texts."""
    score_targets(lm, PROTOCOL, start(lm, len(ids)), ids).loss.sum().backward()


def step_with_fused_attention(lm: FrozenLM, ids: torch.Tensor) -> None:
    """Forward and backward with torch's fused attention, which short texts do without under autocast on a CPU."""
    with unittest.mock.patch.object(paper_lib.live.lm, "FUSED_FROM", 0):
        step(lm, ids)


def step_with_half_of_the_head(lm: FrozenLM, ids: torch.Tensor) -> None:
    """Forward and backward, asking for the last half of the targets."""
    inputs, half = PROTOCOL.build(lm, start(lm, len(ids)), ids), ids.shape[1] // 2
    scores = lm.score(Inputs(inputs.embeds, inputs.positions[half:]), ids[:, half:], CROSS_ENTROPY)
    scores.loss.sum().backward()


def start(lm: FrozenLM, n_texts: int) -> torch.Tensor:
    """Return one random vector for each text."""
    vectors = torch.randn(n_texts, 1, lm.d_embed, device=lm.device) * lm.embedding_std
    return vectors.requires_grad_()


def with_own_attention(lm: FrozenLM) -> FrozenLM:
    """Return a copy of the model with attention as plain products, not torch's fused one."""
    model = copy.deepcopy(lm.model)
    model.set_attn_implementation("eager")
    return dataclasses.replace(lm, model=model)


def with_casts_in_each_pass(lm: FrozenLM) -> FrozenLM:
    """Return the model as autocast alone would run it, its weights cast anew in each pass."""
    lm = dataclasses.replace(lm)
    lm.__dict__["_cast_weights"] = {}
    return lm


def compiled(lm: FrozenLM) -> FrozenLM:
    """Return a copy of the model whose layers torch compiles for inputs of any shape."""
    model = copy.deepcopy(lm.model)
    model.base_model.compile(dynamic=True)
    return dataclasses.replace(lm, model=model)


def list_ideas(lm: FrozenLM) -> dict[str, tuple[Callable, FrozenLM]]:
    """Return what to measure by name; the first is the reference."""
    bf16 = dataclasses.replace(lm, autocast=torch.bfloat16)
    in_bf16 = dataclasses.replace(lm, model=copy.deepcopy(lm.model).to(torch.bfloat16))
    return {
        "fp32": (step, lm),
        "attention as plain products, fp32": (step, with_own_attention(lm)),
        "half of the head, fp32": (step_with_half_of_the_head, lm),
        "products in bf16 (autocast), fused attention": (step_with_fused_attention, bf16),
        "the same, attention as plain products": (step, bf16),
        "the same, weights cast in each pass": (step, with_casts_in_each_pass(bf16)),
        "half of the head, autocast": (step_with_half_of_the_head, bf16),
        "weights in bf16 too": (step, in_bf16),
    }


def main(
    shape: Annotated[str, typer.Option(help=f"One of {', '.join(NAMES)}.")] = "smollm2-135m",
    length: Annotated[int, typer.Option(help="Tokens of a text.")] = 32,
    n_texts: Annotated[int | None, typer.Option(help="Of a step; by default what keeps the device busy.")] = None,
    n_rounds: Annotated[int, typer.Option(help="How often each is measured.")] = 5,
    device: str = "cpu",
    compile: Annotated[bool, typer.Option(help="Also what torch.compile gives; its first step takes minutes.")] = False,
) -> None:
    """Print how many times faster than fp32 each idea is, and what its first step costs."""
    lm = make_lm(shape, device)
    ids = torch.randint(3, lm.vocab_size, (n_texts or fill_batch(lm.device, length), length), device=device)
    ideas, first, seconds = list_ideas(lm), {}, {}
    if compile:
        ideas["compiled, fp32"] = step, compiled(lm)

    def measure(name):
        run, model = ideas[name]
        started = time.perf_counter()
        run(model, ids)
        synchronize(lm)
        return time.perf_counter() - started

    for name in ideas:
        first[name] = measure(name)
    for _ in range(n_rounds):
        for name in ideas:
            seconds.setdefault(name, []).append(measure(name))
    reference = seconds["fp32"]
    rows = []
    for name, times in seconds.items():
        ratios = [one / other for one, other in zip(reference, times, strict=True)]
        rows.append(
            {
                "idea": name,
                "times faster": statistics.median(ratios),
                "least": min(ratios),
                "most": max(ratios),
                "first step, in steps of fp32": first[name] / statistics.median(reference),
            }
        )
    print(to_markdown(pd.DataFrame(rows)))
    print(
        f"{shape}, {len(ids)} texts of {length} tokens, {ids.numel() / statistics.median(reference):.0f} token-steps/s"
    )


if __name__ == "__main__":
    typer.run(main)
