"""The Makefile in a house of stand-ins: what it runs again, and what reaches the command line."""

import shutil
import subprocess

import pytest

from paper_lib.paths import ROOT

FAKE_PYTHON = """#!/bin/sh
# Stands in for the library: says what it was asked for, and writes the stamp and one product.
while [ $# -gt 0 ]; do
  case "$1" in
    execute) echo "ran $2" ;;
    --stamp) touch product.csv; printf '%s: product.csv\\nproduct.csv:\\n' "$2" > "${2%.done}.d"; touch "$2" ;;
    TEXT=*) printf '<%s>\\n' "$1" ;;
  esac
  shift
done
"""


@pytest.fixture
def make(tmp_path):
    """A house of stand-ins around the true Makefile; call it with make's arguments for what was printed."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("notebooks/00_quickstart.ipynb", "notebooks/01_a.ipynb", "paper_lib/a.py", "paper_lib/live/b.py",
                 "data/a.csv", "data/notes (draft) [2].csv", ".venv/bin/python", ".venv/.light", ".venv/.full",
                 "requirements.lock", "pyproject.toml"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "build/stamps").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").write_text(FAKE_PYTHON)
    (tmp_path / ".venv/bin/python").chmod(0o755)
    for name in (".venv/.light", ".venv/.full"):  # younger than what they are made from
        (tmp_path / name).touch()

    def run(*arguments):
        command = ["make", "-C", str(tmp_path), "--no-print-directory", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "warning" not in done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize(
    "change",
    [
        lambda house: (house / "paper_lib/live/b.py").write_text("changed"),
        lambda house: (house / "paper_lib/a.py").unlink(),
        lambda house: (house / "data/new.csv").touch(),
        lambda house: (house / "data/notes (draft) [2].csv").write_text("changed"),
        lambda house: (house / "notebooks/01_a.ipynb").write_text("changed"),
        lambda house: (house / "product.csv").unlink(),
    ],
    ids=["library", "library file gone", "data file come", "name with blanks", "notebook", "product gone"],
)
def test_make_executes_again_when_something_changed_and_only_then(make, tmp_path, change):
    assert "ran notebooks/01_a.ipynb" in make("reproduce")
    assert "ran" not in make("reproduce")
    for folder in ("paper_lib/__pycache__", "data/.ipynb_checkpoints"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.pyc").touch()
    assert "ran" not in make("reproduce")
    change(tmp_path)
    assert "ran notebooks/01_a.ipynb" in make("reproduce")
    assert "ran" not in make("reproduce")


@pytest.mark.parametrize("text", ["It cost $5.", '"Quoted."', "1984", "It's $(shell date) & `ls` \\n #1", "blanks "])
def test_the_quickstarts_text_is_taken_as_given(make, text):
    assert f"<TEXT={text}>" in make("quickstart", f"TEXT={text}")


def test_the_quickstart_has_a_text_of_its_own(make):
    assert "TEXT=" not in make("quickstart")
