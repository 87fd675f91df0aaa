"""The working store: one case, one file; written whole or not at all.

A file (build/runs/<sweep>/<key>.safetensors) holds the vectors and, in its header, the record as JSON with the hashes
of both. A case that is there is never run again; a file that is damaged is named, not skipped. Beside the files an
index has one line for each case, so that a sweep can be counted without opening them. A case that is still being
crammed has a file <key>.halfway with the optimiser's state, from which a killed run goes on; one whose evaluations were
used up has a file <key>.final with the last state, from which it goes on when it is given more.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from .config import NAME, list_later_defaults
from .errors import InputError
from .files import make_folder, write_bytes
from .paths import BUILD

VECTOR, SUFFIX, HALFWAY_SUFFIX, FINAL_SUFFIX = "vectors", ".safetensors", ".halfway", ".final"
INDEX_COLUMNS = ["key", "text_id", "arm", "protocol", "n_mem", "length", "restart", "ended", "exact"]


class Store:
    """The working store of one sweep, safe for several processes at once."""

    def __init__(self, name: str, root: Path = BUILD / "runs"):
        if not re.fullmatch(NAME, name):
            raise InputError(f"{name!r} is not the name of a sweep; give the `name` in its file")
        self.folder = Path(root) / name

    def prepare(self) -> None:
        """Make the folder, and drop states of cases stored already, which a kill can leave; InputError if it cannot."""
        make_folder(self.folder)
        for path in self.folder.glob(f"*{HALFWAY_SUFFIX}"):
            if path.name.removesuffix(HALFWAY_SUFFIX) in self:
                path.unlink(missing_ok=True)

    def path(self, key: str) -> Path:
        """Return where the case of that key lies or will lie."""
        return self.folder / f"{key}{SUFFIX}"

    def __contains__(self, key: str) -> bool:
        return self.path(key).is_file()

    def put(self, record: dict, vectors: np.ndarray) -> None:
        """Store a record (with its ``key``) and its vectors (n_mem, d_embed) in one step."""
        write_case(self.path(record["key"]), record, vectors)
        self._append_to_index([record])
        if record["ended"] == "budget":
            with contextlib.suppress(FileNotFoundError):  # or another process has just stored the case too
                self._halfway(record["key"]).replace(self._final(record["key"]))
        self._halfway(record["key"]).unlink(missing_ok=True)

    def discard(self, key: str) -> None:
        """Remove a stored case that another one has replaced."""
        for path in (self._final(key), self.path(key)):
            path.unlink(missing_ok=True)

    def get(self, key: str) -> tuple[dict, np.ndarray]:
        """Return record and vectors of a stored case; InputError names a damaged file and the way out."""
        path, way_out = self.path(key), "delete it and run the sweep again"
        if not path.is_file():
            raise InputError(f"{path} is missing; run the sweep again to make it")
        record, vectors = read_case(path, way_out)
        if record["key"] != key:
            raise InputError(f"{path}: holds a different case from the one it is named after; {way_out}")
        return record, vectors

    def put_halfway(self, key: str, state: dict[str, np.ndarray]) -> None:
        """Keep the state of a case that is not finished, until it is stored."""
        if key not in self:
            # safetensors writes memory as it lies, so a transposed array would come back scrambled
            content = save({name: np.asarray(values, order="C") for name, values in state.items()})
            write_bytes(self._halfway(key), hashlib.sha256(content).digest() + content)
        if key in self:  # another process may have finished it meanwhile
            self._halfway(key).unlink(missing_ok=True)

    def get_halfway(self, key: str) -> dict[str, np.ndarray] | None:
        """Return the state a case was left in, None for one that was not begun; InputError names a damaged file."""
        return _read_state(self._halfway(key))

    def get_final(self, key: str) -> dict[str, np.ndarray] | None:
        """Return the last state of a stored case whose evaluations were used up, None where there is none."""
        return _read_state(self._final(key))

    def __iter__(self) -> Iterator[str]:
        """Yield the keys of all stored cases, sorted."""
        names = (entry.name for entry in os.scandir(self.folder)) if self.folder.is_dir() else ()
        return iter(sorted(name[: -len(SUFFIX)] for name in names if name.endswith(SUFFIX) and name[0] != "."))

    def index(self) -> pd.DataFrame:
        """Return INDEX_COLUMNS of all stored cases, in the order of their keys, opening only files not yet indexed."""
        lines = self._index.read_text(encoding="utf-8", errors="replace").splitlines() if self._index.is_file() else []
        known = {entry["key"]: entry for entry in map(_parse_line, lines) if entry}
        keys = list(self)
        new = [self.get(key)[0] for key in keys if key not in known]
        if new:
            self._append_to_index(new)
        known |= {record["key"]: record for record in new}
        return pd.DataFrame([known[key] for key in keys], columns=INDEX_COLUMNS)

    def _halfway(self, key):
        return self.folder / f"{key}{HALFWAY_SUFFIX}"

    def _final(self, key):
        return self.folder / f"{key}{FINAL_SUFFIX}"

    @property
    def _index(self):
        return self.folder / "index.jsonl"

    def _append_to_index(self, records):
        # In one write at the end of the file, so that several writers do not mix; a line that all the same is torn, or
        # never written, costs one look into its case's file.
        lines = [json.dumps({name: record[name] for name in INDEX_COLUMNS}) + "\n" for record in records]
        with contextlib.suppress(OSError), self._index.open("ab", buffering=0) as file:
            file.write(("\n" + "".join(lines)).encode())


def write_case(path: Path, record: dict, vectors: np.ndarray) -> None:
    """Write a record (with its ``key``) and its vectors (n_mem, d_embed) as one safetensors file, in one step."""
    vectors = np.ascontiguousarray(vectors)
    text = json.dumps(record | {"vectors_sha256": _hash(vectors)}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    write_bytes(path, save({VECTOR: vectors}, metadata={"record": text, "record_sha256": digest}))


def read_case(path: Path, way_out: str) -> tuple[dict, np.ndarray]:
    """Return record and vectors of a file that ``write_case`` wrote, checked against the hashes in it.

    A record of an earlier version has the later columns at their defaults (see ``complete_record``). Raises InputError,
    ending in ``way_out``, for a file that is damaged or something else.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata, vectors = file.metadata(), file.get_tensor(VECTOR)
        text, record = metadata["record"], json.loads(metadata["record"])
        recorded = record["vectors_sha256"], metadata["record_sha256"]
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError):
        raise InputError(f"{path} is damaged, or not the file of one case; {way_out}") from None
    if recorded != (_hash(vectors), hashlib.sha256(text.encode()).hexdigest()):
        raise InputError(f"{path}: contents do not match their recorded hashes; {way_out}")
    return complete_record(record), vectors


def find_stored(name: str, key: str) -> Path:
    """Return the file of the one case of a sweep whose key begins with ``key``; InputError if there is none or more."""
    store = Store(name)
    keys = [stored for stored in store if stored.startswith(key)]
    if len(keys) != 1:
        raise InputError(f"{len(keys)} cases of {name} start with {key!r}; give more characters of one key")
    return store.path(keys[0])


def complete_record(record: dict) -> dict:
    """Return a record with the columns that were added after it was made.

    Then, why a search ended and whether the text is exact were one column, ``status``.
    """
    new = list_later_defaults() | {
        "arm": "",
        "ended": {"exact": "reached", "solved": "reached"}.get(record.get("status"), record.get("status")),
        "exact_length_tokens": record["length"] if record["exact"] else 0,
        "exact_ids_sha256": record.get("ids_sha256") if record["exact"] else None,
    }
    return new | {name: value for name, value in record.items() if name != "status"}


def _read_state(path):
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, state = content[: hashlib.sha256().digest_size], content[hashlib.sha256().digest_size :]
    if digest != hashlib.sha256(state).digest():
        raise InputError(f"{path} is damaged; delete it, and its case starts again from the beginning")
    return load(state)


def _parse_line(line):
    with contextlib.suppress(json.JSONDecodeError):
        entry = json.loads(line)
        if isinstance(entry, dict) and set(INDEX_COLUMNS) <= entry.keys():
            return entry
    return None


def _hash(vectors):
    return hashlib.sha256(str(vectors.dtype).encode() + np.ascontiguousarray(vectors).tobytes()).hexdigest()
