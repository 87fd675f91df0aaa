"""Notebooks: their form, their execution, and what is left when something goes wrong."""

import ast
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import nbformat
import papermill
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from paper_lib.errors import InputError
from paper_lib.paths import BUILD, FIGURES, NOTEBOOKS, ROOT
from paper_lib.reproduce import links, notebooks, verify

pytestmark = pytest.mark.slow

ALL = notebooks.find_notebooks()
NAMES = [path.stem for path in ALL]


@pytest.fixture(params=ALL, ids=NAMES)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return notebooks.read_notebook(path)


def write_notebook(path, *sources, parameters='OUT_DIR = "{out}"', out="figures"):
    """Write a small notebook: a parameters cell, then the given code cells."""
    first = new_code_cell(parameters.replace("{out}", str(out)), metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[first, *map(new_code_cell, sources)]), path)
    return path


# --- form ----------------------------------------------------------------------------------------------------------


def test_there_are_notebooks():
    assert {"01_decoding_capacity", "02_entropy_cutoff", "14_landscape"} <= set(NAMES)


def test_begins_with_title_badges_and_what_it_reproduces(path, notebook):
    head = notebook.cells[0].source
    slug = links.repository_url().removeprefix("https://github.com/")
    assert re.match(r"# \S", head)
    assert f"https://colab.research.google.com/github/{slug}/blob/main/notebooks/{path.name}" in head
    assert f"https://mybinder.org/v2/gh/{slug}/main?labpath=notebooks%2F{path.name}" in head
    assert re.search(r"\*\*(Reproduces|Shows)\*\*", head)
    assert "**Takes**" in head


def test_cells_come_in_the_fixed_order(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code[0].metadata.tags == ["setup"]
    assert code[1].metadata.tags == ["parameters"]
    assert "save_verdict" in code[-1].source
    assert notebook.cells[-2].source == "## Verdict"


def test_no_cell_is_longer_than_half_a_screen(notebook):
    for cell in notebook.cells:
        assert cell.cell_type != "code" or len(cell.source.splitlines()) <= 26, cell.id


def test_set_up_is_the_same_everywhere():
    sources = {notebooks.read_notebook(path).cells[1].source for path in ALL}
    assert len(sources) == 1
    assert f'REPOSITORY = "{links.repository_url()}"' in sources.pop()


def test_parameters_are_literals_and_say_where_products_go(notebook):
    assert notebooks.read_parameters(notebook)["OUT_DIR"] == "figures"


def test_papermill_knows_every_parameter(path, notebook):
    # A second "=" on a line, as in a comment, hides a parameter from papermill.
    assert set(papermill.inspect_notebook(str(path))) == set(notebooks.read_parameters(notebook))


def test_is_committed_executed_in_canonical_form(path, notebook):
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert path.read_text() == nbformat.writes(notebooks.make_canonical(notebook)) + "\n"


def test_has_no_error_no_exit_and_no_path_of_a_machine(path, notebook):
    for cell in notebook.cells:
        assert not any(output.output_type == "error" for output in cell.get("outputs", []))
        assert "sys.exit" not in cell.source
    text = path.read_text()
    assert str(ROOT) not in text
    assert "/home/" not in text


def test_products_are_those_committed():
    products = [name for path in ALL for name in notebooks.list_products(notebooks.read_notebook(path))]
    assert len(products) == len(set(products))
    assert sorted(products) == sorted(p.name for p in FIGURES.iterdir() if not p.name.startswith("."))


# --- execution -----------------------------------------------------------------------------------------------------

QUICK = {"N_RESAMPLES": 50, "MODELS": ["EleutherAI/pythia-160m"], "FIGURE_3_MODELS": ["state-spaces/mamba-130m-hf"]}
SPECIAL = {
    "01_decoding_capacity": {"MODELS": ["facebook/opt-1.3b"]},
    "02_entropy_cutoff": {"N_RESAMPLES": 0},  # no intervals
    "05_text_sources": {"N_RESAMPLES": 0},
}


def test_runs_with_other_parameters_and_touches_nothing_committed(path, notebook, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in [path, *FIGURES.iterdir()]}
    other = QUICK | SPECIAL.get(path.stem, {})
    other = {name: value for name, value in other.items() if name in notebooks.read_parameters(notebook)}
    executed = notebooks.execute_notebook(path, other, out_dir=tmp_path)
    assert {product.name for product in executed.products} == set(notebooks.list_products(notebook))
    assert all(product.stat().st_size for product in executed.products)
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_set_up_finds_the_repository_without_an_installation(tmp_path):
    # What Binder and a plain Jupyter do: start in notebooks/, paper_lib not installed.
    source = notebooks.read_notebook(ALL[0]).cells[1].source
    code = f"{source}\nimport paper_lib; print(paper_lib.__file__)"
    hidden = f"import sys; sys.path[:] = [p for p in sys.path if p not in ('', {str(ROOT)!r})]; "
    hidden += "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(f).lower()]\n"
    command = [sys.executable, "-c", hidden + code]
    found = subprocess.run(command, cwd=NOTEBOOKS, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(ROOT / "paper_lib" / "__init__.py")
    lost = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert lost.returncode != 0


def test_in_place_execution_is_canonical_and_repeatable(tmp_path):
    path = write_notebook(
        tmp_path / "n.ipynb",
        "import sys\nfor i in range(3):\n    print(i, flush=True)\n    print('warn', file=sys.stderr, flush=True)",
        f"from paper_lib import tables\nimport pandas as pd\n"
        f"tables.save_table(pd.DataFrame({{'a': [1]}}), 'table_a', {str(tmp_path)!r})",
        out=tmp_path,
    )
    texts = []
    for _ in range(2):
        executed = notebooks.execute_notebook(path)
        texts.append(path.read_text())
    assert texts[0] == texts[1]
    assert [p.name for p in executed.products] == ["table_a.csv", "table_a.tex", "table_a.md"]
    outputs = notebooks.read_notebook(path).cells[1].outputs
    assert [(output.name, output.text) for output in outputs] == [("stdout", "0\n1\n2\n")]


def test_a_kernel_runs_in_the_notebooks_folder_over_local_sockets(tmp_path):
    source = "import os\nfrom ipykernel.connect import get_connection_info\n"
    source += "print(os.getcwd(), get_connection_info(unpack=True)['transport'])"
    path = write_notebook(tmp_path / "n.ipynb", source, out=tmp_path)
    notebooks.execute_notebook(path)
    assert notebooks.read_notebook(path).cells[1].outputs[0].text == f"{tmp_path} ipc\n"


def test_canonical_form_forgets_what_changes_from_run_to_run():
    def noisy(count, stamp):
        cell = new_code_cell(
            "1", execution_count=count, id="same", metadata={"execution": {"at": stamp}, "tags": ["x"]}
        )
        cell.outputs = [
            new_output("stream", name="stdout", text="a"),
            new_output("stream", name="stderr", text=stamp),
            new_output("stream", name="stdout", text="b"),
            new_output("execute_result", {"text/plain": "1"}, execution_count=count),
        ]
        injected = new_code_cell("OUT_DIR = 1", metadata={"tags": ["injected-parameters"]})
        cells = [new_markdown_cell("t", id="t"), injected, cell]
        kernel = {"name": f"env-{stamp}", "display_name": stamp}
        return new_notebook(cells=cells, metadata={"papermill": {"at": stamp}, "kernelspec": kernel})

    one, two = (notebooks.make_canonical(noisy(*arguments)) for arguments in ((3, "monday"), (8, "friday")))
    assert one == two
    assert one.cells[1].outputs[0].text == "ab"
    assert one.metadata.kernelspec.name == "python3"


def test_a_notebook_runs_in_this_environment_whatever_kernels_the_user_has(tmp_path, monkeypatch):
    foreign = tmp_path / "share" / "kernels" / "python3" / "kernel.json"
    foreign.parent.mkdir(parents=True)
    foreign.write_text('{"argv": ["/bin/false"], "display_name": "Python 3", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    monkeypatch.delenv("HOME", raising=False)
    path = write_notebook(tmp_path / "n.ipynb", "import sys; print(sys.executable)", out=tmp_path)
    copy = notebooks.execute_notebook(path, {"OUT_DIR": str(tmp_path)}).notebook
    assert sys.executable in copy.read_text()
    assert os.environ["JUPYTER_PATH"] == str(tmp_path / "share")


def test_a_tilde_in_out_dir_is_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    source = "import pandas as pd\nfrom paper_lib import tables\n"
    source += "tables.save_table(pd.DataFrame({'a': [1]}), 'table_a', OUT_DIR)"
    path = write_notebook(tmp_path / "n.ipynb", source)
    (product, *_) = notebooks.execute_notebook(path, {"OUT_DIR": "~/here"}).products
    assert product == tmp_path / "here" / "table_a.csv"
    assert product.is_file()


def test_a_failing_cell_is_named_and_the_notebook_stays(tmp_path):
    path = write_notebook(tmp_path / "n.ipynb", "print('fine')", "raise ValueError('no such luck')", out=tmp_path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"n\.ipynb, cell \[3\]: ValueError: no such luck \(full trace: "):
        notebooks.execute_notebook(path)
    assert path.read_bytes() == before
    assert "no such luck" in (BUILD / "executed" / "n.ipynb").read_text()


def test_a_failed_run_takes_its_new_products_back(tmp_path):
    product = tmp_path / "table_a.csv"
    product.write_text("a\n1\n")
    source = "import pandas as pd\nfrom paper_lib import tables\n"
    source += "tables.save_table(pd.DataFrame({'a': [2]}), 'table_a', OUT_DIR)\nraise ValueError('after saving')"
    path = write_notebook(tmp_path / "n.ipynb", source, out=tmp_path)
    with pytest.raises(InputError, match="after saving"):
        notebooks.execute_notebook(path)
    assert product.read_text() == "a\n1\n"


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        (["save_table(frame, name)"], r"name the product literally: save_table"),
        (["save_figure(figure, name='fig_a')"], "name the product literally: save_figure"),
        (["x = ("], "cell `x = \\(`, line 1: "),
        (["import os; os._exit(1)"], "the kernel died"),
    ],
)
def test_malformed_cells_are_told_in_one_line(sources, says, tmp_path):
    path = write_notebook(tmp_path / "n.ipynb", *sources, out=tmp_path)
    with pytest.raises(InputError, match=says) as error:
        notebooks.execute_notebook(path)
    assert "\n" not in str(error.value)


def test_magics_do_not_hide_products():
    notebook = new_notebook(cells=[new_code_cell("%matplotlib inline\n!ls\nsave_figure(f, 'fig_a', out)")])
    assert notebooks.list_products(notebook) == ["fig_a.pdf", "fig_a.png"]


def test_a_notebook_that_does_not_save_what_it_names_fails(tmp_path):
    source = "def save_table(frame, name): pass\nsave_table(None, 'table_never')"
    path = write_notebook(tmp_path / "n.ipynb", source, out=tmp_path)
    with pytest.raises(InputError, match=r"did not write .*table_never\.csv"):
        notebooks.execute_notebook(path)


def test_killed_in_the_middle_leaves_everything_as_it_was(tmp_path):
    marker = tmp_path / "started"
    source = f"from pathlib import Path; Path({str(marker)!r}).touch(); import time; time.sleep(60)"
    path = write_notebook(tmp_path / "n.ipynb", source, out=tmp_path)
    before = path.read_bytes()
    command = [sys.executable, "-m", "paper_lib", "execute", str(path), "--stamp", str(tmp_path / "n.done")]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    deadline = time.monotonic() + 60
    while not marker.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert marker.exists()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert path.read_bytes() == before
    assert not (tmp_path / "n.done").exists()


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        (
            {"N_RESAMPLE": 5},
            r"unknown parameter of .*02_entropy_cutoff.ipynb 'N_RESAMPLE', did you mean 'N_RESAMPLES'\?; choose from: ",
        ),
        ({"N_RESAMPLES": "many"}, 'parameter N_RESAMPLES .* is "many"; it takes a whole number, such as 4000'),
        ({"N_RESAMPLES": True}, "it takes a whole number"),
        ({"FIGURE_3_MODELS": ["gpt-5"], "N_RESAMPLES": 0}, "unknown model 'gpt-5'; choose from"),
    ],
)
def test_bad_parameters_are_told_in_one_line(parameters, says, tmp_path):
    with pytest.raises(InputError, match=says) as error:
        notebooks.execute_notebook(NOTEBOOKS / "02_entropy_cutoff.ipynb", parameters, out_dir=tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("[ft]*_*"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "unknown notebook"),
        ("{}", "is not a notebook"),
        ("no json", "is not a notebook"),
        ('{"cells": 3, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "is not a notebook"),
    ],
)
def test_what_is_not_a_notebook_is_told_in_one_line(content, says, tmp_path):
    path = tmp_path / "n.ipynb"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=says):
        notebooks.execute_notebook(path)


def test_parameters_must_say_where_products_go(tmp_path):
    path = write_notebook(tmp_path / "n.ipynb", parameters="N = 3")
    with pytest.raises(InputError, match='needs `OUT_DIR = "figures"`'):
        notebooks.execute_notebook(path)


@pytest.mark.parametrize("cell", ["X = 1 + Y", "import os", "f()"])
def test_parameters_must_be_literals(cell, tmp_path):
    path = write_notebook(tmp_path / "n.ipynb", parameters=cell)
    with pytest.raises(InputError, match="is not `NAME = literal`"):
        notebooks.read_parameters(notebooks.read_notebook(path))


def test_products_are_read_from_the_calls_that_save_them():
    notebook = new_notebook(
        cells=[new_markdown_cell("save_table(f, 'no')"), new_code_cell("x.save_figure(f, 'fig_a', out)")]
    )
    assert notebooks.list_products(notebook) == ["fig_a.pdf", "fig_a.png"]


# --- links and verification ----------------------------------------------------------------------------------------


def test_links_are_retargeted_and_others_left_alone():
    text = (
        "https://colab.research.google.com/github/OWNER/REPO/blob/main/notebooks/a.ipynb "
        "https://mybinder.org/v2/gh/OWNER/REPO/main?labpath=a git clone https://github.com/OWNER/REPO && "
        'REPOSITORY = \\"https://github.com/OWNER/REPO\\" https://github.com/somebody/else'
    )
    moved = links.retarget_links(text, "https://github.com/me/paper")
    assert moved.count("me/paper") == 4
    assert "OWNER" not in moved
    assert "https://github.com/somebody/else" in moved


def test_verify_names_a_product_that_differs_is_missing_or_is_left_over(tmp_path, monkeypatch):
    kept, made = tmp_path / "kept", tmp_path / "made"
    for directory in (kept, made):
        directory.mkdir()
        for name in ("table_a.csv", "table_b.csv"):
            (directory / name).write_text("x\n1.0\n")
    monkeypatch.setattr(verify, "FIGURES", kept)
    products = sorted(made.iterdir())
    assert verify.compare_bytes(products) == []
    (kept / "table_a.csv").write_text("x\n1.1\n")
    (kept / "table_b.csv").unlink()
    (kept / "old.png").write_text("")
    problems = verify.compare_bytes(products)
    assert [problem.split()[0] for problem in problems] == [
        "figures/old.png",
        "figures/table_a.csv",
        "figures/table_b.csv",
    ]


def test_verify_elsewhere_compares_numbers(tmp_path):
    (tmp_path / "kept.csv").write_text("model,x\na,1.0\n")
    (tmp_path / "made.csv").write_text("model,x\na,1.0000001\n")
    assert verify.compare_tables(tmp_path / "kept.csv", tmp_path / "made.csv") == []
    for other in ("model,x\na,1.00001\n", "model,x\nb,1.0\n", "model,y\na,1.0\n", "model,x\na,\n"):
        (tmp_path / "made.csv").write_text(other)
        assert len(verify.compare_tables(tmp_path / "kept.csv", tmp_path / "made.csv")) == 1
    assert "is missing" in verify.compare_tables(tmp_path / "none.csv", tmp_path / "made.csv")[0]


def test_verify_says_why_bytes_may_differ(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert "not Linux x86-64" in verify.why_not_reference_platform()
    monkeypatch.undo()
    monkeypatch.setattr(verify, "version", lambda package: "0.0")
    assert "matplotlib is 0.0, the lock has" in verify.why_not_reference_platform()


@pytest.fixture
def small_house(tmp_path, monkeypatch):
    """Return a notebook and its committed product, which `verify` takes for the whole repository."""
    figures = tmp_path / "figures"
    source = "import pandas as pd\nfrom pathlib import Path\nfrom paper_lib import tables\n"
    source += "tables.save_table(pd.DataFrame({'a': [1.5]}), 'table_a', OUT_DIR)"
    path = write_notebook(tmp_path / "n.ipynb", source, out=figures)
    notebooks.execute_notebook(path)
    monkeypatch.setattr(verify, "find_notebooks", lambda: [path])
    monkeypatch.setattr(verify, "FIGURES", figures)
    monkeypatch.setattr(verify, "BUILD", tmp_path / "build")
    monkeypatch.setattr(verify, "why_not_reference_platform", lambda: "")
    return path, figures / "table_a.csv"


def test_verify_is_silent_when_all_is_well_and_says_how_it_compared(small_house, monkeypatch):
    said = []
    assert verify.verify(said.append) == []
    assert "byte for byte" in said[-1]
    monkeypatch.setattr(verify, "why_not_reference_platform", lambda: "this is a toaster")
    assert verify.verify(said.append) == []
    assert "numbers of the CSV tables, since this is a toaster" in said[-1]


def test_two_verify_at_once_do_not_disturb_each_other(small_house, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(verify.verify, [lambda line: None] * 2)) == [[], []]
    assert list((tmp_path / "build").iterdir()) == []  # nothing is left behind


def test_verify_names_an_edited_product_and_an_edited_notebook(small_house, monkeypatch):
    path, product = small_house
    product.write_text("a\n1.6\n")
    path.write_text(path.read_text().replace("1.50", "1.60"))
    problems = verify.verify(lambda line: None)
    assert len(problems) == 2
    assert problems[0].startswith("figures/table_a.csv differs")
    assert "n.ipynb differs from its execution" in problems[1]
    monkeypatch.setattr(verify, "why_not_reference_platform", lambda: "this is a toaster")
    (problem,) = verify.verify(lambda line: None)
    assert "table_a.csv, column a: differs" in problem


def test_verify_stops_at_changed_data_and_names_a_failing_notebook(small_house, monkeypatch):
    path, _ = small_house
    path.write_text(path.read_text().replace("import pandas as pd", "import nothing_of_that_name"))
    (problem,) = verify.verify(lambda line: None)
    assert "n.ipynb, cell [2]: ModuleNotFoundError" in problem
    monkeypatch.setattr(verify, "check_manifest", lambda: ["data/x.csv does not match"])
    assert verify.verify(lambda line: None) == ["data/x.csv does not match"]


def test_save_calls_name_their_product_literally(notebook):
    for cell in notebook.cells:
        for node in ast.walk(ast.parse(cell.source)) if cell.cell_type == "code" else []:
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in notebooks.EXTENSIONS:
                assert isinstance(node.args[1], ast.Constant)
