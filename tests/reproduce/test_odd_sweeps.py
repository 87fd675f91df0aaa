"""Every frozen sweep that is legal is drawn: the notebooks' cells over odd ones, made from the records that ship."""

import shutil

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from paper_lib import measured
from paper_lib.figures import style
from paper_lib.frozen import load_runs
from paper_lib.paths import DATA, NOTEBOOKS
from paper_lib.reproduce.manifest import write_manifest
from paper_lib.reproduce.notebooks import read_notebook

pytestmark = pytest.mark.slow
QUICK = {"N_RESAMPLES": 20, "MODELS": ["EleutherAI/pythia-160m"], "FIGURE_3_MODELS": ["state-spaces/mamba-130m-hf"]}
NAMES = [path.stem for path in sorted(NOTEBOOKS.glob("0[1-5]_*.ipynb"))]
SHIPPED = [  # what an odd one stands beside
    *("novels-5m_*", "recipe_novels-5m.*", "plateau_novels-5m.*", "vectors_novels-5m.*"),
    *("smollm2-135m_books_anchored.*", "smollm2-135m_own_*"),
]
PUBLISHED_ALONE = "fig_entropy_cutoff"  # panels of every model of the paper, the same beside any sweep
LADDER = ["exact", "tf_exact", "greedy_exact_full", "greedy_exact_cached"]


def read(name):
    return pd.read_parquet(DATA / "runs" / f"novels-5m_{name}.parquet")


def one_string_one_length():
    rows = read("books_kuratov2025").query("length == 4").head(1)
    return rows.assign(model="my/folder", source="strings", optimiser_max_steps=3, n_steps=3)


def two_protocols_beside_the_shipped_model():
    rows = pd.concat([read("books_kuratov2025"), read("books_strict")]).query("length <= 8")
    return rows.assign(source="my_books", optimiser_max_steps=10, n_steps=10)


def four_vectors_all_exact():
    rows = read("books-x4_strict").query("length == 16")
    return rows.assign(model="other/m", **dict.fromkeys(LADDER, True), solved=True, n_correct_mem=rows["n_targets"])


def none_exact():
    rows = pd.concat([read("books_strict"), read("words_strict")])
    return rows.assign(**dict.fromkeys(LADDER, False), solved=False, n_correct_mem=0, model="other/m")


def all_diverged():
    nats = dict.fromkeys(["ce_mem_nats", "ce_mem_min_nats"], np.nan)
    rows = read("books_kuratov2025").assign(**nats, **dict.fromkeys(LADDER, False), solved=False, status="diverged")
    return rows.assign(model="other/m", n_correct_mem=0)


def a_protocol_of_ones_own():
    return read("books_strict").assign(protocol="one_pass", model="other/m").drop(columns="greedy_exact_cached")


def three_restarts():
    rows = read("books_strict").assign(model="other/m")
    return pd.concat([rows.assign(restart=number, key=f"{number}" + rows["key"]) for number in range(3)])


ODD = [
    a_protocol_of_ones_own,
    three_restarts,
    one_string_one_length,
    two_protocols_beside_the_shipped_model,
    four_vectors_all_exact,
    none_exact,
    all_diverged,
]


def draw_once(figure, file_format, metadata):
    """Draw a figure as a file would show it, and write none: that takes twice as long."""
    figure.canvas.draw()
    return b"drawn"


@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_an_odd_sweep_is_drawn(name, make, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    for pattern in SHIPPED:
        for path in (DATA / "runs").glob(pattern):
            shutil.copy(path, tmp_path / "runs")
    make().to_parquet(tmp_path / "runs" / "mine.parquet", index=False)
    write_manifest(tmp_path)
    monkeypatch.setattr(measured, "load_runs", lambda _, **which: load_runs(tmp_path, **which))
    monkeypatch.setattr(style, "_render", draw_once)
    monkeypatch.setattr(style, "_reduce_colours", lambda png: png)
    cells = [cell for cell in read_notebook(NOTEBOOKS / f"{name}.ipynb").cells if cell.cell_type == "code"]
    names = {}
    for cell in cells[1:]:  # the first finds the repository
        if PUBLISHED_ALONE in cell.source:
            continue
        exec(compile(cell.source, name, "exec"), names)
        if "parameters" in cell.metadata.get("tags", []):
            names |= {key: value for key, value in QUICK.items() if key in names} | {"OUT_DIR": str(tmp_path)}
    plt.close("all")
    made = {path.suffix for path in tmp_path.iterdir()}
    assert made >= {".csv", ".md", ".tex", ".pdf", ".png"}
