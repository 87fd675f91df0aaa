"""Trained keys and values: those of real tokens do what the tokens do, on every transformer of the tests."""

import dataclasses

import pytest
import torch
from tiny import CONFIGS, make_lm, random_ids, save_tiny_model, start_vectors

import paper_lib
from paper_lib.errors import InputError
from paper_lib.live.lm import Inputs
from paper_lib.live.measure import measure
from paper_lib.live.protocols import Prefix, find_protocol
from paper_lib.live.rows import Case

pytestmark = pytest.mark.slow

TRANSFORMERS = [name for name in CONFIGS if name != "mamba"]
PROTOCOL = find_protocol("kv_prefix")


def vectors_of(lm, tokens):
    """Return the keys and values of real tokens as the protocol has them: by kind, layer, position; heads in a row."""
    with torch.no_grad():
        layers = lm.model(inputs_embeds=lm.embed(tokens), use_cache=True).past_key_values.layers
    kinds = [torch.stack([getattr(layer, kind) for layer in layers], dim=1) for kind in ("keys", "values")]
    split = torch.stack(kinds, dim=1).transpose(3, 4)  # case, kind, layer, position, head, width
    return split.flatten(4).flatten(1, 3)


@pytest.mark.parametrize("architecture", TRANSFORMERS)
def test_keys_and_values_of_real_tokens_do_what_the_tokens_do(architecture):
    lm, before, text = make_lm(architecture), random_ids(2, 3, 7), random_ids(2, 6)
    vectors = vectors_of(lm, before)
    assert vectors.shape[1:] == PROTOCOL.vector_shape(lm, 3)
    start = torch.full((2, 1), lm.start_id)
    whole = lm.embed(torch.cat([before, start, text[:, :-1]], dim=1))
    logits = lm.logits(Inputs(whole, torch.arange(3, 9)))
    nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), text.flatten(), reduction="none")
    torch.testing.assert_close(measure(lm, PROTOCOL, vectors, text)["ce_nats"], nats.view(2, 6).sum(dim=1))
    said = lm.greedy(lm.embed(torch.cat([before, start], dim=1)), 6, cached=False)
    for how in PROTOCOL.decodings:
        assert torch.equal(PROTOCOL.decode(lm, vectors, text[:, :0], 6, how=how), said)


@pytest.mark.parametrize("architecture", TRANSFORMERS)
@pytest.mark.parametrize(
    "name", ["kv_prefix(trained='values')", "kv_prefix(layers='first')", "kv_prefix(trained='values', layers='last')"]
)
def test_what_is_not_trained_is_as_of_start_tokens(architecture, name):
    lm, text, part = make_lm(architecture), random_ids(2, 6), find_protocol(name)
    starts = vectors_of(lm, torch.full((2, 3), lm.start_id))  # case, kind x layer x position, width
    n_layers = lm.model.config.num_hidden_layers
    kept = starts.view(2, 2, n_layers, 3, -1)[:, 1:] if "values" in name else starts.view(2, 2, n_layers, 3, -1)
    kept = kept[:, :, :1] if "first" in name else kept[:, :, -1:] if "last" in name else kept
    kept = kept.flatten(1, 3)
    assert kept.shape[1:] == part.vector_shape(lm, 3)
    torch.testing.assert_close(measure(lm, part, kept, text)["ce_nats"], measure(lm, PROTOCOL, starts, text)["ce_nats"])
    moved = measure(lm, part, kept + 1, text)["ce_nats"]
    assert (moved != measure(lm, part, kept, text)["ce_nats"]).all()


@pytest.mark.parametrize("architecture", TRANSFORMERS)
def test_a_start_from_input_vectors_does_what_they_do(architecture):
    lm, text = make_lm(architecture), random_ids(2, 6)
    strict = Prefix("vectors, then the start token", n_given=0, needs_start=True, n_after=1)
    vectors = torch.stack([start_vectors(lm, Case(str(n), text[n], 2), strict) for n in range(2)])
    start = torch.stack([PROTOCOL.adopt(lm, some) for some in vectors])
    assert start.shape[1:] == PROTOCOL.vector_shape(lm, 2)
    theirs = measure(lm, strict, vectors, text)["ce_nats"]
    torch.testing.assert_close(measure(lm, PROTOCOL, start, text)["ce_nats"], theirs)
    part = find_protocol("kv_prefix(trained='values', layers='last')")
    assert part.adopt(lm, vectors[0]).shape == part.vector_shape(lm, 2)


def test_two_memories_are_one_with_the_positions_of_both():
    lm, tokens = make_lm("llama"), random_ids(2, 4)
    whole = vectors_of(lm, tokens)
    split = whole.unflatten(1, (-1, 4))
    first, second = split[:, :, :2].flatten(1, 2), split[:, :, 2:].flatten(1, 2)
    assert torch.equal(PROTOCOL.combine(lm, first, second), whole)


def test_nothing_that_was_said_stays_in_what_is_trained():
    lm, text = make_lm("llama"), random_ids(2, 6)
    vectors = vectors_of(lm, random_ids(2, 3, 7))
    once = PROTOCOL.decode(lm, vectors, text[:, :0], 6, how="cached")
    assert torch.equal(PROTOCOL.decode(lm, vectors, text[:, :0], 6, how="cached"), once)


def test_a_text_is_found_and_comes_back_from_its_file(tmp_path):
    model = save_tiny_model(tmp_path / "model")
    settings = {"protocol": "kv_prefix", "recipe": "published", "lr": 0.1, "max_evaluations": 300}
    memory = paper_lib.cram("hi", model=str(model), storage="float32", **settings)
    assert memory.exact
    assert memory.record["vector_bytes"] == memory.vectors.size * 4
    assert paper_lib.decode(memory.save(tmp_path / "kv.safetensors")) == "hi"


def test_it_runs_under_autocast():
    full = make_lm("llama", torch.float32)
    lm, text = dataclasses.replace(full, autocast=torch.bfloat16), random_ids(2, 6)
    vectors = vectors_of(full, random_ids(2, 3, 7)).float().requires_grad_()
    measured = measure(lm, PROTOCOL, vectors, text)
    (slope,) = torch.autograd.grad(measured["loss"].sum(), vectors)
    assert slope.abs().sum() > 0
    assert measured["ce_nats"].tolist() == pytest.approx(
        measure(full, PROTOCOL, vectors, text)["ce_nats"].tolist(), rel=0.05
    )


def test_what_cannot_be_is_told_in_one_line():
    with pytest.raises(InputError, match="needs keys and values.*MambaForCausalLM has none; choose another model"):
        PROTOCOL.check(make_lm("mamba"), 8, 1)
    with pytest.raises(InputError, match="layers 'middle'.*all, first, last, every fourth"):
        find_protocol("kv_prefix(layers='middle')")
    with pytest.raises(InputError, match="length 60 behind 8 positions exceeds .* use lengths up to 55"):
        PROTOCOL.check(make_lm("llama"), 60, 8)
