"""The repository as a stranger finds it: links that resolve, commands that exist, environments that agree."""

import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import paper_lib
from paper_lib.config import Sweep, load_sweep
from paper_lib.frozen import load_runs
from paper_lib.live.coders import Coding
from paper_lib.paths import PUBLISHED, ROOT
from paper_lib.published import load_models
from paper_lib.reproduce import links, notebooks
from paper_lib.reproduce.manifest import read_csv

README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
LOCK = {canonicalize_name(name): version for name, version in PINS}


@pytest.fixture(scope="module")
def tracked():
    """Names of all files of a checkout; there is no such list in an unpacked archive."""
    return subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def requirement_names(requirements):
    return [re.match(r"[A-Za-z0-9_.-]+", requirement)[0] for requirement in requirements]


def test_importing_the_library_needs_no_torch_and_nothing_heavy():
    code = "import sys, paper_lib; print([m for m in ('torch', 'pandas', 'matplotlib') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


@pytest.mark.slow
def test_every_public_name_resolves_and_only_cramming_needs_torch():
    light, live = "p.load_cases, p.InputError", "p.cram, p.decode, p.fit"
    code = f"import sys, paper_lib as p; {light}; assert 'torch' not in sys.modules; {live}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert set(paper_lib.__all__) == {"InputError", "cram", "decode", "fit", "load_cases"}


def test_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = paper_lib.nothing


def test_lock_pins_every_direct_dependency_within_its_range():
    extras = [name for group in PROJECT["optional-dependencies"].values() for name in group]
    for text in PROJECT["dependencies"] + extras:
        requirement = Requirement(text)
        assert requirement.specifier.contains(LOCK[canonicalize_name(requirement.name)]), text


def test_environment_yml_has_the_locks_versions_of_what_a_reader_needs():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert "python=3.11" in environment["dependencies"]  # repo2docker looks for exactly this form
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert sorted(pip) == sorted(f"{name}=={LOCK[name]}" for name in requirement_names(PROJECT["dependencies"]))


def test_citation_file_is_valid_yaml_and_cites_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    assert [author["family-names"] for author in citation["preferred-citation"]["authors"]] == [
        "Kuratov", "Arkhipov", "Bulatov", "Burtsev",
    ]  # fmt: skip


def test_every_address_of_the_repository_is_the_one_constant():
    for name in ["README.md", "CITATION.cff", *(f"notebooks/{path.name}" for path in notebooks.find_notebooks())]:
        text = (ROOT / name).read_text()
        assert links.retarget_links(text, PROJECT["urls"]["Repository"]) == text, f"{name}: run `make links`"


def test_the_readmes_sweep_is_a_valid_one():
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert Sweep(**yaml.safe_load(example)).name == "my-sweep"


def test_every_sweep_is_valid_and_has_a_name_of_its_own():
    paths = sorted((ROOT / "sweeps").rglob("*.yml"))
    codings = [load_sweep(path, Coding) for path in paths if path.parent.name == "coders"]
    sweeps = [load_sweep(path) for path in paths if path.parent.name != "coders"]
    assert len({sweep.name for sweep in sweeps}) == len(sweeps)
    assert len({coding.name for coding in codings}) == len(codings) > 0
    assert {sweep.name for sweep in sweeps} >= set(load_runs()["sweep"])


def test_the_papers_models_have_sweeps_with_the_papers_settings():
    grids = read_csv(PUBLISHED / "run_grids.csv").query("source == 'pg19'").set_index("model")
    sweeps = [load_sweep(path) for path in (ROOT / "sweeps" / "paper").glob("*.yml")]
    assert {sweep.model.name for sweep in sweeps} == set(load_models()["model"])
    for sweep in sweeps:
        grid = grids.loc[sweep.model.name]
        assert sweep.lengths == tuple(map(int, grid["lengths_in_published_scatter"].split()))
        assert (sweep.n_texts, sweep.optimiser.max_steps) == (grid["num_samples"], grid["num_iterations"])
        assert (sweep.optimiser.lr, sweep.optimiser.weight_decay) == (grid["lr"], grid["weight_decay"])
        assert sweep.model.dtype == "float32"
        assert sweep.model.autocast == (None if grid["dtype_flag"] == "float32" else grid["dtype_flag"])
        assert (sweep.protocols, sweep.storage, sweep.n_mem) == (("kuratov2025",), "float32", (1,))


def test_readme_links_resolve():
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", README) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_readme_has_a_row_for_every_notebook():
    for path in notebooks.find_notebooks():
        (row,) = [line for line in README.splitlines() if line.startswith(f"| [{path.stem}]")]
        assert f"](notebooks/{path.name})" in row


def test_readme_is_wrapped_where_it_can_be():
    long = [line for line in README.splitlines() if len(line) > 120 and not line.startswith(("|", "!["))]
    assert not long


def test_every_make_command_of_the_documents_exists():
    targets = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    library = "".join(path.read_text() for path in (ROOT / "paper_lib").glob("*.py"))
    documents = README + (ROOT / "data" / "README.md").read_text() + library
    named = set(re.findall(r"\bmake (?:-j\d* )?([a-z]+)(?=`|\s+#)", documents)) | {"reproduce", "test"}
    assert named <= targets


def test_continuous_integration_calls_the_readmes_commands():
    script = (ROOT / ".ci" / "run").read_text()
    for command in ("make reproduce", "make test", "make verify"):
        assert re.search(rf"^(?:\w+=\w+ )?{command}(?: #|$)", script, re.MULTILINE)
    assert "git status --porcelain" in script


def test_tracked_tree_is_small_and_holds_no_pickle(tracked):
    files = [ROOT / name for name in tracked]
    assert sum(path.stat().st_size for path in files if path.exists()) < 35e6
    assert [path for path in files if path.suffix in {".pkl", ".pickle", ".pt", ".bin"}] == []


def test_no_working_file_is_tracked(tracked):
    assert [name for name in tracked if name.startswith(("build/", ".venv/")) or name.endswith(".partial")] == []
