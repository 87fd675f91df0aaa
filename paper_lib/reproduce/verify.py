"""Is everything still reproducible? Data hashes first, then every product recomputed and compared."""

import os
import platform
import re
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd

from ..errors import InputError
from ..files import make_folder
from ..paths import BUILD, FIGURES, ROOT, relative_to_root
from .manifest import check_manifest
from .notebooks import Executed, execute_notebook, find_notebooks, make_canonical, read_notebook

RELATIVE_TOLERANCE = 1e-6
# What the bytes of a product depend on, beside this library.
RENDERING_PACKAGES = ("matplotlib", "numpy", "pandas", "scipy", "seaborn", "tabulate")


def verify(report=print) -> list[str]:
    """Check data hashes, then recompute every product; return one line per problem, empty when all is well.

    On Linux x86-64 with the versions of requirements.lock the products must be the same bytes; elsewhere the numbers
    of the CSV tables must agree to 1e-6 relative. ``report`` is called with what was done.
    """
    if problems := check_manifest():
        return problems
    report("data: every file matches data/MANIFEST.sha256")
    target = Path(tempfile.mkdtemp(prefix="verify-", dir=make_folder(BUILD)))  # two may run at once
    notebooks = find_notebooks()
    with ProcessPoolExecutor(max_workers=min(len(notebooks), os.cpu_count() or 1)) as pool:
        results = list(pool.map(_execute, notebooks, [target] * len(notebooks)))
    if problems := [result for result in results if isinstance(result, str)]:
        return problems  # whose traces stay in ``target``
    problems = _compare_products(notebooks, results, report)
    shutil.rmtree(target)
    return problems


def _compare_products(notebooks, results, report):
    products = [product for result in results for product in result.products]
    reason = why_not_reference_platform()
    if reason:
        report(f"figures and tables: compared by the numbers of the CSV tables, since {reason}")
        return [
            line for made in products if made.suffix == ".csv" for line in compare_tables(FIGURES / made.name, made)
        ]
    report("figures, tables and notebooks: compared byte for byte (Linux x86-64, locked versions)")
    return compare_bytes(products) + [
        f"{relative_to_root(path)} differs from its execution; run `make reproduce`"
        for path, result in zip(notebooks, results, strict=True)
        if _canonical_text(path) != _canonical_text(result.notebook)
    ]


def why_not_reference_platform() -> str:
    """Return why the bytes of products may differ here, in words; empty on the reference platform."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return f"this is {platform.system()} {platform.machine()}, not Linux x86-64"
    locked = dict(
        re.findall(
            r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE
        )
    )
    for package in RENDERING_PACKAGES:
        try:
            installed = version(package)
        except PackageNotFoundError:
            installed = "not installed"
        if installed != locked[package]:
            return f"{package} is {installed}, the lock has {locked[package]}"
    return ""


def compare_bytes(products: list[Path]) -> list[str]:
    """Return one line for every committed product that is missing, left over or other bytes than in ``products``."""
    made = {product.name: product for product in products}
    kept = {path.name: path for path in FIGURES.iterdir() if not path.name.startswith(".")}
    problems = [f"figures/{name} is made by no notebook; delete it" for name in kept.keys() - made.keys()]
    problems += [f"figures/{name} is missing; run `make reproduce`" for name in made.keys() - kept.keys()]
    problems += [
        f"figures/{name} differs from its recomputation; run `make reproduce`"
        for name in kept.keys() & made.keys()
        if kept[name].read_bytes() != made[name].read_bytes()
    ]
    return sorted(problems)


def compare_tables(kept: Path, made: Path) -> list[str]:
    """Return one line per column in which two CSV tables differ: text exactly, numbers beyond 1e-6 relative."""
    shown = relative_to_root(kept)
    if not kept.is_file():
        return [f"{shown} is missing; run `make reproduce`"]
    old, new = pd.read_csv(kept), pd.read_csv(made)
    if list(old.columns) != list(new.columns) or len(old) != len(new):
        return [f"{shown} has another shape than its recomputation; run `make reproduce`"]
    return [
        f"{shown}, column {column}: differs from its recomputation"
        for column in old.columns
        if not _same_values(old[column], new[column])
    ]


def _same_values(old, new):
    if pd.api.types.is_numeric_dtype(old) and pd.api.types.is_numeric_dtype(new):
        return np.allclose(old.astype(float), new.astype(float), rtol=RELATIVE_TOLERANCE, atol=1e-9, equal_nan=True)
    return old.equals(new)


def _execute(path: Path, target: Path) -> Executed | str:
    try:
        return execute_notebook(path, out_dir=target)
    except InputError as error:
        return str(error)


def _canonical_text(path):
    return nbformat.writes(make_canonical(read_notebook(path)))
