"""The command line: bad input ends in one line on stderr that names the thing and the way out, and exit status 1."""

import subprocess
import sys

import pytest

from paper_lib.paths import ROOT

N = "notebooks/03_scaling_vectors.ipynb"


def run(*arguments):
    command = [sys.executable, "-m", "paper_lib", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["execute", "notebooks/99_none.ipynb"],
            "unknown notebook 'notebooks/99_none.ipynb'; choose from: notebooks/01_",
        ),
        (["execute", "README.md"], "README.md is not a notebook; restore it"),
        (["execute", N, "-p", "N_MEM=4"], f"unknown parameter of {N} 'N_MEM'; choose from: OUT_DIR"),
        (["execute", N, "-p", "OUT_DIR"], "-p OUT_DIR: write NAME=VALUE"),
        (["execute", N, "-p", "OUT_DIR=4"], f'parameter OUT_DIR of {N} is 4; give a str, such as "figures"'),
    ],
)
def test_bad_input_is_one_line(arguments, says):
    result = run(*arguments)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {says}")
    assert result.stderr.count("\n") == 1


def test_unknown_command_and_no_command_do_not_succeed():
    assert run("cram").returncode == 2
    assert run().returncode == 2


def test_a_variant_reports_where_it_went():
    result = run("execute", N, "-p", "OUT_DIR=build/test_variant")
    assert result.returncode == 0, result.stderr
    assert "8 files" in result.stdout
    assert (ROOT / "build" / "test_variant" / "fig_scaling_vectors.png").is_file()
