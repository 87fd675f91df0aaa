"""Freezing: what is kept, what is refused, what is proven before."""

import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.numpy import save
from tiny import save_overflowing_model

from paper_lib import capacity, frozen
from paper_lib.errors import InputError
from paper_lib.live.proofs import check_vectors, prove_on_cpu
from paper_lib.reproduce import manifest
from paper_lib.store import Store
from sweeps import copy_run, run

pytestmark = pytest.mark.slow


def test_a_text_measured_twice_under_other_settings_is_not_frozen(settings, store, tmp_path):
    settings |= {"lengths": [2], "n_mem": [1]}
    copy_run(settings, store)
    record, vectors = store.get(next(iter(store)))
    store.put(record | {"key": "0" * 64, "optimiser_lr": 0.2}, vectors)
    with pytest.raises(InputError, match="holds text strings-. twice at length 2"):
        frozen.freeze(store, tmp_path)


def test_an_unfinished_sweep_is_not_frozen(settings, store, tmp_path):
    copy_run(settings, store)
    store.path(next(iter(store))).unlink()
    with pytest.raises(InputError, match="is not finished, 1 cases are missing; run the sweep again first"):
        frozen.freeze(store, tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"no safetensors",
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content.replace(b'\\"n_steps\\": ', b'\\"n_steps\\": 1'),
        lambda content: content.replace(b"strings-0", b"strings-1").replace(b"strings-1", b"strings-2"),
    ],
    ids=["empty", "other format", "a bit of a vector", "a digit of the record", "a word of the record"],
)
def test_a_damaged_file_is_named_with_the_way_out(settings, store, damage):
    settings["lengths"] = [2]
    copy_run(settings, store)
    path = store.path(next(iter(store)))
    damaged = damage(path.read_bytes())
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=f"{path.name}.*delete it and run the sweep again"):
        store.get(path.stem)
    with pytest.raises(InputError, match=path.name):
        frozen.freeze(store, store.folder / "data")


def test_frozen_runs_come_back_as_cases(settings, store, tmp_path):
    settings["optimiser"]["max_steps"] = 200
    copy_run(settings, store)
    data = tmp_path / "data"
    data.mkdir()
    frozen.freeze(store, data)
    assert manifest.check_manifest(data) == []
    cases = frozen.load_runs(data)
    capacity.check_cases(cases)
    assert len(cases) == 16
    assert set(cases["origin"]) == {"measured"}
    kuratov = cases[cases["protocol"] == "kuratov2025"]
    ratio = kuratov["paper_ce_lm_nats"] / kuratov["ce_lm_nats"]
    np.testing.assert_allclose(ratio, kuratov["length"] / (kuratov["length"] - 1))
    vectors = frozen.load_vectors("tiny", data)
    exact = cases[cases["exact"]].sort_values("length").groupby(["protocol", "n_mem", "text_id"])["key"].last()
    assert set(vectors) == set(exact)
    assert len(vectors)
    for convention in capacity.CONVENTIONS:
        assert len(capacity.compute_gains(cases, convention=convention)) == 4
    before = {p.name: p.read_bytes() for p in data.rglob("*") if p.is_file()}
    frozen.freeze(store, data)
    assert before == {p.name: p.read_bytes() for p in data.rglob("*") if p.is_file()}


@pytest.mark.parametrize("keep", ["longest_exact", "all"])
def test_a_frozen_sweep_whose_store_is_gone_is_extended_as_if_it_were_there(settings, store, tmp_path, keep):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    settings |= {"n_mem": [2], "lengths": [1, 2]}
    settings["protocols"], settings["optimiser"]["max_steps"] = ["strict"], 200
    copy_run(settings, store)
    frozen.freeze(store, whole, keep=keep)
    longer = [key for key in store if store.get(key)[0]["length"] == 2]
    for lengths in ([1], [2]):
        some = Store(store.folder.name, tmp_path / f"{lengths}")
        shutil.copytree(store.folder, some.folder)
        for key in store:
            if (key in longer) != (lengths == [2]):
                some.discard(key)
        frozen.freeze(some, parts, keep=keep, extend=lengths == [2])
    for name in (f"runs/{store.folder.name}.parquet", f"vectors/{store.folder.name}.safetensors"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()
    frozen.freeze(some, parts, extend=True)  # without the other vectors, those that were kept are
    assert set(frozen.load_vectors(store.folder.name, parts)) == set(frozen.load_vectors(store.folder.name, whole))
    frozen.freeze(some, parts)  # without saying so, what is frozen is what is there
    assert set(frozen.load_runs(parts)["length"]) == {2}
    with pytest.raises(InputError, match="of the vectors to keep are neither in"):
        frozen.freeze(Store(store.folder.name, tmp_path / "[1]"), _without_vectors(parts), keep="all", extend=True)


def test_a_table_of_an_earlier_version_is_extended_too(settings, store, tmp_path):
    settings |= {"n_mem": [2], "lengths": [1], "protocols": ["strict"]}
    copy_run(settings, store)
    table, _ = frozen.freeze(store, tmp_path)
    later = ["arm", "restart", "loss", "parametrisation", "finder", "exact_length_tokens", "exact_ids_sha256"]
    pd.read_parquet(table).drop(columns=later).to_parquet(table)
    manifest.write_manifest(tmp_path)
    longer = Store(store.folder.name, tmp_path / "longer")
    copy_run(settings | {"lengths": [2]}, longer)
    frozen.freeze(longer, tmp_path, extend=True)
    cases = frozen.load_runs(tmp_path, name=store.folder.name)
    assert cases.groupby(["length", "arm", "restart", "finder"]).size().to_dict() == {
        (1, "", 0, "optimise"): 2, (2, "", 0, "optimise"): 2,
    }  # fmt: skip
    assert set(frozen.load_vectors(store.folder.name, tmp_path)) == set(frozen.select_kept(cases)["key"])


def test_other_settings_do_not_extend_a_frozen_sweep(settings, store, tmp_path):
    settings |= {"n_mem": [2], "lengths": [1], "protocols": ["strict"]}
    copy_run(settings, store)
    frozen.freeze(store, tmp_path)
    other = Store(store.folder.name, tmp_path / "other")
    copy_run(settings | {"lengths": [2], "seed": 1}, other)
    with pytest.raises(InputError, match="is frozen with seed 0, now it is 1; run the sweep under a name of its own"):
        frozen.freeze(other, tmp_path, extend=True)


def _without_vectors(data):
    # As after freezing the longest exact ones alone, where none was.
    (path,) = (data / "vectors").iterdir()
    path.write_bytes(save({}))
    manifest.write_manifest(data)
    return data


def test_vectors_in_few_bits_are_frozen_as_such_and_decode(settings, store, tmp_path):
    settings |= {"storage": "levels(bits=6)", "lengths": [2], "protocols": ["strict"]}
    settings["optimiser"]["max_steps"] = 200
    copy_run(settings, store)
    frozen.freeze(store, tmp_path)
    cases = frozen.load_runs(tmp_path).set_index("key")
    assert cases["exact"].any()
    with safe_open(tmp_path / "vectors" / f"{store.folder.name}.safetensors", framework="np") as file:
        packed = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, not a dict
    for key, vectors in frozen.load_vectors(store.folder.name, tmp_path).items():
        _, d_embed = vectors.shape
        assert (packed[key].dtype, packed[key].shape[-1]) == (np.int8, 1 + d_embed)
        assert np.array_equal(vectors, store.get(key)[1])
        assert cases.loc[key, "vector_bytes"] == -(-(6 * d_embed + 7) // 8)
    assert packed
    assert not check_vectors(tmp_path)


def test_freezing_does_not_bless_what_else_has_changed(settings, store, tmp_path):
    settings["lengths"] = [2]
    copy_run(settings, store)
    (tmp_path / "published.csv").write_text("x\n12\n")
    manifest.write_manifest(tmp_path)
    (tmp_path / "published.csv").write_text("x\n13\n")
    frozen.freeze(store, tmp_path)
    (problem,) = manifest.check_manifest(tmp_path)
    assert "published.csv" in problem


def test_a_loss_that_is_never_finite_is_kept_as_a_result(settings, store, tmp_path):
    settings |= {"lengths": [2], "n_mem": [1]}
    settings["model"] |= {"name": save_overflowing_model(tmp_path / "model"), "dtype": "float16"}
    n, records = run(settings, store)
    assert [record["ended"] for record in records] == ["diverged"] * n
    frozen.freeze(store, tmp_path / "data")
    capacity.check_cases(frozen.load_runs(tmp_path / "data"))


def test_frozen_tables_are_checked_against_the_manifest(settings, store, tmp_path):
    settings["lengths"] = [2]
    copy_run(settings, store)
    data = tmp_path / "data"
    data.mkdir()
    table, _ = frozen.freeze(store, data)
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    with pytest.raises(InputError, match=r"tiny\.parquet and its hash .* do not match"):
        frozen.load_runs(data)


def test_no_frozen_runs_is_an_empty_frame_of_cases(tmp_path):
    for runs in (frozen.load_runs(tmp_path), frozen.load_runs(name="nobody-ran-it")):
        assert runs.empty
        assert list(runs.columns) == [*capacity.CASE_COLUMNS, "arm", "key", "sweep"]


def test_exactness_found_elsewhere_is_proven_on_a_cpu_before_it_is_frozen(settings, store, tmp_path):
    settings["lengths"], settings["optimiser"]["max_steps"] = [2], 200
    copy_run(settings, store)
    cases = {key: store.get(key) for key in store}
    exact = [key for key, (record, _) in cases.items() if record["exact"]]
    fake = next(key for key in cases if key not in exact)
    for key in [*exact, fake]:
        record, vectors = cases[key]
        claimed = {"exact": True, "exact_length_tokens": 2, "exact_ids_sha256": record["ids_sha256"]}
        store.put(record | claimed | {"ladder_device": "cuda", "min_logit_margin": 9}, vectors)
    with pytest.raises(InputError, match="found exact on cuda only; prove it on a CPU"):
        frozen.freeze(store, tmp_path)
    said = []
    prove_on_cpu(store, report=said.append)
    assert [line[:64] for line in said] == [fake]
    for key, (record, vectors) in cases.items():
        proven, kept = store.get(key)
        np.testing.assert_array_equal(kept, vectors)
        if key == fake:
            assert (proven["exact"], proven["exact_length_tokens"], proven["ladder_device"]) == (False, 0, "cpu")
            assert (proven["tf_exact"], proven["greedy_exact_full"], proven["min_logit_margin"]) == (None, None, None)
            assert proven["ended"] == record["ended"]
        else:
            assert proven == record
    frozen.freeze(store, tmp_path)


def test_vectors_of_several_sweeps_are_decoded_together_and_blamed_apart(settings, store, tmp_path, monkeypatch):
    monkeypatch.setattr("paper_lib.live.proofs.N_DECODED", 3)  # so that a group of one kind is several batches
    settings["optimiser"]["max_steps"] = 200
    copy_run(settings, store)
    other = Store("other", store.folder.parent)
    copy_run(settings | {"name": "other", "lengths": [2]}, other)
    data = tmp_path / "data"
    for one in (store, other):
        frozen.freeze(one, data)
    said = []
    assert check_vectors(data, report=said.append) == []
    counts = {name: len(frozen.load_vectors(name, data)) for name in ("other", "tiny")}
    assert said[-2:] == [f"vectors: {name}: {n} decoded, 0 problems" for name, n in counts.items()]
    vectors = frozen.load_vectors("other", data)
    spoilt = sorted(vectors)[0]
    (data / "vectors" / "other.safetensors").write_bytes(save(vectors | {spoilt: -vectors[spoilt]}))
    manifest.write_manifest(data)
    assert check_vectors(data, report=said.append) == [
        f"data/vectors/other.safetensors: {spoilt} does not decode to its text"
    ]
    assert said[-1].endswith("0 problems")


def test_a_missing_vector_and_other_weights_are_noticed(settings, store, tmp_path):
    settings["lengths"], settings["optimiser"]["max_steps"] = [2], 200
    copy_run(settings, store)
    frozen.freeze(store, tmp_path)
    assert check_vectors(tmp_path, report=lambda line: None) == []
    vectors = frozen.load_vectors("tiny", tmp_path)
    vectors.pop(sorted(vectors)[0])
    (tmp_path / "vectors" / "tiny.safetensors").write_bytes(save(vectors))
    manifest.write_manifest(tmp_path)
    (problem,) = check_vectors(tmp_path, report=lambda line: None)
    assert "does not hold the vectors that its records ask for" in problem
    cases = pd.read_parquet(tmp_path / "runs" / "tiny.parquet").assign(weights="sha256:other")
    cases.to_parquet(tmp_path / "runs" / "tiny.parquet")
    manifest.write_manifest(tmp_path)
    with pytest.raises(InputError, match="has other weights than when .* was run; restore them"):
        check_vectors(tmp_path, report=lambda line: None)
