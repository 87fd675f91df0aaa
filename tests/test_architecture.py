"""The rules of ARCHITECTURE.md, read off the source: who may import whom, and how long things get."""

import ast
import re

import pytest

from paper_lib.paths import ROOT

LIBRARY = ROOT / "paper_lib"
MODULES = {path.relative_to(LIBRARY).with_suffix("").as_posix(): path for path in sorted(LIBRARY.rglob("*.py"))}
HEAVY = {
    "torch",
    "transformers",
    "ray",
    "datasets",
    "tokenizers",
    "huggingface_hub",
    "accelerate",
    "constriction",
    "dahuffman",
    "pysbd",
    "jaxtyping",
}
FILES = {"open", "read_text", "write_text", "read_bytes", "write_bytes", "read_csv", "read_parquet", "to_csv"}


def read_imports(path):
    """Return the names that a module imports: top-level packages outside, ``a/b`` inside the library."""
    room = list(path.relative_to(LIBRARY).parent.parts)
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = [*room[: len(room) - node.level + 1], *(node.module or "").split(".")]
            base = [part for part in base if part]
            names |= {"/".join(base)} if node.module else {"/".join([*base, alias.name]) for alias in node.names}
    return names


@pytest.fixture(params=MODULES, ids=str)
def module(request):
    return request.param


def test_nothing_outside_live_imports_what_needs_torch(module):
    if not module.startswith("live/"):
        names = read_imports(MODULES[module])
        assert not names & HEAVY
        assert not {name for name in names if name == "live" or name.startswith("live/")}


def test_live_knows_no_figures_and_no_notebooks(module):
    if module.startswith("live/"):
        names = read_imports(MODULES[module])
        assert not {name for name in names if name.split("/")[0] in {"figures", "reproduce", "matplotlib", "papermill"}}


def test_an_analysis_draws_nothing(module):
    if module.startswith("analyses/"):
        names = read_imports(MODULES[module])
        assert not {name for name in names if name.split("/")[0] in {"figures", "reproduce", "matplotlib", "papermill"}}


@pytest.mark.parametrize("module", ["capacity", "stats", "matching", "censored"])
def test_the_mathematics_reads_and_writes_nothing(module):
    calls = [node.func for node in ast.walk(ast.parse(MODULES[module].read_text())) if isinstance(node, ast.Call)]
    assert not {getattr(call, "attr", getattr(call, "id", "")) for call in calls} & FILES
    assert not read_imports(MODULES[module]) & {"pathlib", "os", "io", "files", "paths"}


@pytest.mark.parametrize(
    ("module", "not_known"),
    [
        ("config", ("store", "frozen", "live")),
        ("store", ("frozen", "live", "measured")),
        ("live/lm", ("live/protocols", "live/rows", "live/loop")),
        ("live/loop", ("live/sweep", "live/cases", "live/records", "store", "config")),
        ("live/records", ("live/loop", "live/movers", "live/goals", "live/finders")),
        ("live/protocols/base", ("live/loop", "live/rows", "live/measure")),
    ],
)
def test_nothing_imports_upward(module, not_known):
    assert not read_imports(MODULES[module]) & set(not_known)


def test_imports_make_no_circle():
    def resolve(name):
        return next((known for known in (name, f"{name}/__init__") if known in MODULES), None)

    graph = {name: {resolve(other) for other in read_imports(path)} - {None, name} for name, path in MODULES.items()}
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path, name])
        if name not in done:
            path.append(name)
            for other in sorted(graph[name]):
                visit(other)
            done.add(path.pop())

    for name in graph:
        visit(name)
    assert len(done) == len(MODULES)


def test_no_module_is_too_long_to_read_in_one_go(module):
    assert len(MODULES[module].read_text().splitlines()) <= 300


def test_no_function_is_longer_than_a_screen(module):
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name


def test_every_room_and_registry_of_the_document_is_there():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(?:paper_lib/)?((?:live|figures|reproduce|analyses)/[a-z_]*(?:\.py)?)`", text))
    assert named
    for name in named:
        assert (LIBRARY / name).exists(), name
