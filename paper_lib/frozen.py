"""Frozen runs: a finished sweep as one Parquet table and one safetensors file under data/, hashed in the manifest."""

import io
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open
from safetensors.numpy import save

from .capacity import CASE_COLUMNS, paper_cross_entropy
from .config import OPTIMISER_PREFIX, CaseConfig, list_later_defaults
from .errors import InputError, unknown_name
from .files import write_bytes
from .paths import DATA, relative_to_root
from .reproduce.manifest import read_bytes, write_manifest
from .storage import find_storage, unpack
from .store import Store

KEPT = ("longest_exact", "all")
OF_ONE_CASE = {"text_id", "ids_sha256", "length", "restart", "init_from", "continues"}


def freeze(store: Store, data: Path = DATA, *, keep: str = "longest_exact", extend: bool = False) -> tuple[Path, Path]:
    """Write all records of a store to data/runs/<sweep>.parquet, the vectors worth keeping to data/vectors, hash both.

    Kept are the vectors that ``select_kept`` names, or with ``keep`` = "all" those of every case. With ``extend`` the
    cases that are frozen already and not in the store stay, and their vectors as they were kept: a sweep whose store is
    gone can be given more lengths.

    Raises InputError for a store that is empty or holds only a part of its texts somewhere, a damaged file, a record
    that claims exactness without having been measured on a CPU, settings other than those of the cases that stay, or
    vectors to keep that are gone.
    """
    if keep not in KEPT:
        raise unknown_name("vectors to keep", keep, KEPT)
    name, cases = store.folder.name, [store.get(key) for key in store]
    if not cases:
        raise InputError(f"no cases in {store.folder}; run the sweep first")
    table, vectors = data / "runs" / f"{name}.parquet", data / "vectors" / f"{name}.safetensors"
    frame = pd.DataFrame([record for record, _ in cases])
    tensors = {record["key"]: find_storage(record["storage"]).pack(found) for record, found in cases}
    if extend:
        before = _complete(pd.read_parquet(io.BytesIO(read_bytes(table, data))))
        _check_same_settings(store, before, frame)
        frame = pd.concat([before[~before["key"].isin(frame["key"])], frame])
        with _open_vectors(name, data) as file:
            keep = (file.metadata() or {}).get("keep", keep)  # what was kept is not thrown away
            tensors = {key: file.get_tensor(key) for key in file.keys()} | tensors  # noqa: SIM118, not a dict
    frame = frame.sort_values("key", ignore_index=True)
    _check_whole(store, frame)
    kept = (frame if keep == "all" else select_kept(frame))["key"]
    if lost := set(kept) - set(tensors):
        raise InputError(f"{len(lost)} of the vectors to keep are neither in {store.folder} nor in {vectors.name}")
    write_bytes(vectors, save({key: tensors[key] for key in kept}, metadata={"keep": keep} if keep == "all" else None))
    write_bytes(table, _pack(frame))
    write_manifest(data, changed=(table, vectors))
    return table, vectors


def _check_same_settings(store, before, frame):
    # Of one arm, protocol and number of vectors everything is alike but the texts and their lengths.
    fields = CaseConfig.model_fields.keys() - OF_ONE_CASE
    by, settings = ["arm", "protocol", "n_mem"], [c for c in frame if c in fields or c.startswith(OPTIMISER_PREFIX)]
    known, new = (
        runs.astype(object).where(runs.notna(), None).groupby(by)[settings].agg(set) for runs in (before, frame)
    )
    for group, column in itertools.product(known.index.intersection(new.index), settings):
        if known.loc[group, column] != new.loc[group, column]:
            was, now = (sorted(map(str, some.loc[group, column])) for some in (known, new))
            raise InputError(
                f"{store.folder.name} is frozen with {column} {', '.join(was)}, now it is {', '.join(now)}; "
                "run the sweep under a name of its own"
            )


def _check_whole(store, frame):
    elsewhere = frame[frame["exact_length_tokens"].astype(bool) & (frame["ladder_device"] != "cpu")]
    for key, device in zip(elsewhere["key"], elsewhere["ladder_device"], strict=True):
        raise InputError(
            f"{store.path(key)} was found exact on {device} only; "
            f"prove it on a CPU: python -m paper_lib freeze {store.folder.name}"
        )
    twice = frame[frame.duplicated(["source", "text_id", "arm", "protocol", "n_mem", "length", "restart"])]
    if len(twice):
        raise InputError(
            f"{store.folder} holds text {twice['text_id'].iloc[0]} twice at length {twice['length'].iloc[0]}, with "
            "other settings; delete the folder and run the sweep again, or run each setting under a name of its own"
        )
    texts = frame.groupby(["source", "arm", "protocol", "n_mem", "length", "restart"])["text_id"].agg(set)
    if unfinished := sum(len(frame["text_id"].unique()) - len(there) for there in texts):
        raise InputError(f"{store.folder} is not finished, {unfinished} cases are missing; run the sweep again first")


def select_kept(cases: pd.DataFrame) -> pd.DataFrame:
    """Return the cases whose vectors are worth keeping: each text's longest exact one, per arm, protocol and n_mem."""
    exact = cases[cases["exact_length_tokens"] > 0].sort_values(["exact_length_tokens", "length", "key"])
    return exact.groupby(["arm", "protocol", "n_mem", "text_id"]).tail(1)


def load_runs(data: Path = DATA, *, name: str = "*") -> pd.DataFrame:
    """Return the frozen records of the sweep ``name``, by default of all, as cases.

    Columns: CASE_COLUMNS, with ``origin = measured``, then whatever else was recorded.
    """
    tables = sorted((data / "runs").glob(f"{name}.parquet"))
    if not tables:
        return pd.DataFrame(columns=[*CASE_COLUMNS, "arm", "key", "sweep"])
    frames = [_complete(pd.read_parquet(io.BytesIO(read_bytes(path, data)))).assign(sweep=path.stem) for path in tables]
    cases = pd.concat(frames, ignore_index=True).assign(origin="measured")
    for column, total in (("paper_ce_lm_nats", "ce_lm_nats"), ("paper_ce_mem_nats", "ce_mem_min_nats")):
        cases[column] = paper_cross_entropy(cases[total], cases["n_targets"], cases["length"])
    # The published criterion looks at the best step, as it was computed there; the ladder measures again, in fp32.
    cases = cases.rename(columns={"tf_accuracy": "ladder_tf_accuracy"})
    cases["tf_accuracy"] = cases["n_correct_mem"] / cases["n_targets"]
    return cases[CASE_COLUMNS + [column for column in cases.columns if column not in CASE_COLUMNS]]


def load_vectors(sweep: str, data: Path = DATA) -> dict[str, np.ndarray]:
    """Return the frozen vectors of a sweep by key, each (n_mem, d_embed); InputError when the sweep has none."""
    with _open_vectors(sweep, data) as file:
        return {key: unpack(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118, not a dict


def write_findings(kind: str, name: str, frame: pd.DataFrame, data: Path = DATA) -> Path:
    """Write what was measured beside cases, such as portability, to data/<kind>/<name>.parquet, and hash it."""
    path = data / kind / f"{name}.parquet"
    write_bytes(path, _pack(frame))
    write_manifest(data, changed=(path,))
    return path


def _pack(frame):
    buffer = io.BytesIO()  # small rather than fast: everyone who clones the repository carries it
    frame.to_parquet(buffer, index=False, compression="zstd", compression_level=19, use_dictionary=False)
    return buffer.getvalue()


def load_findings(kind: str, data: Path = DATA, *, name: str = "*") -> pd.DataFrame:
    """Return the table ``name`` of data/<kind>, by default all as one; without rows and columns where there is none."""
    tables = sorted((data / kind).glob(f"{name}.parquet"))
    frames = [pd.read_parquet(io.BytesIO(read_bytes(path, data))) for path in tables]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def load_frozen_cases(path: Path) -> dict[str, tuple[dict, np.ndarray]] | None:
    """Return record and vectors by key of a file of frozen vectors; None for a file that is not one."""
    data, sweep = path.resolve().parent.parent, path.stem
    if path.resolve().parent.name != "vectors" or not (data / "runs" / f"{sweep}.parquet").is_file():
        return None
    records = load_runs(data, name=sweep).set_index("key", drop=False)
    return {key: (records.loc[key].to_dict(), vectors) for key, vectors in load_vectors(sweep, data).items()}


def list_kept(cases: pd.DataFrame, sweep: str, data: Path = DATA) -> set[str]:
    """Return the keys of the cases of a sweep whose vectors its file must hold, given how it was frozen."""
    with _open_vectors(sweep, data) as file:
        keep_all = (file.metadata() or {}).get("keep") == "all"
    return set((cases if keep_all else select_kept(cases))["key"])


def _open_vectors(sweep, data):
    path = data / "vectors" / f"{sweep}.safetensors"
    if not path.is_file():
        raise InputError(f"{relative_to_root(path)} is missing; freeze the sweep {sweep} first")
    read_bytes(path, data)
    return safe_open(path, framework="np")


def _complete(frame):
    # What ``store.complete_record`` does, for a whole table.
    exact = frame["exact"].eq(True)
    later = list_later_defaults() | {
        "arm": "",
        "exact_length_tokens": frame["length"].where(exact, 0),
        "exact_ids_sha256": frame["ids_sha256"].where(exact, None) if "ids_sha256" in frame else None,
    }
    if "status" in frame:
        frame = frame.rename(columns={"status": "ended"}).replace({"ended": {"exact": "reached", "solved": "reached"}})
    return frame.assign(**{name: value for name, value in later.items() if name not in frame})
