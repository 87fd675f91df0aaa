"""The live half as a user meets it: the quickstart, a model of one's own in the tables, the model that ships."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tiny import save_tiny_model

from paper_lib import frozen
from paper_lib.live.load import load_lm
from paper_lib.live.proofs import decode_text
from paper_lib.paths import DATA, NOTEBOOKS, ROOT
from paper_lib.reproduce import notebooks

pytestmark = pytest.mark.slow

QUICKSTART = NOTEBOOKS / "00_quickstart.ipynb"
SHIPPED = "data/models/novels-5m"


def printed(path):
    """Return all that the cells of an executed notebook printed or showed as text."""
    outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
    texts = [output.get("text") or output.get("data", {}).get("text/markdown", "") for output in outputs]
    return "\n".join(texts)


def test_the_quickstart_crams_its_sentence_and_reads_it_back(tmp_path):
    started = time.monotonic()
    text = notebooks.read_parameters(notebooks.read_notebook(QUICKSTART))["TEXT"]
    said = printed(notebooks.execute_notebook(QUICKSTART, {"OUT_DIR": str(tmp_path), "MODEL": SHIPPED}).notebook)
    print(f"quickstart: {time.monotonic() - started:.0f} s")  # seen with `pytest -s`
    assert "all tokens right" in said
    assert f"{text}\n\nIt is the same text." in said
    assert len(re.findall(r"\| +yes \|", said)) == 4  # all rungs of the ladder


def test_the_quickstart_takes_more_vectors_for_more_text_and_says_when_it_gives_up():
    text = "Nobody in the village knew where the two strangers had come from, and nobody asked them twice."
    wanted = {"TEXT": text, "MODEL": SHIPPED, "MAX_EVALUATIONS": 30, "MAX_VECTORS": 2}
    said = printed(notebooks.execute_notebook(QUICKSTART, wanted).notebook)
    assert "1 vector: " in said
    assert re.search(r"2 vectors: \d+% of the tokens right, and it says: ", said)
    assert "It is not the text: 2 vectors were too few." in said


def test_the_quickstart_is_committed_executed():
    notebook = notebooks.read_notebook(QUICKSTART)
    assert QUICKSTART.read_text() == nbformat.writes(notebooks.make_canonical(notebook)) + "\n"
    assert "It is the same text." in printed(QUICKSTART)
    assert notebooks.list_products(notebook) == []


def test_the_shipped_model_is_small_and_says_what_it_is():
    folder = ROOT / SHIPPED
    assert sum(path.stat().st_size for path in folder.iterdir()) < 12e6
    lm = load_lm(SHIPPED)
    assert lm.start_id is not None
    stored = load_lm(SHIPPED, dtype="bfloat16").model.state_dict()
    for name, weight in lm.model.state_dict().items():
        assert torch.equal(weight, stored[name].float())  # nothing is lost by the 16 bits that ship
    card = (folder / "README.md").read_text()
    assert f"{lm.n_parameters / 1e6:.1f} million parameters" in card


def test_every_frozen_vector_of_a_sample_decodes_to_its_text():
    # All of them: `python -m paper_lib verify`, which continuous integration runs.
    cases = frozen.load_runs().query("model == @SHIPPED").set_index(["sweep", "key"], drop=False)
    lm, drawn = load_lm(SHIPPED), np.random.default_rng(0)
    for sweep in sorted(cases["sweep"].unique()):
        vectors = frozen.load_vectors(sweep)
        whole = sorted(key for key in vectors if cases.loc[(sweep, key), "exact"])  # others are exact in part, or not
        for key in drawn.choice(whole, size=min(4, len(whole)), replace=False):
            record = cases.loc[(sweep, key)].to_dict()
            text = decode_text(lm, record, vectors[key])
            assert hashlib.sha256(text.encode()).hexdigest() == record["text_sha256"]


def test_a_model_of_ones_own_is_in_the_tables_without_a_change_of_code(tmp_path):
    copy = tmp_path / "paper"
    ignored = shutil.ignore_patterns("build", ".git", ".venv", "__pycache__", "tests")
    shutil.copytree(ROOT, copy, ignore=ignored)
    save_tiny_model(copy / "my-model")
    sweep = {
        "name": "mine",
        "model": {"name": "my-model"},
        "texts": {"source": "strings", "texts": ["a cat sat", "the dog", "no bird"], "label": "proverbs"},
        "n_texts": 3,
        "lengths": [2, 3, 7],
        "n_mem": [1, 2],
        "protocols": ["kuratov2025", "strict"],
        "optimiser": {"max_steps": 60, "lr": 0.1},
    }
    (copy / "mine.yml").write_text(yaml.safe_dump(sweep))
    environment = os.environ | {"PYTHONPATH": str(copy)}  # its library, in the notebooks' kernels too

    def start(*command):
        return subprocess.Popen([sys.executable, "-m", "paper_lib", *command], cwd=copy, env=environment)

    assert start("run", "mine.yml").wait() == 0
    assert start("freeze", "mine").wait() == 0
    quick = {name: ["-p", "N_RESAMPLES=20"] if name.startswith(("01", "02", "03")) else [] for name in MEASURED_IN}
    started = [
        start("execute", f"notebooks/{name}.ipynb", "-p", "OUT_DIR=figures", *quick[name]) for name in MEASURED_IN
    ]
    assert [process.wait() for process in started] == [0] * len(started)
    for table in MEASURED_IN.values():
        models = pd.read_csv(copy / "figures" / f"{table}.csv")["model"]
        assert "my-model" in set(models), table
        assert len(set(models)) > 2, table


MEASURED_IN = {
    "01_decoding_capacity": "table_capacity",
    "02_entropy_cutoff": "table_entropy_test",
    "03_scaling_vectors": "table_scaling_exponents",
    "04_capacity_utilisation": "table_utilisation",
}


def test_the_manifest_covers_the_model_and_the_runs():
    listed = (DATA / "MANIFEST.sha256").read_text()
    for name in ("models/novels-5m/model.safetensors", "models/novels-5m/recipe.yml"):
        assert name in listed
    for sweep in frozen.load_runs()["sweep"].unique():
        assert f"runs/{sweep}.parquet" in listed
        assert f"vectors/{sweep}.safetensors" in listed
