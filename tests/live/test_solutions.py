"""Paths between solutions and perturbed solutions, on the model that ships and against plain loops."""

import numpy as np
import pytest
import torch

from paper_lib.errors import InputError
from paper_lib.frozen import freeze, load_findings, load_runs, load_vectors
from paper_lib.live import geometry, paths, trajectories
from paper_lib.live.geometry import measure_geometry
from paper_lib.live.load import load_lm
from paper_lib.live.measure import measure
from paper_lib.live.paths import bezier, measure_paths
from paper_lib.live.protocols import find_protocol
from paper_lib.store import Store
from sweeps import run

pytestmark = pytest.mark.slow
TEXTS = ["The old man went down to the sea again.", "There was nothing to be seen from the window."]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("geometry")
    settings = {
        "name": "some",
        "model": {"name": "data/models/novels-5m"},
        "texts": {"source": "strings", "texts": TEXTS},
        "n_texts": 2,
        "lengths": [4],
        "protocols": ["strict"],
        "recipe": "fast",
        "n_restarts": 4,
    }
    store = Store("some", folder / "runs")
    run(settings, store)
    freeze(store, folder / "data", keep="all")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geometry, "RADII", np.array([0.01, 2.0]))
        patch.setattr(paths, "CURVE_STEPS", 40)
        patch.setattr(paths, "PLACES", np.linspace(0, 1, 5))
        measure_geometry("some", folder / "data")
        measure_paths("some", folder / "data")
    return folder / "data"


def test_a_curve_with_its_middle_in_the_middle_is_the_straight_line():
    first, last, at = torch.randn(3, 5), torch.randn(3, 5), torch.tensor(0.3)
    torch.testing.assert_close(bezier(first, (first + last) / 2, last, at), first + 0.3 * (last - first))


def test_both_ends_of_a_path_are_exact_and_straight_is_shortest(data):
    found = load_findings("paths", data)
    assert found.groupby(["path", "text_id"])[["key", "other_key"]].nunique().max().max() == paths.N_PAIRS
    assert found.loc[found["at"].isin([0, 1]), "all_right"].all()
    assert np.allclose(found.loc[found["path"] == "straight", "length_ratio"], 1, atol=1e-5)
    assert (found.loc[found["path"] == "curved", "length_ratio"] >= 1 - 1e-5).all()


def test_a_trained_curve_is_better_than_the_straight_line(data):
    accuracy = load_findings("paths", data).groupby("path")["accuracy"].mean()
    assert accuracy["curved"] > accuracy["straight"]


def test_little_noise_changes_nothing_and_much_of_it_everything(data):
    noise = load_findings("perturbed", data).query("how == 'noise'")
    assert noise.loc[noise["at"] == 0.01, "all_right"].mean() > 0.9
    assert noise.loc[noise["at"] == 2.0, "all_right"].mean() < 0.1


def test_what_is_disturbed_is_what_a_plain_loop_disturbs(data):
    found = load_findings("perturbed", data).query("how == 'scaled' and at == 0.5")
    lm, protocol = load_lm("data/models/novels-5m"), find_protocol("strict")
    cases, vectors = load_runs(data).set_index("key"), load_vectors("some", data)
    for row in found.itertuples():
        text = TEXTS[int(cases.loc[row.key, "text_id"].split("-")[-1])]
        ids = torch.tensor([lm.tokenizer.encode(text, add_special_tokens=False)[:4]])
        now = measure(lm, protocol, torch.from_numpy(vectors[row.key] / 2).float().unsqueeze(0), ids)
        assert row.accuracy == pytest.approx(int(now["n_correct"]) / 4)


def test_neighbours_are_those_of_a_plain_search(data):
    lm, vectors = load_lm("data/models/novels-5m"), load_vectors("some", data)
    table = lm.model.get_input_embeddings().weight.numpy()
    for row in load_findings("neighbours", data).itertuples():
        vector = vectors[row.key][0]
        cosines = table @ vector / np.linalg.norm(table, axis=1) / np.linalg.norm(vector)
        assert row.nearest_cosine == pytest.approx(cosines.max(), abs=1e-5)
        assert row.norm_ratio == pytest.approx(np.linalg.norm(vector) / np.linalg.norm(table, axis=1).mean(), rel=1e-4)


def test_another_text_costs_alone_what_the_model_alone_makes_of_it(data):
    found, cases = load_findings("neighbours", data), load_runs(data)
    for text, other in ((0, 1), (1, 0)):
        rows = found[found["text_id"] == f"strings-{text}"]
        alone = np.sum(cases.loc[cases["text_id"] == f"strings-{other}", "ce_lm_nats_each"].iloc[0][1:])
        assert np.allclose(rows["other_ce_alone_nats"], alone, rtol=1e-3)
        assert (rows["other_ce_behind_nats"] != rows["other_ce_alone_nats"]).all()


def test_attention_goes_to_vectors_and_text(data):
    shares = load_findings("attention", data)
    lm = load_lm("data/models/novels-5m")
    assert set(shares["layer"]) == set(range(lm.model.config.num_hidden_layers))
    assert shares["on_vectors"].between(0, 1).all()
    assert (shares["on_start"] == 0).all()  # strict has no start token in front


def test_a_sweep_with_one_solution_of_each_text_is_refused_in_one_line():
    with pytest.raises(InputError, match="has two exact solutions; give it n_restarts, freeze it with --keep all"):
        measure_geometry("novels-5m_books_strict")


def test_a_way_is_that_of_the_same_search_and_its_norms_are_those_of_the_vectors(data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trajectories, "N_EVALUATIONS", 12)
        trajectories.measure_trajectories("some", data)
    way = load_findings("trajectories", data)
    assert way.groupby("recipe")["text_id"].nunique().tolist() == [2, 2, 2]
    assert way.groupby(["recipe", "text_id"])["evaluation"].agg(list).map(lambda n: n == list(range(1, 13))).all()
    assert (way.loc[way["evaluation"] == 1, ["moved", "n_components"]] == 0).all(axis=None)
    same_start = way.query("evaluation == 1").groupby("text_id")["norm"].nunique()
    assert (same_start == 1).all()
    assert (way["n_components"] < way["evaluation"]).all()


def test_components_are_counted_on_points_of_known_shape():
    draw = np.random.default_rng(0)
    plane = draw.standard_normal((50, 2)) @ draw.standard_normal((2, 30))
    assert trajectories.count_components(plane) == 2
    assert trajectories.count_components(plane + 1e-6 * draw.standard_normal((50, 30))) == 2
    assert trajectories.count_components(np.ones((5, 3))) == 0


def test_ways_of_a_sweep_without_exact_texts_are_refused_in_one_line():
    with pytest.raises(InputError, match="freeze the sweep no-such-sweep first"):
        trajectories.measure_trajectories("no-such-sweep")
