"""Token-steps per second on a GPU, batched here against the published loop, at the shapes of two models of the paper.

Random weights, fixed steps, the same precision on both sides; loading is apart. The reference is that of throughput.py:
one text at a time, all hidden states kept, and the device asked for loss and accuracy at every step.
"""

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
from paper_lib.live.rows import Case, Recipe, draw_start
from paper_lib.tables import to_markdown


def run_reference(lm: FrozenLM, text: torch.Tensor, n_steps: int) -> float:
    """Return token-steps per second of ``n_steps`` steps with one text (1, pos), after one that warms up."""
    memory = draw_start(lm, find_protocol("kuratov2025"), Case("reference", text[0]))["vectors"].requires_grad_()
    optimiser = torch.optim.AdamW([memory], lr=0.01, betas=(0.9, 0.9), weight_decay=0.01)
    for step in range(n_steps + 1):
        if step == 1:
            synchronize(lm)
            started = time.perf_counter()
        with torch.autocast(lm.device.type, dtype=lm.autocast, enabled=lm.autocast is not None):
            inputs = torch.cat([memory.unsqueeze(0), lm.embed(text)], dim=1)
            logits = lm.model(inputs_embeds=inputs, output_hidden_states=True).logits[0, len(memory) : -1]
            loss = torch.nn.functional.cross_entropy(logits.float(), text[0, 1:])
        loss.item(), (logits.argmax(-1) == text[0, 1:]).float().mean().item()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    synchronize(lm)
    return n_steps * text.shape[1] / (time.perf_counter() - started)


def main(
    shape: Annotated[str, typer.Option(help=f"One of {', '.join(NAMES)}.")] = "pythia-160m",
    device: str = "cuda",
    autocast: Annotated[str | None, typer.Option(help="bfloat16, or nothing for fp32.")] = None,
    lengths: Annotated[str, typer.Option(help="Tokens of a text, with commas between.")] = "64,128,512,1024",
    n_steps: Annotated[int, typer.Option(help="Steps of the reference.")] = 100,
) -> None:
    """Print one row per length: token-steps per second of both, and their ratio."""
    lm, rows = make_lm(shape, device, autocast), []
    for length in map(int, lengths.split(",")):
        batch_size = fill_batch(lm.device, length)
        torch.manual_seed(length)
        ids = torch.randint(3, lm.vocab_size, (batch_size, length), device=lm.device)
        reference = run_reference(lm, ids[:1], n_steps)
        cases = [Case(str(number), row) for number, row in enumerate(ids)]
        here = batch_size * length / time_step(lm, find_protocol("kuratov2025"), cases, Recipe(GOALS["never"]), 2.0)
        rows.append(
            {
                "length (tokens)": length,
                "texts at once": batch_size,
                "reference (token-steps/s)": reference,
                "here (token-steps/s)": here,
                "times faster": here / reference,
            }
        )
    name = torch.cuda.get_device_name(lm.device) if lm.device.type == "cuda" else device
    print(f"{shape}, {autocast or 'fp32'}, {name}\n\n{to_markdown(pd.DataFrame(rows))}")


if __name__ == "__main__":
    typer.run(main)
