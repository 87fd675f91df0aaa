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
from paper_lib.optimize import STOPPING_RULES, AdamW, Case, StoppingRule, initial_vectors, measure, optimize
from paper_lib.paths import ROOT
from paper_lib.plan import NEVER
from paper_lib.tables import to_markdown

MODEL = "data/models/novels-5m"
LR = 0.05


def sample_texts(lm: FrozenLM, n_texts: int, length: int) -> torch.Tensor:
    """Return ``n_texts`` texts of ``length`` tokens (text, pos), drawn from the model at temperature 1."""
    torch.manual_seed(length)
    start = torch.full((n_texts, 1), lm.start_id)
    return lm.model.generate(
        start, do_sample=True, max_new_tokens=length - 1, min_new_tokens=length - 1, pad_token_id=1
    )


def run_reference(lm: FrozenLM, ids: torch.Tensor, n_steps: int, rule: StoppingRule) -> dict:
    """Cram one text after the other; return seconds of loading, seconds of the rest, gains (nats) and accuracies.

    Under the published rule a text ends with accuracy 1; its patience is longer than the steps here.
    """
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
            if accuracy == 1 and rule is not NEVER:
                break
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        cramming += time.perf_counter() - started
        gains.append((alone - best_loss) * (text.shape[1] - 1))
        accuracies.append(best_accuracy)
    return {"loading": loading, "cramming": cramming, "gains": gains, "accuracies": accuracies}


def run_here(lm: FrozenLM, ids: torch.Tensor, n_steps: int, rule: StoppingRule, seed: str = "") -> dict:
    """Do the same work with this library; ``seed`` changes the random starts."""
    started = time.perf_counter()
    load_lm(MODEL)
    loading = time.perf_counter() - started
    started = time.perf_counter()
    protocol = find_protocol("kuratov2025")
    with torch.no_grad():
        alone = measure(lm, protocol, None, ids)["ce_nats"]
    cases = [Case(f"{seed}{number}", text) for number, text in enumerate(ids)]
    finished = optimize(lm, protocol, cases, AdamW(lr=LR, max_steps=n_steps), rule)
    results = {int(result.case.key.removeprefix(seed)): result for results in finished for result in results}
    gains = [alone[i].item() - results[i].ce_mem_min_nats for i in range(len(ids))]
    accuracies = [results[i].n_correct_mem / results[i].n_targets for i in range(len(ids))]
    seconds = time.perf_counter() - started
    return {"loading": loading, "cramming": seconds, "gains": gains, "accuracies": accuracies}


def compare(lm: FrozenLM, n_texts: int, n_steps: int, n_repeats: int, rule: StoppingRule) -> pd.DataFrame:
    """Return a row per length and one for all: how many times faster, gains and accuracies of both (medians)."""
    rows, totals = [], []
    for length in (8, 16, 32):
        ids = sample_texts(lm, n_texts, length)
        pairs = [(run_reference(lm, ids, n_steps, rule), run_here(lm, ids, n_steps, rule)) for _ in range(n_repeats)]
        medians = [
            [statistics.median(sum(pair[side][part] for part in parts) for pair in pairs) for side in (0, 1)]
            for parts in (("cramming",), ("cramming", "loading"))
        ]
        totals.append(medians)
        reference, here = pairs[-1]
        other = run_here(lm, ids, n_steps, rule, seed="another ")
        rows.append(
            {
                "length (tokens)": str(length),
                "times faster": medians[0][0] / medians[0][1],
                "with loads": medians[1][0] / medians[1][1],
                "gain, reference (nats)": statistics.mean(reference["gains"]),
                "gain, here": statistics.mean(here["gains"]),
                "gain, another seed": statistics.mean(other["gains"]),
                "accuracy 1, reference": sum(accuracy == 1 for accuracy in reference["accuracies"]),
                "accuracy 1, here": sum(accuracy == 1 for accuracy in here["accuracies"]),
                "accuracy 1, another seed": sum(accuracy == 1 for accuracy in other["accuracies"]),
            }
        )
    sums = [[sum(total[kind][side] for total in totals) for side in (0, 1)] for kind in (0, 1)]
    every = {"length (tokens)": "all", "times faster": sums[0][0] / sums[0][1], "with loads": sums[1][0] / sums[1][1]}
    return pd.DataFrame([*rows, every])


def main(
    n_steps: Annotated[int, typer.Option(help="Most steps of every text.")] = 500,
    n_texts: Annotated[int, typer.Option(help="Texts of every length.")] = 32,
    n_repeats: int = 3,
) -> None:
    """Print two tables: with fixed steps, and with the published stopping rule on."""
    torch.set_num_threads(2)
    lm = load_lm(MODEL)
    for name, rule in (("fixed steps", NEVER), ("stopping at accuracy 1", STOPPING_RULES["kuratov2025"])):
        print(f"{name}\n\n{to_markdown(compare(lm, n_texts, n_steps, n_repeats, rule))}\n", flush=True)


if __name__ == "__main__":
    typer.run(main)
