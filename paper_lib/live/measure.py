"""Measuring: what the frozen model makes of texts, with vectors or alone. Nothing is moved here."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import InputError
from .lm import FrozenLM
from .loss import CROSS_ENTROPY, Loss, Scores
from .protocols import Protocol

CPU_TOKENS_PER_THREAD, GPU_TOKENS = 512, 65_536  # of a batch; more make a step longer, hardly a token cheaper


def score_targets(
    lm: FrozenLM,
    protocol: Protocol,
    vectors: Float[Tensor, "case row width"] | None,
    ids: Int[Tensor, "case pos"],
    loss: Loss = CROSS_ENTROPY,
    counts: Bool[Tensor, "case target"] | None = None,
) -> Scores:
    """Return the scores of every target, each (case, target), with vectors or of the LM alone (None).

    Those of targets that do not count mean nothing (see ``FrozenLM.score``).
    """
    inputs = protocol.baseline(lm, ids) if vectors is None else protocol.build(lm, vectors, ids)
    return lm.score(inputs, protocol.targets(ids), loss, counts)


def measure(
    lm: FrozenLM,
    protocol: Protocol,
    vectors: Float[Tensor, "case row width"] | None,
    ids: Int[Tensor, "case pos"],
    n_active: Int[Tensor, " case"] | None = None,
    loss: Loss = CROSS_ENTROPY,
) -> dict[str, Tensor]:
    """Return what the LM makes of texts with vectors, or alone (None); one number per case.

    Only the first ``n_active`` targets of a case count, by default all. ``loss``, the sum over targets, carries the
    gradient; ``ce_nats`` is the cross-entropy in float64, ``n_correct`` counts teacher-forced argmax hits,
    ``first_error`` is the place of the first miss (-1 for none), ``margin`` is the smallest lead in logits of a target
    over the best other token.
    """
    counts = None
    if n_active is not None:
        counts = torch.arange(protocol.n_targets(ids.shape[1]), device=ids.device) < n_active.unsqueeze(1)
    value, ce, hit, lead = score_targets(lm, protocol, vectors, ids, loss, counts)
    if counts is not None:
        value, ce = (torch.where(counts, numbers, 0) for numbers in (value, ce))
        hit, lead = hit | ~counts, torch.where(counts, lead, torch.inf)
    all_correct, n_idle = hit.all(dim=1), 0 if n_active is None else hit.shape[1] - n_active
    return {
        "loss": value.sum(dim=1),
        "ce_nats": ce.double().sum(dim=1),
        "n_correct": hit.sum(dim=1) - n_idle,
        "all_correct": all_correct,
        "first_error": torch.where(all_correct, -1, (~hit).int().argmax(dim=1)),
        "margin": lead.amin(dim=1),
    }


def measure_with_gradient(
    lm: FrozenLM,
    protocol: Protocol,
    loss: Loss,
    vectors: Float[Tensor, "case row width"],
    ids: Int[Tensor, "case pos"],
    n_active: Int[Tensor, " case"] | None = None,
) -> dict[str, Tensor]:
    """Return what ``measure`` does, the ``mean_loss`` and ``share_correct`` of targets, and the loss's ``gradient``.

    The sum over rows lets each row have its own gradient.
    """
    vectors = vectors.requires_grad_()
    now = measure(lm, protocol, vectors, ids, n_active, loss)
    n_targets = protocol.n_targets(ids.shape[1]) if n_active is None else n_active
    now |= {"mean_loss": now["loss"] / n_targets, "share_correct": now["n_correct"] / n_targets}
    (gradient,) = torch.autograd.grad(now["mean_loss"].sum(), vectors)
    return {name: values.detach() for name, values in now.items()} | {"gradient": gradient}


def fill_batch(device: torch.device, n_tokens: int) -> int:
    """Return how many rows of ``n_tokens`` keep a device busy (benchmarks/floor.py has the measurements)."""
    n_at_once = GPU_TOKENS if device.type == "cuda" else CPU_TOKENS_PER_THREAD * torch.get_num_threads()
    return max(1, n_at_once // n_tokens)


def run_in_parts(compute: Callable, n_rows: int, *inputs: Tensor | None) -> tuple[list, int]:
    """Return what ``compute`` makes of ``n_rows`` rows of the inputs at a time, and how many at a time memory allowed.

    Rows do not interact, so where memory runs out they go in parts of half as many; InputError if even one is too much.
    An input that is None is passed on as it is.
    """
    while True:
        try:
            parts = [slice(start, start + n_rows) for start in range(0, len(inputs[0]), n_rows)]
            return [compute(*(None if rows is None else rows[part] for rows in inputs)) for part in parts], n_rows
        except RuntimeError as error:
            if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
                raise
            if min(n_rows, len(inputs[0])) == 1:
                raise InputError("one text does not fit in memory; use shorter lengths or a smaller model") from None
        n_rows = min(n_rows, len(inputs[0])) // 2  # out here, where the error holds the failed step's tensors no longer
        torch.cuda.empty_cache()  # what is too little for this process may be enough for another on the same GPU
