"""Training a small model: lossless tokens, sequences behind a start token, a run that goes on where it was killed."""

import json

import pytest
import torch
import yaml

from paper_lib.errors import InputError
from paper_lib.live import train
from paper_lib.live.load import load_lm

pytestmark = pytest.mark.slow

RECIPE = {
    "name": "tiny", "vocab_size": 270, "d_model": 16, "d_mlp": 24, "n_layers": 1, "n_heads": 2, "init_std": 0.2,
    "sequence_length": 16, "batch_size": 4, "n_tokens": 16 * 4 * 20, "learning_rate": 3e-3, "warmup_steps": 2,
    "weight_decay": 0.1, "bf16": False,
}  # fmt: skip


@pytest.fixture
def recipe():
    return train.Recipe(**RECIPE)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.txt").write_text(f"Nothing is lost, said {name}; naïve, 'quoted' — and\tspaced.\n" * 60)
    return folder


def test_a_recipe_from_before_there_were_kinds_is_the_same_recipe(recipe):
    assert "kind" not in recipe.identity
    assert recipe.model_copy(update={"kind": "gpt2"}).identity["kind"] == "gpt2"


def test_any_text_comes_back_from_its_tokens(recipe, folder):
    tokenizer = train.train_tokenizer(["some words to learn from, some words"], recipe)
    for text in ("plain", " leading  and\n\ntrailing ", "naïve 漢字 🙂", "it 's , spaced ."):
        ids = tokenizer.encode(text)
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_every_sequence_begins_with_the_start_token_and_keeps_its_document(recipe):
    tokenizer = train.train_tokenizer(["abc"], recipe)
    texts = ["a" * 50, "b" * 20, "c" * 3]
    data = train.PackedSequences(texts, tokenizer, recipe.sequence_length)
    assert (data.ids[:, 0] == tokenizer.bos_token_id).all()
    assert len(data) == sum(len(tokenizer.encode(t, add_special_tokens=False)) // 15 for t in texts)
    assert {len(set(tokenizer.decode(row[1:]))) for row in data.ids} == {1}


@pytest.mark.parametrize("kind", train.CONFIGS)
def test_a_trained_model_is_in_the_hubs_format_rounded_to_bf16_and_measured(kind, recipe, folder, tmp_path):
    recipe = recipe.model_copy(update={"kind": kind})
    measured = train.train_model(recipe, folder, folder, tmp_path / "out", tmp_path / "work", report=lambda line: None)
    assert json.loads((tmp_path / "out" / "training.json").read_text())["recipe"] == recipe.identity
    lm = load_lm(str(tmp_path / "out"))
    assert lm.model.config.model_type == kind
    assert lm.start_id == lm.tokenizer.bos_token_id
    for weight in lm.model.parameters():
        assert torch.equal(weight, weight.bfloat16().float())
    again = train.measure_loss(lm.model, lm.tokenizer, train.read_folder(folder).values(), recipe.sequence_length)
    assert again["valid_nats_per_token"] == measured["valid_nats_per_token"]
    assert measured["valid_nats_per_token"] < 5.5
    assert not list((tmp_path / "out").glob("*.bin"))


def test_a_run_that_was_stopped_ends_where_a_straight_one_does(recipe, folder, tmp_path, monkeypatch):
    quiet = {"report": lambda line: None}
    train.train_model(recipe, folder, folder, tmp_path / "straight", tmp_path / "work1", **quiet)

    class Stop(Exception):
        pass

    steps = []
    step = train.Trainer.training_step

    def stopping_step(self, *arguments, **options):
        steps.append(1)
        if len(steps) == 12:
            raise Stop
        return step(self, *arguments, **options)

    monkeypatch.setattr(train.Trainer, "training_step", stopping_step)
    with pytest.raises(Stop):
        train.train_model(recipe, folder, folder, tmp_path / "stopped", tmp_path / "work2", **quiet)
    train.train_model(recipe, folder, folder, tmp_path / "stopped", tmp_path / "work2", **quiet)
    assert len(steps) < 12 + recipe.n_steps, "it went on from a checkpoint"
    one, two = (load_lm(str(tmp_path / name)).model.state_dict() for name in ("straight", "stopped"))
    for name in one:
        torch.testing.assert_close(one[name], two[name])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"n_step": 3}, "n_step: Extra inputs are not permitted"),
        ({"vocab_size": 10}, "vocab_size: Input should be greater"),
        ({"name": None}, "name: Input should be a valid string"),
    ],
)
def test_bad_recipes_are_told_in_one_line(tmp_path, change, says):
    path = tmp_path / "recipe.yml"
    path.write_text(yaml.safe_dump(RECIPE | change))
    with pytest.raises(InputError, match=says) as error:
        train.load_recipe(path)
    assert "\n" not in str(error.value)


def test_missing_recipe_and_empty_folder_are_named(recipe, tmp_path):
    with pytest.raises(InputError, match=r"none\.yml is missing"):
        train.load_recipe(tmp_path / "none.yml")
    with pytest.raises(InputError, match="no .txt or .txt.gz file"):
        train.train_model(recipe, tmp_path, tmp_path, tmp_path / "out", tmp_path / "work")


def test_the_recipes_of_the_repository_are_valid():
    root = train.Path(train.__file__).parents[2]
    for path in sorted((root / "sweeps" / "models").glob("*.yml")):
        assert train.load_recipe(path).name == path.stem
    paths = sorted((root / "data" / "models").glob("*/recipe.yml"))
    assert paths
    for path in paths:
        assert train.load_recipe(path).name == path.parent.name


QUIET = {"report": lambda line: None}


def test_a_finished_model_is_not_trained_again_and_another_one_is_refused(recipe, folder, tmp_path, monkeypatch):
    out, work = tmp_path / "out", tmp_path / "work"
    measured = train.train_model(recipe, folder, folder, out, work, **QUIET)
    weights = (out / "model.safetensors").read_bytes()
    monkeypatch.setattr(train.Trainer, "train", lambda *_, **__: pytest.fail("it was trained again"))
    assert train.train_model(recipe, folder, folder, out, work, **QUIET) == measured
    for change in ({"d_mlp": 32}, {"seed": 1}, {"n_tokens": 16 * 4 * 10}):
        with pytest.raises(InputError, match="holds a model of another recipe or other text; give another --out"):
            train.train_model(recipe.model_copy(update=change), folder, folder, out, work, **QUIET)
    (folder / "c.txt").write_text("And more text. " * 60)
    with pytest.raises(InputError, match="other text"):
        train.train_model(recipe, folder, folder, out, work, **QUIET)
    assert (out / "model.safetensors").read_bytes() == weights


def test_a_checkpoint_belongs_to_its_recipe_and_text(recipe, folder, tmp_path):
    work = tmp_path / "work"
    train.train_model(recipe, folder, folder, tmp_path / "one", work, **QUIET)
    other = recipe.model_copy(update={"seed": 1})
    train.train_model(other, folder, folder, tmp_path / "two", work, **QUIET)
    train.train_model(other, folder, folder, tmp_path / "alone", tmp_path / "work2", **QUIET)
    two, alone, one = (load_lm(str(tmp_path / name)).model.state_dict() for name in ("two", "alone", "one"))
    assert all(torch.equal(two[name], alone[name]) for name in two)
    assert any(not torch.equal(two[name], one[name]) for name in two)
