"""Scores computed chunk by chunk against those of the whole matrix of logits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CONFIGS, make_lm, random_ids
from transformers import Gemma2Config, Gemma2ForCausalLM

from paper_lib.live import loss
from paper_lib.live.lm import Inputs, prepare_lm


def naive(hidden, weight, bias, targets):
    logits = hidden @ weight.T + (0 if bias is None else bias)
    log_p = logits.log_softmax(-1)
    rows = torch.arange(len(targets))
    best_other = logits.clone()
    best_other[rows, targets] = -torch.inf
    return -log_p[rows, targets], logits.argmax(-1) == targets, logits[rows, targets] - best_other.amax(-1)


def test_a_target_that_does_not_count_has_no_slope_even_where_its_loss_overflows():
    hidden = torch.tensor([[1.0, 2.0], [torch.inf, 1.0]], requires_grad=True)
    scores = loss.score_hidden(hidden, torch.tensor([[1.0, 0.0], [-1.0, 1.0]]), None, torch.tensor([0, 1]))
    assert not scores.loss[1].isfinite()
    (slope,) = torch.autograd.grad(torch.where(torch.tensor([True, False]), scores.loss, 0).sum(), hidden)
    assert slope[0].isfinite().all()
    assert slope[1].tolist() == [0, 0]


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 30), vocab=st.integers(2, 50), d=st.integers(1, 8), with_bias=st.booleans(),
    chunk_bytes=st.integers(1, 4000), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_chunk_gives_the_scores_and_the_gradient_of_the_whole(n, vocab, d, with_bias, chunk_bytes, seed):
    torch.manual_seed(seed)
    hidden = torch.randn(n, d, dtype=torch.float64, requires_grad=True)
    weight, targets = torch.randn(vocab, d, dtype=torch.float64), torch.randint(vocab, (n,))
    bias = torch.randn(vocab, dtype=torch.float64) if with_bias else None
    upstream = torch.rand(n, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(loss.CHUNK_BYTES, "cpu", chunk_bytes)
        ce, _, hit, lead = loss.score_hidden(hidden, weight, bias, targets)
    expected = naive(hidden, weight, bias, targets)
    torch.testing.assert_close(ce, expected[0])
    assert torch.equal(hit, expected[1])
    torch.testing.assert_close(lead, expected[2])
    (gradient,) = torch.autograd.grad((ce * upstream).sum(), hidden)
    (whole,) = torch.autograd.grad((expected[0] * upstream).sum(), hidden)
    torch.testing.assert_close(gradient, whole)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_every_architecture_of_the_tests_is_scored_in_chunks(architecture):
    assert make_lm(architecture).plain_head


def test_a_model_that_caps_its_logits_is_asked_for_all_of_them():
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=16, head_dim=8, final_logit_softcapping=0.5, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    lm = prepare_lm(Gemma2ForCausalLM(config).double(), fingerprint="capped")
    assert not lm.plain_head
    ids, inputs = random_ids(2, 3), torch.randn(2, 5, 16, dtype=torch.float64)
    ce = lm.score(Inputs(inputs, torch.tensor([1, 2, 4])), ids).loss
    log_p = lm.model(inputs_embeds=inputs).logits[:, [1, 2, 4]].log_softmax(-1)
    torch.testing.assert_close(ce, -log_p.gather(-1, ids.unsqueeze(-1)).squeeze(-1))


def test_in_lower_precision_products_are_lower_and_sums_are_not():
    torch.manual_seed(0)
    hidden, weight = torch.randn(20, 16), torch.randn(50, 16) * 0.1
    targets = torch.randint(50, (20,))
    exact = loss.score_hidden(hidden, weight, None, targets).ce
    low = loss.score_hidden(hidden.bfloat16(), weight.bfloat16(), None, targets).ce
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, exact, atol=0.02, rtol=0)


class Hinge(loss.Loss):
    """The lead that is missing to one logit."""

    def of(self, logits, targets):
        right = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        others = logits.scatter(-1, targets.unsqueeze(-1), -torch.inf)
        return torch.relu(1 - right + others.amax(-1))


@pytest.mark.parametrize("chunk_bytes", [1, 10**6])
def test_a_loss_of_ones_own_has_the_gradient_of_its_formula_in_any_chunk(monkeypatch, chunk_bytes):
    monkeypatch.setitem(loss.CHUNK_BYTES, "cpu", chunk_bytes)
    torch.manual_seed(0)
    hidden = torch.randn(9, 6, dtype=torch.float64, requires_grad=True)
    weight, targets = torch.randn(20, 6, dtype=torch.float64), torch.randint(20, (9,))
    scores, own = loss.score_hidden(hidden, weight, None, targets, Hinge()), Hinge().of(hidden @ weight.T, targets)
    assert (own > 0).any()
    torch.testing.assert_close(scores.loss, own)
    torch.testing.assert_close(scores.ce, naive(hidden, weight, None, targets)[0])
    torch.testing.assert_close(*(torch.autograd.grad(value.sum(), hidden)[0] for value in (scores.loss, own)))
    whole = loss.score_logits(hidden @ weight.T, targets, Hinge())
    for one, other in zip(scores, whole, strict=True):
        torch.testing.assert_close(one, other)
