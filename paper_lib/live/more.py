"""More evaluations for cases that have used theirs up, and starts from vectors that were found before."""

import torch
from torch import Tensor

from ..config import OPTIMISER_PREFIX, CaseConfig, Sweep
from ..errors import InputError
from ..frozen import load_runs, load_vectors
from ..parts import find_part
from ..store import Store
from .lm import FrozenLM
from .movers import MOVERS
from .protocols import Protocol, find_protocol

BUDGET = f"{OPTIMISER_PREFIX}max_steps"


def is_beginning(record: dict, config: CaseConfig) -> bool:
    """Return whether a stored case is one of other settings, with at most as many evaluations but otherwise the same.

    Not where moves depend on the budget, as a learning rate that falls over it does: then the beginning is another one.
    """
    there, here = CaseConfig.from_record(record).columns, config.columns
    differing = {name for name in here if there[name] != here[name]}
    mover = find_part("mover", config.optimiser.mover, MOVERS)
    return differing <= {BUDGET, "continues"} and there[BUDGET] <= here[BUDGET] and not mover.counts_on_budget


def is_open(record: dict, config: CaseConfig) -> bool:
    """Return whether a beginning used up its evaluations, and ``config`` gives more."""
    return record["ended"] == "budget" and _has_less(record, config)


def continue_config(record: dict, config: CaseConfig) -> CaseConfig:
    """Return the settings of a case that goes on from a beginning: its key says so, since its start is another one."""
    return config.model_copy(update={"continues": record["continues"] or record["key"]})


def carry_over(cases: list, store: Store, begun: dict[str, list[dict]]) -> None:
    """Store each case that ended before its budget did as what it also is with more; remove what has been gone on from.

    ``cases`` are those of the sweep (cases.SweepCase), ``begun`` their beginnings by key.
    """
    for case in cases:
        replaced = list(begun.get(case.key, []))
        last = replaced.pop() if replaced and case.key not in store else None
        for record in replaced:
            store.discard(record["key"])
        if last and last["ended"] != "budget" and _has_less(last, case.config):
            config, (_, vectors) = continue_config(last, case.config), store.get(last["key"])
            store.put(last | config.columns | {"key": config.run_key}, vectors)
            store.discard(last["key"])


def _has_less(record, config):
    return record[BUDGET] < config.optimiser.max_steps


class Starts:
    """The vectors of a sweep, run or frozen, for the cases of another one to start from."""

    def __init__(self, sweep: Sweep):
        self.name, self._found, self._shared = sweep.init_from, {}, []
        if not self.name:
            return
        store = Store(self.name)
        keys = list(store)
        if keys:
            there = [(record, vectors) for record, vectors in map(store.get, keys)]
        else:
            runs = load_runs(name=self.name).set_index("key", drop=False)
            if runs.empty:
                raise InputError(f"init_from {self.name}: no such sweep has been run or frozen; run it first")
            there = [(runs.loc[key].to_dict(), vectors) for key, vectors in load_vectors(self.name).items()]
        for record, vectors in sorted(there, key=lambda case: (case[0]["length"], case[0]["key"])):
            self._found.setdefault((record["text_id"], record["n_mem"]), []).append((record, vectors))
            if record.get("finder") == "shared_last":
                self._shared.append((record, vectors))

    def find(
        self, text_id: str, n_mem: int, length: int, protocol: Protocol, lm: FrozenLM
    ) -> tuple[str | None, Tensor | None]:
        """Return key and vectors of a text's longest case that is not longer; None, None of a sweep without any.

        Vectors of another protocol become what ``protocol`` makes of them. A sweep in which a vector is shared by all
        texts has vectors for every text: those of its first one. Raises InputError where a text has none, or vectors of
        another width.
        """
        if not self.name:
            return None, None
        there = [case for case in self._found.get((text_id, n_mem), []) if case[0]["length"] <= length]
        if not there:
            shared = [case for case in self._shared if case[0]["n_mem"] == n_mem and case[0]["length"] <= length]
            there = sorted(shared, key=lambda case: (-case[0]["length"], case[0]["key"]))[:1]
        if not there:
            raise InputError(f"init_from {self.name}: it has no vectors of text {text_id} at length {length} or below")
        record, found = there[-1]
        vectors, shape = torch.from_numpy(found).float(), protocol.vector_shape(lm, n_mem)
        if vectors.shape[-1] == lm.d_embed and type(find_protocol(record["protocol"])) is not type(protocol):
            vectors = protocol.adopt(lm, vectors)
        if vectors.shape != shape:
            raise InputError(
                f"init_from {self.name}: its vectors are {tuple(vectors.shape)}, this model's {shape}; "
                "name another sweep"
            )
        return record["key"], vectors
