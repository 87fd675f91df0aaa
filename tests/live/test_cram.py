"""One call: a text into vectors, a file, and back; and the file that is not one."""

import os
import re
import subprocess
import sys

import pytest
from command_line import refuse, run
from safetensors.numpy import load_file, save_file
from tiny import save_tiny_model

import paper_lib
from paper_lib.errors import InputError
from paper_lib.live.load import load_lm
from paper_lib.paths import DATA, ROOT

pytestmark = pytest.mark.slow


QUICK = {"recipe": "published", "lr": 0.1, "max_evaluations": 150}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def memory(model):
    return paper_lib.cram("hi", model=model, n_mem=2, recipe="published", lr=0.1, max_evaluations=600)


def test_a_text_comes_back_from_its_vectors_and_from_their_file(memory, tmp_path):
    assert memory.text() == "hi"
    assert memory.exact
    assert memory.ladder["exact_length_tokens"] == 2
    assert memory.bits > 0
    path = memory.save(tmp_path / "x.safetensors")
    assert paper_lib.decode(path) == "hi"
    assert run("decode", path).stdout == "hi\n"


def test_texts_of_a_list_are_each_what_they_are_alone(model):
    texts = ["a cat", "hi", "no"]
    together = paper_lib.cram(
        texts, model=load_lm(model, dtype="float64"), n_mem=2, recipe="published", lr=0.1, max_evaluations=150
    )
    assert [memory.record["length"] for memory in together] == [5, 2, 2]
    for text, memory in zip(texts, together, strict=True):
        if memory.exact:
            assert memory.text() == text
    assert any(memory.exact for memory in together)
    (alone,) = paper_lib.cram(
        ["a cat"], model=load_lm(model, dtype="float64"), n_mem=2, recipe="published", lr=0.1, max_evaluations=150
    )
    assert alone.record["n_steps"] == together[0].record["n_steps"]
    assert alone.record["n_correct_mem"] == together[0].record["n_correct_mem"]


def test_without_a_number_vectors_are_doubled_until_the_text_is_exact(model):
    seen = []
    lm = load_lm(model)
    memory = paper_lib.cram(
        "the dog",
        model=lm,
        n_mem=None,
        lr=0.1,
        recipe="published",
        max_evaluations=150,
        on_step=lambda now: seen.append(now["gradient"].shape[1]),
    )
    assert list(dict.fromkeys(seen)) == [1, 2, 4, 8, 16][: len(set(seen))]
    assert memory.vectors.shape == (seen[-1], 16)
    assert len(set(seen)) > 1


def test_shipped_vectors_are_read_by_key_and_all_at_once():
    path = DATA / "vectors" / "novels-5m_books_strict.safetensors"
    texts = paper_lib.decode(path)
    assert set(texts) == set(load_file(path))
    key, text = next(iter(texts.items()))
    assert paper_lib.decode(path, key[:12]) == text
    listed = run("decode", path).stdout
    assert f"{key[:12]}  {text}\n" in listed
    assert listed.count("\n") >= len(texts)
    with pytest.raises(InputError, match=f"{len(texts)} cases of .* start with|0 cases of .* start with"):
        paper_lib.decode(path, "zz")


@pytest.mark.parametrize("damage", ["a bit of a vector", "cut off", "no record", "text"])
def test_a_damaged_or_foreign_file_is_told_in_one_line(memory, tmp_path, damage):
    path = memory.save(tmp_path / "x.safetensors")
    content = path.read_bytes()
    if damage == "a bit of a vector":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "cut off":
        path.write_bytes(content[:100])
    elif damage == "no record":
        save_file({"vectors": memory.vectors}, path)
    else:
        path.write_text("no vectors here")
    refusal = refuse("decode", path)
    assert refusal.startswith(f"error: {path}")
    assert "give a .safetensors file that cram, run or freeze wrote" in refusal


def test_other_weights_are_refused(memory, tmp_path):
    folder = tmp_path / "model"
    other = save_tiny_model(folder)
    theirs = paper_lib.cram("hi", model=other, n_mem=1, recipe="published", lr=0.1, max_evaluations=2)
    path = theirs.save(tmp_path / "x.safetensors")
    save_tiny_model(folder, intermediate_size=32)
    assert "has other weights than when" in refuse("decode", path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cram", ""], "one of the texts is empty; give at least one character"),
        (["cram", "a" * 300, "--n-mem", "1"], "exceeds the model's context of 64 tokens"),
        (["cram", "hi", "--protocol", "lax"], "unknown protocol 'lax'"),
        (["decode", "none.safetensors"], "none.safetensors is missing; give a .safetensors file"),
    ],
)
def test_what_cannot_be_crammed_or_decoded_is_told_in_one_line(model, arguments, says):
    assert says in refuse(*arguments, *(["--model", model] if arguments[0] == "cram" else []))


def test_the_command_line_crams_saves_and_says_how_exact(model, tmp_path):
    path = tmp_path / "x.safetensors"
    result = run("cram", "hi", "-o", path, "--model", model, "--lr", "0.1", "--n-mem", "2")
    assert result.stdout == "hi\n"
    assert "2 tokens, " in result.stderr
    assert ": exact" in result.stderr
    assert paper_lib.decode(path) == "hi"


def test_the_readmes_python_runs_and_transformers_alone_reads_the_file(tmp_path):
    here, alone = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    path = str(tmp_path / "rain.safetensors")
    code = "import os\n" + here.replace("rain.safetensors", path) + alone.replace("rain.safetensors", path)
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = result.stdout.splitlines()
    assert lines[0].startswith("The rain had stopped. True {")
    assert lines[1:] == ["The rain had stopped."] * 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "PASSIVE 2000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"), ({"GOMP_SPINCOUNT": "9"}, "None 9")],
)
def test_threads_wait_for_each_other_briefly_unless_the_user_says_otherwise(given, expected):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    code = f"import paper_lib.live, os; print(*map(os.environ.get, {names}))"
    environment = {name: value for name, value in os.environ.items() if name not in names} | given
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.stdout.strip() == expected
