"""From a sweep to its cases: checked before any work, known by their keys, without those that are stored."""

import dataclasses
from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import CaseConfig, Sweep, hash_ids
from ..errors import InputError
from ..store import Store
from .finders import FINDERS
from .goals import GOALS
from .lm import FrozenLM
from .loss import LOSSES
from .movers import MOVERS
from .parametrisations import PARAMETRISATIONS
from .parts import name_part
from .protocols import Protocol, find_protocol
from .sinks import choose_protocol
from .texts import draw_texts
from .tokens import TextSample, tokenize


@dataclass(frozen=True)
class SweepCase:
    """A case of a sweep with all it takes to run it, and the optimiser's ``state`` where an earlier run left it."""

    config: CaseConfig
    sample: TextSample
    n_tokens: int  # that a step takes through the model, vectors included
    state: dict[str, Tensor] | None = dataclasses.field(default=None, repr=False)

    @property
    def key(self) -> str:
        return self.config.run_key

    @property
    def n_steps_done(self) -> int:
        """How many steps an earlier run has taken."""
        return int(self.state["n_steps"]) if self.state else 0


def list_cases(sweep: Sweep, lm: FrozenLM) -> list[SweepCase]:
    """Return every case of a sweep, shortest first, having checked that each can be run.

    Raises InputError, before any work, for a text that is too short, an unknown part, and whatever the protocol's
    ``check`` refuses, such as a length that with its vectors exceeds the model's context.
    """
    texts = draw_texts(sweep.texts, sweep.n_texts, sweep.seed if sweep.text_seed is None else sweep.text_seed)
    cases = []
    for name in sweep.protocols:
        protocol = find_protocol(choose_protocol(name, lm))
        for length in sorted(sweep.lengths):
            for n_mem in sweep.n_mem:
                protocol.check(lm, length, n_mem)
            samples = [tokenize(text, lm.tokenizer, length, special_tokens=protocol.special_tokens) for text in texts]
            cases += [
                make_case(sweep, lm, protocol, n_mem, sample, restart)
                for n_mem in sweep.n_mem
                for sample in samples
                for restart in range(sweep.n_restarts)
            ]
    return cases


def make_case(
    sweep: Sweep, lm: FrozenLM, protocol: Protocol, n_mem: int, sample: TextSample, restart: int = 0
) -> SweepCase:
    """Return the case of one text with the settings of a sweep; raise InputError for an unknown part."""
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
        **_name_parts(sweep, protocol.name),
    )
    return SweepCase(config, sample, protocol.n_inputs(len(sample.ids), n_mem))


def find_waiting(sweep: Sweep, lm: FrozenLM, store: Store) -> list[SweepCase]:
    """Return the cases of a sweep that the store does not have, shortest first, each with the state it was left in.

    Raises what ``list_cases`` does, and InputError where the store has a text, length, n_mem, protocol and restart of
    the sweep with other settings: frozen under one name, both would count as one experiment.
    """
    cases = list_cases(sweep, lm)
    places = {(case.sample.text_id, *_group_of(case), case.config.restart): case for case in cases}
    stored = store.index()
    for key, *place in stored[["key", "text_id", "length", "n_mem", "protocol", "restart"]].itertuples(index=False):
        case = places.get(tuple(place))
        if case and case.key != key:
            raise InputError(
                f"{store.folder} holds cases with other settings ({_describe_changes(store.get(key)[0], case)}); "
                "give the sweep another name, or delete that folder"
            )
    keys = set(stored["key"])
    return [_resume(case, store) for case in cases if case.key not in keys]


def group_cases(cases: list[SweepCase]) -> dict[tuple[int, int, str], list[SweepCase]]:
    """Return the cases that can share a batch, by (length, n_mem, protocol), in the order they are given."""
    groups = defaultdict(list)
    for case in cases:
        groups[_group_of(case)].append(case)
    return dict(groups)


def _group_of(case):
    return case.config.length, case.config.n_mem, case.config.protocol


def _describe_changes(record, case):
    now = case.config.columns
    changes = [f"{name} {record.get(name)!r}, now {now[name]!r}" for name in now if record.get(name) != now[name]]
    return "; ".join(changes) or "of an earlier version"


def _resume(case, store):
    state = store.get_halfway(case.key)
    if state is None:
        return case
    return dataclasses.replace(case, state={name: torch.from_numpy(values) for name, values in state.items()})


def _name_parts(sweep, protocol):
    # Canonical names, so that one part has one key however it was written.
    return {
        "optimiser": sweep.optimiser.model_copy(update={"mover": name_part("mover", sweep.optimiser.mover, MOVERS)}),
        "stopping": name_part("goal", sweep.stopping or (protocol if protocol in GOALS else "strict"), GOALS),
        "loss": name_part("loss", sweep.loss, LOSSES),
        "parametrisation": name_part("parametrisation", sweep.parametrisation, PARAMETRISATIONS),
        "finder": name_part("finder", sweep.finder, FINDERS),
    }
