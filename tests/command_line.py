"""The command line in the process of the tests: a process of its own would first load torch again."""

import contextlib
import io
import sys
import warnings
from subprocess import CompletedProcess

import pytest

from paper_lib.__main__ import main
from paper_lib.live.cram import load_once
from paper_lib.paths import ROOT


def run(*arguments) -> CompletedProcess:
    """Run ``python -m paper_lib`` with ``arguments`` from the repository's root; return its status and what it said."""
    out, err = io.StringIO(), io.StringIO()
    load_once.cache_clear()  # a new process has no model loaded
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.chdir(ROOT),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["paper_lib", *map(str, arguments)])
        patch.setattr(warnings, "formatwarning", warnings.formatwarning)  # which main changes
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
    if isinstance(code, str):  # as the interpreter does at its end
        err.write(f"{code}\n")
        code = 1
    return CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def refuse(*arguments) -> str:
    """Return the one line with which the command line refuses."""
    result = run(*arguments)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.rstrip("\n")
