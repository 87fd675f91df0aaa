"""Running a sweep, from its settings to stored records. Killed at any moment, it goes on where it was."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import platform
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..config import CaseConfig, Sweep, hash_ids
from ..errors import InputError
from ..frozen import load_runs, load_vectors, select_kept
from ..paths import DATA
from ..store import Store
from .lm import FrozenLM
from .load import load_lm, load_same
from .optimize import (
    SAFE_MARGIN,
    AdamW,
    Case,
    Crammed,
    Halfway,
    find_stopping_rule,
    measure,
    optimize,
    run_in_parts,
)
from .protocols import Protocol, find_protocol
from .texts import TextSample, draw_texts, tokenize

PACKAGES = ("torch", "transformers", "tokenizers")
FULL_PRECISION = (torch.float32, torch.float64)
STEPS_BETWEEN_CHECKS = 10  # on a GPU, which runs ahead of Python in between
SECONDS_BETWEEN_HALFWAY = 60  # what a killed run has to do again of a long case


@dataclass(frozen=True)
class PlannedCase:
    """A case with all it takes to run it, and the optimiser's ``state`` where an earlier run left it."""

    config: CaseConfig
    sample: TextSample
    state: dict[str, Tensor] | None = dataclasses.field(default=None, repr=False)

    @property
    def key(self) -> str:
        return self.config.run_key

    @property
    def n_tokens(self) -> int:
        """How many tokens a step takes through the model, vectors included."""
        return self.config.length - 1 + self.config.n_mem

    @property
    def n_steps_done(self) -> int:
        """How many steps an earlier run has taken."""
        return int(self.state["n_steps"]) if self.state else 0


def plan_cases(sweep: Sweep, lm: FrozenLM) -> list[PlannedCase]:
    """Return every case of a sweep, shortest first, having checked that each can be run.

    Raises InputError, before any work, for a text that is too short, a length that with its vectors exceeds the model's
    context, a length without a target, or a protocol that the model cannot follow.
    """
    texts = draw_texts(sweep.texts, sweep.n_texts, sweep.seed)
    planned = []
    for name in sweep.protocols:
        protocol, rule = find_protocol(name), find_stopping_rule(sweep.stopping or name)
        protocol.start_id(lm)
        for length in sorted(sweep.lengths):
            if protocol.n_targets(length) < 1:
                raise InputError(f"length {length} leaves protocol {name} nothing to predict; use {length + 1} or more")
            for n_mem in sweep.n_mem:
                if length + n_mem > lm.context_tokens:
                    raise InputError(
                        f"length {length} with n_mem {n_mem} exceeds the model's context of {lm.context_tokens} "
                        f"tokens; use lengths up to {lm.context_tokens - n_mem}"
                    )
            samples = [tokenize(text, lm.tokenizer, length, special_tokens=protocol.special_tokens) for text in texts]
            for n_mem in sweep.n_mem:
                planned += [_plan_case(sweep, lm, protocol, rule, n_mem, sample) for sample in samples]
    return planned


def find_waiting(sweep: Sweep, lm: FrozenLM, store: Store) -> list[PlannedCase]:
    """Return the cases of a sweep that the store does not have, shortest first, each with the state it was left in.

    Raises what ``plan_cases`` does, and InputError where the store has a text, length, n_mem and protocol of the sweep
    with other settings: frozen under one name, both would count as one experiment.
    """
    planned = plan_cases(sweep, lm)
    cells = {(case.sample.text_id, *_group_of(case.config)): case for case in planned}
    stored = store.index()
    for key, *cell in stored[["key", "text_id", "length", "n_mem", "protocol"]].itertuples(index=False):
        case = cells.get(tuple(cell))
        if case and case.key != key:
            before, now = store.get(key)[0], case.config.columns
            changes = [
                f"{name} {before.get(name)!r}, now {now[name]!r}" for name in now if before.get(name) != now[name]
            ]
            raise InputError(
                f"{store.folder} holds cases with other settings ({'; '.join(changes) or 'of an earlier version'}); "
                "give the sweep another name, or delete that folder"
            )
    keys = set(stored["key"])
    return [_resume(case, store) for case in planned if case.key not in keys]


def run_sweep(
    sweep: Sweep,
    store: Store,
    *,
    device: str = "cpu",
    run: Callable[..., Iterator[tuple[dict, np.ndarray] | Halfway]] | None = None,
    on_plan: Callable[[list[PlannedCase]], None] = lambda cases: None,
    on_step: Callable[[int], None] = lambda token_steps: None,
    on_case: Callable[[dict], None] = lambda record: None,
) -> int:
    """Run the cases of a sweep that the store does not have; return how many that were.

    ``run`` takes what ``run_cases`` takes, which it is by default. ``on_plan`` is told which cases there are,
    ``on_step`` how many token-steps have just been taken (tokens of all rows, vectors included), ``on_case`` each
    stored record.
    """
    lm = load_lm(**sweep.model.model_dump(), device=device)
    waiting = find_waiting(sweep, lm, store)
    on_plan(waiting)
    for result in (run or run_cases)(sweep, lm, waiting, on_step):
        if isinstance(result, Halfway):
            store.put_halfway(result.case.key, {name: values.numpy() for name, values in result.state.items()})
            continue
        record, vectors = result
        store.put(record, vectors)
        on_case(record)
    return len(waiting)


def run_cases(
    sweep: Sweep, lm: FrozenLM, cases: list[PlannedCase], on_step: Callable[[int], None] = lambda token_steps: None
) -> Iterator[tuple[dict, np.ndarray] | Halfway]:
    """Cram the texts of ``cases`` in this process; yield record and vectors of each as soon as it is finished.

    Now and then those that are not finished are yielded as ``Halfway``, to go on from when this process is killed.
    """
    for group in group_cases(cases).values():
        yield from _run_group(sweep, lm, group, on_step)


def group_cases(planned: list[PlannedCase]) -> dict[tuple[int, int, str], list[PlannedCase]]:
    """Return the cases that can share a batch, by (length, n_mem, protocol), in the order they are given."""
    groups = defaultdict(list)
    for case in planned:
        groups[_group_of(case.config)].append(case)
    return dict(groups)


def climb_ladder(
    lm: FrozenLM, protocol: Protocol, vectors: Float[Tensor, "case n_mem d_embed"], ids: Int[Tensor, "case pos"]
) -> list[dict]:
    """Return how exact each vector is: teacher forcing, free decoding with full forwards and with the cache, margin.

    Free decoding is tried only where teacher forcing is exact, without which it cannot be. ``exact`` asks for all of
    them and for a margin of 1e-3 in logits, computed in fp32 or better: autocast is off here, and of a model with
    weights of lower precision nothing is ever called exact.
    """
    lm, length = lm.without_autocast(), ids.shape[1]
    vectors, ids = vectors.to(lm.device), ids.to(lm.device)
    with torch.no_grad():
        measured = {name: values.tolist() for name, values in measure(lm, protocol, vectors, ids).items()}
    tf_exact = measured["all_correct"]
    tried = [row for row, right in enumerate(tf_exact) if right]
    free = {True: [False] * len(ids), False: [False] * len(ids)}
    for cached in free if tried else ():
        texts = protocol.decode(lm, vectors[tried], ids[tried, : protocol.n_given], length, cached=cached)
        for row, same in zip(tried, (texts == ids[tried]).all(dim=1).tolist(), strict=True):
            free[cached][row] = same
    return [
        {
            "tf_accuracy": measured["n_correct"][row] / protocol.n_targets(length),
            "tf_exact": tf_exact[row],
            "greedy_exact_full": free[False][row],
            "greedy_exact_cached": free[True][row],
            "first_error_position": None if tf_exact[row] else measured["first_error"][row] + protocol.n_given,
            "min_logit_margin": margin,
            "exact": free[False][row] and free[True][row] and margin >= SAFE_MARGIN and lm.dtype in FULL_PRECISION,
            "ladder_device": lm.device.type,
        }
        for row, margin in enumerate(measured["margin"])
    ]


def decode_text(lm: FrozenLM, record: dict, vectors: np.ndarray) -> str:
    """Return the text that a stored vector decodes to, freely, from what its record says decoding is given."""
    return lm.tokenizer.decode(_decode_ids(lm, record, vectors), skip_special_tokens=True)


def prove_on_cpu(store: Store, report: Callable[[str], None] = print) -> None:
    """Measure again, on this CPU, every stored case that was found exact elsewhere, and correct its record.

    The text need not be at hand: the vectors decode to it, or, where they do not here, the case is exact no more.
    """
    load = functools.cache(load_lm)
    for key in store:
        record, vectors = store.get(key)
        if not record["exact"] or record["ladder_device"] == "cpu":
            continue
        lm = load_same(record, load)
        ids = _decode_ids(lm, record, vectors)
        if hash_ids(ids) == record["ids_sha256"]:
            inputs = torch.from_numpy(vectors).float().unsqueeze(0)
            record |= climb_ladder(lm, find_protocol(record["protocol"]), inputs, ids.unsqueeze(0))[0]
        else:  # without the text the other rungs stay as they were measured there
            record["exact"] = False
        if not record["exact"]:
            record["status"] = "solved"
            report(f"{key}: exact on {record['device']}, not on this CPU")
        store.put(record, vectors)


def check_vectors(data: Path = DATA, report: Callable[[str], None] = print) -> list[str]:
    """Decode every frozen vector and compare the text's hash with its record's; return one line per disagreement.

    The vectors of a sweep are those of each text's longest exact length; all of them must be there, and no others.
    """
    problems, cases, load = [], load_runs(data), functools.cache(load_lm)
    for sweep, group in cases.groupby("sweep") if len(cases) else ():
        vectors, records = load_vectors(sweep, data), group.set_index("key")
        place, wrong = f"data/vectors/{sweep}.safetensors", []
        if set(vectors) != set(select_kept(group)["key"]):
            wrong.append(f"{place} does not hold the vectors that its records ask for")
        for key in sorted(set(vectors) & set(records.index)):
            record = records.loc[key].to_dict() | {"key": key}
            text = decode_text(load_same(record, load), record, vectors[key])
            if hashlib.sha256(text.encode()).hexdigest() != record["text_sha256"]:
                wrong.append(f"{place}: {key} does not decode to its text")
        report(f"vectors: {sweep}: {len(vectors)} decoded, {len(wrong)} problems")
        problems += wrong
    return problems


def _decode_ids(lm, record, vectors):
    given = torch.tensor([list(record["given_ids"])], dtype=torch.long, device=lm.device)
    inputs = torch.from_numpy(vectors).unsqueeze(0).to(lm.device)
    return find_protocol(record["protocol"]).decode(lm, inputs, given, int(record["length"]), cached=True)[0]


def _group_of(config):
    return config.length, config.n_mem, config.protocol


def _resume(case, store):
    state = store.get_halfway(case.key)
    return (
        case if state is None else dataclasses.replace(case, state={k: torch.from_numpy(v) for k, v in state.items()})
    )


def _plan_case(sweep, lm, protocol, rule, n_mem, sample):
    config = CaseConfig(
        weights=lm.fingerprint,
        text_id=sample.text_id,
        ids_sha256=hash_ids(sample.ids),
        length=len(sample.ids),
        n_mem=n_mem,
        protocol=protocol.name,
        stopping=rule.name,
        optimiser=sweep.optimiser,
        dtype=sweep.model.dtype,
        autocast=sweep.model.autocast,
        storage=sweep.storage,
        seed=sweep.seed,
    )
    return PlannedCase(config, sample)


def _run_group(sweep, lm, group, on_step) -> Iterator[tuple[dict, np.ndarray] | Halfway]:
    # Cases of one group, or of a part of it, as records and vectors, as soon as they are finished.
    by_key, config = {planned.key: planned for planned in group}, group[0].config
    protocol, rule = find_protocol(config.protocol), find_stopping_rule(config.stopping)
    cases = [
        Case(planned.key, torch.tensor(planned.sample.ids), planned.config.n_mem, planned.state) for planned in group
    ]
    storage, n_tokens = getattr(torch, config.storage), group[0].n_tokens
    finished = optimize(
        lm,
        protocol,
        cases,
        AdamW(**config.optimiser.model_dump()),
        rule,
        batch_size=sweep.batch_size,
        storage=storage,
        check_every=1 if lm.device.type == "cpu" else STEPS_BETWEEN_CHECKS,
        seconds_between_halfway=SECONDS_BETWEEN_HALFWAY,
        on_step=lambda progress: on_step(len(progress["loss"]) * n_tokens),
    )
    for crammed in finished:
        if isinstance(crammed[0], Halfway):
            yield from (halfway for halfway in crammed)  # Ray sends into generators, which a list's iterator is not
            continue
        planned = [by_key[result.case.key] for result in crammed]
        for record, result in zip(_make_records(sweep, lm, protocol, planned, crammed), crammed, strict=True):
            yield record, result.vectors.to(storage).numpy()


def _make_records(sweep, lm, protocol, planned: list[PlannedCase], crammed: list[Crammed]) -> list[dict]:
    # Those that finished together are measured together: alone, then with their vectors on every rung of the ladder.
    vectors = torch.stack([result.vectors for result in crammed])
    ids = torch.stack([result.case.ids for result in crammed])

    def measure_finally(vectors, ids):
        with torch.no_grad():
            alone = measure(lm.without_autocast(), protocol, None, ids.to(lm.device))
        baseline = zip(alone["n_correct"].tolist(), alone["ce_nats"].tolist(), strict=True)
        return list(zip(baseline, climb_ladder(lm, protocol, vectors, ids), strict=True))

    parts, _ = run_in_parts(measure_finally, len(ids), vectors, ids)
    measured = itertools.chain.from_iterable(parts)
    return [
        _make_record(sweep, lm, protocol, case, result, *numbers)
        for case, result, numbers in zip(planned, crammed, measured, strict=True)
    ]


def _make_record(sweep, lm, protocol, planned, crammed, baseline, ladder) -> dict:
    config, sample = planned.config, planned.sample
    n_correct_lm, ce_lm_nats = baseline
    return {
        "key": planned.key,
        "model": sweep.model.name,
        "revision": lm.commit,
        "d_embed": lm.d_embed,
        "vocab_size": lm.vocab_size,
        "n_parameters": lm.n_parameters,
        "source": sweep.texts.label,
        "cluster_id": sample.cluster_id,
        "text_sha256": sample.sha256,
        "text_bytes": sample.text_bytes,
        **config.columns,
        "status": "exact" if ladder["exact"] else crammed.status,
        "n_steps": crammed.n_steps,
        "n_targets": crammed.n_targets,
        "n_correct_lm": n_correct_lm,
        "n_correct_mem": crammed.n_correct_mem,
        "ce_lm_nats": ce_lm_nats,
        "ce_mem_nats": crammed.ce_mem_nats,
        "ce_mem_min_nats": crammed.ce_mem_min_nats,
        "solved": crammed.n_correct_mem / crammed.n_targets >= 0.99,
        **ladder,
        "given_ids": list(sample.ids[: protocol.n_given]),
        "side_information_bits": protocol.side_information_bits(lm, config.length),
        "start_id": protocol.start_id(lm),
        "vector_bytes": lm.d_embed * getattr(torch, config.storage).itemsize,
        "wall_seconds": crammed.wall_seconds,
        "device": _device_name(lm.device),
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in PACKAGES},
    }


def _device_name(device):
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
