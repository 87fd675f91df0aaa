"""Sweeps from settings to stored records: complete, resumable, shared, and clear about bad input before any work."""

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.numpy import save
from tiny import CONFIGS, save_overflowing_model, save_tiny_model

from paper_lib import capacity, config, frozen
from paper_lib.errors import InputError
from paper_lib.live import goals, protocols, texts
from paper_lib.live.cases import list_cases
from paper_lib.live.load import load_lm
from paper_lib.live.proofs import check_vectors, prove_on_cpu
from paper_lib.live.sweep import run_sweep
from paper_lib.reproduce import manifest
from paper_lib.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def settings(model):
    """The content of a small sweep file."""
    return {
        "name": "tiny",
        "model": {"name": model, "dtype": "float64"},
        "texts": {"source": "strings", "texts": ["a cat sat on the mat", "the dog did not"]},
        "n_texts": 2,
        "lengths": [2, 8],
        "n_mem": [1, 2],
        "protocols": ["kuratov2025", "strict"],
        "optimiser": {"max_steps": 60, "lr": 0.1},
        "batch_size": 2,
    }


@pytest.fixture
def store(tmp_path):
    return Store("tiny", tmp_path / "runs")


def run(settings, store):
    records = []
    n = run_sweep(config.Sweep(**settings), store, on_case=records.append)
    return n, records


# --- running -------------------------------------------------------------------------------------------------------


def test_every_case_is_stored_once_with_a_complete_record(settings, store):
    n, records = run(settings, store)
    assert n == 2 * 2 * 2 * 2
    assert sorted(store) == sorted(record["key"] for record in records)
    for record in records:
        stored, vectors = store.get(record["key"])
        assert vectors.shape == (record["n_mem"], 16)
        assert {"ce_lm_nats", "ended", "torch", "device", "seed", "optimiser_lr", "weights"} <= stored.keys()
        assert record["n_targets"] == record["length"] - (record["protocol"] == "kuratov2025")
        assert record["solved"] == (record["n_correct_mem"] / record["n_targets"] >= 0.99)


def test_a_record_is_borne_out_by_an_independent_forward(settings, store):
    run(settings, store)
    lm = load_lm(settings["model"]["name"], dtype="float64")
    sample_texts = dict(zip(["strings-0", "strings-1"], settings["texts"]["texts"], strict=True))
    for key in store:
        record, vectors = store.get(key)
        strict = record["protocol"] == "strict"
        ids = torch.tensor([lm.tokenizer.encode(sample_texts[record["text_id"]], add_special_tokens=not strict)])
        ids = ids[:, : record["length"]]
        inputs = torch.cat([torch.from_numpy(vectors).unsqueeze(0), lm.embed(ids)], dim=1)
        log_p = lm.model(inputs_embeds=inputs).logits.log_softmax(-1)[0]
        first = 0 if strict else 1
        predicted = log_p[record["n_mem"] + first - 1 : record["n_mem"] + record["length"] - 1]
        ce = -predicted.gather(1, ids[0, first:].unsqueeze(1)).sum().item()
        assert record["ce_mem_nats"] == pytest.approx(ce, rel=1e-5)
        assert record["n_correct_mem"] == (predicted.argmax(-1) == ids[0, first:]).sum().item()
        assert record["ce_mem_min_nats"] <= record["ce_mem_nats"] + 1e-9


def test_exact_records_decode_to_the_hashed_text(settings, store):
    settings["lengths"], settings["optimiser"]["max_steps"] = [2], 600
    run(settings, store)
    lm, exact = load_lm(settings["model"]["name"], dtype="float64"), 0
    for key in store:
        record, vectors = store.get(key)
        if record["exact"]:
            exact += 1
            protocol = protocols.find_protocol(record["protocol"])
            given = torch.tensor([record["given_ids"]], dtype=torch.long)
            ids = protocol.decode(lm, torch.from_numpy(vectors)[None], given, record["length"], how="cached")[0]
            text = lm.tokenizer.decode(ids, skip_special_tokens=True)
            assert texts.hashlib.sha256(text.encode()).hexdigest() == record["text_sha256"]
            assert (record["ended"], record["exact_length_tokens"]) == ("reached", 2)
    assert exact


def test_a_second_run_does_nothing_and_a_longer_grid_only_the_rest(settings, store):
    run(settings, store)
    assert run(settings, store) == (0, [])
    settings["lengths"] = [2, 5, 8]
    n, records = run(settings, store)
    assert n == 8
    assert {record["length"] for record in records} == {5}


def test_a_killed_run_goes_on_in_the_middle_of_its_cases(settings, store, tmp_path):
    straight, taken = Store("straight", tmp_path), []
    run_sweep(config.Sweep(**settings), straight, on_step=taken.append)
    again = []

    def kill(token_steps):
        if len(again) % 41 == 40:  # within a case, before its state is kept
            again.append(0)
            raise KeyboardInterrupt
        again.append(token_steps)

    n_kills = 0
    while True:
        try:
            run_sweep(config.Sweep(**settings), store, on_step=kill, save_every_seconds=0)
            break
        except KeyboardInterrupt:
            n_kills += 1
    assert n_kills >= 5
    assert sum(again) == sum(taken)
    assert list(store) == list(straight)
    assert not list(store.folder.glob("*.halfway"))
    for key in store:
        (one, v), (two, w) = store.get(key), straight.get(key)
        assert abs(v - w).max() < 1e-9
        for name in one.keys() - {"wall_seconds", "vectors_sha256"}:
            assert one[name] == (pytest.approx(two[name], rel=1e-6) if isinstance(one[name], float) else two[name])


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"optimiser": {"max_steps": 61, "lr": 0.1}},
        {"stopping": "strict"},
        {"storage": "float16"},
        {"model": {"dtype": "float32"}},
        {"model": {"autocast": "bfloat16"}},
    ],
)
def test_whatever_decides_the_result_changes_the_key(settings, change):
    sweep = config.Sweep(**settings)
    lm = load_lm(sweep.model.name, dtype="float64")
    other = settings | change
    if "model" in change:
        other["model"] = settings["model"] | change["model"]
    keys, changed = ({case.key for case in list_cases(config.Sweep(**s), lm)} for s in (settings, other))
    if "stopping" in change:  # strict cases had that rule before
        assert len(keys & changed) == len(keys) / 2
    else:
        assert not keys & changed


def test_texts_that_begin_alike_are_cases_of_their_own(settings, store):
    settings |= {"lengths": [2], "n_mem": [1]}
    settings["texts"]["texts"] = ["a cat", "a cow"]
    n, records = run(settings, store)
    assert n == len(store.index()) == 4
    assert {record["text_id"] for record in records} == {"strings-0", "strings-1"}


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("optimiser.lr", 0.2, r"optimiser_lr 0\.1, now 0\.2"),
        ("model.dtype", "float32", "dtype 'float64', now 'float32'"),
        ("texts.texts", ["a cat sat on the hat", "a dog did that"], "ids_sha256 .*, now"),
    ],
)
def test_other_settings_under_the_same_name_are_refused(settings, store, path, value, says):
    run(settings, store)
    before = list(store)
    put(settings, path, value)
    with pytest.raises(InputError, match=f"holds cases with other settings .*{says}.*give the sweep another name"):
        run(settings, store)
    assert list(store) == before


def test_a_text_measured_twice_under_other_settings_is_not_frozen(settings, store, tmp_path):
    settings |= {"lengths": [2], "n_mem": [1]}
    run(settings, store)
    record, vectors = store.get(next(iter(store)))
    store.put(record | {"key": "0" * 64, "optimiser_lr": 0.2}, vectors)
    with pytest.raises(InputError, match="holds text strings-. twice at length 2"):
        frozen.freeze(store, tmp_path)


def test_an_unfinished_sweep_is_not_frozen(settings, store, tmp_path):
    run(settings, store)
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
    run(settings, store)
    path = store.path(next(iter(store)))
    damaged = damage(path.read_bytes())
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=f"{path.name}.*delete it and run the sweep again"):
        store.get(path.stem)
    with pytest.raises(InputError, match=path.name):
        frozen.freeze(store, store.folder / "data")


# --- extending -----------------------------------------------------------------------------------------------------


def test_a_protocol_a_source_and_a_rule_of_ones_own_run_through_the_same_engine(settings, store, monkeypatch):
    measured = []

    class TwoGiven(protocols.Prefix):
        """The first two tokens are given."""

    class SecondStep(goals.Goal):
        """Stop as soon as the vectors have moved once."""

        def reached(self, now):
            measured.append(now["ce_nats"])
            return torch.full_like(now["all_correct"], len(measured) > 1)

    def shouted(source, n_texts, seed):
        for number, text in enumerate(source.texts):
            yield texts.Text(f"shout-{number}", f"shout-{number}", text.upper())

    monkeypatch.setitem(protocols.PROTOCOLS, "two_given", TwoGiven("two_given", n_given=2, needs_start=False))
    monkeypatch.setitem(goals.GOALS, "second_step", SecondStep())
    monkeypatch.setitem(texts.SOURCES, "strings", shouted)
    settings |= {"protocols": ["two_given"], "stopping": "second_step", "lengths": [8], "n_mem": [1]}
    settings["optimiser"]["max_steps"] = 300
    n, records = run(settings, store)
    assert n == 2
    for record in records:
        assert record["n_targets"] == 6
        assert record["text_id"].startswith("shout")
        assert (record["ended"], record["n_steps"]) == ("reached", 2)


# --- freezing ------------------------------------------------------------------------------------------------------


def test_frozen_runs_come_back_as_cases(settings, store, tmp_path):
    settings["optimiser"]["max_steps"] = 400
    run(settings, store)
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


def test_freezing_does_not_bless_what_else_has_changed(settings, store, tmp_path):
    settings["lengths"] = [2]
    run(settings, store)
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
    run(settings, store)
    data = tmp_path / "data"
    data.mkdir()
    table, _ = frozen.freeze(store, data)
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    with pytest.raises(InputError, match=r"tiny\.parquet and its hash .* do not match"):
        frozen.load_runs(data)


def test_no_frozen_runs_is_an_empty_frame_of_cases(tmp_path):
    assert list(frozen.load_runs(tmp_path).columns) == capacity.CASE_COLUMNS


def test_exactness_found_elsewhere_is_proven_on_a_cpu_before_it_is_frozen(settings, store, tmp_path):
    settings["lengths"], settings["optimiser"]["max_steps"] = [2], 600
    run(settings, store)
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


def test_a_missing_vector_and_other_weights_are_noticed(settings, store, tmp_path):
    settings["lengths"], settings["optimiser"]["max_steps"] = [2], 600
    run(settings, store)
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


# --- text sources --------------------------------------------------------------------------------------------------


def test_second_half_of_the_sentences():
    assert texts.second_half("One. Two is here! Is three? Four, Mr. Bell.") == "Is three? Four, Mr. Bell."


def test_long_texts_are_split_page_by_page_as_in_one_go():
    written = [f"Sentence {i} of Mr. Bell is {'quite ' * (i % 30)}here." for i in range(400)]
    assert len(" ".join(written)) > 4 * texts.PAGE_CHARACTERS
    assert texts.split_sentences(" ".join(written)) == written


def test_books_give_reproducible_chunks_that_know_their_book(tmp_path):
    for name in "ab":
        book = " ".join(f"Sentence {i} of book {name} is here." for i in range(3000))
        (tmp_path / f"{name}.txt").write_text(book)
    source = config.FolderTexts(source="folder", path=str(tmp_path), label="books", chunk_words=100)
    drawn = texts.draw_texts(source, 4, seed=0)
    assert drawn == texts.draw_texts(source, 4, seed=0) != texts.draw_texts(source, 4, seed=1)
    assert [text.cluster_id for text in drawn] == ["a", "b", "a", "b"]
    assert len({text.text_id for text in drawn}) == 4
    assert all(30 < len(text.text.split()) < 70 for text in drawn)


def test_words_are_drawn_independently_from_the_list(tmp_path):
    (tmp_path / "words.txt").write_text("red\ngreen\nblue\n")
    source = config.WordTexts(source="words", path=str(tmp_path / "words.txt"))
    one, two = texts.draw_texts(source, 2, seed=0)
    assert one.text != two.text
    share = pd.Series(one.text.split()).value_counts(normalize=True)
    assert share.between(0.3, 0.37).all()


def test_hub_source_reads_a_local_data_set(tmp_path):
    rows = pd.DataFrame({"body": ["One. Two. Three. Four.", "Five. Six."]})
    rows.to_parquet(tmp_path / "train.parquet")
    source = config.HubTexts(source="hub", path=str(tmp_path), column="body", label="local")
    assert [text.text for text in texts.draw_texts(source, 2, seed=0)] == ["Three. Four.", "Six."]


def test_no_more_texts_are_read_than_asked_for(monkeypatch):
    def endless(source, n_texts, seed):
        number = 0
        while True:
            yield texts.Text(str(number), "c", "a b c")
            number += 1
            assert number <= n_texts

    monkeypatch.setitem(texts.SOURCES, "strings", endless)
    assert len(texts.draw_texts(config.StringTexts(source="strings", texts=("x",)), 3, seed=0)) == 3


@pytest.mark.parametrize(
    "content", [("a.txt", "naïve".encode("latin-1")), ("a.txt.gz", b"no gzip")], ids=["latin-1", "gz"]
)
def test_a_book_that_cannot_be_read_is_named(tmp_path, content):
    name, raw = content
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(InputError, match=f"cannot read .*{name}: .*; give text in UTF-8"):
        texts.read_folder(tmp_path)


def test_tokens_are_cut_on_the_right_and_hashed(model):
    tokenizer = load_lm(model).tokenizer
    text = texts.Text("t", "t", "hello world")
    with_start = texts.tokenize(text, tokenizer, 6, special_tokens=True)
    without = texts.tokenize(text, tokenizer, 6, special_tokens=False)
    assert with_start.ids[0] == tokenizer.bos_token_id
    assert (with_start.text_bytes, without.text_bytes) == (5, 6)
    assert without.sha256 == texts.hashlib.sha256(b"hello ").hexdigest()


# --- bad input -----------------------------------------------------------------------------------------------------


def put(settings, path, value):
    *parents, last = path.split(".")
    for parent in parents:
        settings = settings[parent]
    settings[last] = value


BAD_SETTINGS = {
    "unknown key": ("lenghts", [8], "unknown key lenghts"),
    "unknown optimiser key": ("optimiser.learning_rate", 1, "unknown key optimiser.learning_rate"),
    "unknown protocol": ("protocols", ["cram"], "unknown protocol 'cram'; choose from: kuratov2025, strict"),
    "unknown stopping rule": ("stopping", "soon", "unknown goal 'soon'"),
    "n_mem 0": ("n_mem", [0], "n_mem.0 = 0: .*greater than 0"),
    "length 0": ("lengths", [0], "lengths.0 = 0"),
    "no lengths": ("lengths", [], "lengths = "),
    "a length twice": ("lengths", [8, 8], "the same value twice"),
    "a length that is no number": ("lengths", ["long"], "lengths.0 = 'long'"),
    "negative learning rate": ("optimiser.lr", -1, "optimiser.lr = -1"),
    "no steps": ("optimiser.max_steps", 0, "optimiser.max_steps = 0"),
    "unknown dtype": ("model.dtype", "int8", "model.dtype = 'int8'"),
    "unknown text source": ("texts.source", "air", "texts = "),
    "empty text": ("texts.texts", ["", "a b c d e f g h"], r"texts\.texts\.0 is empty"),
    "no texts": ("texts.texts", [], "texts.strings.texts = "),
    "too short a text": ("texts.texts", ["hi", "ho"], "text strings-0 has .* tokens, the sweep asks for 8; shorten"),
    "fewer texts than asked for": ("n_texts", 3, "has 2 texts, the sweep asks for 3; lower n_texts"),
    "length over the context": (
        "lengths",
        [64],
        "length 64 with n_mem 1 exceeds the model's context of 64 tokens; use",
    ),
    "nothing to predict": ("lengths", [1], "length 1 leaves protocol kuratov2025 nothing to predict; use 2"),
    "a name with a slash": ("name", "a/b", "name = 'a/b'"),
    "missing model": (
        "model.name",
        "no/such-folder-or-model",
        "cannot load no/such-folder-or-model: .*; give a hub id",
    ),
    "missing folder": ("texts", {"source": "folder", "path": "/none", "label": "x"}, "/none: no .txt or .txt.gz file"),
    "missing words": ("texts", {"source": "words", "path": "/none"}, "/none is missing; give a list of words"),
    "missing data set": ("texts", {"source": "hub", "path": "/none", "label": "x"}, "cannot load data set /none"),
    "unknown storage": ("storage", "float64", "storage = 'float64'"),
    "unknown autocast": ("model.autocast", "float32", "model.autocast = 'float32'"),
    "batch size 0": ("batch_size", 0, "batch_size = 0"),
}


@pytest.mark.parametrize(("path", "value", "says"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_bad_settings_are_told_in_one_line_before_any_work(settings, tmp_path, path, value, says):
    put(settings, path, value)
    file = tmp_path / "sweep.yml"
    file.write_text(yaml.safe_dump(settings))
    store = Store("tiny", tmp_path / "runs")
    with pytest.raises(InputError, match=says) as error:
        run_sweep(config.load_sweep(file), store)
    assert "\n" not in str(error.value)
    assert not list(store)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "is missing; give the path of a sweep"),
        ("a: [", "line 1: not YAML"),
        ("- a", "not a list of"),
        ("{}", "name is missing"),
    ],
)
def test_bad_sweep_files_are_told_in_one_line(tmp_path, content, says):
    path = tmp_path / "sweep.yml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=says) as error:
        config.load_sweep(path)
    assert "\n" not in str(error.value)


def test_strict_needs_a_start_token(settings, tmp_path):
    settings["model"]["name"] = save_tiny_model(tmp_path / "headless", bos_token_id=None)
    with pytest.raises(InputError, match="neither BOS nor EOS"):
        list_cases(config.Sweep(**settings), load_lm(settings["model"]["name"]))


def test_words_that_the_tokenizer_does_not_know_are_refused(settings):
    lm = load_lm(settings["model"]["name"])
    lm.tokenizer.unk_token = "a"
    with pytest.raises(InputError, match="does not know; choose another source"):
        texts.tokenize(texts.Text("t", "t", "banana"), lm.tokenizer, 4, special_tokens=False)


def test_an_unwritable_store_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write .*choose another place"):
        Store("tiny", tmp_path / "file")


def test_all_architectures_of_the_paper_and_of_today_are_tested():
    assert {"gpt_neox", "opt", "olmo", "llama", "mamba", "qwen3", "gemma3", "gpt2"} <= set(CONFIGS)
