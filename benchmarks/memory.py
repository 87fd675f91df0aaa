"""Peak memory of one step at Llama's vocabulary and the paper's longest text, whole logits against chunks.

A model with a tiny hidden size, so that what is measured is the loss. Each way runs in a process of its own; the peak
is that above the resident size before the step. Linux only.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pandas as pd

from paper_lib.paths import ROOT
from paper_lib.tables import to_markdown

VOCAB_SIZE, LENGTH_TOKENS = 128_256, 1568
RUNS = [("whole logits", 2), ("chunks", 2), ("chunks", 8)]


def take_a_step(way: str, batch_size: int) -> dict:
    """Measure one forward and backward pass: peak bytes, loss and gradient."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from paper_lib.live.lm import prepare_lm
    from paper_lib.live.measure import measure
    from paper_lib.live.protocols import find_protocol
    from paper_lib.live.rows import Case, draw_start

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=2048, initializer_range=0.25, tie_word_embeddings=True,
    )  # fmt: skip
    lm = prepare_lm(LlamaForCausalLM(config), fingerprint="benchmark")
    ids = torch.randint(VOCAB_SIZE, (batch_size, LENGTH_TOKENS))
    protocol = find_protocol("strict")
    start = [draw_start(lm, protocol, Case(str(number), row))["vectors"] for number, row in enumerate(ids)]
    vectors = torch.stack(start).requires_grad_()
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    if way == "chunks":
        losses = measure(lm, protocol, vectors, ids)["loss"]
    else:
        inputs, positions = protocol.build(lm, vectors, ids)
        logits = lm.logits(inputs, positions).transpose(1, 2)
        losses = torch.nn.functional.cross_entropy(logits, ids, reduction="none").sum(dim=1)
    (gradient,) = torch.autograd.grad(losses.sum(), vectors)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"megabytes": (peak - before) / 1e6, "loss": losses[0].item(), "gradient": gradient[0].flatten().tolist()}


def main() -> None:
    """Print one table: way, batch, peak, and how far loss and gradient of the first text are from the first row's."""
    rows, reference = [], None
    for way, batch_size in RUNS:
        command = [sys.executable, __file__, way, str(batch_size)]
        output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        result = json.loads(output)
        reference = reference or result
        scale = max(map(abs, reference["gradient"]))
        off = max(abs(a - b) for a, b in zip(result["gradient"], reference["gradient"], strict=True)) / scale
        rows.append(
            {
                "loss from": way,
                "texts": batch_size,
                "peak (MB)": round(result["megabytes"]),
                "of whole logits": result["megabytes"] / reference["megabytes"],
                "loss off by": abs(result["loss"] / reference["loss"] - 1),
                "gradient off by": off,
            }
        )
    print(to_markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(take_a_step(sys.argv[1], int(sys.argv[2]))))
    else:
        main()
