"""data/MANIFEST.sha256: the hash of every file under data/, checked whenever one of them is read.

The format is that of ``sha256sum``, so ``cd data && sha256sum --check MANIFEST.sha256`` gives the same answer.
"""

import io
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ..errors import InputError
from ..files import hash_bytes, write_text
from ..paths import DATA, relative_to_root

MANIFEST_NAME = "MANIFEST.sha256"


def _data_files(data: Path) -> list[Path]:
    files = [path for path in data.rglob("*") if path.is_file() and path.name != MANIFEST_NAME]
    return sorted(path for path in files if not any(part.startswith(".") for part in path.relative_to(data).parts))


def _parse(data: Path) -> dict[str, str]:
    path = data / MANIFEST_NAME
    if not path.is_file():
        raise InputError(
            f"{relative_to_root(path)} is missing; restore it with `git checkout {relative_to_root(path)}`"
        )
    digests = {}
    # Lines end in \n and in nothing else, so that no changed byte passes for a line's end.
    text = path.read_bytes().decode(errors="replace").removesuffix("\n")
    for number, line in enumerate(text.split("\n"), start=1):
        digest, separator, name = line.partition("  ")
        if not separator or len(digest) != 64 or not name:
            raise InputError(
                f"{relative_to_root(path)}, line {number}: not a `sha256  path` line; restore the file from git"
            )
        digests[name] = digest
    return digests


def list_files(folder: Path, data: Path = DATA) -> list[Path]:
    """Return the files that the manifest lists directly in ``folder``, sorted, whether or not they are there."""
    return sorted(data / name for name in _parse(data) if (data / name).parent == folder)


def read_bytes(path: Path, data: Path = DATA) -> bytes:
    """Return the content of a file under ``data``, having checked it against the manifest.

    Raises InputError when the file is missing, not listed, or differs from its recorded hash.
    """
    name, shown = path.relative_to(data).as_posix(), relative_to_root(path)
    recorded = _parse(data).get(name)
    if not path.is_file():
        raise InputError(f"{shown} is missing; restore it with `git checkout {shown}`")
    if recorded is None:
        raise InputError(f"{shown} is not listed in {MANIFEST_NAME}; if it belongs there, run `make manifest`")
    content = path.read_bytes()
    if hash_bytes(content) != recorded:
        raise InputError(
            f"{shown} and its hash in {MANIFEST_NAME} do not match; "
            f"restore it with `git checkout {shown}`, or run `make manifest` if you meant the change"
        )
    return content


def read_csv(path: Path, data: Path = DATA, **options) -> pd.DataFrame:
    """Return a checked CSV file as a frame; ``options`` go to ``pandas.read_csv``."""
    return pd.read_csv(io.BytesIO(read_bytes(path, data)), **options)


def write_manifest(data: Path = DATA, changed: Iterable[Path] | None = None) -> Path:
    """Hash files under ``data`` and write the manifest in one step; return its path.

    Those ``changed`` are hashed and the others keep the hashes they have, so that a damaged one is still found; without
    ``changed``, or where there is no manifest yet, all are hashed.
    """
    digests = {} if changed is None or not (data / MANIFEST_NAME).is_file() else _parse(data)
    for path in changed if digests else _data_files(data):
        digests[path.relative_to(data).as_posix()] = hash_bytes(path.read_bytes())
    lines = [f"{digests[name]}  {name}\n" for name in sorted(digests)]
    write_text(data / MANIFEST_NAME, "".join(lines))
    return data / MANIFEST_NAME


def check_manifest(data: Path = DATA) -> list[str]:
    """Return one line for each file under ``data`` that is changed, missing or not listed; empty when all is well."""
    recorded = _parse(data)
    present = {p.relative_to(data).as_posix(): p for p in _data_files(data)}
    problems = [f"{relative_to_root(data / name)} is missing" for name in recorded.keys() - present.keys()]
    problems += [
        f"{relative_to_root(data / name)} is not listed in {MANIFEST_NAME}" for name in present.keys() - recorded.keys()
    ]
    problems += [
        f"{relative_to_root(path)} and its hash in {MANIFEST_NAME} do not match"
        for name, path in present.items()
        if name in recorded and hash_bytes(path.read_bytes()) != recorded[name]
    ]
    return sorted(problems)
