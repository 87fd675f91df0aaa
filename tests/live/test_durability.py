"""What is stored stays: kills, two writers, a full disk, an index that lies, single flipped bytes."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paper_lib import frozen
from paper_lib.errors import InputError
from paper_lib.paths import DATA, ROOT
from paper_lib.reproduce import manifest
from paper_lib.store import Store

pytestmark = pytest.mark.slow

RECORD = {
    "text_id": "t",
    "protocol": "strict",
    "n_mem": 1,
    "length": 4,
    "restart": 0,
    "arm": "",
    "ended": "reached",
    "exact": True,
}


@pytest.fixture
def store(tmp_path):
    return Store("some", tmp_path)


def put(store, key, **changes):
    store.put(RECORD | {"key": key} | changes, np.zeros((1, 4), np.float32))


def test_twelve_kills_and_two_writers_lose_and_double_nothing():
    command = [sys.executable, "benchmarks/kill.py", "--n-kills", "12", "--dtypes", "float64", "--as-json"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    (told,) = json.loads(output)
    assert told["kills"] == 12
    assert told["while cramming"] >= 7
    assert told["stored"] == told["cases"] == 96
    assert told["by two writers"] > 0
    assert told["resumed"] >= 12
    assert told["left halfway"] == 0
    assert told["missing"] == told["too many"] == told["other exactness"] == 0
    assert told["fields off by"] < 1e-6
    assert told["vectors off by"] < 1e-6


def test_a_kill_between_storing_and_clearing_leaves_nothing_for_good(store):
    store.put_halfway("a", {"x": np.zeros(2)})
    store.put_halfway("b", {"x": np.zeros(2)})
    left = (store.folder / "a.halfway").read_bytes()
    put(store, "a")
    (store.folder / "a.halfway").write_bytes(left)  # as if the writer had died before it removed the state
    store.prepare()
    assert store.get_halfway("a") is None
    assert store.get_halfway("b") is not None


def test_a_full_disk_is_told_in_one_line_and_loses_nothing(store):
    put(store, "a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))  # no file grows beyond 200 bytes
    try:
        with pytest.raises(InputError, match=r"cannot write .*b\.safetensors: File too large; free some space"):
            put(store, "b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(store) == ["a"]
    assert not list(store.folder.glob(".*.partial"))
    put(store, "b")
    assert list(store.index()["key"]) == ["a", "b"]


def test_a_state_is_kept_until_its_case_is_stored(store):
    state = {"vectors": np.ones((1, 4), np.float32), "n_steps": np.array(7)}
    assert store.get_halfway("a") is None
    store.put_halfway("a", state)
    assert store.get_halfway("a").keys() == state.keys()
    assert all((store.get_halfway("a")[name] == state[name]).all() for name in state)
    assert list(store) == []
    put(store, "a")
    assert store.get_halfway("a") is None
    store.put_halfway("a", state)  # by a slower process
    assert store.get_halfway("a") is None


def test_a_state_that_another_process_removes_while_one_looks_at_it_is_written_all_the_same(store, monkeypatch):
    store.put_halfway("a", {"x": np.zeros(2)})
    read_bytes = Path.read_bytes

    def removed_just_before(path):
        path.unlink(missing_ok=True)
        return read_bytes(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", removed_just_before)
        store.put_halfway("a", {"x": np.ones(2)})
    assert store.get_halfway("a")["x"].tolist() == [1, 1]


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: b"", lambda c: c[:40] + bytes([c[40] ^ 1]) + c[41:]])
def test_a_damaged_state_is_named_with_the_way_out(store, damage):
    store.put_halfway("a", {"vectors": np.ones((1, 4), np.float32)})
    (path,) = store.folder.glob("*.halfway")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"a\.halfway is damaged; delete it, and its case starts again"):
        store.get_halfway("a")


def test_the_index_opens_only_what_it_does_not_know(store, monkeypatch):
    for number in range(20):
        put(store, f"{number:02}", length=number)
    opened = []
    get = Store.get
    monkeypatch.setattr(Store, "get", lambda self, key: opened.append(key) or get(self, key))
    assert list(store.index()["length"]) == list(range(20))
    assert opened == []
    index = store.folder / "index.jsonl"
    lines = index.read_text().split("\n")
    index.write_text("\n".join(lines[:11]) + '\n{"key": "torn')  # as if cut off in the middle of a line
    assert list(store.index()["length"]) == list(range(20))
    assert len(opened) == 20 - index.read_text().split("torn")[0].count("key") + 1
    opened.clear()
    assert list(store.index()["length"]) == list(range(20))
    assert opened == []


def test_the_index_follows_the_files(store):
    put(store, "a")
    put(store, "b")
    put(store, "b", ended="budget", exact=False)  # proven wrong on a CPU
    store.path("a").unlink()
    index = store.index()
    assert list(index["key"]) == ["b"]
    assert list(index["ended"]) == ["budget"]
    (store.folder / "index.jsonl").unlink()
    assert store.index().equals(index)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A copy of the frozen files."""
    folder = tmp_path_factory.mktemp("frozen") / "data"
    shutil.copytree(DATA, folder)
    return folder


FILES = sorted(path.relative_to(DATA).as_posix() for path in DATA.rglob("*") if path.is_file())
FROZEN = [name for name in FILES if name.startswith(("runs/", "vectors/", manifest.MANIFEST_NAME))]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FROZEN), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_found_and_named(data, name, place, bit):
    path = data / name
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[int(place * len(flipped))] ^= 1 << bit
    path.write_bytes(flipped)
    try:
        problems = manifest.check_manifest(data)
    except InputError as error:
        problems = [str(error)]
    finally:
        path.write_bytes(content)
    assert problems
    if name != manifest.MANIFEST_NAME:
        assert any(name in problem for problem in problems)
    else:
        assert any(manifest.MANIFEST_NAME in problem or "is missing" in problem for problem in problems)


def test_frozen_vectors_are_checked_when_they_are_loaded(data):
    path = next((data / "vectors").glob("*.safetensors"))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=f"{path.name} and its hash .* do not match"):
        frozen.load_vectors(path.stem, data)
    path.write_bytes(content)
    assert all(isinstance(v, np.ndarray) for v in frozen.load_vectors(path.stem, data).values())


def test_memory_that_really_runs_out_halves_the_batch():
    # a process that may have little more than it has now; torch raises what it raises then
    code = """
import resource, torch
from paper_lib.live.measure import run_in_parts
torch.set_num_threads(1)
seen = []
def compute(rows):
    seen.append(len(rows))
    return torch.ones(len(rows), 2**27, dtype=torch.uint8)[:, 0].clone()
compute(torch.zeros(1))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 5 * 2**27, -1))
seen.clear()
parts, n_rows = run_in_parts(compute, 16, torch.zeros(16))
assert seen[:3] == [16, 8, 4] and n_rows in (2, 4), (seen, n_rows)
assert torch.cat(parts).tolist() == [1] * 16
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
