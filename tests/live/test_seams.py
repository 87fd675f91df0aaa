"""Adding a method: a second implementation of each part, run through store, kills, freezing and verification.

Each stands in for what an extender writes: one small object, entered under a name. Nothing else is touched.
"""

from dataclasses import dataclass

import pytest
import torch
from tiny import make_lm, random_ids, save_tiny_model

from paper_lib.config import Sweep
from paper_lib.errors import InputError
from paper_lib.frozen import freeze, load_runs, load_vectors
from paper_lib.live.cases import list_cases
from paper_lib.live.finders import FINDERS, Finder
from paper_lib.live.goals import GOALS, Goal
from paper_lib.live.lm import Inputs
from paper_lib.live.load import load_lm
from paper_lib.live.loop import optimise
from paper_lib.live.loss import LOSSES, Loss
from paper_lib.live.movers import MOVERS, Mover
from paper_lib.live.parametrisations import PARAMETRISATIONS, Parametrisation
from paper_lib.live.proofs import check_vectors, climb_ladder
from paper_lib.live.protocols import PROTOCOLS, Protocol, find_protocol
from paper_lib.live.rows import Case, Finished, Recipe
from paper_lib.live.sweep import run_sweep
from paper_lib.store import Store

pytestmark = pytest.mark.slow

TEXTS = ("a cat sat on the mat", "the dog did not")


@dataclass(frozen=True)
class OnePass(Protocol):
    """[first, filler x (N - 1)] -> t1..tN in one forward pass; two vectors, however long the text is."""

    decodings: tuple[str, ...] = ("one_pass",)

    def build(self, lm, vectors, ids):
        fillers = vectors[:, 1:].expand(-1, ids.shape[1] - 1, -1)
        embeds = torch.cat([vectors[:, :1], fillers], dim=1).to(lm.dtype)
        return Inputs(embeds, torch.arange(ids.shape[1], device=ids.device))

    def decode(self, lm, vectors, given, length, *, how):
        blank = torch.zeros(len(vectors), length, dtype=torch.long, device=lm.device)
        return lm.logits(self.build(lm, vectors, blank)).argmax(dim=-1)

    def n_inputs(self, length, n_mem):
        return length

    def vector_shape(self, lm, n_mem):
        return 2, lm.d_embed


@dataclass(frozen=True)
class Momentum(Mover):
    """Gradient descent that remembers its direction."""

    decay: float = 0.9

    def start(self, params):
        return {name: torch.zeros_like(value) for name, value in params.items()}

    def move(self, params, gradient, loss, state, age, settings):
        speed = {name: self.decay * state[name] + gradient[name] for name in params}
        return {name: params[name] - settings.lr * speed[name] for name in params}, speed


@dataclass(frozen=True)
class Grow(Goal):
    """Reach the first ``first`` targets, then ``factor`` times as many, up to the whole text."""

    first: int = 1
    factor: int = 2

    def start(self, n_targets):
        return {"stage": torch.tensor(min(self.first, n_targets)), "all": torch.tensor(n_targets)}

    def n_active(self, state):
        return state["stage"]

    def better(self, now, best, state):
        none_yet = best["n_correct"] < best["n_active"]
        further = self.reached(now) & ((state["stage"] > best["n_active"]) | none_yet)
        return further | (none_yet & (best["n_active"] >= state["stage"]) & super().better(now, best, state))

    def advance(self, state, reached, now):
        done = reached & (state["stage"] == state["all"])
        grown = torch.minimum(state["stage"] * self.factor, state["all"])
        return done, state | {"stage": torch.where(reached, grown, state["stage"])}


@dataclass(frozen=True)
class OnSphere(Parametrisation):
    """A direction, at a length that stays."""

    length: float = 1.0

    def start(self, shape, std, generator):
        return {"direction": torch.randn(shape, generator=generator, dtype=torch.float64)}

    def vectors(self, params):
        return self.length * torch.nn.functional.normalize(params["direction"], dim=-1)


@dataclass(frozen=True)
class Given(Finder):
    """Vectors from elsewhere: here each text's own first embeddings."""

    def find(self, lm, protocol, cases, recipe, **running):
        for case in cases:
            vectors = lm.embed(case.ids[None, : case.n_mem])[0].detach()
            yield [Finished(case, recipe.storage.round(vectors).float(), "given")]


@dataclass(frozen=True)
class Hinge(Loss):
    """How much a target lacks of a lead over the best other token."""

    lead: float = 1.0

    def of(self, logits, targets):
        right = logits.gather(1, targets.unsqueeze(1))
        others = logits.scatter(1, targets.unsqueeze(1), -torch.inf).amax(dim=1, keepdim=True)
        return (self.lead + others - right).clamp(min=0).squeeze(1)


ADDED = {
    "one_pass": (PROTOCOLS, OnePass("one_pass", n_given=0, needs_start=True, special_tokens=False), {}),
    "momentum": (MOVERS, Momentum(), {"optimiser": {"mover": "momentum(decay=0.8)", "lr": 1.0}}),
    "grow": (GOALS, Grow(), {"stopping": "grow"}),
    "growing": (GOALS, GOALS["growing"], {"stopping": "growing(stage_tokens=2, stage_steps=20)"}),
    "sphere": (PARAMETRISATIONS, OnSphere(), {"parametrisation": "sphere(length=4.0)"}),
    "affine": (PARAMETRISATIONS, PARAMETRISATIONS["affine"], {"parametrisation": "affine(d_low=8)"}),
    "given": (FINDERS, Given(), {"finder": "given"}),
    "hinge": (LOSSES, Hinge(), {"loss": "hinge(lead=2.0)"}),
    "lbfgs": (MOVERS, MOVERS["lbfgs"], {"optimiser": {"mover": "lbfgs(memory=5)", "lr": 0.3}}),
}


@pytest.fixture(params=ADDED)
def added(request, monkeypatch):
    registry, part, _ = ADDED[request.param]
    monkeypatch.setitem(registry, request.param, part)
    return request.param


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"), num_hidden_layers=1)


def make_sweep(model, name="strict", **changes):
    protocol = name if name == "one_pass" else "strict"
    settings = {"optimiser": {"lr": 0.1, "max_steps": 60}} | changes
    if "optimiser" in changes:
        settings["optimiser"] = {"max_steps": 60} | changes["optimiser"]
    return Sweep(
        name="added", model={"name": model, "dtype": "float64"}, texts={"source": "strings", "texts": TEXTS},
        n_texts=2, lengths=(2, 6), n_mem=(2,) if protocol == "one_pass" else (1, 2), protocols=(protocol,), **settings,
    )  # fmt: skip


def run_with_kills(sweep, store, every):
    """Run a sweep to its end, killed again and again after ``every`` steps; return how often."""
    n_kills, taken = 0, []

    def kill(token_steps):
        taken.append(token_steps)
        if len(taken) % every == 0:
            raise KeyboardInterrupt

    while True:
        try:
            run_sweep(sweep, store, on_step=kill, save_every_seconds=0)
            return n_kills
        except KeyboardInterrupt:
            n_kills += 1


def test_a_part_of_ones_own_runs_is_killed_goes_on_freezes_and_is_verified(added, model, tmp_path):
    sweep = make_sweep(model, added, **ADDED[added][2])
    straight, killed = Store("straight", tmp_path), Store("added", tmp_path)
    run_sweep(sweep, straight)
    n_kills = run_with_kills(sweep, killed, every=17)
    assert (n_kills == 0) == ("finder" in ADDED[added][2])  # what does not optimise is not killed in the middle
    assert list(killed) == list(straight)
    for key in killed:
        (one, v), (two, w) = killed.get(key), straight.get(key)
        assert abs(v - w).max() < 1e-7
        for name in ("ended", "n_steps", "n_correct_mem", "exact", "exact_length_tokens"):
            assert one[name] == two[name]
    freeze(killed, tmp_path / "data")
    assert check_vectors(tmp_path / "data", report=lambda line: None) == []
    cases = load_runs(tmp_path / "data")
    assert len(cases) == len(list(killed))
    assert (cases["exact_length_tokens"].max() > 0) == any(killed.get(key)[0]["exact_length_tokens"] for key in killed)


def test_a_part_of_ones_own_changes_the_key_and_each_of_its_settings_does(added, model, monkeypatch):
    _, _, changes = ADDED[added]
    lm = load_lm(model, dtype="float64")
    before, after = (
        {case.key for case in list_cases(sweep, lm)}
        for sweep in (make_sweep(model), make_sweep(model, added, **changes))
    )
    assert not before & after
    assert len(after) == len({case.key for case in list_cases(make_sweep(model, added, **changes), lm)})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"optimiser": {"mover": "momentum"}}, "unknown mover 'momentum'.*choose from: adamw"),
        ({"stopping": "strict(min_margins=1)"}, "unknown setting of goal strict 'min_margins'.*min_margin"),
        ({"loss": "cross_entropy(temperatur=2)"}, "unknown setting of loss cross_entropy 'temperatur'"),
        ({"loss": "cross_entropy(temperature=0.0)"}, "temperature 0.0 is not above 0; use one between"),
        ({"optimiser": {"mover": "lbgfs"}}, "unknown mover 'lbgfs', did you mean 'lbfgs'"),
        ({"optimiser": {"mover": "lbfgs(memory=0)"}}, "memory is at least 1"),
        ({"parametrisation": "free("}, r"parametrisation 'free\(': write a name, or name\(setting=value"),
        ({"finder": "free"}, "unknown finder 'free'.*choose from: optimise"),
    ],
)
def test_an_unknown_part_or_setting_is_told_in_one_line_before_any_work(model, tmp_path, changes, says):
    with pytest.raises(InputError, match=says) as error:
        run_sweep(make_sweep(model, **changes), Store("added", tmp_path))
    assert "\n" not in str(error.value)
    assert list(Store("added", tmp_path)) == []


def test_one_part_has_one_key_however_it_is_written(model, monkeypatch):
    lm = load_lm(model, dtype="float64")
    spellings = ["strict", "strict()", "strict(min_margin=0.001)", " strict( min_margin = 1e-3 ) "]
    keys = [{case.key for case in list_cases(make_sweep(model, stopping=text), lm)} for text in spellings]
    assert keys[1:] == keys[:-1]
    other = {case.key for case in list_cases(make_sweep(model, stopping="strict(min_margin=0.01)"), lm)}
    assert not other & keys[0]


def test_a_growing_target_ends_at_the_stage_that_it_says(monkeypatch):
    lm, protocol = make_lm("llama"), find_protocol("strict")
    ids = random_ids(4, 12)
    cases = [Case(str(number), row) for number, row in enumerate(ids)]
    recipe = Recipe(
        Grow(first=1, factor=2), settings=make_sweep("m", optimiser={"lr": 0.1, "max_steps": 150}).optimiser
    )
    (finished,) = (sum(results, []) for results in [list(optimise(lm, protocol, cases, recipe))])
    stages = {result.n_active for result in finished}
    assert stages <= {1, 2, 4, 8, 12}
    assert max(stages) >= 2
    for result in finished:
        ladder = climb_ladder(lm, protocol, result.vectors[None], result.case.ids[None], [result.n_active])[0]
        assert ladder["exact_length_tokens"] == result.n_active
        assert ladder["exact"] == (result.n_active == 12)


def test_restarts_are_cases_of_their_own_with_the_same_texts(model, tmp_path):
    sweep, store = make_sweep(model, n_restarts=3, text_seed=5, seed=1), Store("added", tmp_path)
    assert run_sweep(sweep, store) == 3 * 2 * 2 * 2
    freeze(store, tmp_path / "data", keep="all")
    cases, vectors = load_runs(tmp_path / "data"), load_vectors("added", tmp_path / "data")
    assert set(vectors) == set(cases["key"])
    assert (cases.groupby(["length", "n_mem", "text_id"])["restart"].agg(set) == {0, 1, 2}).all()
    assert cases.groupby(["length", "text_id"])["ids_sha256"].nunique().max() == 1
    assert check_vectors(tmp_path / "data", report=lambda line: None) == []
    plain = {case.key for case in list_cases(make_sweep(model, seed=1), load_lm(model, dtype="float64"))}
    assert plain == set(cases.loc[cases["restart"] == 0, "key"])
