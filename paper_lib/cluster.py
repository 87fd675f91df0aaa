"""Running the cases of a sweep on Ray: a cluster that is there, or this machine alone.

Each worker crams a part of each group of cases and sends every record as soon as it has it; this process stores them.
When a worker dies, what it had not sent is given to another.
"""

import contextlib
import functools
import os
import socket
from collections.abc import Callable, Iterator

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from .config import Sweep
from .engine import PlannedCase, group_cases, run_cases
from .errors import InputError
from .lm import FrozenLM, load_lm

MAX_FAILURES = 3  # of a part in a row, without a record in between


def run_on_ray(
    sweep: Sweep,
    lm: FrozenLM,
    cases: list[PlannedCase],
    on_step: Callable[[int], None] = lambda token_steps: None,
    *,
    address: str | None = None,
    num_cpus: float = 1,
    num_gpus: float | None = None,
) -> Iterator[tuple[dict, np.ndarray]]:
    """Cram the texts of ``cases`` on a Ray cluster; yield record and vectors of each as soon as it is finished.

    ``address`` is that of a cluster ("auto", "host:port"); without one, Ray is started on this machine. Each task takes
    ``num_cpus`` and ``num_gpus`` (by default 1 where the cluster has any, fractions share one); there are as many tasks
    at a time as the cluster has room for. Raises InputError where it has none, where a worker's weights are not those
    of ``lm``, and for a part that has killed its worker three times in a row.
    """
    with _connect(address):
        resources = ray.cluster_resources()
        num_gpus = (1 if resources.get("GPU") else 0) if num_gpus is None else num_gpus
        n_workers = _count_workers(resources, num_cpus, num_gpus)
        # Ray's own retries would begin a part anew, and its records come in another order then; see _collect.
        task = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=0)(_run_part)
        start = functools.partial(task.remote, sweep, lm.fingerprint, "cuda" if num_gpus else "cpu")
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


def _count_workers(resources, num_cpus, num_gpus):
    for name, asked in (("CPU", num_cpus), ("GPU", num_gpus)):
        if asked > resources.get(name, 0):
            raise InputError(
                f"a task asks for {asked:g} {name}, the cluster has {resources.get(name, 0):g}; ask for less"
            )
    rooms = [resources[name] // asked for name, asked in (("CPU", num_cpus), ("GPU", num_gpus)) if asked]
    return int(min(rooms, default=1))


def _divide(cases, n_workers):
    # Every worker gets its share of each group; the longest texts, which take longest, come first.
    groups = sorted(group_cases(cases).values(), key=lambda group: -group[0].n_tokens)
    parts = [group[worker::n_workers] for group in groups for worker in range(n_workers)]
    return [part for part in parts if part]


def _collect(start, parts, on_step):
    running = {start(part): ({case.key: case for case in part}, 0) for part in parts}
    while running:
        (stream,), _ = ray.wait(list(running), num_returns=1)
        remaining, n_failures = running.pop(stream)
        try:
            record, vectors = ray.get(next(stream))
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
        case = remaining.pop(record["key"])
        running[stream] = remaining, 0
        on_step(case.n_tokens * record["n_steps"])
        yield record, vectors


def _run_part(sweep, fingerprint, device, cases):
    lm = _load(sweep.model, device)
    if lm.fingerprint != fingerprint:
        raise InputError(f"{sweep.model.name} has other weights on {ray.util.get_node_ip_address()}; copy them there")
    yield from run_cases(sweep, lm, cases)


@functools.cache
def _load(model, device):
    # once in the life of a worker
    return load_lm(**model.model_dump(), device=device)
