"""The per-sample optimiser: many texts of one length share each forward and backward, and no text feels the others.

The loss is the sum over rows of each text's mean cross-entropy, AdamW is element-wise, and every row has its own step
counter; so a row's trajectory is that of a run of its own, up to rounding. Finished rows leave and waiting texts enter
at once. Each step measures first and moves afterwards: the vector that is kept is the one that was measured, rounded to
the precision that it is stored in.
"""

import functools
import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import InputError, unknown_name
from .lm import FrozenLM
from .protocols import Protocol

STATUSES = ("running", "diverged", "solved", "patience", "budget")
RUNNING, SOLVED, BUDGET = (STATUSES.index(status) for status in ("running", "solved", "budget"))
SAFE_MARGIN = 1e-3  # logits, fp32: what makes an argmax the same on another machine
CPU_TOKENS_PER_THREAD, GPU_TOKENS = 512, 65_536  # of a batch; more make a step longer, hardly a token cheaper


@dataclass(frozen=True)
class AdamW:
    """Optimiser settings; the defaults are the paper's (appendix A). ``max_steps`` counts measurements."""

    lr: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.9
    eps: float = 1e-8
    weight_decay: float = 0.01
    max_steps: int = 5000


@dataclass(frozen=True)
class StoppingRule:
    """When a row may leave: all targets right with at least ``min_margin``, or no progress for ``patience_steps``.

    ``without_autocast`` asks that what was reached under autocast is also reached without it.
    """

    name: str
    min_margin: float
    patience_steps: int | None = None
    without_autocast: bool = False

    def reached(self, progress: dict[str, Tensor]) -> Bool[Tensor, " case"]:
        """Return which rows have reached their goal, from what was just measured (see ``measure``)."""
        return progress["all_correct"] & (progress["margin"] >= self.min_margin)


STOPPING_RULES = {
    # the authors': accuracy 1 however narrow, or 2000 steps without a new best accuracy
    "kuratov2025": StoppingRule("kuratov2025", min_margin=-float("inf"), patience_steps=2000),
    "strict": StoppingRule("strict", min_margin=SAFE_MARGIN, without_autocast=True),
}


def find_stopping_rule(name: str) -> StoppingRule:
    """Return the stopping rule of that name; raise InputError naming the known ones."""
    if name not in STOPPING_RULES:
        raise unknown_name("stopping rule", name, STOPPING_RULES)
    return STOPPING_RULES[name]


@dataclass(frozen=True)
class Case:
    """One text to cram: its tokens (pos,), the number of vectors, and the key that its random start depends on.

    ``state`` is where an earlier run left it (see ``Halfway``).
    """

    key: str
    ids: Tensor
    n_mem: int = 1
    state: dict[str, Tensor] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Crammed:
    """What became of a case. Cross-entropies are sums over the targets in nats; ``vectors`` is (n_mem, d_embed).

    ``status``: ``solved`` (the rule's goal was reached), ``budget`` (max_steps measured), ``patience`` or ``diverged``
    (a loss that is not finite; NaN is kept). ``ce_mem_nats`` and ``n_correct_mem`` belong to ``vectors``, the best that
    was measured; ``ce_mem_min_nats`` is the minimum over all steps, wherever it was. ``wall_seconds`` is the case's
    share of the time of the steps that it took part in.
    """

    case: Case
    vectors: Tensor = field(repr=False)
    status: str
    n_steps: int
    n_targets: int
    n_correct_mem: int
    ce_mem_nats: float
    ce_mem_min_nats: float
    margin: float
    wall_seconds: float


@dataclass(frozen=True)
class Halfway:
    """A case that is being crammed, with all it takes to go on: vectors, moments, counters, the best so far."""

    case: Case
    state: dict[str, Tensor] = field(repr=False)


def optimize(
    lm: FrozenLM,
    protocol: Protocol,
    cases: Iterable[Case],
    settings: AdamW,
    rule: StoppingRule,
    *,
    batch_size: int | None = None,
    storage: torch.dtype | None = None,
    check_every: int = 1,
    seconds_between_halfway: float = math.inf,
    on_step: Callable[[dict[str, Tensor]], None] = lambda progress: None,
) -> Iterator[list[Crammed] | list[Halfway]]:
    """Optimise the vectors of ``cases`` (all of one length and one n_mem), yielding at once those that are finished.

    ``batch_size`` rows at a time, by default as many as keep the device busy; where memory runs out, half as many go
    through the model at once. ``storage`` is the precision to which vectors are rounded before they are measured and
    kept, by default none; the moves add up unrounded. Every ``check_every`` steps the device is asked which rows have
    finished; a finished row stands still, so the results do not depend on it, but a GPU need not wait each step.
    Every ``seconds_between_halfway`` those that are not finished are yielded too, so that they can go on from there
    when this process is killed. ``on_step`` sees what each step measured.
    """
    waiting, running, rows, halfway_at = deque(cases), [], {}, time.perf_counter()
    if waiting and not batch_size:
        batch_size = fill_batch(lm.device, len(waiting[0].ids) - 1 + waiting[0].n_mem)
    check_again = lm.autocast is not None and rule.without_autocast
    step = functools.partial(_measure_with_gradient, lm, protocol)
    while waiting or running:
        started = time.perf_counter()
        while waiting and len(running) < batch_size:
            running.append(waiting.popleft())
        rows = _append(rows, [_start(lm, case) for case in running[len(rows.get("ids", ())) :]])
        for _ in range(1 if check_again else check_every):
            vectors = _round(rows["vectors"], storage)
            parts, batch_size = run_in_parts(step, batch_size, vectors, rows["ids"])
            progress = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            _record(rows, progress, vectors, settings, rule)
            on_step(progress)
            _move(rows, progress["gradient"], settings)
        if check_again:
            _send_back(lm, protocol, rows, settings, rule)
        status = rows["status"].tolist()
        rows["seconds"] += (time.perf_counter() - started) / len(running)
        if any(status):
            yield [_finish(case, rows, i, protocol) for i, case in enumerate(running) if status[i]]
            running = [case for case, finished in zip(running, status, strict=True) if not finished]
            rows = {name: values[rows["status"] == RUNNING] for name, values in rows.items()}
        if running and time.perf_counter() - halfway_at > seconds_between_halfway:
            yield _copy_rows(running, rows)
            halfway_at = time.perf_counter()


def fill_batch(device: torch.device, n_tokens: int) -> int:
    """Return how many rows of ``n_tokens`` keep a device busy (benchmarks/floor.py has the measurements)."""
    n_at_once = GPU_TOKENS if device.type == "cuda" else CPU_TOKENS_PER_THREAD * torch.get_num_threads()
    return max(1, n_at_once // n_tokens)


def run_in_parts(compute: Callable, n_rows: int, *inputs: Tensor) -> tuple[list, int]:
    """Return what ``compute`` makes of ``n_rows`` rows of the inputs at a time, and how many at a time memory allowed.

    Rows do not interact, so where memory runs out they go in parts of half as many; InputError if even one is too much.
    """
    while True:
        try:
            starts = range(0, len(inputs[0]), n_rows)
            return [compute(*(rows[start : start + n_rows] for rows in inputs)) for start in starts], n_rows
        except RuntimeError as error:
            if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
                raise
            if n_rows == 1:
                raise InputError("one text does not fit in memory; use shorter lengths or a smaller model") from None
        n_rows //= 2  # out here, where the error holds the failed step's tensors no longer
        torch.cuda.empty_cache()  # what is too little for this process may be enough for another on the same GPU


def initial_vectors(lm: FrozenLM, case: Case) -> Float[Tensor, "n_mem d_embed"]:
    """Return the random start of a case: normal with the deviation of the embeddings, from its key alone."""
    seed = int.from_bytes(hashlib.sha256(case.key.encode()).digest()[:7], "big")
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(case.n_mem, lm.d_embed, generator=generator, dtype=torch.float64)
    precision = torch.float64 if lm.dtype == torch.float64 else torch.float32
    return (normal * lm.embedding_std).to(lm.device, precision)


def measure(
    lm: FrozenLM,
    protocol: Protocol,
    vectors: Float[Tensor, "case n_mem d_embed"] | None,
    ids: Int[Tensor, "case pos"],
) -> dict[str, Tensor]:
    """Return what the LM makes of texts with vectors in front, or alone (None); one number per case.

    ``loss`` carries the gradient; ``ce_nats`` is the same sum over targets in float64, ``n_correct`` counts
    teacher-forced argmax hits, ``first_error`` is the place of the first miss (-1 for none), ``margin`` is the smallest
    lead in logits of a target over the best other token.
    """
    inputs, positions = protocol.build_alone(lm, ids) if vectors is None else protocol.build(lm, vectors, ids)
    token_ce, hit, lead = lm.score(inputs, positions, protocol.targets(ids))
    return {
        "loss": token_ce.sum(dim=1),
        "ce_nats": token_ce.detach().double().sum(dim=1),
        "n_correct": hit.sum(dim=1),
        "all_correct": hit.all(dim=1),
        "first_error": torch.where(hit.all(dim=1), -1, (~hit).int().argmax(dim=1)),
        "margin": lead.amin(dim=1),
    }


def _measure_with_gradient(lm, protocol, vectors, ids):
    # The loss of a text is the mean over its targets; the sum over rows lets each row have its own gradient.
    vectors = vectors.requires_grad_()
    progress = measure(lm, protocol, vectors, ids)
    (gradient,) = torch.autograd.grad(progress["loss"].sum() / protocol.n_targets(ids.shape[1]), vectors)
    return {name: values.detach() for name, values in progress.items()} | {"gradient": gradient}


def _start(lm, case):
    if case.state:
        state = {"ids": case.ids} | case.state
        return {name: values.to(lm.device).unsqueeze(0) for name, values in state.items()}
    vectors = initial_vectors(lm, case).unsqueeze(0)
    one = torch.zeros(1, dtype=torch.float64, device=lm.device)
    return {
        "ids": case.ids.to(lm.device).unsqueeze(0),
        "vectors": vectors,
        "mean": torch.zeros_like(vectors),
        "square": torch.zeros_like(vectors),
        "n_steps": one.long(),
        "best_vectors": vectors.clone(),
        "best_step": one.long(),
        "best_correct": one.long() - 1,
        "best_margin": one - torch.inf,
        "best_ce": one + torch.inf,
        "min_ce": one + torch.inf,
        "status": one.long() + RUNNING,
        "seconds": one,
    }


def _copy_rows(running, rows):
    here = {name: values.cpu() for name, values in rows.items() if name != "ids"}
    return [Halfway(case, {name: values[i].clone() for name, values in here.items()}) for i, case in enumerate(running)]


def _round(vectors, storage):
    return (vectors if storage is None else vectors.to(storage).to(vectors.dtype)).detach()


def _append(rows, new):
    parts = [rows, *new] if rows else new
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if new else rows


def _record(rows, progress, vectors, settings, rule):
    # A better row has more targets right; with all of them right, a larger margin. A finished row is left alone.
    active = rows["status"] == RUNNING
    rows["n_steps"] += active
    margin = progress["margin"].double()
    more = active & (progress["n_correct"] > rows["best_correct"])
    better = more | (active & progress["all_correct"] & (margin > rows["best_margin"]))
    for name, value in (("vectors", vectors), ("correct", progress["n_correct"]), ("margin", margin)):
        shape = (-1,) + (1,) * (value.dim() - 1)
        rows[f"best_{name}"] = torch.where(better.view(shape), value, rows[f"best_{name}"])
    rows["best_ce"] = torch.where(better, progress["ce_nats"], rows["best_ce"])
    rows["best_step"] = torch.where(more, rows["n_steps"], rows["best_step"])
    rows["min_ce"] = torch.where(active, torch.fmin(rows["min_ce"], progress["ce_nats"]), rows["min_ce"])
    patience = rule.patience_steps or settings.max_steps
    for status, ends in (
        ("diverged", ~progress["ce_nats"].isfinite()),
        ("solved", rule.reached(progress)),
        ("patience", rows["n_steps"] - rows["best_step"] >= patience),
        ("budget", rows["n_steps"] >= settings.max_steps),
    ):
        rows["status"] = torch.where((rows["status"] == RUNNING) & ends, STATUSES.index(status), rows["status"])


def _send_back(lm, protocol, rows, settings, rule):
    # Autocast rounds logits; a row that has reached its goal only by that goes on, and forgets how good it was.
    (solved,) = (rows["status"] == SOLVED).nonzero(as_tuple=True)
    if len(solved):
        with torch.no_grad():
            progress = measure(lm.without_autocast(), protocol, rows["best_vectors"][solved], rows["ids"][solved])
        missed = solved[~rule.reached(progress)]
        rows["best_margin"][missed] = -torch.inf
        rows["status"][missed] = torch.where(rows["n_steps"][missed] < settings.max_steps, RUNNING, BUDGET)


def _finish(case, rows, index, protocol):
    return Crammed(
        case=case,
        vectors=rows["best_vectors"][index].cpu(),
        status=STATUSES[rows["status"][index]],
        n_steps=int(rows["n_steps"][index]),
        n_targets=protocol.n_targets(len(case.ids)),
        n_correct_mem=int(rows["best_correct"][index]),
        ce_mem_nats=_finite(rows["best_ce"][index]),
        ce_mem_min_nats=_finite(rows["min_ce"][index]),
        margin=float(rows["best_margin"][index]),
        wall_seconds=float(rows["seconds"][index]),
    )


def _finite(number):
    return float(number) if number.isfinite() else math.nan


def _move(rows, gradient, settings):
    # AdamW (Loshchilov and Hutter, algorithm 2) with bias corrections of each row's own age: torch's optimiser keeps
    # one step counter per tensor, which would be wrong for a row that came later.
    rows["mean"] = torch.lerp(gradient, rows["mean"], settings.beta1)
    rows["square"] = torch.lerp(gradient**2, rows["square"], settings.beta2)
    age = rows["n_steps"].to(gradient.dtype).view(-1, 1, 1)
    mean = rows["mean"] / (1 - settings.beta1**age)
    root = (rows["square"] / (1 - settings.beta2**age)).sqrt()
    rows["vectors"] = rows["vectors"] * (1 - settings.lr * settings.weight_decay) - settings.lr * mean / (
        root + settings.eps
    )
