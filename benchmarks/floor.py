"""Token-steps per second as a share of the floor: the time of the matrix products alone.

The floor is 4 FLOPs for each matrix weight and token (forward, and backward to the inputs) at the best rate that the
products of this very model, with its own weights and shapes, reach on this machine, in this run and precision.
"""

import statistics
import time
from typing import Annotated

import pandas as pd
import torch
import typer
from shapes import NAMES, make_lm, synchronize

from paper_lib.live.cost import time_step
from paper_lib.live.goals import GOALS
from paper_lib.live.lm import FrozenLM
from paper_lib.live.measure import fill_batch
from paper_lib.live.protocols import find_protocol
from paper_lib.live.rows import Case, Recipe
from paper_lib.tables import to_markdown

N_REPEATS = 3
SECONDS = 1.0


def measure_products(lm: FrozenLM, n_tokens: int) -> float:
    """Return the FLOPs per second of all products of a step with ``n_tokens`` tokens, each done on its own."""
    dtype = lm.autocast or lm.dtype
    layers = (module for module in lm.model.modules() if isinstance(module, torch.nn.Linear))
    weights = [layer.weight.to(dtype) for layer in layers]
    inputs = {weight.shape: torch.randn(n_tokens, weight.shape[1], device=lm.device, dtype=dtype) for weight in weights}
    slopes = {weight.shape: torch.randn(n_tokens, weight.shape[0], device=lm.device, dtype=dtype) for weight in weights}

    def multiply():
        for weight in weights:
            inputs[weight.shape] @ weight.T
            slopes[weight.shape] @ weight
        synchronize(lm)

    multiply()
    n_rounds, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        multiply()
        n_rounds += 1
    return n_rounds * 4 * n_tokens * sum(weight.numel() for weight in weights) / (time.perf_counter() - started)


def measure_steps(lm: FrozenLM, batch_size: int, length: int) -> float:
    """Return token-steps per second of the optimiser."""
    torch.manual_seed(length)
    ids = torch.randint(3, lm.vocab_size, (batch_size, length))
    cases = [Case(str(number), row) for number, row in enumerate(ids)]
    return batch_size * length / time_step(lm, find_protocol("strict"), cases, Recipe(GOALS["never"]), 2.0)


def main(
    shape: Annotated[str, typer.Option(help=f"One of {', '.join(NAMES)}.")] = "shipped",
    length: Annotated[int, typer.Option(help="Tokens of a text.")] = 32,
    device: str = "cpu",
    autocast: Annotated[str | None, typer.Option(help="bfloat16, or nothing for fp32.")] = None,
    n_tokens_max: Annotated[int, typer.Option(help="Tokens of the largest batch.")] = 4096,
) -> None:
    """Print one row per batch size: tokens of a step, products' rate, steps' rate, share of the floor."""
    lm = make_lm(shape, device, autocast)
    sizes = [2**power for power in range(20) if 2**power * length <= n_tokens_max]
    products, steps = (
        {size: statistics.median(rate(size) for _ in range(N_REPEATS)) for size in sizes}
        for rate in (lambda size: measure_products(lm, size * length), lambda size: measure_steps(lm, size, length))
    )
    floor = max(products.values()) / (4 * lm.n_matrix_weights)  # token-steps per second
    rows = [
        {
            "texts": size,
            "tokens of a step": size * length,
            "products alone, of their best": products[size] / max(products.values()),
            "share of the floor": steps[size] / floor,
        }
        for size in sizes
    ]
    print(to_markdown(pd.DataFrame(rows)))
    best = max(products.values())
    print(f"{shape}, {autocast or 'fp32'}, {device}: floor {floor:.3g} token-steps/s, products {best:.3g} FLOP/s")
    print(f"by default a batch has {fill_batch(lm.device, length)} texts of this length")


if __name__ == "__main__":
    typer.run(main)
