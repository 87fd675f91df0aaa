"""Executing notebooks with papermill and bringing the result into one canonical form.

A notebook is run from a fresh kernel into build/, put into canonical form (nothing in it that changes from run to run)
and copied back only where it differs. With parameters it is a variant: it stays in build/, and so do its figures.
"""

import ast
import contextlib
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
from IPython.core.inputtransformer2 import TransformerManager
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from ..errors import InputError, unknown_name
from ..files import make_folder, write_bytes, write_text
from ..paths import BUILD, NOTEBOOKS, ROOT, relative_to_root

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
EXTENSIONS = {"save_figure": (".pdf", ".png"), "save_table": (".csv", ".tex", ".md")}
EXTENSIONS["save_verdict"] = EXTENSIONS["save_table"]
KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping",
}


@dataclass(frozen=True)
class Executed:
    """What one execution left behind: the executed copy and the files its cells saved."""

    notebook: Path
    products: list[Path]


def find_notebooks() -> list[Path]:
    """Return the notebooks that `make reproduce` executes, in order: all but the live 00_quickstart."""
    return sorted(path for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb") if not path.name.startswith("00"))


def execute_notebook(path: Path, parameters: dict | None = None, out_dir: Path | None = None) -> Executed:
    """Execute a notebook; without ``parameters``, put the result in its place, else leave it under build/executed.

    ``parameters`` override names of the notebook's parameters cell. ``out_dir`` (default figures/, for a variant
    build/executed/<name>) takes the figures and tables. Raises InputError for a notebook that does not exist, an
    unknown parameter, a value of another type than the default's, or a cell that fails; the notebook then stays as
    it was.
    """
    notebook = read_notebook(path)
    names = list_products(notebook)
    variant = dict(parameters or {})
    if out_dir:
        variant["OUT_DIR"] = str(out_dir)
    elif variant:
        variant["OUT_DIR"] = os.path.expanduser(variant.get("OUT_DIR", BUILD / "executed" / path.stem))
    defaults = read_parameters(notebook)
    _check_parameters(path, variant, defaults)
    copy = (Path(out_dir) if out_dir else BUILD / "executed") / path.name
    directory = ROOT / (defaults | variant)["OUT_DIR"]
    products = [directory / name for name in names]
    before = {product: product.read_bytes() for product in products if product.is_file()}
    try:
        canonical = nbformat.writes(make_canonical(_run(path, copy, variant))) + "\n"
    except InputError:
        for product, content in before.items():  # figures of a failed run would not match the notebook
            write_bytes(product, content)
        raise
    if missing := [relative_to_root(product) for product in products if not product.is_file()]:
        raise InputError(
            f"{relative_to_root(path)} ran but did not write {', '.join(missing)}; call its save functions"
        )
    write_text(copy, canonical)
    if not variant:
        write_text(path, canonical)
    return Executed(copy, products)


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Return the notebook at ``path``; raise InputError when it is missing or not a notebook."""
    if not path.is_file():
        raise unknown_name("notebook", str(path), [relative_to_root(known) for known in find_notebooks()])
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        return notebook
    except (
        nbformat.ValidationError,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
    ):  # not JSON, not UTF-8, not the format of a notebook
        shown = relative_to_root(path)
        raise InputError(f"{shown} is not a notebook; restore it with `git checkout {shown}`") from None


def read_parameters(notebook: nbformat.NotebookNode) -> dict:
    """Return the names and default values of the cell tagged ``parameters``; its right-hand sides must be literals."""
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise InputError(f"a notebook needs one cell tagged `parameters`, this one has {len(cells)}")
    parameters = {}
    for statement in _parse(cells[0]).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        try:
            parameters[targets[0].id] = ast.literal_eval(statement.value)
        except (AttributeError, ValueError):
            raise InputError(f"parameters cell: `{ast.unparse(statement)}` is not `NAME = literal`") from None
    if not isinstance(parameters.get("OUT_DIR"), str):
        raise InputError('parameters cell: needs `OUT_DIR = "figures"`, where figures and tables go')
    return parameters


def parse_parameters(path: Path, pairs: list[str]) -> dict:
    """Return what is written as NAME=VALUE for a notebook; InputError for anything else.

    What is text in the notebook is taken as given, so "1984" is no number, and quotes are part of it; else JSON.
    """
    parameters, defaults = {}, read_parameters(read_notebook(path)) if pairs else {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise InputError(f"-p {pair}: write NAME=VALUE, with VALUE as JSON")
        if isinstance(defaults.get(name), str):
            parameters[name] = value
            continue
        try:
            parameters[name] = json.loads(value)
        except json.JSONDecodeError:
            parameters[name] = value  # a bare word is a string
    return parameters


def list_products(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the file names that a notebook saves, read from its calls of save_figure, save_table and save_verdict."""
    names = []
    for cell in notebook.cells:
        for node in ast.walk(_parse(cell)) if cell.cell_type == "code" else []:
            saver = getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""
            if saver in EXTENSIONS:
                name = node.args[1] if len(node.args) > 1 else None
                if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
                    raise InputError(f'`{ast.unparse(node)}`: name the product literally: {saver}(..., "name", out)')
                names += [name.value + extension for extension in EXTENSIONS[saver]]
    return names


def make_canonical(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return ``notebook`` without anything that changes from run to run.

    Metadata is fixed, injected parameters are gone, cells are numbered from 1, pieces of one output stream are joined,
    and what went to stderr (warnings, progress) stays in the terminal.
    """
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    number = 0
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type != "code":
            continue
        number += 1
        cell.execution_count = number
        cell.outputs = _join_streams(cell.outputs)
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number
    return notebook


def _parse(cell):
    try:
        return ast.parse(TransformerManager().transform_cell(cell.source))  # magics become calls
    except SyntaxError as error:
        raise InputError(f"cell `{cell.source.splitlines()[0]}`, line {error.lineno}: {error.msg}") from None


def _check_parameters(path, given, defaults):
    for name, value in given.items():
        if name not in defaults:
            raise unknown_name(f"parameter of {relative_to_root(path)}", name, defaults)
        default = defaults[name]
        fits = isinstance(value, type(default)) and isinstance(value, bool) == isinstance(default, bool)
        if not (fits or (isinstance(default, float) and type(value) is int)):
            raise InputError(
                f"parameter {name} of {relative_to_root(path)} is {json.dumps(value)}; "
                f"it takes {KINDS.get(type(default), 'null')}, such as {json.dumps(default)}"
            )


def _run(path, copy, parameters):
    # The kernel of this very environment, without the user's own kernels and start-up files.
    # One thread for numpy: two notebooks run at a time, and threads that wait for each other cost more than they bring.
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    os.environ["IPYTHONDIR"] = str(make_folder(BUILD / "ipython"))
    with tempfile.TemporaryDirectory() as scratch, _own_kernel(Path(scratch)):
        unfinished = Path(scratch) / path.name
        try:
            executed = papermill.execute_notebook(
                str(path).replace("{", "{{").replace("}", "}}"),  # papermill formats its paths
                str(unfinished).replace("{", "{{").replace("}", "}}"),
                parameters=parameters,
                kernel_name="python3",
                language="python",
                cwd=str(path.parent),
                progress_bar=False,
                config=_local_sockets(scratch),
                extra_arguments=["--log-level=CRITICAL"],  # a kernel that is told to stop calls that an error
            )
        except PapermillExecutionError as error:
            write_bytes(copy, unfinished.read_bytes())
            reason = f"{error.ename}: {error.evalue}".splitlines()[0]
            number = error.exec_count - bool(parameters)  # as the notebook counts, without the injected cell
            place, trace = relative_to_root(path), relative_to_root(copy)
            raise InputError(f"{place}, cell [{number}]: {reason} (full trace: {trace})") from None
        except DeadKernelError:
            raise InputError(f"{relative_to_root(path)}: the kernel died; is there enough memory?") from None
    for cell in executed.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                print(f"{path.name}: {output.text.rstrip()}", file=sys.stderr)
    return executed


@contextlib.contextmanager
def _own_kernel(scratch):
    # Of all places that Jupyter looks for kernels in, JUPYTER_PATH comes first.
    spec = {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "Python 3"}
    write_text(scratch / "kernels" / "python3" / "kernel.json", json.dumps(spec | {"language": "python"}))
    before = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = str(scratch)
    try:
        yield
    finally:
        del os.environ["JUPYTER_PATH"]
        if before is not None:
            os.environ["JUPYTER_PATH"] = before


def write_stamp(stamp: Path, products: list[Path]) -> None:
    """Touch the file ``stamp``, with a make rule beside it: a product that was deleted or edited makes it stale."""
    names = " ".join(relative_to_root(product) for product in products)
    make_folder(stamp.parent)
    stamp.with_suffix(".d").write_text(f"{stamp.as_posix()}: {names}\n{names}:\n")
    stamp.touch()


def _local_sockets(directory):
    # Files of our own instead of TCP ports, which another process may take between being chosen and being used.
    # A socket's path may have about 100 characters; with a longer one ports must do.
    local = os.name == "posix" and len(directory) < 80
    return Config(KernelManager={"transport": "ipc", "ip": f"{directory}/kernel"} if local else {})


def _join_streams(outputs):
    joined = []
    for output in outputs:
        output.get("metadata", {}).pop("execution", None)
        if output.output_type == "stream" and output.name == "stderr":
            continue
        if output.output_type == "stream" and joined and joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined
