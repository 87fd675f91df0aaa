"""A small sweep, batched here against the published way of running it, on the same texts, steps and threads.

The reference is written after the protocol facts of the authors' code, not copied from it: one text at a time, the
model loaded twice for each (once for the baseline, once to cram), all hidden states kept, and the device asked for loss
and accuracy at every step. Texts are sampled from the model itself, so nothing but the repository is needed.
"""

import statistics
import time
from typing import Annotated

import pandas as pd
import torch
import typer
from transformers import AutoModelForCausalLM

from paper_lib.lm import FrozenLM, load_lm
from paper_lib.memory import find_protocol
from paper_lib.optimize import AdamW, Case, StoppingRule, initial_vectors, measure, optimize
from paper_lib.paths import ROOT
from paper_lib.tables import to_markdown

MODEL = "data/models/novels-5m"
NEVER = StoppingRule("never", min_margin=float("inf"))
LR = 0.05


def sample_texts(lm: FrozenLM, n_texts: int, length: int) -> torch.Tensor:
    """Return ``n_texts`` texts of ``length`` tokens (text, pos), drawn from the model at temperature 1."""
    torch.manual_seed(length)
    start = torch.full((n_texts, 1), lm.start_id)
    return lm.model.generate(
        start, do_sample=True, max_new_tokens=length - 1, min_new_tokens=length - 1, pad_token_id=1
    )


def run_reference(lm: FrozenLM, ids: torch.Tensor, n_steps: int) -> dict:
    """Cram one text after the other; return seconds of loading, seconds of the rest, gains (nats) and accuracies."""
    loading = cramming = 0.0
    gains, accuracies = [], []
    for number, text in enumerate(ids):
        started = time.perf_counter()
        for _ in range(2):
            model = AutoModelForCausalLM.from_pretrained(ROOT / MODEL, dtype=torch.float32).requires_grad_(False).eval()
        loading += time.perf_counter() - started
        started = time.perf_counter()
        text = text.unsqueeze(0)
        with torch.no_grad():
            alone = torch.nn.functional.cross_entropy(model(input_ids=text).logits[0, :-1], text[0, 1:]).item()
        memory = initial_vectors(lm, Case(str(number), text[0])).requires_grad_()
        optimiser = torch.optim.AdamW([memory], lr=LR, betas=(0.9, 0.9), weight_decay=0.01)
        best_loss, best_accuracy = float("inf"), 0.0
        for _ in range(n_steps):
            inputs = torch.cat([memory.unsqueeze(0), model.get_input_embeddings()(text)], dim=1)
            output = model(inputs_embeds=inputs, output_hidden_states=True)
            logits = output.logits[0, len(memory) : -1]
            loss = torch.nn.functional.cross_entropy(logits, text[0, 1:])
            accuracy = (logits.argmax(-1) == text[0, 1:]).float().mean().item()
            best_loss, best_accuracy = min(best_loss, loss.item()), max(best_accuracy, accuracy)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        cramming += time.perf_counter() - started
        gains.append((alone - best_loss) * (text.shape[1] - 1))
        accuracies.append(best_accuracy)
    return {"loading": loading, "cramming": cramming, "gains": gains, "accuracies": accuracies}


def run_here(lm: FrozenLM, ids: torch.Tensor, n_steps: int, batch_size: int) -> dict:
    """Do the same work with this library."""
    started = time.perf_counter()
    load_lm(MODEL)
    loading = time.perf_counter() - started
    started = time.perf_counter()
    protocol = find_protocol("kuratov2025")
    with torch.no_grad():
        alone = measure(lm, protocol, None, ids)["ce_nats"]
    cases = [Case(str(number), text) for number, text in enumerate(ids)]
    results = optimize(lm, protocol, cases, AdamW(lr=LR, max_steps=n_steps), NEVER, batch_size=batch_size)
    results = {int(result.case.key): result for result in results}
    gains = [alone[i].item() - results[i].ce_mem_min_nats for i in range(len(ids))]
    accuracies = [results[i].n_correct_mem / results[i].n_targets for i in range(len(ids))]
    seconds = time.perf_counter() - started
    return {"loading": loading, "cramming": seconds, "gains": gains, "accuracies": accuracies}


def main(
    n_steps: Annotated[int, typer.Option(help="Fixed steps of every text.")] = 500,
    n_texts: Annotated[int, typer.Option(help="Texts of every length.")] = 32,
    n_repeats: int = 3,
    batch_size: int = 32,
) -> None:
    """Print one table: length, seconds of both, their ratio, gains and accuracies of both (medians of the repeats)."""
    torch.set_num_threads(2)
    lm, rows = load_lm(MODEL), []
    for length in (8, 16, 32):
        ids = sample_texts(lm, n_texts, length)
        pairs = [(run_reference(lm, ids, n_steps), run_here(lm, ids, n_steps, batch_size)) for _ in range(n_repeats)]
        seconds = [statistics.median(pair[side]["cramming"] for pair in pairs) for side in (0, 1)]
        with_loads = [statistics.median(p[side]["cramming"] + p[side]["loading"] for p in pairs) for side in (0, 1)]
        reference, here = pairs[-1]
        rows.append(
            {
                "length (tokens)": length,
                "reference (s)": seconds[0],
                "here (s)": seconds[1],
                "times faster": seconds[0] / seconds[1],
                "with loads": with_loads[0] / with_loads[1],
                "gain, reference (nats)": statistics.mean(reference["gains"]),
                "gain, here (nats)": statistics.mean(here["gains"]),
                "accuracy, reference": statistics.mean(reference["accuracies"]),
                "accuracy, here": statistics.mean(here["accuracies"]),
            }
        )
    print(to_markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    typer.run(main)
