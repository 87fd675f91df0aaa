"""The batched optimiser against a plain loop, one text at a time, written here with torch's own AdamW."""

import dataclasses
import itertools
import math
import time

import pytest
import torch
from tiny import CONFIGS, make_lm, random_ids, start_vectors, take_as

from paper_lib.config import Optimiser
from paper_lib.errors import InputError
from paper_lib.live.goals import GOALS, SAFE_MARGIN, Goal, Growing, find_goal
from paper_lib.live.lm import FUSED_FROM, FrozenLM, Inputs, prepare_lm
from paper_lib.live.loop import optimise
from paper_lib.live.loss import CROSS_ENTROPY, score_hidden
from paper_lib.live.measure import fill_batch, measure, measure_with_gradient
from paper_lib.live.movers import MOVERS
from paper_lib.live.proofs import climb_ladder
from paper_lib.live.protocols import PROTOCOLS, Prefix, find_protocol
from paper_lib.live.rows import Case, Recipe, Unfinished
from paper_lib.parts import find_part
from paper_lib.storage import STORAGES

NEVER = GOALS["never"]
CURVE = ("evaluations", "n_correct", "ce_nats")


def plain_loop(lm, protocol, case, settings):
    """Optimise one case with torch.optim.AdamW; return (vectors, ce, n_correct) of each of max_steps measurements."""
    vectors = start_vectors(lm, case).requires_grad_()
    optimiser = torch.optim.AdamW(
        [vectors],
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )
    ids = case.ids.unsqueeze(0)
    embedded = lm.model.get_input_embeddings()(ids).detach()
    first = 0 if protocol.name == "strict" else 1
    history = []
    for _ in range(settings.max_steps):
        inputs = torch.cat([vectors.unsqueeze(0).to(lm.dtype), embedded], dim=1)
        logits = lm.model(inputs_embeds=inputs).logits[0, case.n_mem - 1 + first : -1]
        targets = ids[0, first:]
        loss = torch.nn.functional.cross_entropy(logits, targets)
        correct = (logits.argmax(-1) == targets).sum().item()
        history.append((vectors.detach().clone(), loss.item() * len(targets), correct))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return history


flatten = itertools.chain.from_iterable


def cases(n_cases, length, n_mem=1, seed=0):
    return [Case(f"{seed}-{i}", ids, n_mem) for i, ids in enumerate(random_ids(n_cases, length, seed))]


def by_key(results):
    return {result.case.key: result for result in flatten(results)}


@pytest.mark.parametrize("protocol", [find_protocol("kuratov2025"), find_protocol("strict")], ids=lambda p: p.name)
@pytest.mark.parametrize("architecture", ["gpt_neox", "llama", "mamba"])
@pytest.mark.parametrize(
    ("dtype", "n_steps", "tolerance"),
    [pytest.param(torch.float64, 100, 1e-6, marks=pytest.mark.slow), (torch.float32, 50, 1e-4)],
)
def test_batched_trajectories_are_those_of_a_plain_loop(architecture, protocol, dtype, n_steps, tolerance):
    lm, some = make_lm(architecture, dtype), cases(3, 9, n_mem=2)
    settings = Optimiser(max_steps=n_steps)
    last = {}
    results = by_key(
        optimise(
            lm, protocol, some, Recipe(NEVER, settings), batch_size=3,
            on_step=lambda now: last.update(now),
        )
    )  # fmt: skip
    for index, case in enumerate(some):
        history = plain_loop(lm, protocol, case, settings)
        assert last["ce_nats"][index].item() == pytest.approx(history[-1][1], abs=tolerance * 100)
        best = max(range(n_steps), key=lambda step: history[step][2])  # the first of the best
        result = results[case.key]
        if history[best][2] < protocol.n_targets(9):
            assert result.measured["n_correct_mem"] == history[best][2]
            torch.testing.assert_close(result.vectors, history[best][0], atol=tolerance, rtol=0)
            assert result.measured["ce_mem_nats"] == pytest.approx(history[best][1], abs=tolerance * 100)
        assert result.measured["ce_mem_min_nats"] == pytest.approx(min(ce for _, ce, _ in history), abs=tolerance * 100)


@pytest.mark.parametrize("length", [1, 2, 9])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_mambas_scan_says_what_its_loop_over_positions_says(length, dtype, tolerance):
    lm, protocol = make_lm("mamba", dtype), find_protocol("strict")
    mixers = [module for module in lm.model.modules() if hasattr(module, "use_mambapy")]
    assert [module.use_mambapy for module in mixers] == [True, True]
    ids, found = random_ids(3, length), []
    for scan in (True, False):
        for module in mixers:
            module.use_mambapy = scan
        vectors = torch.stack([start_vectors(lm, case) for case in cases(3, length)]).requires_grad_()
        loss = measure(lm, protocol, vectors, ids)["loss"]
        found.append((loss.detach(), *torch.autograd.grad(loss.sum(), vectors)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


def test_the_learning_curve_is_the_best_so_far_at_its_evaluations():
    lm, protocol, case = make_lm("llama"), find_protocol("strict"), cases(1, 8)[0]
    history = plain_loop(lm, protocol, case, settings := Optimiser(lr=0.3, max_steps=130))
    [[result]] = optimise(lm, protocol, [case], Recipe(NEVER, settings))
    curve = result.measured
    assert curve["curve_evaluations_each"] == [25, 50, 100, 125]
    for n, n_correct, nats in zip(*(curve[f"curve_{name}_each"] for name in CURVE), strict=True):
        assert n_correct == max(correct for _, _, correct in history[:n])
        assert nats == pytest.approx(min(ce for _, ce, _ in history[:n]), rel=1e-4)


def test_a_row_that_ends_early_has_the_curve_so_far():
    lm, protocol, case = make_lm("llama"), find_protocol("strict"), cases(1, 2)[0]
    [[result]] = optimise(lm, protocol, [case], Recipe(find_goal("strict"), Optimiser(lr=0.3, max_steps=400)))
    assert (result.ended, result.n_steps < 400) == ("reached", True)
    assert result.measured["curve_evaluations_each"] == [n for n in (25, 50, 100, 125, 200) if n <= result.n_steps]


@pytest.mark.slow
def test_a_row_that_enters_late_runs_as_if_alone():
    lm, protocol = make_lm("llama"), find_protocol("strict")
    settings, rule = Optimiser(lr=0.05, max_steps=120), find_goal("strict")
    some = cases(6, 4)
    alone = by_key(
        results for case in some for results in optimise(lm, protocol, [case], Recipe(rule, settings), batch_size=1)
    )
    together = by_key(optimise(lm, protocol, some, Recipe(rule, settings), batch_size=2))
    assert {r.n_steps for r in alone.values()} != {120}, "some rows must leave early for others to enter late"
    for key, result in together.items():
        assert (result.ended, result.n_steps, result.measured["n_correct_mem"]) == (
            alone[key].ended, alone[key].n_steps, alone[key].measured["n_correct_mem"],
        )  # fmt: skip
        torch.testing.assert_close(result.vectors, alone[key].vectors, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_texts_of_different_lengths_share_a_batch_and_end_as_if_alone():
    lm, recipe = make_lm("llama"), Recipe(find_goal("strict"), Optimiser(lr=0.1, max_steps=30))
    some = [Case(f"{n}-{i}", ids) for n in (2, 9, 4) for i, ids in enumerate(random_ids(2, n))]
    for protocol in PROTOCOLS.values():
        alone = by_key(results for case in some for results in optimise(lm, protocol, [case], recipe))
        for key, result in by_key(optimise(lm, protocol, some, recipe, batch_size=4)).items():
            assert (result.ended, result.n_steps) == (alone[key].ended, alone[key].n_steps)
            assert result.measured.keys() == alone[key].measured.keys()
            for name, value in result.measured.items():
                assert value == pytest.approx(alone[key].measured[name]), name
            assert result.n_active == protocol.n_targets(len(result.case.ids))
            torch.testing.assert_close(result.vectors, alone[key].vectors, atol=1e-6, rtol=0)


def test_every_case_comes_back_once_whatever_the_batch():
    lm, protocol = make_lm("llama"), find_protocol("kuratov2025")
    some = cases(7, 3)
    for batch_size in (1, 3, 20):
        results = list(
            flatten(optimise(lm, protocol, some, Recipe(NEVER, Optimiser(max_steps=5)), batch_size=batch_size))
        )
        assert sorted(result.case.key for result in results) == sorted(case.key for case in some)
        assert {result.ended for result in results} == {"budget"}


ASKED = [(a, p) for a in CONFIGS for p in PROTOCOLS if (a, p) != ("mamba", "kv_prefix")]  # which has none


@pytest.mark.parametrize(("architecture", "protocol"), ASKED)
def test_gradient_to_the_vectors_is_the_numerical_one(architecture, protocol):
    lm, protocol = make_lm(architecture), find_protocol(protocol)
    ids, vectors = random_ids(2, 5), torch.stack([start_vectors(lm, case, protocol) for case in cases(2, 5)])
    vectors.requires_grad_()
    # Some models round to float32 inside (norms, scans) whatever their weights are, hence the wide step.
    loss = lambda v: measure(lm, protocol, v, ids)["loss"]  # noqa: E731
    assert torch.autograd.gradcheck(loss, vectors, eps=1e-3, atol=2e-3, rtol=1e-2, fast_mode=True)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_rows_of_a_batch_do_not_touch_each_other(architecture):
    lm, protocol = make_lm(architecture), find_protocol("kuratov2025")
    ids = random_ids(2, 5)
    vectors = torch.stack([start_vectors(lm, case) for case in cases(2, 5)]).requires_grad_()
    (gradient,) = torch.autograd.grad(measure(lm, protocol, vectors, ids)["loss"][0], vectors)
    assert gradient[0].abs().sum() > 0
    assert gradient[1].abs().sum() == 0


def test_measured_sums_are_those_of_an_independent_forward():
    lm = make_lm("gpt_neox")
    ids, vectors = random_ids(1, 6), start_vectors(lm, Case("x", random_ids(1, 6)[0], 2)).unsqueeze(0)
    inputs = torch.cat([vectors, lm.model.get_input_embeddings()(ids)], dim=1)
    log_p = lm.model(inputs_embeds=inputs).logits.log_softmax(-1)[0]
    for protocol, first in (("kuratov2025", 1), ("strict", 0)):
        measured = measure(lm, find_protocol(protocol), vectors, ids)
        predicted = [log_p[2 + position - 1] for position in range(first, 6)]
        targets = ids[0, first:].tolist()
        assert measured["ce_nats"].item() == pytest.approx(
            -sum(p[t].item() for p, t in zip(predicted, targets, strict=True))
        )
        assert measured["n_correct"].item() == sum(
            p.argmax().item() == t for p, t in zip(predicted, targets, strict=True)
        )
        leads = [p[t] - torch.cat([p[:t], p[t + 1 :]]).max() for p, t in zip(predicted, targets, strict=True)]
        assert measured["margin"].item() == pytest.approx(min(leads).item())


def test_baselines_give_what_each_protocol_gives():
    lm, ids = make_lm("llama"), random_ids(1, 6)
    given = lm.model(input_ids=ids).logits.log_softmax(-1)[0]
    expected = -sum(given[i - 1, ids[0, i]].item() for i in range(1, 6))
    assert measure(lm, find_protocol("kuratov2025"), None, ids)["ce_nats"].item() == pytest.approx(expected)
    start = torch.cat([torch.full((1, 1), lm.start_id), ids], dim=1)
    after_start = lm.model(input_ids=start).logits.log_softmax(-1)[0]
    expected = -sum(after_start[i, ids[0, i]].item() for i in range(6))
    assert measure(lm, find_protocol("strict"), None, ids)["ce_nats"].item() == pytest.approx(expected)


@pytest.mark.parametrize("n_mem", [1, 2])
@pytest.mark.parametrize(("architecture", "protocol"), ASKED)
def test_what_a_vector_says_freely_is_exact_on_every_rung_of_the_ladder(architecture, protocol, n_mem):
    # A text with a known exact vector, without optimisation: the model's own greedy continuation.
    lm, protocol, start = make_lm(architecture), find_protocol(protocol), random_ids(1, 1)
    vectors = start_vectors(lm, Case("speaker", start[0], n_mem), protocol)
    how = protocol.decodings[0]
    said = protocol.decode(lm, vectors.unsqueeze(0), start[:, : protocol.n_given], 6, how=how)
    ladder = climb_ladder(lm, protocol, vectors[None], said)[0]
    assert ladder["tf_exact"]
    assert all(ladder[f"greedy_exact_{how}"] for how in protocol.decodings)
    assert ladder["first_error_position"] is None
    assert ladder["exact"] == (ladder["min_logit_margin"] >= SAFE_MARGIN)
    wrong = said[0].clone()
    wrong[3] = (wrong[3] + 1) % lm.vocab_size
    ladder = climb_ladder(lm, protocol, vectors[None], wrong[None])[0]
    assert (ladder["exact"], ladder["first_error_position"]) == (False, 3)
    assert ladder["min_logit_margin"] < 0


@pytest.mark.parametrize("cached", [True, False])
def test_free_decoding_is_the_argmax_with_the_cache_or_with_full_forwards(cached):
    lm, seen = make_lm("llama"), []
    lm.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(next(v for v in kwargs.values() if v is not None).shape[1]),
        with_kwargs=True,
    )
    inputs = start_vectors(lm, Case("x", random_ids(1, 6)[0], 3)).unsqueeze(0)
    said = lm.greedy(inputs, 8, cached=cached)
    assert seen == ([3, 1, 1, 1, 1, 1, 1, 1] if cached else [3, 4, 5, 6, 7, 8, 9, 10])
    for place in range(8):
        context = torch.cat([inputs, lm.embed(said[:, :place])], dim=1)
        assert lm.model(inputs_embeds=context).logits[0, -1].argmax() == said[0, place]


@pytest.mark.parametrize("cached", [True, False])
def test_free_decoding_forgets_the_penalties_that_a_model_comes_with(cached):
    model = make_lm("llama").model
    inputs = torch.randn(1, 1, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    said = prepare_lm(model, fingerprint="x").greedy(inputs, 30, cached=cached)
    assert len(said.unique()) < 30  # it repeats itself
    model.generation_config.repetition_penalty = 10.0
    assert torch.equal(prepare_lm(model, fingerprint="x").greedy(inputs, 30, cached=cached), said)


def test_the_strict_rule_stops_at_vectors_that_decode_the_text_freely():
    lm, protocol = make_lm("llama"), find_protocol("strict")
    settings = Optimiser(lr=0.3, max_steps=400)
    results = list(flatten(optimise(lm, protocol, cases(4, 2), Recipe(find_goal("strict"), settings), batch_size=4)))
    solved = [result for result in results if result.ended == "reached"]
    assert solved
    for result in solved:
        assert result.margin >= SAFE_MARGIN
        assert climb_ladder(lm, protocol, result.vectors[None], result.case.ids[None])[0]["exact"]


def test_kuratov_rule_stops_at_accuracy_one_or_out_of_patience():
    lm, protocol = make_lm("llama"), find_protocol("kuratov2025")
    hopeless = Goal(min_margin=math.inf, patience_steps=7)
    [[result]] = optimise(lm, protocol, cases(1, 30), Recipe(hopeless, Optimiser(lr=1e-9, max_steps=50)), batch_size=1)
    assert (result.ended, result.n_steps) == ("patience", 8)
    [[result]] = optimise(
        lm, protocol, cases(1, 2), Recipe(GOALS["kuratov2025"], Optimiser(lr=0.1, max_steps=500)), batch_size=1
    )
    assert (result.ended, result.measured["n_correct_mem"]) == ("reached", 1)


def test_a_loss_that_is_not_finite_ends_its_row_and_spares_the_others():
    lm, protocol = make_lm("llama"), find_protocol("kuratov2025")
    some = cases(3, 4)

    class Poisoned(Prefix):
        def build(self, lm, vectors, ids):
            inputs = super().build(lm, vectors, ids)
            poison = (ids == some[1].ids).all(dim=1).view(-1, 1, 1)
            return Inputs(torch.where(poison, torch.nan, inputs.embeds), inputs.positions)

    settings = Optimiser(max_steps=20)
    results = by_key(optimise(lm, Poisoned("poisoned", 1, False), some, Recipe(NEVER, settings), batch_size=3))
    assert [results[case.key].ended for case in some] == ["budget", "diverged", "budget"]
    for case in (some[0], some[2]):
        [[alone]] = optimise(lm, protocol, [case], Recipe(NEVER, settings), batch_size=1)
        torch.testing.assert_close(results[case.key].vectors, alone.vectors, atol=1e-9, rtol=0)


def test_what_is_measured_and_kept_is_rounded_to_the_storage_precision():
    lm, protocol = make_lm("llama", torch.float32), find_protocol("strict")
    settings, rule = Optimiser(lr=0.05, max_steps=40), find_goal("strict")
    [[result]] = optimise(lm, protocol, cases(1, 6), Recipe(rule, settings, storage=STORAGES["float16"]), batch_size=1)
    assert torch.equal(result.vectors, result.vectors.half().float())
    measured = measure(lm, protocol, result.vectors[None], result.case.ids[None])
    assert result.measured["ce_mem_nats"] == pytest.approx(measured["ce_nats"].item(), rel=1e-6)
    [[unrounded]] = optimise(lm, protocol, cases(1, 6), Recipe(rule, settings), batch_size=1)
    assert not torch.equal(unrounded.vectors, unrounded.vectors.half().float())


def test_autocast_lowers_the_precision_of_the_steps_and_not_of_the_ladder():
    full = make_lm("llama", torch.float32)
    lm = dataclasses.replace(full, autocast=torch.bfloat16)
    protocol, case = find_protocol("strict"), cases(1, 6)[0]
    vectors = start_vectors(lm, case)
    fast, slow = (measure(m, protocol, vectors[None], case.ids[None])["ce_nats"].item() for m in (lm, full))
    assert fast != slow
    assert fast == pytest.approx(slow, rel=0.05)
    assert climb_ladder(lm, protocol, vectors[None], case.ids[None]) == climb_ladder(
        full, protocol, vectors[None], case.ids[None]
    )


@pytest.mark.parametrize("architecture", CONFIGS)
def test_weights_cast_once_for_autocast_change_no_bit(architecture):
    lm = make_lm(architecture, torch.float32)
    once = dataclasses.replace(lm, autocast=torch.bfloat16)
    each_time = dataclasses.replace(once)
    each_time.__dict__["_cast_weights"] = {}
    protocol, ids, found = find_protocol("strict"), random_ids(3, 7), []
    before = {name: (weight, weight.clone()) for name, weight in lm.model.named_parameters()}
    for one in (once, each_time):
        vectors = torch.stack([start_vectors(lm, case) for case in cases(3, 7)])
        found.append(measure_with_gradient(one, protocol, CROSS_ENTROPY, vectors, ids))
    for name, values in found[0].items():
        assert torch.equal(values, found[1][name]), name
    for name, weight in lm.model.named_parameters():
        assert weight is before[name][0], "the model has its own weights again"
        assert torch.equal(weight, before[name][1])


def test_short_texts_under_autocast_on_a_cpu_do_without_the_fused_attention():
    full, seen = make_lm("llama", torch.float32), []
    lm = dataclasses.replace(full, autocast=torch.bfloat16)
    config = lm.model.config
    lm.model.register_forward_pre_hook(lambda module, args: seen.append(config._attn_implementation))
    lm.model.base_model.register_forward_pre_hook(lambda module, args: seen.append(config._attn_implementation))
    for model, n in ((lm, 8), (lm, FUSED_FROM), (full, 8)):
        inputs = Inputs(torch.randn(1, n, lm.d_embed), torch.arange(n))
        model.score(inputs, torch.zeros(1, n, dtype=torch.long))
    assert seen == ["eager", "sdpa", "sdpa"]
    assert config._attn_implementation == "sdpa"  # as before


def test_what_autocast_alone_solves_goes_on_under_the_strict_rule():
    # Autocast that flatters: it finds every target right by a wide margin from the fifth step on.
    class Flattered(FrozenLM):
        def score(self, inputs, targets, loss, counts=None):
            scores = super().score(inputs, targets, loss, counts)
            n_steps.append(1) if self.autocast else n_checks.append(1)
            flatter = self.autocast and len(n_steps) >= 5
            return scores._replace(hit=scores.hit | True, lead=scores.lead.abs() + 1) if flatter else scores

    n_steps, n_checks = [], []
    lm = take_as(Flattered, make_lm("llama", torch.float32), autocast=torch.bfloat16)
    protocol, settings = find_protocol("strict"), Optimiser(lr=0.1, max_steps=9)
    [[result]] = optimise(lm, protocol, cases(1, 6), Recipe(find_goal("strict"), settings), check_every=4)
    assert (result.ended, result.n_steps, len(n_checks)) == ("budget", 9, 5)
    n_steps.clear()
    [[published]] = optimise(lm, protocol, cases(1, 6), Recipe(find_goal("kuratov2025"), settings))
    assert (published.ended, published.n_steps) == ("reached", 5)


def test_a_batch_fills_the_device_by_itself():
    seen = []
    lm, some = make_lm("llama"), cases(40, 9)
    n_rows = fill_batch(lm.device, 9)
    assert n_rows == 512 * torch.get_num_threads() // 9
    assert fill_batch(lm.device, 10**6) == 1
    assert fill_batch(torch.device("cuda"), 64) == 1024
    list(optimise(
        lm, find_protocol("strict"), some, Recipe(NEVER, Optimiser(max_steps=2)),
        on_step=lambda now: seen.append(len(now["loss"])),
    ))  # fmt: skip
    assert seen[0] == min(40, n_rows)
    assert list(optimise(lm, find_protocol("strict"), [], Recipe(NEVER, Optimiser()))) == []


def test_weights_of_low_precision_prove_nothing():
    start = random_ids(1, 1)
    protocol = find_protocol("strict")
    for dtype in (torch.float32, torch.bfloat16):
        lm = make_lm("llama", dtype)
        vectors = start_vectors(lm, Case("speaker", start[0], n_mem=2))
        said = protocol.decode(lm, vectors[None], start[:, :0], 2, how="full")[0]
        ladder = climb_ladder(lm, protocol, vectors[None], said[None])[0]
        assert ladder["greedy_exact_full"]
        assert ladder["min_logit_margin"] >= SAFE_MARGIN
        assert ladder["exact"] == (dtype == torch.float32)


@pytest.mark.slow
def test_looking_less_often_changes_nothing():
    lm, protocol, rule = make_lm("llama"), find_protocol("strict"), find_goal("strict")
    settings = Optimiser(lr=0.1, max_steps=103)
    often, seldom = (
        by_key(optimise(lm, protocol, cases(7, 3), Recipe(rule, settings), batch_size=3, check_every=every))
        for every in (1, 10)
    )
    assert {result.ended for result in often.values()} == {"reached", "budget"}
    for key, result in often.items():
        torch.testing.assert_close(seldom[key].vectors, result.vectors, atol=1e-9, rtol=0)
        for name in ("ended", "n_steps"):
            assert getattr(seldom[key], name) == getattr(result, name)
        assert seldom[key].measured["n_correct_mem"] == result.measured["n_correct_mem"]
        assert seldom[key].measured["ce_mem_min_nats"] == pytest.approx(result.measured["ce_mem_min_nats"])
        for name, values in (result.state or {}).items():  # from which the case goes on when it is given more
            if name != "seconds":
                torch.testing.assert_close(seldom[key].state[name], values, atol=1e-9, rtol=0, equal_nan=True)


@pytest.mark.slow
def test_a_case_goes_on_from_unfinished_as_if_never_stopped():
    lm, protocol, rule = make_lm("llama"), find_protocol("strict"), find_goal("strict")
    settings, some, left = Optimiser(lr=0.1, max_steps=103), cases(7, 3), {}
    straight = []
    for results in optimise(lm, protocol, some, Recipe(rule, settings), batch_size=3, save_every_seconds=0):
        if isinstance(results[0], Unfinished):
            for unfinished in results:
                if unfinished.state["n_steps"] % 20 == 10:
                    left.setdefault(unfinished.case.key, []).append(unfinished.state)
        else:
            straight.append(results)
    straight = by_key(straight)
    assert {result.ended for result in straight.values()} == {"reached", "budget"}
    assert max(map(len, left.values())) == 5
    # each from another place, some not begun, in other company than before
    mixed = [
        dataclasses.replace(case, state=(left.get(case.key, []) + [None])[i % 3]) for i, case in enumerate(some[::-1])
    ]
    assert sum(case.state is not None for case in mixed) >= 4
    steps = []
    resumed = by_key(
        optimise(
            lm,
            protocol,
            mixed,
            Recipe(rule, settings),
            batch_size=2,
            on_step=lambda told: steps.append(len(told["loss"])),
        )
    )
    done = sum(int(case.state["n_steps"]) for case in mixed if case.state)
    assert sum(steps) == sum(result.n_steps for result in straight.values()) - done
    for key, result in straight.items():
        torch.testing.assert_close(resumed[key].vectors, result.vectors, atol=1e-9, rtol=0)
        for name in ("ended", "n_steps"):
            assert getattr(resumed[key], name) == getattr(result, name)
        assert resumed[key].measured["n_correct_mem"] == result.measured["n_correct_mem"]
        assert resumed[key].measured["ce_mem_min_nats"] == pytest.approx(result.measured["ce_mem_min_nats"])
        assert resumed[key].margin == pytest.approx(result.margin)


def test_out_of_memory_means_fewer_rows_at_a_time_and_the_same_results():
    lm, protocol, seen = make_lm("llama"), find_protocol("strict"), []

    class Small(FrozenLM):
        def score(self, inputs, targets, loss, counts=None):
            seen.append(len(targets))
            if len(targets) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().score(inputs, targets, loss, counts)

    settings, some = Optimiser(max_steps=30), cases(7, 4)
    small = by_key(optimise(take_as(Small, lm), protocol, some, Recipe(NEVER, settings), batch_size=5))
    assert seen[:3] == [5, 2, 2]
    assert max(seen[1:]) == 2
    for key, result in by_key(optimise(lm, protocol, some, Recipe(NEVER, settings), batch_size=5)).items():
        torch.testing.assert_close(small[key].vectors, result.vectors, atol=1e-9, rtol=0)


def test_a_text_that_never_fits_in_memory_is_told_in_one_line():
    class Tiny(FrozenLM):
        def score(self, inputs, targets, loss, counts=None):
            raise torch.OutOfMemoryError("CUDA out of memory")

    lm = take_as(Tiny, make_lm("llama"))
    with pytest.raises(InputError, match="one text does not fit in memory; use shorter lengths"):
        list(flatten(optimise(lm, find_protocol("strict"), cases(3, 4), Recipe(NEVER, Optimiser()), batch_size=2)))


def test_a_case_is_charged_its_share_of_the_time():
    lm, protocol = make_lm("llama"), find_protocol("strict")
    started = time.perf_counter()
    results = list(flatten(optimise(lm, protocol, cases(3, 4), Recipe(NEVER, Optimiser(max_steps=20)), batch_size=2)))
    assert 0 < sum(result.wall_seconds for result in results) <= time.perf_counter() - started


def test_the_random_start_depends_on_the_key_alone():
    lm = make_lm("llama")
    one, two = Case("a", random_ids(1, 3)[0]), Case("a", random_ids(1, 9)[0])
    assert torch.equal(start_vectors(lm, one), start_vectors(lm, two))
    assert not torch.equal(start_vectors(lm, one), start_vectors(lm, Case("b", one.ids)))
    many = start_vectors(lm, Case("c", one.ids, n_mem=2000))
    assert many.std().item() == pytest.approx(lm.embedding_std, rel=0.02)


def test_gemma_starts_on_the_scale_that_its_inputs_have():
    lm = make_lm("gemma3")
    assert lm.embedding_std == pytest.approx(4 * lm.model.get_input_embeddings().weight.std().item(), rel=0.01)


def test_projected_opt_takes_vectors_of_its_embedding_width():
    assert make_lm("opt_projected").d_embed == 8
    assert make_lm("opt").d_embed == 16


def test_side_information_is_counted_in_bits():
    lm = make_lm("llama")
    assert find_protocol("strict").side_information_bits(lm, 10) == 16
    assert find_protocol("kuratov2025").side_information_bits(lm, 10) == pytest.approx(16 + math.log2(40))


def test_a_protocol_without_start_token_is_refused():
    lm = make_lm("llama")
    headless = dataclasses.replace(lm, start_id=None)
    with pytest.raises(InputError, match="neither BOS nor EOS"):
        find_protocol("strict").baseline(headless, random_ids(1, 3))


def test_unknown_names_are_answered_with_the_known_ones():
    for find, known in ((find_protocol, PROTOCOLS), (find_goal, GOALS)):
        with pytest.raises(InputError, match=f"'none'; choose from: {', '.join(known)}"):
            find("none")


# --- growing targets -----------------------------------------------------------------------------------------------


def slow_horizon(lm, protocol, case, settings, stage_tokens, stage_steps, doubling=False):
    """Grow the target of one case with torch.optim.AdamW; return (steps, stage) of each stage that was passed."""
    vectors = start_vectors(lm, case).requires_grad_()
    betas = (settings.beta1, settings.beta2)
    optimiser = torch.optim.AdamW([vectors], lr=settings.lr, betas=betas, weight_decay=settings.weight_decay)
    targets, passed = protocol.targets(case.ids.unsqueeze(0))[0], []
    stage, low, high, begun = min(stage_tokens, len(targets)), 0, len(targets) + 1, 0
    for step in range(1, settings.max_steps + 1):
        logits = lm.logits(protocol.build(lm, vectors.unsqueeze(0), case.ids.unsqueeze(0)))[0, :stage]
        loss = torch.nn.functional.cross_entropy(logits, targets[:stage])
        reached = (logits.argmax(-1) == targets[:stage]).all()
        if reached:
            low, _ = stage, passed.append((step, stage))
        elif step - begun >= stage_steps:
            high = stage
        if low == len(targets) or (high - low <= 1 if doubling else high <= stage):
            break
        if reached or high == stage:
            begun = step
            stage = (
                (low + high) // 2
                if high <= len(targets)
                else min(2 * low if doubling else low + stage_tokens, len(targets))
            )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return passed


@pytest.mark.parametrize(
    ("architecture", "stage_tokens", "doubling"),
    [("llama", 1, False), ("llama", 3, False), ("llama", 2, True), ("mamba", 2, True)],
)
def test_a_growing_target_passes_the_stages_of_a_plain_loop(architecture, stage_tokens, doubling):
    lm, protocol, settings = make_lm(architecture), find_protocol("strict"), Optimiser(lr=0.3, max_steps=200)
    goal = Growing(-math.inf, stage_tokens=stage_tokens, stage_steps=50, doubling=doubling)
    some = cases(3, 10, n_mem=6) + [
        Case("short", random_ids(1, 7, 5)[0], n_mem=6)
    ]  # texts of two lengths, rows that enter late
    found = by_key(optimise(lm, protocol, some, Recipe(goal, settings), batch_size=3))
    for case in some:
        passed = slow_horizon(lm, protocol, case, settings, stage_tokens, 50, doubling)
        result = found[case.key]
        columns = result.measured
        assert list(zip(columns["stage_steps_each"], columns["stage_targets_each"], strict=True)) == sorted(
            passed, key=lambda p: p[1]
        )
        assert result.ended == ("reached" if passed and passed[-1][1] == len(case.ids) else "patience")
        if passed:
            assert result.n_active == max(stage for _, stage in passed)
            now = measure(lm, protocol, result.vectors[None], case.ids[None, : result.n_active])
            assert now["all_correct"].item()
            assert columns["stage_nats_each"][-1] == pytest.approx(now["ce_nats"].item(), rel=1e-5)
    n_passed = max(len(result.measured["stage_steps_each"]) for result in found.values())
    assert n_passed >= (2 if architecture == "llama" else 1)


@pytest.mark.parametrize("mover", ["adamw", "lbfgs(patience=20)"])
def test_horizons_in_a_batch_are_those_of_runs_of_their_own(mover):
    lm, protocol = make_lm("llama"), find_protocol("strict")
    recipe = Recipe(
        Growing(stage_tokens=2, stage_steps=40), Optimiser(lr=0.3, max_steps=150), find_part("mover", mover, MOVERS)
    )
    some = cases(6, 12)
    together = by_key(optimise(lm, protocol, some, recipe, batch_size=4))
    for case in some:
        [[alone]] = optimise(lm, protocol, [case], recipe)
        result = together[case.key]
        assert (result.n_active, result.n_steps, result.measured) == (alone.n_active, alone.n_steps, alone.measured)
        torch.testing.assert_close(result.vectors, alone.vectors, atol=1e-8, rtol=0)


def test_a_stage_that_nothing_reaches_ends_at_one_target_however_seldom_one_looks():
    lm, protocol = make_lm("llama"), find_protocol("strict")
    goal = Growing(math.inf, stage_tokens=4, stage_steps=3, doubling=True)
    for check_every in (1, 10):
        recipe = Recipe(goal, Optimiser(max_steps=40))
        for result in flatten(optimise(lm, protocol, cases(2, 8), recipe, check_every=check_every)):
            assert (result.ended, result.n_steps) == ("patience", 9)  # 4, 2 and 1 targets


def test_the_least_nats_of_a_grown_text_are_those_of_all_its_targets():
    lm, protocol, seen = make_lm("llama"), find_protocol("strict"), []
    recipe = Recipe(Growing(-math.inf, stage_tokens=2), Optimiser(lr=0.3, max_steps=400))
    watch = lambda now: seen.append(now["ce_nats"].item()) if not now["n_unasked"].any() else None  # noqa: E731
    [[result]] = optimise(lm, protocol, cases(1, 6, n_mem=6), recipe, on_step=watch)
    assert result.ended == "reached"
    assert result.measured["ce_mem_min_nats"] == min(seen)


def test_a_batch_is_as_large_as_the_texts_that_are_in_it_allow():
    lm, seen = make_lm("llama"), []
    some = [Case(f"{n}-{i}", ids) for n, count in ((4, 40), (50, 3)) for i, ids in enumerate(random_ids(count, n))]
    list(optimise(
        lm, find_protocol("strict"), some, Recipe(NEVER, Optimiser(max_steps=2)),
        on_step=lambda now: seen.append((len(now["loss"]), 50 - int(now["n_unasked"].min()))),
    ))  # fmt: skip
    assert seen[0] == (min(40, fill_batch(lm.device, 4)), 4)
    assert all(n_rows <= fill_batch(lm.device, width) for n_rows, width in seen)


def test_what_is_measured_again_without_autocast_also_goes_in_parts_that_fit():
    class Small(FrozenLM):
        def score(self, inputs, targets, loss, counts=None):
            if len(targets) > 2 and not self.autocast:
                raise torch.OutOfMemoryError("CUDA out of memory")
            scores = super().score(inputs, targets, loss, counts)
            return scores._replace(hit=scores.hit | True, lead=scores.lead.abs() + 1)

    lm = take_as(Small, make_lm("llama", torch.float32), autocast=torch.bfloat16)
    finished = flatten(optimise(lm, find_protocol("strict"), cases(6, 4), Recipe(find_goal("strict"), Optimiser())))
    assert {result.ended for result in finished} == {"reached"}


def test_only_what_counts_goes_through_the_model():
    lm, protocol, seen = make_lm("llama"), find_protocol("strict"), []
    goal = Growing(math.inf, stage_tokens=3, stage_steps=4)  # never reached
    recipe = Recipe(goal, Optimiser(max_steps=9))
    list(optimise(lm, protocol, cases(2, 12), recipe, on_step=lambda now: seen.append(now["n_unasked"].tolist())))
    assert seen == [[9, 9]] * 4


def test_only_targets_that_count_go_through_the_head(monkeypatch):
    lm, protocol, ids = make_lm("llama"), find_protocol("strict"), random_ids(3, 9)
    vectors, n_active, n_scored = torch.randn(3, 1, lm.d_embed).double(), torch.tensor([9, 1, 4]), []

    def count(hidden, *rest):
        n_scored.append(len(hidden))
        return score_hidden(hidden, *rest)

    monkeypatch.setattr("paper_lib.live.lm.score_hidden", count)
    chosen = measure_with_gradient(lm, protocol, CROSS_ENTROPY, vectors, ids, n_active)
    all_of_them = dataclasses.replace(lm, plain_head=False)
    plain = measure_with_gradient(all_of_them, protocol, CROSS_ENTROPY, vectors, ids, n_active)
    assert n_scored == [9 + 1 + 4]
    for name, values in plain.items():
        torch.testing.assert_close(chosen[name], values)


def test_a_stage_that_autocast_alone_reaches_is_not_passed():
    class Flattered(FrozenLM):
        def score(self, inputs, targets, loss, counts=None):
            scores = super().score(inputs, targets, loss, counts)
            return scores._replace(hit=scores.hit | True, lead=scores.lead.abs() + 1) if self.autocast else scores

    lm = take_as(Flattered, make_lm("llama", torch.float32), autocast=torch.bfloat16)
    protocol, settings = find_protocol("strict"), Optimiser(lr=0.01, max_steps=9)
    [[checked]] = optimise(lm, protocol, cases(1, 6), Recipe(find_goal("growing"), settings))
    assert checked.ended == "budget"
    assert checked.measured.get("stage_steps_each", []) == []
    trusting = dataclasses.replace(find_goal("growing"), without_autocast=False)
    [[flattered]] = optimise(lm, protocol, cases(1, 6), Recipe(trusting, settings))
    assert flattered.measured["stage_targets_each"] == [1, 2, 3, 4, 5, 6]
