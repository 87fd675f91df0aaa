"""Running the cases of a sweep on Ray: a cluster that is there, or this machine alone.

Each worker takes its share of every group of cases and sends each record as soon as it has it, and now and then the
state of those that are not finished; this process stores them. When a worker dies, another goes on from what it sent.
"""

import contextlib
import dataclasses
import functools
import os
import socket
from collections.abc import Callable, Iterator

import numpy as np
import ray
import torch
from ray.exceptions import RayError, RayTaskError

from ..config import Sweep
from ..errors import InputError
from ..parts import find_part
from .cases import SweepCase
from .finders import FINDERS
from .lm import FrozenLM
from .load import load_lm
from .rows import Unfinished
from .sweep import SAVE_EVERY_SECONDS, run_cases

MAX_FAILURES = 3  # of a share in a row, without anything sent in between


def run_on_ray(
    sweep: Sweep,
    lm: FrozenLM,
    cases: list[SweepCase],
    on_step: Callable[[int], None] = lambda token_steps: None,
    *,
    save_every_seconds: float = SAVE_EVERY_SECONDS,
    address: str | None = None,
    num_cpus: float = 1,
    num_gpus: float | None = None,
) -> Iterator[tuple[dict, np.ndarray] | Unfinished]:
    """Cram the texts of ``cases`` on a Ray cluster; yield what ``run_cases`` yields.

    ``address`` is that of a cluster ("auto", "host:port"); without one, Ray is started on this machine. Each task takes
    ``num_cpus`` and ``num_gpus`` (by default 1 where the cluster has any, fractions share one); there are as many tasks
    at a time as the cluster has room for. Raises InputError where it has none, where a worker's weights are not those
    of ``lm``, and for a share that has killed its worker three times in a row.
    """
    with _connect(address):
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        num_gpus = int(any(node.get("GPU") for node in nodes)) if num_gpus is None else num_gpus
        n_workers = _count_workers(nodes, num_cpus, num_gpus)
        # Ray's own retries would begin a share again, and its records come in another order then; see _collect.
        task = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=0)(_run_share)
        start = functools.partial(task.remote, sweep, lm.fingerprint, num_gpus, save_every_seconds)
        yield from _collect(start, _divide(cases, n_workers), on_step)


@contextlib.contextmanager
def _connect(address):
    # A cluster for the time of a run; a connection that was there before is left as it was.
    if ray.is_initialized():
        yield
        return
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"} | os.environ
    options = {"address": address} if address else {"address": "local", "include_dashboard": False}
    try:
        host, _, port = (address or "").rpartition(":")
        if host and port.isdigit():  # Ray itself would knock for a quarter of an hour
            socket.create_connection((host.removeprefix("ray://"), int(port)), timeout=10).close()
        ray.init(log_to_driver=False, logging_level="error", **options)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"no Ray cluster at {address}: {reason}; start one with `ray start --head`") from None
    try:
        yield
    finally:
        ray.shutdown()


def _count_workers(nodes, num_cpus, num_gpus):
    # A task runs on one machine, so what counts is the room on each.
    if num_gpus > 1:
        raise InputError(f"a task asks for {num_gpus:g} GPU and can use one; ask for 1 or less")
    asked = {name: number for name, number in (("CPU", num_cpus), ("GPU", num_gpus)) if number}
    if not asked:
        raise InputError("a task asks for no CPU and no GPU; ask for one of them")
    n_workers = sum(int(min(node.get(name, 0) // number for name, number in asked.items())) for node in nodes)
    if not n_workers:
        wanted = " and ".join(f"{number:g} {name}" for name, number in asked.items())
        most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in asked}
        there = " and ".join(f"{number:g} {name}" for name, number in most.items())
        raise InputError(f"a task asks for {wanted}, no machine of the cluster has more than {there}; ask for less")
    return n_workers


def _divide(cases, n_workers):
    # Dealt like cards, so that every worker has its share of each group, the longest texts, which take longest, first.
    # Once and for all: on a GPU every task is a process that loads the model again. What is found together stays so.
    if any(find_part("finder", case.config.finder, FINDERS).together for case in cases):
        n_workers = 1
    cases = sorted(cases, key=lambda case: (-case.n_tokens, case.config.protocol, case.config.n_mem))
    return [cases[worker::n_workers] for worker in range(min(n_workers, len(cases)))]


def _collect(start, shares, on_step):
    running = {start(share): ({case.key: case for case in share}, 0) for share in shares}
    while running:
        (stream,), _ = ray.wait(list(running), num_returns=1)
        remaining, n_failures = running.pop(stream)
        try:
            result = ray.get(next(stream))
        except StopIteration:
            continue
        except RayTaskError as error:  # raised by our own code over there
            raise error.cause from None
        except RayError as error:  # the worker or its machine is gone
            if n_failures + 1 == MAX_FAILURES:
                raise InputError(
                    f"a worker died {MAX_FAILURES} times ({type(error).__name__}); what was finished is stored: "
                    "lower batch_size, or ask for more memory, and run the sweep again"
                ) from None
            if remaining:
                running[start(list(remaining.values()))] = remaining, n_failures + 1
            continue
        running[stream] = remaining, 0
        if isinstance(result, Unfinished):
            case = remaining[result.case.key]
            remaining[case.key] = dataclasses.replace(case, state=result.state)
            n_steps = remaining[case.key].n_steps_done
        else:
            case, n_steps = remaining.pop(result[0]["key"]), result[0]["n_steps"]
        on_step(case.n_tokens * (n_steps - case.n_steps_done))
        yield result


def _run_share(sweep, fingerprint, num_gpus, save_every_seconds, cases):
    if 0 < num_gpus < 1:  # or one worker would take the memory that another one counts on
        torch.cuda.set_per_process_memory_fraction(num_gpus)
    lm = _load(sweep.model, "cuda" if num_gpus else "cpu")
    if lm.fingerprint != fingerprint:
        raise InputError(f"{sweep.model.name} has other weights on {ray.util.get_node_ip_address()}; copy them there")
    yield from run_cases(sweep, lm, cases, save_every_seconds=save_every_seconds)


@functools.cache
def _load(model, device):
    # once in the life of a worker, which on CPUs outlives its share
    return load_lm(**model.model_dump(), device=device)
