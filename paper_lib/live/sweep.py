"""Running a sweep, from its settings to stored records. Killed at any moment, it goes on where it was."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch

from ..config import Sweep
from ..parts import find_part
from ..store import Store
from .cases import SweepCase, find_begun, find_waiting, group_for_batches, list_cases
from .finders import FINDERS
from .lm import FrozenLM
from .load import load_lm
from .more import carry_over
from .protocols import find_protocol
from .records import make_records
from .rows import Case, Unfinished, as_array, make_recipe

STEPS_BETWEEN_CHECKS = 10  # on a GPU, which runs ahead of Python in between
SAVE_EVERY_SECONDS = 60.0  # what a killed run has to do again of a long case


def run_sweep(
    sweep: Sweep,
    store: Store,
    *,
    device: str = "cpu",
    run: Callable[..., Iterator[tuple[dict, np.ndarray] | Unfinished]] | None = None,
    save_every_seconds: float = SAVE_EVERY_SECONDS,
    on_start: Callable[[list[SweepCase]], None] = lambda cases: None,
    on_step: Callable[[int], None] = lambda token_steps: None,
    on_case: Callable[[dict], None] = lambda record: None,
) -> int:
    """Run the cases of a sweep that are not in the store; return how many there were.

    ``run`` has the signature of ``run_cases``, its default. ``on_start`` receives the cases to run, ``on_step`` the
    number of token-steps just taken (tokens of all rows, vectors included), ``on_case`` each stored record. The state
    of unfinished cases is stored every ``save_every_seconds``.
    """
    store.prepare()
    lm = load_lm(**sweep.model.model_dump(), device=device)
    cases = list_cases(sweep, lm)
    carry_over(cases, store, find_begun(cases, store))
    waiting = find_waiting(sweep, lm, store)
    replaced = {case.key: case.replaces for case in waiting}
    on_start(waiting)
    for result in (run or run_cases)(sweep, lm, waiting, on_step, save_every_seconds=save_every_seconds):
        if isinstance(result, Unfinished):
            store.put_halfway(result.case.key, {name: values.numpy() for name, values in result.state.items()})
            continue
        record, vectors = result
        store.put(record, vectors)
        if replaced.get(record["key"]):
            store.discard(replaced[record["key"]])
        on_case(record)
    return len(waiting)


def run_cases(
    sweep: Sweep,
    lm: FrozenLM,
    cases: list[SweepCase],
    on_step: Callable[[int], None] = lambda token_steps: None,
    *,
    save_every_seconds: float = SAVE_EVERY_SECONDS,
) -> Iterator[tuple[dict, np.ndarray] | Unfinished]:
    """Find the vectors of ``cases`` in this process; yield record and vectors of each as soon as it is finished.

    Every ``save_every_seconds`` those that are not finished are yielded too, to go on from when this process is killed.
    """
    for group in group_for_batches(cases):
        yield from _run_group(sweep, lm, group, on_step, save_every_seconds)


def _count_tokens(now, n_tokens):
    # Of a step, without padding; a finder of one's own may not say what nobody asked for.
    return len(now["loss"]) * n_tokens - int(now.get("n_unasked", torch.zeros(1)).sum())


def _make_runnable(case):
    return Case(case.key, torch.tensor(case.sample.ids), case.config.n_mem, case.state, case.start)


def _run_group(sweep, lm, group, on_step, save_every_seconds) -> Iterator[tuple[dict, np.ndarray] | Unfinished]:
    # Cases of one group, or of a part of it, as records and vectors, as soon as they are finished.
    by_key, config = {case.key: case for case in group}, group[0].config
    n_tokens = max(case.n_tokens for case in group)
    protocol, recipe = find_protocol(config.protocol), make_recipe(config)
    batches = find_part("finder", config.finder, FINDERS).find(
        lm,
        protocol,
        [_make_runnable(case) for case in group],
        recipe,
        batch_size=sweep.batch_size,
        check_every=1 if lm.device.type == "cpu" else STEPS_BETWEEN_CHECKS,
        save_every_seconds=save_every_seconds,
        on_step=lambda now: on_step(_count_tokens(now, n_tokens)),
    )
    for batch in batches:
        if isinstance(batch[0], Unfinished):
            yield from (unfinished for unfinished in batch)  # Ray sends into generators; a list's iterator is not one
            continue
        for _, results in itertools.groupby(batch, key=lambda result: len(result.case.ids)):
            same = list(results)
            records = make_records(sweep, lm, protocol, [by_key[result.case.key] for result in same], same)
            for record, result in zip(records, same, strict=True):
                if result.state is not None:
                    yield Unfinished(result.case, result.state)  # kept beside the record, for more evaluations
                yield record, as_array(result.vectors, recipe.storage)
