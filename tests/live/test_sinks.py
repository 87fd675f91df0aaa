"""Where attention rests, measured on models whose attention is known, and the protocol that follows from it."""

import dataclasses

import pytest
import torch
from tiny import BASE, CONFIGS, make_lm, random_ids, save_tiny_model
from transformers import AutoModelForCausalLM, MambaConfig

from paper_lib.config import Sweep
from paper_lib.live.cases import list_cases
from paper_lib.live.lm import Inputs, prepare_lm
from paper_lib.live.load import load_lm
from paper_lib.live.protocols import PROTOCOLS, find_protocol
from paper_lib.live.sinks import FIRST_QUERY, N_TOKENS, choose_protocol, measure_start_attention


def spread_evenly(lm):
    """Make every query look at all positions alike."""
    for layer in lm.model.model.layers:
        layer.self_attn.q_proj.weight.data.zero_()
    return lm


def rest_on_start(lm):
    """Make every query look at position 0 alone, by a key that no other token has."""
    for layer in lm.model.model.layers:
        layer.self_attn.register_forward_hook(lambda module, given, output: (output[0], _look_at_the_first(output[1])))
    return lm


def _look_at_the_first(weights):
    return None if weights is None else torch.zeros_like(weights).index_fill(3, torch.tensor([0]), 1.0)


@pytest.fixture
def lm(tmp_path):
    return load_lm(save_tiny_model(tmp_path, max_position_embeddings=128), dtype="float64")


def test_attention_that_is_spread_evenly_gives_the_start_token_its_share_and_no_more(lm):
    share = measure_start_attention(spread_evenly(lm))
    queries = range(FIRST_QUERY, N_TOKENS + 1)
    assert share == pytest.approx(sum(1 / (1 + query) for query in queries) / len(queries))
    assert lm.model.config._attn_implementation == "sdpa"  # as before
    assert choose_protocol("auto", lm) == "strict"


def test_attention_that_rests_on_the_start_token_puts_it_in_front(lm):
    assert measure_start_attention(rest_on_start(lm)) == pytest.approx(1)
    assert choose_protocol("auto", lm) == "anchored"
    assert choose_protocol("strict", lm) == "strict"


def test_a_context_that_is_shorter_than_the_text_is_enough(tmp_path):
    assert 0 < measure_start_attention(load_lm(save_tiny_model(tmp_path / "short", max_position_embeddings=20))) < 1
    assert measure_start_attention(load_lm(save_tiny_model(tmp_path / "tiny", max_position_embeddings=8))) is None


def test_models_without_attention_start_token_or_tokenizer_have_no_share(lm):
    config = MambaConfig(**BASE | {"vocab_size": 257}, hidden_size=16, num_hidden_layers=2, state_size=4)
    mamba = prepare_lm(AutoModelForCausalLM.from_config(config), lm.tokenizer, fingerprint="mamba")
    assert measure_start_attention(mamba) is None
    assert choose_protocol("auto", mamba) == "strict"
    assert measure_start_attention(dataclasses.replace(lm, start_id=None)) is None
    assert measure_start_attention(make_lm("llama")) is None


def test_a_sweep_that_leaves_the_choice_open_says_what_was_chosen(tmp_path):
    name = save_tiny_model(tmp_path, max_position_embeddings=128)
    sweep = Sweep(
        name="tiny", model={"name": name}, texts={"source": "strings", "texts": ["hi there"]}, n_texts=1,
        lengths=[2], recipe="fast",
    )  # fmt: skip
    (case,) = list_cases(sweep, load_lm(name))
    assert case.config.protocol == "strict"


@pytest.mark.parametrize("architecture", CONFIGS)
def test_the_start_token_stands_where_the_protocol_says(architecture):
    lm, ids = make_lm(architecture), random_ids(2, 5)
    vectors = torch.randn(2, 3, lm.d_embed, dtype=lm.dtype)
    start = lm.embed(torch.full((2, 1), lm.start_id))
    orders = {
        "strict": [vectors],
        "anchored": [start, vectors],
        "anchored(n_before=0, n_after=1)": [vectors, start],
        "anchored(n_before=2, front=(7, 5))": [lm.embed(torch.tensor([[7, 5]] * 2)), start, start, vectors],
    }
    for name, before in orders.items():
        protocol = find_protocol(name)
        inputs, whole = protocol.build(lm, vectors, ids), torch.cat([*before, lm.embed(ids)], dim=1)
        torch.testing.assert_close(inputs.embeds, whole[:, :-1], rtol=0, atol=0)
        assert inputs.embeds.shape[1] == protocol.n_inputs(5, 3)
        # the logits that predict t1..tN are those at the last N places but one of the whole
        n = whole.shape[1]
        expected = lm.logits(Inputs(whole, torch.arange(n - 6, n - 1)))
        torch.testing.assert_close(lm.logits(inputs), expected, rtol=1e-9, atol=1e-9)
        said = protocol.decode(lm, vectors, ids[:, :0], 4, how="full")
        assert torch.equal(said, protocol.decode(lm, vectors, ids[:, :0], 4, how="cached"))
        assert torch.equal(said[:, 0], expected[:, 0].argmax(dim=-1))
        assert protocol.side_information_bits(lm, 5) == PROTOCOLS["strict"].side_information_bits(lm, 5)
    assert find_protocol("anchored(n_before=1)").name == "anchored"
