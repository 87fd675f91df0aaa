"""Ray: what a cluster stores is what this process would have stored, also when workers die."""

import dataclasses
import os
import signal
from pathlib import Path

import psutil
import pytest
import ray
from tiny import save_tiny_model

from paper_lib.config import Sweep
from paper_lib.errors import InputError
from paper_lib.live.cases import SweepCase, list_cases
from paper_lib.live.cluster import _count_workers, _divide, run_on_ray
from paper_lib.live.load import load_lm
from paper_lib.live.sweep import run_sweep
from paper_lib.paths import ROOT
from paper_lib.store import Store

pytestmark = pytest.mark.slow


class Deadly(SweepCase):
    """A case that kills the process that looks at it on the way to a worker."""

    def __reduce__(self):
        return _die_unless, (os.getpid(), self.config, self.sample, self.n_tokens)


def _die_unless(here, *fields):
    if os.getpid() != here:
        os.kill(os.getpid(), signal.SIGKILL)
    return Deadly(*fields)


TIMING_AND_PLACE = {"wall_seconds", "device", "vectors_sha256"}


@pytest.fixture(scope="module")
def cluster():
    # PYTHONPATH: workers are processes of their own
    library = os.pathsep.join([str(ROOT), str(Path(__file__).parent), str(Path(__file__).parents[1])])
    environment = {"env_vars": {"PYTHONPATH": library, "OMP_NUM_THREADS": "1"}}
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return Sweep(
        name="spread",
        model={"name": save_tiny_model(tmp_path_factory.mktemp("model")), "dtype": "float64"},
        texts={"source": "strings", "texts": ["a cat sat on it", "the dog did not", "why not, it said", "so it did"]},
        n_texts=4,
        lengths=[2, 6],
        n_mem=[1, 2],
        protocols=["strict"],
        optimiser={"max_steps": 60, "lr": 0.1},
        arms={"adamw": {}, "lbfgs": {"recipe": "fast", "protocols": ["strict"], "lengths": [6], "n_mem": [1]}},
    )


def assert_same(store, other):
    assert list(store) == list(other)
    for key in store:
        (one, v), (two, w) = store.get(key), other.get(key)
        assert abs(v - w).max() < 1e-6
        for name in one.keys() - TIMING_AND_PLACE:
            close = isinstance(one[name], float) or name.endswith("_each")
            assert one[name] == (pytest.approx(two[name], rel=1e-5) if close else two[name])


def kill_a_worker():
    """Kill one worker of the cluster that this very process started, and of no other."""
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::_run_share"):
            process.kill()
            return True
    return False


@pytest.fixture(scope="module")
def local(sweep, tmp_path_factory):
    store = Store("local", tmp_path_factory.mktemp("runs"))
    run_sweep(sweep, store)
    return store


def test_a_cluster_stores_what_one_process_stores(cluster, sweep, local, tmp_path):
    store, steps, records = Store("ray", tmp_path), [], []
    n = run_sweep(sweep, store, run=run_on_ray, on_step=steps.append, on_case=records.append)
    assert n == len(records) == 20
    assert_same(store, local)
    assert sum(steps) == sum(r["n_steps"] * (r["length"] - 1 + r["n_mem"]) for r in records)
    assert run_sweep(sweep, store, run=run_on_ray) == 0


def test_memories_that_are_no_input_vectors_are_stored_the_same(cluster, sweep, tmp_path):
    others = sweep.model_copy(
        update={"name": "others", "arms": {}, "protocols": ("one_step", "kv_prefix"), "lengths": (3,), "n_mem": (1,)}
    )
    there, here = Store("ray", tmp_path), Store("local", tmp_path)
    assert run_sweep(others, there, run=run_on_ray) == run_sweep(others, here) == 8
    assert_same(there, here)


def test_what_a_killed_worker_had_not_sent_is_run_by_another(cluster, sweep, local, tmp_path):
    store, killed = Store("ray", tmp_path), []
    n = run_sweep(sweep, store, run=run_on_ray, on_case=lambda record: any(killed) or killed.append(kill_a_worker()))
    assert sum(killed) == 1
    assert n == 20
    assert_same(store, local)


def test_a_killed_workers_cases_go_on_where_they_were(cluster, sweep, local, tmp_path, monkeypatch):
    store, steps, killed = Store("ray", tmp_path), [], []
    put_halfway = store.put_halfway

    def kill_now_and_then(key, state):
        put_halfway(key, state)
        if int(state["n_steps"]) % 20 == 19 and len(killed) < 2:
            killed.append(kill_a_worker())

    monkeypatch.setattr(store, "put_halfway", kill_now_and_then)
    assert run_sweep(sweep, store, run=run_on_ray, on_step=steps.append, save_every_seconds=0) == 20
    assert sum(killed) == 2
    assert_same(store, local)
    assert not list(store.folder.glob("*.halfway"))
    records = [store.get(key)[0] for key in store]
    assert sum(steps) == sum(r["n_steps"] * (r["length"] - 1 + r["n_mem"]) for r in records)


def test_a_share_that_always_kills_its_worker_ends_in_one_line(cluster, sweep, monkeypatch):
    monkeypatch.setattr("paper_lib.live.cluster.MAX_FAILURES", 2)  # each starts a worker, which loads torch
    lm = load_lm(sweep.model.name, dtype="float64")
    (case, *_) = list_cases(sweep, lm)
    with pytest.raises(InputError, match="a worker died 2 times .* what was finished is stored"):
        list(run_on_ray(sweep, lm, [Deadly(**vars(case))]))


def test_workers_are_counted_machine_by_machine():
    nodes = [{"CPU": 8, "GPU": 2}, {"CPU": 8, "GPU": 2}, {"CPU": 3}]
    assert _count_workers(nodes, 1, 0) == 19
    assert _count_workers(nodes, 1, 1) == 4
    assert _count_workers(nodes, 1, 0.5) == 8
    assert _count_workers(nodes, 8, 1) == 2
    assert _count_workers(nodes, 2, 0) == 9
    with pytest.raises(InputError, match="asks for 16 CPU, no machine of the cluster has more than 8 CPU"):
        _count_workers(nodes, 16, 0)


@pytest.mark.parametrize("n_workers", [1, 3, 5, 40])
def test_every_worker_gets_its_share_of_every_length(sweep, n_workers):
    lm = load_lm(sweep.model.name, dtype="float64")
    cases = list_cases(sweep, lm)
    shares = _divide(cases, n_workers)
    assert sorted(case.key for share in shares for case in share) == sorted(case.key for case in cases)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for share in shares:
        assert [case.n_tokens for case in share] == sorted((case.n_tokens for case in share), reverse=True)
        if n_workers <= 4:
            assert {(case.config.length, case.config.n_mem) for case in share} == {(2, 1), (2, 2), (6, 1), (6, 2)}


def test_errors_of_workers_are_told_here(cluster, sweep):
    lm = load_lm(sweep.model.name, dtype="float64")
    cases = list_cases(sweep, lm)[:1]
    other = dataclasses.replace(lm, fingerprint="sha256:other")
    for options, message in (
        ({"lm": other}, "has other weights on .*; copy them there"),
        ({"num_cpus": 64}, "a task asks for 64 CPU, no machine of the cluster has more than 2 CPU; ask for less"),
        ({"num_gpus": 1}, "a task asks for 1 CPU and 1 GPU, no machine .* more than 2 CPU and 0 GPU; ask for less"),
        ({"num_gpus": 2}, "a task asks for 2 GPU and can use one; ask for 1 or less"),
        ({"num_cpus": 0}, "a task asks for no CPU and no GPU"),
    ):
        with pytest.raises(InputError, match=message):
            list(run_on_ray(**({"sweep": sweep, "lm": lm, "cases": cases} | options)))
