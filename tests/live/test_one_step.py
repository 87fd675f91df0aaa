"""One-step generation: against the slow definition on every architecture, one forward pass, and what must not work."""

import pytest
import torch
from tiny import CONFIGS, make_lm, random_ids, save_tiny_model, start_vectors

import paper_lib
from paper_lib.config import Optimiser
from paper_lib.errors import InputError
from paper_lib.live.goals import GOALS, find_goal
from paper_lib.live.loop import optimise
from paper_lib.live.measure import measure
from paper_lib.live.protocols import find_protocol
from paper_lib.live.rows import Case, Recipe

pytestmark = pytest.mark.slow

SLOW = {  # e and m by position, written out
    "e m*": "emmmm",
    "e m* after": "emmmmm",
    "alternating": "ememe",
    "halves": "eeemm",
    "e*": "eeeee",
}


def arranged(arrangement):
    return find_protocol(f"one_step(arrangement={arrangement!r})")


def start(lm, protocol, n_mem=1, n_cases=2):
    return torch.stack([start_vectors(lm, Case(str(n), random_ids(1, 5)[0], n_mem), protocol) for n in range(n_cases)])


@pytest.mark.parametrize("architecture", CONFIGS)
@pytest.mark.parametrize("arrangement", SLOW)
def test_outputs_are_those_of_the_slow_definition(architecture, arrangement):
    lm, protocol, ids = make_lm(architecture), arranged(arrangement), random_ids(2, 5)
    vectors = start(lm, protocol)
    by_name = {"e": vectors[:, :1], "m": vectors[:, -1:]}
    inputs = torch.cat([by_name[name] for name in SLOW[arrangement]], dim=1).to(lm.dtype)
    logits = lm.model(inputs_embeds=inputs, use_cache=False).logits[:, -5:]
    nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none")
    measured = measure(lm, protocol, vectors, ids)
    torch.testing.assert_close(measured["ce_nats"], nats.view(2, 5).sum(dim=1).double())
    said = protocol.decode(lm, vectors, ids[:, :0], 5, how="one_pass")
    assert torch.equal(said, logits.argmax(dim=-1))
    assert protocol.n_inputs(5, 1) == inputs.shape[1]


def test_decoding_is_one_forward_pass_whatever_the_length():
    lm, protocol, seen = make_lm("llama"), find_protocol("one_step"), []
    lm.model.register_forward_pre_hook(lambda module, args: seen.append(1))
    protocol.decode(lm, start(lm, protocol), torch.empty(2, 0, dtype=torch.long), 40, how="one_pass")
    assert seen == [1]


@pytest.mark.parametrize(
    ("architecture", "alike"), [("llama", True), ("qwen3", True), ("gpt2", False), ("mamba", False)]
)
def test_identical_inputs_give_identical_outputs_only_without_positions_of_their_own(architecture, alike):
    lm, protocol = make_lm(architecture), arranged("e*")
    logits = lm.logits(protocol.build(lm, start(lm, protocol), random_ids(2, 5)))
    difference = (logits - logits[:, :1]).abs().max().item()
    assert (difference < 1e-9) == alike


def test_a_third_vector_stands_after_the_first():
    lm, protocol = make_lm("llama"), find_protocol("one_step")
    vectors = start(lm, protocol, n_mem=2)
    assert vectors.shape[1] == 3
    embeds = protocol.build(lm, vectors, random_ids(2, 5)).embeds
    assert torch.equal(embeds, vectors[:, [0, 1, 2, 2, 2]].to(lm.dtype))


def test_a_short_text_is_found_and_comes_back_from_its_file(tmp_path):
    model = save_tiny_model(tmp_path / "model")
    memory = paper_lib.cram("hi", model=str(model), protocol="one_step", max_evaluations=300, storage="float32")
    assert memory.exact
    assert memory.ladder["greedy_exact_one_pass"]
    assert "greedy_exact_cached" not in memory.record
    assert memory.vectors.shape[0] == 2
    assert paper_lib.decode(memory.save(tmp_path / "two.safetensors")) == "hi"


def test_what_cannot_be_is_told_in_one_line():
    lm, halves = make_lm("llama"), arranged("halves")
    with pytest.raises(InputError, match="unknown arrangement 'e m', did you mean"):
        arranged("e m")
    with pytest.raises(InputError, match="several vectors e need the arrangement 'e m\\*'; use n_mem 1"):
        arranged("alternating").check(lm, 8, 2)
    with pytest.raises(InputError, match="9 vectors for 8 tokens; use n_mem up to 8"):
        find_protocol("one_step").check(lm, 8, 9)
    settings = Optimiser(max_steps=2)
    ragged = [Case("a", random_ids(1, 4)[0]), Case("b", random_ids(1, 6)[0])]
    for cases, goal in ((ragged, GOALS["strict"]), (ragged[:1], find_goal("growing"))):
        with pytest.raises(InputError, match="texts of one length only, with targets that do not grow"):
            list(optimise(lm, halves, cases, Recipe(goal, settings)))
