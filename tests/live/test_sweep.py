"""Sweeps from settings to stored records: complete, resumable, shared, and clear about bad input before any work."""

import hashlib

import pytest
import torch
import yaml
from tiny import CONFIGS, save_tiny_model

from paper_lib import config
from paper_lib.errors import InputError
from paper_lib.frozen import freeze
from paper_lib.live import goals, protocols, texts
from paper_lib.live.cases import list_cases
from paper_lib.live.load import load_lm
from paper_lib.live.loop import optimise
from paper_lib.live.rows import Case, make_recipe
from paper_lib.live.sweep import run_sweep
from paper_lib.measured import load_arms, load_cases
from paper_lib.store import Store
from sweeps import copy_run, run

pytestmark = pytest.mark.slow


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
    copy_run(settings, store)
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
    settings["lengths"], settings["optimiser"]["max_steps"] = [2], 200
    copy_run(settings, store)
    lm, exact = load_lm(settings["model"]["name"], dtype="float64"), 0
    for key in store:
        record, vectors = store.get(key)
        if record["exact"]:
            exact += 1
            protocol = protocols.find_protocol(record["protocol"])
            given = torch.tensor([record["given_ids"]], dtype=torch.long)
            ids = protocol.decode(lm, torch.from_numpy(vectors)[None], given, record["length"], how="cached")[0]
            text = lm.tokenizer.decode(ids, skip_special_tokens=True)
            assert hashlib.sha256(text.encode()).hexdigest() == record["text_sha256"]
            assert (record["ended"], record["exact_length_tokens"]) == ("reached", 2)
    assert exact


def test_a_second_run_does_nothing_and_a_longer_grid_only_the_rest(settings, store):
    copy_run(settings, store)
    assert run(settings, store) == (0, [])
    settings["lengths"] = [2, 5, 8]
    n, records = run(settings, store)
    assert n == 8
    assert {record["length"] for record in records} == {5}


def test_a_killed_run_goes_on_in_the_middle_of_its_cases(settings, store, tmp_path):
    settings["optimiser"]["max_steps"] = 30
    straight, taken = Store("straight", tmp_path), []
    run_sweep(config.Sweep(**settings), straight, on_step=taken.append)
    again = []

    def kill(token_steps):
        if len(again) % 23 == 22:  # within a case, before its state is kept
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
    copy_run(settings, store)
    before = list(store)
    put(settings, path, value)
    with pytest.raises(InputError, match=f"holds cases with other settings .*{says}.*give the sweep another name"):
        run(settings, store)
    assert list(store) == before


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
    "unknown storage": ("storage", "float64", "unknown storage 'float64', did you mean"),
    "storage in one bit": ("storage", "levels(bits=1)", "1 bits for each number; use 2 to 8"),
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


def test_strict_needs_a_start_token(settings, tmp_path):
    settings["model"]["name"] = save_tiny_model(tmp_path / "headless", bos_token_id=None)
    with pytest.raises(InputError, match="neither BOS nor EOS"):
        list_cases(config.Sweep(**settings), load_lm(settings["model"]["name"]))


def test_an_unwritable_store_is_refused_before_any_work(settings, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write .*choose another place"):
        run_sweep(config.Sweep(**settings), Store("tiny", tmp_path / "file"), on_start=pytest.fail)


def test_all_architectures_of_the_paper_and_of_today_are_tested():
    assert {"gpt_neox", "opt", "olmo", "llama", "mamba", "qwen3", "gemma3", "gpt2"} <= set(CONFIGS)


# --- arms ----------------------------------------------------------------------------------------------------------

ARMS = {"slow": {"optimiser": {"lr": 0.01, "max_steps": 5}}, "quick": {"recipe": "fast", "lengths": [2]}}


def test_arms_are_run_frozen_and_kept_apart(settings, store, tmp_path):
    settings |= {"lengths": [2, 4], "n_mem": [1], "protocols": ["strict"], "arms": ARMS}
    sweep = config.Sweep(**settings)
    assert run_sweep(sweep, store) == 2 * 2 + 2
    assert run_sweep(sweep, store) == 0
    freeze(store, tmp_path / "data")
    cases = load_arms("tiny", tmp_path / "data")
    assert cases.groupby(["arm", "length"]).size().to_dict() == {("quick", 2): 2, ("slow", 2): 2, ("slow", 4): 2}
    quick = cases.query("arm == 'quick'")
    assert set(quick["optimiser_mover"]) == {"lbfgs(patience=20)"}
    assert set(quick["loss"]) == {"cross_entropy(temperature=0.15)"}
    assert set(cases.query("arm == 'slow'")["optimiser_max_steps"]) == {5}
    assert load_cases(tmp_path / "data").empty  # what compares settings is in no table of models


def test_more_evaluations_are_given_to_every_arm(settings):
    given = config.Sweep(**settings | {"arms": ARMS}).give(77).by_arm
    assert {arm: sweep.optimiser.max_steps for arm, sweep in given.items()} == {"slow": 77, "quick": 77}
    assert given["quick"].optimiser.mover == "lbfgs(patience=20)"
    assert given["slow"].optimiser.lr == 0.01


@pytest.mark.parametrize(
    ("arms", "says"),
    [
        ({"a": {}, "b": {}}, "arms a and b are the same; remove one"),
        ({"a": {"model": {"name": "x"}}}, "arm a: model is the same for all arms"),
        ({"a": {"recipe": "fats"}}, "in an arm, recipe = 'fats': unknown recipe 'fats', did you mean 'fast'"),
        ({"a": {"optimiser": {"lr": -1}}}, "in an arm, optimiser.lr = -1"),
    ],
)
def test_arms_that_make_no_sense_are_told_in_one_line(settings, store, tmp_path, arms, says):
    path = tmp_path / "sweep.yml"
    path.write_text(yaml.safe_dump(settings | {"arms": arms}))
    with pytest.raises(InputError, match=says) as error:
        run_sweep(config.load_sweep(path), store)
    assert "\n" not in str(error.value)


# --- more evaluations, and starts that are given -------------------------------------------------------------------


@pytest.mark.parametrize("mover", ["adamw", "lbfgs", "adamw(schedule='cosine', n_steps=300)"])
def test_a_search_that_is_given_more_evaluations_goes_on_as_if_it_had_had_them(settings, store, mover):
    settings |= {"lengths": [1, 6], "n_mem": [1], "protocols": ["strict"], "optimiser": {"lr": 0.1, "mover": mover}}
    sweep, taken = config.Sweep(**settings), []
    lm = load_lm(sweep.model.name, dtype="float64")
    begun = list_cases(sweep.give(5), lm)
    run_sweep(sweep.give(5), store)
    run_sweep(sweep.give(40), store, on_step=taken.append)
    assert 0 < sum(taken) <= (40 - 5) * (1 + 6) * 2  # it did not begin anew
    assert run_sweep(sweep.give(80), store) < 4  # what has ended needs no more
    assert run_sweep(sweep.give(80), store) == 0
    there = [store.get(key) for key in store]
    assert {record["optimiser_max_steps"] for record, _ in there} == {80}
    assert {record["continues"] for record, _ in there} == {case.key for case in begun}
    protocol = protocols.find_protocol("strict")
    for record, vectors in there:
        assert config.CaseConfig.from_record(record).run_key == record["key"]
        (case,) = [case for case in begun if case.key == record["continues"]]
        settings = case.config.model_copy(
            update={"optimiser": case.config.optimiser.model_copy(update={"max_steps": 80})}
        )
        one = Case(case.key, torch.tensor(case.sample.ids), 1)
        ((straight,),) = optimise(lm, protocol, [one], make_recipe(settings))
        assert (record["n_steps"], record["ended"]) == (straight.n_steps, straight.ended)
        torch.testing.assert_close(torch.from_numpy(vectors), straight.vectors.float(), atol=1e-7, rtol=0)
    assert len(list(store.folder.glob("*.final"))) == sum(record["ended"] == "budget" for record, _ in there)


def test_a_search_whose_moves_depend_on_its_budget_does_not_go_on(settings, store):
    settings |= {"lengths": [6], "n_mem": [1], "protocols": ["strict"]}
    sweep = config.Sweep(**settings | {"optimiser": {"lr": 0.1, "mover": "adamw(schedule='cosine')"}})
    run_sweep(sweep.give(5), store)
    with pytest.raises(InputError, match="optimiser_max_steps 5, now 9"):
        run_sweep(sweep.give(9), store)


def test_killed_while_it_goes_on_nothing_is_lost(settings, tmp_path):
    settings |= {"lengths": [6], "n_mem": [1], "protocols": ["strict"], "optimiser": {"lr": 0.01}}
    sweep, store = config.Sweep(**settings), Store("tiny", tmp_path)
    run_sweep(sweep.give(5), store)

    def kill(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep.give(9), store, on_case=kill)
    run_sweep(sweep.give(9), store)
    assert [store.get(key)[0]["n_steps"] for key in store] == [9, 9]


def test_a_case_starts_from_the_vectors_of_another_sweep(settings, tmp_path, monkeypatch):
    monkeypatch.setattr("paper_lib.live.more.Store", lambda name: Store(name, tmp_path))
    settings["model"]["name"] = save_tiny_model(tmp_path / "two-layers")
    settings |= {"n_mem": [1], "protocols": ["strict"], "optimiser": {"lr": 0.1, "max_steps": 80}}
    short, longer = Store("tiny", tmp_path), Store("longer", tmp_path)
    run_sweep(config.Sweep(**settings | {"lengths": [2, 3]}), short)
    from_there = config.Sweep(**settings | {"name": "longer", "lengths": [4], "init_from": "tiny"})
    run_sweep(from_there.give(1), longer)
    sources = {key: short.get(key) for key in short}
    for key in longer:
        record, vectors = longer.get(key)
        source, start = sources[record["init_from"]]
        assert (source["text_id"], source["length"]) == (record["text_id"], 3)
        assert abs(vectors - start).max() == 0  # the first measurement is made where it starts
    in_layers = {"name": "in_layers", "lengths": [3], "init_from": "tiny", "protocols": ["kv_prefix"]}
    wider = Store("in_layers", tmp_path)
    run_sweep(config.Sweep(**settings | in_layers).give(1), wider)
    assert list(wider)
    assert {wider.get(key)[0]["init_from"] for key in wider} <= set(sources)
    with pytest.raises(InputError, match="no vectors of text strings-0 at length 1 or below"):
        run_sweep(config.Sweep(**settings | {"lengths": [1], "init_from": "tiny"}), Store("x", tmp_path))
    with pytest.raises(InputError, match="init_from none: no such sweep has been run or frozen"):
        run_sweep(config.Sweep(**settings | {"lengths": [4], "init_from": "none"}), Store("x", tmp_path))
    with pytest.raises(InputError, match=r"init_from novels-5m_books_strict: .*no vectors of text"):
        run_sweep(
            config.Sweep(**settings | {"lengths": [4], "init_from": "novels-5m_books_strict"}), Store("x", tmp_path)
        )
    with pytest.raises(InputError, match="affine cannot start from stored vectors; use free"):
        run_sweep(
            config.Sweep(**settings | {"lengths": [4], "init_from": "tiny", "parametrisation": "affine"}),
            Store("x", tmp_path),
        )
