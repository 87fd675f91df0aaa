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

from paper_lib.capacity import SOLVED_ACCURACY
from paper_lib.config import Optimiser
from paper_lib.live.goals import GOALS, Goal
from paper_lib.live.lm import FrozenLM
from paper_lib.live.load import load_lm
from paper_lib.live.loop import optimise
from paper_lib.live.measure import measure
from paper_lib.live.protocols import find_protocol
from paper_lib.live.rows import Case, Recipe, draw_start
from paper_lib.paths import ROOT
from paper_lib.tables import to_markdown

MODEL = "data/models/novels-5m"
LR = 0.05
LENGTHS = (8, 16, 32)  # tokens


def sample_texts(lm: FrozenLM, n_texts: int, length: int) -> torch.Tensor:
    """Return ``n_texts`` texts of ``length`` tokens (text, pos), drawn from the model at temperature 1."""
    torch.manual_seed(0)
    start = torch.full((n_texts, 1), lm.start_id)
    return lm.model.generate(
        start, do_sample=True, max_new_tokens=length - 1, min_new_tokens=length - 1, pad_token_id=1
    )


def run_reference(lm: FrozenLM, ids: torch.Tensor, n_steps: int, goal: Goal) -> dict:
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
        memory = draw_start(lm, find_protocol("kuratov2025"), Case(str(number), text[0]))["vectors"].requires_grad_()
        optimiser = torch.optim.AdamW([memory], lr=LR, betas=(0.9, 0.9), weight_decay=0.01)
        best_loss, best_accuracy = float("inf"), 0.0
        for _ in range(n_steps):
            inputs = torch.cat([memory.unsqueeze(0), model.get_input_embeddings()(text)], dim=1)
            output = model(inputs_embeds=inputs, output_hidden_states=True)
            logits = output.logits[0, len(memory) : -1]
            loss = torch.nn.functional.cross_entropy(logits, text[0, 1:])
            accuracy = (logits.argmax(-1) == text[0, 1:]).float().mean().item()
            best_loss, best_accuracy = min(best_loss, loss.item()), max(best_accuracy, accuracy)
            if accuracy == 1 and goal is not GOALS["never"]:
                break
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        cramming += time.perf_counter() - started
        gains.append((alone - best_loss) * (text.shape[1] - 1))
        accuracies.append(best_accuracy)
    return {"loading": loading, "cramming": cramming, "gains": gains, "accuracies": accuracies}


def run_here(lm: FrozenLM, ids: torch.Tensor, n_steps: int, goal: Goal, seed: str = "") -> dict:
    """Do the same work with this library; ``seed`` changes the random starts."""
    started = time.perf_counter()
    load_lm(MODEL)
    loading = time.perf_counter() - started
    started = time.perf_counter()
    protocol = find_protocol("kuratov2025")
    with torch.no_grad():
        alone = measure(lm, protocol, None, ids)["ce_nats"]
    cases = [Case(f"{seed}{number}", text) for number, text in enumerate(ids)]
    finished = optimise(lm, protocol, cases, Recipe(goal, Optimiser(lr=LR, max_steps=n_steps)))
    results = {int(result.case.key.removeprefix(seed)): result for results in finished for result in results}
    gains = [alone[i].item() - results[i].measured["ce_mem_min_nats"] for i in range(len(ids))]
    accuracies = [results[i].measured["n_correct_mem"] / protocol.n_targets(len(ids[i])) for i in range(len(ids))]
    seconds = time.perf_counter() - started
    return {"loading": loading, "cramming": seconds, "gains": gains, "accuracies": accuracies}


def compare(
    lm: FrozenLM, ids: torch.Tensor, n_steps: int, n_repeats: int, goal: Goal
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return how many times faster this library is at every length (medians), and what both ways found."""
    seconds, found = [], {}
    for length in LENGTHS:
        texts = ids[:, :length]
        pairs = [
            (run_reference(lm, texts, n_steps, goal), run_here(lm, texts, n_steps, goal)) for _ in range(n_repeats)
        ]
        seconds.append(
            [
                statistics.median(sum(pair[side][part] for part in parts) for pair in pairs)
                for parts in (("cramming",), ("cramming", "loading"))
                for side in (0, 1)
            ]
        )
        again = run_here(lm, texts, n_steps, goal, seed="another ")
        for name, result in zip(("reference", "here", "here, another seed"), (*pairs[-1], again), strict=True):
            found.setdefault(name, []).append(result)
    speed = pd.DataFrame(
        [*seconds, pd.DataFrame(seconds).sum()], columns=["reference", "here", "both, reference", "both, here"]
    )
    return (
        pd.DataFrame(
            {
                "length (tokens)": [*map(str, LENGTHS), "all"],
                "times faster": speed["reference"] / speed["here"],
                "with loads": speed["both, reference"] / speed["both, here"],
            }
        ),
        pd.DataFrame([{"run": name} | summarise(results) for name, results in found.items()]),
    )


def summarise(results: list[dict]) -> dict:
    """Return mean gains at every length, and the mean over texts of the longest solved prefix (0 for none)."""
    gains = {f"gain at {n} (nats)": statistics.mean(by["gains"]) for n, by in zip(LENGTHS, results, strict=True)}
    solved = torch.tensor([by["accuracies"] for by in results]) >= SOLVED_ACCURACY
    longest = (solved * torch.tensor(LENGTHS).unsqueeze(1)).amax(dim=0)
    return gains | {
        "solved": f"{int(solved.sum())} of {solved.numel()}",
        "capacity (tokens)": longest.double().mean().item(),
    }


def main(
    n_steps: Annotated[int, typer.Option(help="Most steps of every text.")] = 500,
    n_texts: Annotated[int, typer.Option(help="Texts, each cut to every length.")] = 32,
    n_repeats: int = 3,
) -> None:
    """Print two tables: with fixed steps, and with the published stopping rule on."""
    torch.set_num_threads(2)
    lm = load_lm(MODEL)
    ids = sample_texts(lm, n_texts, max(LENGTHS))
    for name, goal in (("fixed steps", GOALS["never"]), ("stopping at accuracy 1", GOALS["kuratov2025"])):
        speed, found = compare(lm, ids, n_steps, n_repeats, goal)
        print(f"{name}\n\n{to_markdown(speed)}\n\n{to_markdown(found)}\n", flush=True)


if __name__ == "__main__":
    typer.run(main)
