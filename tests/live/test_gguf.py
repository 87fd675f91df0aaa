"""Models in one GGUF file: what transformers makes of the same file, and one line for what is no such file."""

import dataclasses
import hashlib
import importlib.util
import shutil
import sys

import pytest
import torch
from tiny import make_lm, save_tiny_gguf, save_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from paper_lib import cram, decode
from paper_lib.config import Sweep
from paper_lib.errors import InputError
from paper_lib.frozen import freeze
from paper_lib.live.gguf import round_weights
from paper_lib.live.load import load_lm, load_same
from paper_lib.live.measure import measure
from paper_lib.live.proofs import check_vectors
from paper_lib.live.protocols import PROTOCOLS
from paper_lib.live.sweep import run_sweep
from paper_lib.models import REAL_MODELS, RealModel
from paper_lib.store import Store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    return save_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(autouse=True)
def build(tmp_path_factory, monkeypatch):
    """A folder of its own for what is kept of models."""
    folder = tmp_path_factory.mktemp("build")
    monkeypatch.setattr("paper_lib.live.gguf.BUILD", folder)
    return folder


@pytest.mark.parametrize("most", [10**9, 0], ids=["kept", "too large to keep"])
def test_what_is_loaded_is_what_transformers_loads(gguf, build, monkeypatch, most):
    monkeypatch.setattr("paper_lib.live.gguf.MOST_KEPT", most)
    first, lm = (load_lm(str(gguf.parent), gguf=gguf.name) for _ in range(2))
    assert len(list(build.glob("gguf/*"))) == (most > 0)
    assert all(torch.equal(one, two) for one, two in zip(first.model.parameters(), lm.model.parameters(), strict=True))
    assert lm.model.name_or_path == str(gguf)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).eval()
    ids = torch.tensor([tokenizer.encode("the old man and the sea")])
    start = torch.tensor([[lm.start_id]])
    with torch.no_grad():
        theirs = model(input_ids=torch.cat([start, ids], dim=1), labels=torch.cat([start, ids], dim=1)).loss * len(
            ids[0]
        )
        ours = measure(lm, PROTOCOLS["strict"], None, ids)["ce_nats"]
    assert lm.tokenizer.encode("the old man and the sea") == ids[0].tolist()
    torch.testing.assert_close(ours[0].float(), theirs, rtol=1e-5, atol=0)
    model.generation_config.eos_token_id = None
    said = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=32)
    for cached in (False, True):
        assert torch.equal(lm.greedy(lm.embed(ids), 32, cached=cached)[0], said[0, ids.shape[1] :])


def test_what_is_kept_is_read_again_when_it_is_damaged_and_is_not_needed(gguf, build, monkeypatch):
    first = load_lm(str(gguf))
    (weights,) = build.glob("gguf/*/model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 64
    weights.write_bytes(content)
    second = load_lm(str(gguf))
    assert all(
        torch.equal(one, two) for one, two in zip(first.model.parameters(), second.model.parameters(), strict=True)
    )
    assert bytes(content) != weights.read_bytes()  # kept anew
    shutil.rmtree(build / "gguf")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", fail)
    assert load_lm(str(gguf)).fingerprint == first.fingerprint
    assert list((build / "gguf").iterdir()) == []


def test_one_file_has_one_fingerprint_however_it_is_named(gguf):
    one, two = load_lm(str(gguf)), load_lm(str(gguf.parent), gguf=gguf.name, dtype="bfloat16")
    assert one.fingerprint == two.fingerprint
    assert two.dtype == torch.bfloat16
    assert (
        one.fingerprint != load_lm(str(save_tiny_gguf(gguf.with_name("other.gguf"), num_hidden_layers=1))).fingerprint
    )


def test_a_sweep_and_a_sentence_on_a_gguf_file(gguf, tmp_path):
    sweep = Sweep(
        name="tiny",
        model={"name": str(gguf.parent), "gguf": gguf.name},
        texts={"source": "strings", "texts": ["a cat sat"]},
        n_texts=1,
        lengths=[3],
        protocols=["strict"],
        optimiser={"lr": 0.1, "max_steps": 200},
    )
    store = Store("tiny", tmp_path)
    assert run_sweep(sweep, store) == 1
    (key,) = store
    record, _ = store.get(key)
    assert record["gguf"] == gguf.name
    assert load_same(record).fingerprint == record["weights"]
    memory = cram("cat", model=str(gguf), lr=0.1)
    assert decode(memory.save(tmp_path / "cat.safetensors")) == memory.text()


def test_a_loaded_gguf_model_can_be_saved_in_the_hubs_format(gguf, tmp_path):
    lm = load_lm(str(gguf))
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    again = load_lm(str(tmp_path))
    ids = torch.arange(1, 9).unsqueeze(0)
    torch.testing.assert_close(again.model(ids).logits, lm.model(ids).logits, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda content: content[:200], "download it again"),
        (lambda content: content[: len(content) // 2], "download it again"),
        (lambda content: content[:-100], "download it again"),
        (lambda content: b"", "is no GGUF file"),
        (lambda content: b"PK\x03\x04" + content, "is no GGUF file"),
        (lambda content: content[:4] + bytes(len(content) - 4), "download it again"),
        (lambda content: content.replace(b"llama", b"lxama"), "architecture"),
        (lambda content: content.replace(b"blk.1.ffn_up", b"blk.1.ffn_xx"), "lacks tensors"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_in_one_line(gguf, tmp_path, damage, says):
    path = tmp_path / "bad.gguf"
    path.write_bytes(damage(gguf.read_bytes()))
    with pytest.raises(InputError, match=says) as error:
        load_lm(str(path))
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_that_has_only_gguf(gguf, tmp_path):
    with pytest.raises(InputError, match="nothing.gguf is missing"):
        load_lm(str(gguf.with_name("nothing.gguf")))
    (tmp_path / "tiny.gguf").write_bytes(gguf.read_bytes())
    with pytest.raises(InputError, match="name its GGUF file: gguf: tiny.gguf"):
        load_lm(str(tmp_path))


def test_the_missing_package_is_named(gguf, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "gguf" else find(name, *rest))
    with pytest.raises(InputError, match="needs the package gguf, which is not installed; run `make live`"):
        load_lm(str(gguf))


@pytest.fixture
def toy(gguf, tmp_path, monkeypatch):
    """A model to fetch, not fetched yet."""
    digest = hashlib.sha256(gguf.read_bytes()).hexdigest()
    model = RealModel("toy", "toy.gguf", digest, gguf.stat().st_size, "none", (), (), "")
    monkeypatch.setitem(REAL_MODELS, "toy", model)
    monkeypatch.setattr("paper_lib.models.BUILD", tmp_path)
    return model


def put_in_place(toy, gguf):
    toy.path.parent.mkdir(parents=True, exist_ok=True)
    toy.path.write_bytes(gguf.read_bytes())


def test_a_fetched_model_is_found_by_its_name_and_checked(gguf, toy):
    with pytest.raises(InputError, match="toy is not fetched; run: python -m paper_lib fetch toy"):
        load_lm("toy")
    put_in_place(toy, gguf)
    assert load_lm("toy").fingerprint == f"sha256:{toy.sha256}"
    toy.path.write_bytes(gguf.read_bytes() + b"\0")
    with pytest.raises(InputError, match="damaged; run: python -m paper_lib fetch toy"):
        load_lm("toy")


def test_frozen_vectors_of_a_model_that_is_not_fetched_are_reported_and_are_no_problem(gguf, toy, tmp_path):
    put_in_place(toy, gguf)
    sweep = Sweep(
        name="tiny", model={"name": "toy"}, texts={"source": "strings", "texts": ["a cat sat"]}, n_texts=1,
        lengths=[1], recipe="fast",
    )  # fmt: skip
    run_sweep(sweep, Store("tiny", tmp_path))
    freeze(Store("tiny", tmp_path), tmp_path / "data")
    said = []
    assert check_vectors(tmp_path / "data", report=said.append) == []
    assert said == ["vectors: decoding 1 of toy, strict", "vectors: tiny: 1 decoded, 0 problems"]
    toy.path.unlink()
    assert check_vectors(tmp_path / "data", report=said.append) == []
    assert said[2:] == [
        "vectors: tiny: 0 decoded, 0 problems",
        "vectors: tiny: toy is not fetched (python -m paper_lib fetch toy), so not decoded",
    ]


# --- large models --------------------------------------------------------------------------------------------------


def gradient(lm, ids):
    vectors = torch.ones(1, 1, lm.d_embed, dtype=lm.dtype).mul(0.1).requires_grad_()
    (slope,) = torch.autograd.grad(measure(lm, PROTOCOLS["strict"], vectors, ids)["loss"].sum(), vectors)
    return slope


def test_layers_computed_again_give_the_same_gradient_and_decode_with_the_cache(tmp_path):
    name, ids = save_tiny_model(tmp_path), torch.arange(1, 9).unsqueeze(0)
    plain, lean = (load_lm(name, dtype="float64", checkpointing=there) for there in (False, True))
    calls, forward = [], type(lean.model.model.layers[0].mlp).forward
    for lm in (plain, lean):
        lm.model.model.layers[0].mlp.forward = lambda x, lm=lm: (
            calls.append(lm) or forward(lm.model.model.layers[0].mlp, x)
        )
    torch.testing.assert_close(gradient(lean, ids), gradient(plain, ids), rtol=0, atol=0)
    assert (calls.count(plain), calls.count(lean)) == (1, 2)
    assert torch.equal(lean.greedy(lean.embed(ids), 5, cached=True), plain.greedy(plain.embed(ids), 5, cached=True))


@pytest.mark.parametrize("architecture", ["opt", "mamba", "gpt2"])
def test_models_that_would_compute_something_else_are_refused(tmp_path, architecture):
    from tiny import CONFIGS, spread_weights

    from paper_lib.live.lm import prepare_lm

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[architecture])
    spread_weights(model)
    if architecture == "opt":  # its layers drop out in training mode
        with pytest.raises(InputError, match="something else under gradient checkpointing"):
            prepare_lm(model, fingerprint="x", checkpointing=True)
    else:
        ids = torch.arange(2, 9).unsqueeze(0)
        torch.testing.assert_close(
            gradient(prepare_lm(model, fingerprint="x", checkpointing=True), ids),
            gradient(prepare_lm(model, fingerprint="x"), ids),
        )


def test_layers_over_all_devices_are_the_same_model(tmp_path):
    name, ids = save_tiny_model(tmp_path), torch.arange(1, 9).unsqueeze(0)
    spread, plain = (load_lm(name, dtype="float64", device_map=there) for there in ("auto", None))
    torch.testing.assert_close(gradient(spread, ids), gradient(plain, ids), rtol=1e-12, atol=0)


def test_what_cannot_be_spread_is_told_in_one_line(tmp_path, monkeypatch):
    name = save_tiny_model(tmp_path)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.setattr("transformers.modeling_utils.is_accelerate_available", lambda *_: False)
    monkeypatch.setattr("transformers.integrations.accelerate.is_accelerate_available", lambda *_: False)
    with pytest.raises(InputError, match="accelerate") as error:
        load_lm(name, device_map="auto")
    assert "\n" not in str(error.value)


def test_rounded_weights_are_few_levels_near_the_old_ones_and_stay():
    model = make_lm("llama", torch.float32).model
    before = {name: value.clone() for name, value in model.named_parameters()}
    round_weights(model, 3)
    for name, value in model.named_parameters():
        if value.dim() != 2:
            assert torch.equal(value, before[name])
            continue
        rows, old = value.unflatten(1, (-1, min(32, value.shape[1]))), before[name].view(*value.shape)
        scale = old.unflatten(1, rows.shape[1:]).abs().amax(dim=2, keepdim=True) / 3
        levels = rows / scale
        torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
        assert levels.abs().max() <= 3 + 1e-4
        assert ((value - old).abs() <= scale.expand_as(rows).flatten(1) / 2 + 1e-6).all()
    once = {name: value.clone() for name, value in model.named_parameters()}
    round_weights(model, 3)
    for name, value in model.named_parameters():
        torch.testing.assert_close(value, once[name], atol=1e-6, rtol=1e-6)


def test_a_rounded_model_is_another_model_of_the_same_file(gguf, toy, monkeypatch):
    put_in_place(toy, gguf)
    rounded = dataclasses.replace(REAL_MODELS["toy"], name="toy-3bit", rounds="toy", weight_bits=3)
    monkeypatch.setitem(REAL_MODELS, "toy-3bit", rounded)
    plain, other = load_lm("toy"), load_lm("toy-3bit")
    assert other.fingerprint == f"{plain.fingerprint}, rounded to 3 bits"
    assert not torch.equal(plain.model.get_input_embeddings().weight, other.model.get_input_embeddings().weight)
    again = load_lm("toy")  # what is kept on disk is not what was rounded
    assert torch.equal(plain.model.get_input_embeddings().weight, again.model.get_input_embeddings().weight)
