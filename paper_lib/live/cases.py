"""From a sweep to its cases: checked before any work, known by their keys, without those that are stored."""

import dataclasses
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import CaseConfig, Sweep, hash_ids
from ..errors import InputError
from ..parts import name_part
from ..store import Store
from .finders import FINDERS
from .goals import GOALS
from .lm import FrozenLM
from .loss import LOSSES
from .more import BUDGET, Starts, continue_config, is_beginning, is_open
from .movers import MOVERS
from .parametrisations import PARAMETRISATIONS
from .protocols import Protocol, find_protocol
from .rows import RUNNING
from .sinks import choose_protocol
from .texts import draw_texts
from .tokens import TextSample, tokenize

GROUP = ["length", "n_mem", "protocol", "arm"]  # what tells the cases of one text apart, but for restarts


@dataclass(frozen=True)
class SweepCase:
    """A case of a sweep with all it takes to run it, and the optimiser's ``state`` where an earlier run left it."""

    config: CaseConfig
    sample: TextSample
    n_tokens: int  # that a step takes through the model, vectors included
    arm: str = ""  # of a sweep that compares settings
    state: dict[str, Tensor] | None = dataclasses.field(default=None, repr=False)
    start: Tensor | None = dataclasses.field(default=None, repr=False)  # vectors, in place of random ones
    replaces: str | None = None  # key of the case that it goes on from

    @property
    def key(self) -> str:
        return self.config.run_key

    @property
    def n_steps_done(self) -> int:
        """How many steps an earlier run has taken."""
        return int(self.state["n_steps"]) if self.state else 0

    @property
    def n_steps_left(self) -> int:
        """How many steps there are at most to take."""
        return self.config.optimiser.max_steps - self.n_steps_done


def list_cases(sweep: Sweep, lm: FrozenLM) -> list[SweepCase]:
    """Return every case of a sweep, shortest first, having checked that each can be run.

    Raises InputError, before any work, for a text that is too short, an unknown part, and whatever the protocol's
    ``check`` refuses, such as a length that with its vectors exceeds the model's context.
    """
    cases = [case for arm, part in sweep.by_arm.items() for case in _list_arm(part, arm, lm)]
    first = {}
    for case in cases:
        other = first.setdefault(case.key, case)
        if other is not case:
            raise InputError(f"arms {other.arm} and {case.arm} are the same; remove one of them")
    return cases


def _list_arm(sweep, arm, lm):
    texts = draw_texts(sweep.texts, sweep.n_texts, sweep.seed if sweep.text_seed is None else sweep.text_seed)
    cases, starts = [], Starts(sweep)
    for name in sweep.protocols:
        protocol = find_protocol(choose_protocol(name, lm))
        for length in sorted(sweep.lengths):
            for n_mem in sweep.n_mem:
                protocol.check(lm, length, n_mem)
            samples = [tokenize(text, lm.tokenizer, length, special_tokens=protocol.special_tokens) for text in texts]
            cases += [
                make_case(sweep, lm, protocol, n_mem, sample, restart, arm=arm, starts=starts)
                for n_mem in sweep.n_mem
                for sample in samples
                for restart in range(sweep.n_restarts)
            ]
    return cases


def make_case(
    sweep: Sweep,
    lm: FrozenLM,
    protocol: Protocol,
    n_mem: int,
    sample: TextSample,
    restart: int = 0,
    *,
    arm: str = "",
    starts: Starts | None = None,
) -> SweepCase:
    """Return the case of one text with the settings of a sweep; raise InputError for an unknown part."""
    there = sample.text_id, n_mem, len(sample.ids)
    init_from, start = starts.find(*there, protocol, lm) if starts else (None, None)
    config = CaseConfig(
        weights=lm.fingerprint,
        text_id=sample.text_id,
        ids_sha256=hash_ids(sample.ids),
        length=len(sample.ids),
        n_mem=n_mem,
        protocol=protocol.name,
        dtype=sweep.model.dtype,
        autocast=sweep.model.autocast,
        storage=sweep.storage,
        seed=sweep.seed,
        restart=restart,
        init_from=init_from,
        **_name_parts(sweep, protocol.name),
    )
    return SweepCase(config, sample, protocol.n_inputs(len(sample.ids), n_mem), arm, start=start)


def find_waiting(sweep: Sweep, lm: FrozenLM, store: Store) -> list[SweepCase]:
    """Return the cases of a sweep that the store does not have, shortest first, each with the state it was left in.

    A case that was stored with fewer evaluations and did not end before them goes on from there. Raises what
    ``list_cases`` does, and InputError where the store has a text, length, n_mem, protocol, arm and restart of the
    sweep with other settings: frozen under one name, both would count as one experiment.
    """
    cases = list_cases(sweep, lm)
    begun, waiting = find_begun(cases, store), []
    for case in cases:
        if case.key in store:
            continue
        if case.key not in begun:
            waiting.append(_resume(case, store))
        elif is_open(begun[case.key][-1], case.config):
            waiting.append(_go_on(case, begun[case.key][-1], store))
    return waiting


def find_begun(cases: list[SweepCase], store: Store) -> dict[str, list[dict]]:
    """Return, by the key of a case, stored records of its beginning (``more.is_beginning``), shortest search first."""
    places = {(case.sample.text_id, *_group_of(case), case.config.restart): case for case in cases}
    begun = {}
    for key, *place in store.index()[["key", "text_id", *GROUP, "restart"]].itertuples(index=False):
        case = places.get(tuple(place))
        if case is None or case.key == key:
            continue
        record, _ = store.get(key)
        if not is_beginning(record, case.config):
            raise InputError(
                f"{store.folder} holds cases with other settings ({_describe_changes(record, case)}); "
                "give the sweep another name, or delete that folder"
            )
        begun[case.key] = sorted([*begun.get(case.key, []), record], key=lambda r: (r[BUDGET], r["n_steps"]))
    return begun


def group_cases(cases: list[SweepCase]) -> dict[tuple[int, int, str, str], list[SweepCase]]:
    """Return the cases by GROUP, in the order they are given."""
    groups = defaultdict(list)
    for case in cases:
        groups[_group_of(case)].append(case)
    return dict(groups)


def group_for_batches(cases: list[SweepCase]) -> list[list[SweepCase]]:
    """Return the cases that can share batches, in the order they are given: all is the same, but for most protocols
    their lengths.

    So the last texts of one length do not run alone: the first of the next take the places of those that are done.
    """
    groups = defaultdict(list)
    for case in cases:
        length, *rest = _group_of(case)
        groups[(0 if find_protocol(case.config.protocol).extends else length, *rest)].append(case)
    return list(groups.values())


def _group_of(case):
    return case.config.length, case.config.n_mem, case.config.protocol, case.arm


def _describe_changes(record, case):
    now = case.config.columns
    changes = [f"{name} {record.get(name)!r}, now {now[name]!r}" for name in now if record.get(name) != now[name]]
    return "; ".join(changes) or "of an earlier version"


def _resume(case, store):
    state = store.get_halfway(case.key)
    return case if state is None else dataclasses.replace(case, state=_to_tensors(state))


def _go_on(case, record, store):
    # From the last state, under a key that says so; without that state, from the beginning.
    longer = dataclasses.replace(case, config=continue_config(record, case.config), replaces=record["key"])
    state = store.get_halfway(longer.key) or store.get_final(record["key"])
    if state is None:
        return dataclasses.replace(_resume(case, store), replaces=record["key"])
    return dataclasses.replace(longer, state=_to_tensors(state) | {"ended": torch.tensor(RUNNING)})


def _to_tensors(state):
    return {name: torch.as_tensor(values) for name, values in state.items()}


def _name_parts(sweep, protocol):
    # Canonical names, so that one part has one key however it was written.
    return {
        "optimiser": sweep.optimiser.model_copy(update={"mover": name_part("mover", sweep.optimiser.mover, MOVERS)}),
        "stopping": name_part("goal", sweep.stopping or (protocol if protocol in GOALS else "strict"), GOALS),
        "loss": name_part("loss", sweep.loss, LOSSES),
        "parametrisation": name_part("parametrisation", sweep.parametrisation, PARAMETRISATIONS),
        "finder": name_part("finder", sweep.finder, FINDERS),
    }
