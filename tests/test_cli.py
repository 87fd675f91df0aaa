"""The command line: bad input ends in one line on stderr that names the thing and the way out, and exit status 1."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml
from command_line import refuse, run
from safetensors.numpy import save
from tiny import save_tiny_model

from paper_lib.__main__ import main
from paper_lib.config import Sweep
from paper_lib.frozen import freeze, load_vectors
from paper_lib.live.progress import SweepProgress
from paper_lib.live.proofs import check_vectors
from paper_lib.paths import BUILD, ROOT
from paper_lib.reproduce.manifest import write_manifest
from paper_lib.store import Store

pytestmark = pytest.mark.slow

N = "notebooks/03_scaling_vectors.ipynb"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["execute", "notebooks/nowhere-to-be-found.ipynb"],
            "unknown notebook 'notebooks/nowhere-to-be-found.ipynb'; choose from: notebooks/01_",
        ),
        (["execute", "README.md"], "README.md is not a notebook; restore it"),
        (["execute", N, "-p", "N_MEM=4"], f"unknown parameter of {N} 'N_MEM'; choose from: N_RESAMPLES, SEED"),
        (["execute", N, "-p", "OUT_DIR"], "-p OUT_DIR: write NAME=VALUE"),
        (["execute", N, "-p", "SEED=x"], f'parameter SEED of {N} is "x"; it takes a whole number, such as 0'),
        (["status", "typo"], "no cases in "),
        (["status", "../../x"], "'../../x' is not the name of a sweep; give the `name` in its file"),
    ],
)
def test_bad_input_is_one_line(arguments, says):
    assert refuse(*arguments).startswith(f"error: {says}")
    assert not (BUILD / "runs" / "typo").exists()
    assert not (ROOT / "x").exists()


def test_a_sweep_runs_freezes_and_decodes_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = {
        "name": "cli-test",
        "model": {"name": save_tiny_model(tmp_path / "model")},
        "texts": {"source": "strings", "texts": ["hi", "yo"]},
        "n_texts": 2,
        "lengths": [1, 2],
        "protocols": ["strict"],
        "optimiser": {"lr": 0.1, "max_steps": 400},
    }
    (tmp_path / "sweep.yml").write_text(yaml.safe_dump(sweep))
    planned = run("plan", str(tmp_path / "sweep.yml")).stdout
    assert "less where cases stop early" in planned
    assert planned.splitlines()[-1].startswith("4 cases, ")
    result = run("run", str(tmp_path / "sweep.yml"))
    assert result.returncode == 0, result.stderr
    assert "cli-test: 4 cases run" in result.stdout
    assert "100%" in result.stderr  # the progress bar
    assert "4 of 4 cases" in result.stderr
    assert "cli-test: 0 cases run" in run("run", str(tmp_path / "sweep.yml")).stdout
    assert "| strict" in run("status", "cli-test").stdout
    store = Store("cli-test")
    exact = [key for key in store if store.get(key)[0]["exact"]]
    texts = {run("decode", str(store.path(key))).stdout for key in exact[:2]}
    assert texts <= {"h\n", "y\n", "hi\n", "yo\n"}
    assert texts
    data = tmp_path / "data"
    data.mkdir()
    freeze(store, data)
    assert check_vectors(data, report=lambda line: None) == []
    swapped = load_vectors("cli-test", data)
    swapped = dict(zip(swapped, list(swapped.values())[::-1], strict=True))
    (data / "vectors" / "cli-test.safetensors").write_bytes(save(swapped))
    write_manifest(data)
    assert len(check_vectors(data, report=lambda line: None)) == len(swapped) > 1


def test_a_variant_reports_where_it_went_and_its_stamp_carries_a_make_rule_of_its_products(tmp_path):
    stamp = tmp_path / "n.done"
    result = run("execute", N, "-p", f"OUT_DIR={tmp_path / 'out'}", "-p", "N_RESAMPLES=20", "--stamp", stamp)
    assert result.returncode == 0, result.stderr
    assert "13 files" in result.stdout
    assert (tmp_path / "out" / "fig_scaling_vectors.png").is_file()
    rule, products = stamp.with_suffix(".d").read_text().splitlines()
    assert rule.startswith(f"{stamp}: {tmp_path}/out/fig_scaling_vectors.pdf ")
    assert products == rule.partition(": ")[2] + ":"
    assert stamp.is_file()


def test_verify_fails_with_one_line_per_problem(monkeypatch, capsys):
    monkeypatch.setattr(
        "paper_lib.reproduce.verify.verify", lambda report: ["data/a.csv is missing", "figures/b.pdf differs"]
    )
    monkeypatch.setattr(sys, "argv", ["paper_lib", "verify", "--no-decode"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == "error: data/a.csv is missing\nerror: figures/b.pdf differs"


def test_it_is_a_command_of_its_own_and_knows_its_commands():
    command = [sys.executable, "-m", "paper_lib"]
    told = subprocess.run([*command, "status", "typo"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith("error: no cases in ")
    assert told.stderr.count("\n") == 1
    assert run("compress").returncode == 2


def test_the_bar_counts_token_steps_and_forgets_those_that_early_stops_save():
    config = SimpleNamespace(optimiser=SimpleNamespace(max_steps=100))
    cases = [
        SimpleNamespace(key=key, n_tokens=n_tokens, n_steps_left=100 - n_steps_done, config=config)
        for key, n_tokens, n_steps_done in (("a", 4, 0), ("b", 9, 20))
    ]
    sweep = Sweep(
        name="bar", model={"name": "m"}, texts={"source": "strings", "texts": ["x"]}, lengths=[1],
        optimiser={"max_steps": 100},
    )  # fmt: skip
    with SweepProgress(sweep) as progress:
        progress.start(cases)
        assert progress._bar.total == 100 * 4 + 80 * 9
        progress.step(4 * 30)
        progress.finish({"key": "a", "n_steps": 30, "exact": True})
        assert progress._bar.total == 4 * 30 + 9 * 80
        progress.step(9 * 80)
        progress.finish({"key": "b", "n_steps": 100, "exact": False})
        assert progress._bar.n == progress._bar.total
        assert (progress.n_cases, progress.n_exact) == (2, 1)
