"""Memories of two texts side by side, and how fast they are read off: on the model that ships, against plain loops."""

import pytest
import torch

from paper_lib.errors import InputError
from paper_lib.frozen import freeze, load_findings, load_vectors
from paper_lib.live import composition, throughput
from paper_lib.live.composition import measure_composition
from paper_lib.live.load import load_lm
from paper_lib.live.measure import score_targets
from paper_lib.live.protocols import find_protocol
from paper_lib.live.throughput import measure_throughput
from paper_lib.store import Store
from sweeps import run

pytestmark = pytest.mark.slow
TEXTS = ["The old man went down to the sea again.", "There was nothing to be seen from the window."]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    settings = {
        "name": "some",
        "model": {"name": "data/models/novels-5m"},
        "texts": {"source": "strings", "texts": TEXTS},
        "n_texts": 2,
        "lengths": [6],
        "optimiser": {"lr": 0.1, "weight_decay": 0.0, "max_steps": 400},
        "arms": {
            "keys and values": {"protocols": ["kv_prefix"]},
            "input vector": {"protocols": ["strict"], "recipe": "fast", "n_mem": [2]},
        },
    }
    store = Store("some", folder / "runs")
    run(settings, store)
    freeze(store, folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composition, "N_ASKED", 2)
        patch.setattr(throughput, "LENGTHS", (4, 8, 10_000))
        patch.setattr(throughput, "N_REPEATS", 2)
        measure_composition("some", folder / "data")
        measure_throughput("some", folder / "data")
    return folder / "data"


def test_alone_a_memory_says_its_text_and_without_any_the_model_does_not(data):
    found = load_findings("composition", data)
    assert found.groupby(["arm", "place"]).size().eq(2).all()
    assert set(found["arm"]) == {"keys and values", "input vector"}
    accuracy = found.groupby("place")["accuracy"].mean()
    assert accuracy["alone"] == 1
    assert accuracy["none"] < 1


def test_two_in_a_row_are_what_a_plain_pass_makes_of_them(data):
    found = load_findings("composition", data).query("arm == 'input vector'").set_index(["text_id", "place"])
    lm, protocol, vectors = load_lm("data/models/novels-5m"), find_protocol("strict"), load_vectors("some", data)
    own = {text: torch.from_numpy(vectors[key]).float() for (text, _), key in found["key"].items()}
    for number, text in enumerate(own):
        ids = torch.tensor([lm.tokenizer.encode(TEXTS[int(text.split("-")[-1])], add_special_tokens=False)[:6]])
        other = own[list(own)[1 - number]]
        for place, rows in (("in front", [own[text], other]), ("behind", [other, own[text]])):
            hit = score_targets(lm, protocol, torch.cat(rows).unsqueeze(0), ids).hit[0, 2:]
            assert found.loc[(text, place), "accuracy"] == pytest.approx(hit.float().mean().item())


def test_every_protocol_is_timed_as_often(data):
    found = load_findings("throughput", data)
    assert set(found["length"]) == {4, 8}  # what exceeds the model's context is left out
    assert found.groupby(["protocol", "n_mem", "how", "length"]).size().eq(2).all()
    assert set(found["how"]) == {"cached"}
    assert (found["seconds"] > 0).all()


def test_what_cannot_be_measured_is_told_in_one_line(data, tmp_path):
    with pytest.raises(InputError, match="no two texts of some are exact at one length above 8"):
        measure_composition("some", data)
    with pytest.raises(InputError, match="nothing is not frozen; run: python -m paper_lib freeze nothing"):
        measure_throughput("nothing", data)
    with pytest.raises(InputError, match="one_step has no place for the vectors of two texts"):
        find_protocol("one_step").combine(load_lm("data/models/novels-5m"), torch.zeros(1, 2, 3), torch.zeros(1, 2, 3))
