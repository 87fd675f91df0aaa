"""Frozen vectors decoded again under other conditions, on the model that ships."""

import shutil

import pytest

from paper_lib.errors import InputError
from paper_lib.frozen import load_findings
from paper_lib.live import portability
from paper_lib.live.portability import CONDITIONS, measure_portability
from paper_lib.paths import DATA
from paper_lib.reproduce.manifest import write_manifest

SWEEP = "novels-5m_books_strict"


@pytest.fixture
def data(tmp_path):
    for folder, suffix in (("runs", "parquet"), ("vectors", "safetensors")):
        (tmp_path / folder).mkdir()
        shutil.copy(DATA / folder / f"{SWEEP}.{suffix}", tmp_path / folder)
    write_manifest(tmp_path)
    return tmp_path


def test_what_is_exact_survives_in_fp32_and_not_all_of_it_in_bf16(data, monkeypatch):
    names = ["fp32, cache, 8 at a time", "fp32, whole forward, 8 at a time", "bf16 weights, cache, 8 at a time"]
    monkeypatch.setattr(portability, "CONDITIONS", {name: CONDITIONS[name] for name in names})
    measure_portability(SWEEP, data)
    shares = load_findings("portability", data).groupby("condition")["survives"].agg(["mean", "size"])
    assert list(shares.loc[names[:2], "mean"]) == [1, 1]
    assert shares.loc[names[2], "mean"] < 1
    assert shares["size"].nunique() == 1


def test_another_processor_is_kept_beside_this_one_and_the_same_one_is_replaced(data, monkeypatch):
    name = "fp32, cache, 8 at a time"
    monkeypatch.setattr(portability, "CONDITIONS", {name: CONDITIONS[name]})
    for processor in ("old", "new", "old"):
        monkeypatch.setattr(portability, "name_processor", lambda processor=processor: processor)
        measure_portability(SWEEP, data)
    found = load_findings("portability", data)
    assert found["processor"].drop_duplicates().tolist() == ["new", "old"]
    assert not found.duplicated(["processor", "condition", "key"]).any()


def test_a_sweep_without_exact_vectors_is_refused_in_one_line(data):
    with pytest.raises(InputError, match="no-such-sweep"):
        measure_portability("no-such-sweep", data)
