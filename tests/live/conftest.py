"""What the tests of sweeps share: a small sweep on a tiny model, and a store for it."""

import pytest
from tiny import save_tiny_model

from paper_lib.store import Store


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"), num_hidden_layers=1)


@pytest.fixture
def settings(model):
    """The content of a small sweep file."""
    return {
        "name": "tiny",
        "model": {"name": model, "dtype": "float64"},
        "texts": {"source": "strings", "texts": ["a cat sat on the mat", "the dog did not"]},
        "n_texts": 2,
        "lengths": [2, 8],
        "n_mem": [1, 2],
        "protocols": ["kuratov2025", "strict"],
        "optimiser": {"max_steps": 60, "lr": 0.1},
        "batch_size": 2,
    }


@pytest.fixture
def store(tmp_path):
    return Store("tiny", tmp_path / "runs")
