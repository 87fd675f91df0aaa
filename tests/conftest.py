import os
import shutil
import tempfile
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from jaxtyping import install_import_hook

# Before the library is imported, here and in the commands that tests run: nothing is written into the real build/.
os.environ["PAPER_LIB_BUILD"] = tempfile.mkdtemp(prefix="paper-lib-tests-")

LIBRARY = Path(__file__).parents[1] / "paper_lib"
# All but the module whose generator Ray wants to see as it is written.
PATHS = [path.relative_to(LIBRARY.parent).with_suffix("") for path in LIBRARY.rglob("[a-z]*.py")]
CHECKED = [".".join(path.parts) for path in PATHS if path.stem != "cluster"]
install_import_hook(CHECKED, "typecheck.check")

from paper_lib import published  # noqa: E402
from paper_lib.capacity import CASE_COLUMNS  # noqa: E402

matplotlib.use("agg")
os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}  # no network; the models are too small for two threads


@pytest.fixture(scope="session", autouse=True)
def _remove_build():
    yield
    shutil.rmtree(os.environ["PAPER_LIB_BUILD"], ignore_errors=True)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def points() -> pd.DataFrame:
    """The published per-text points; read-only."""
    return published.load_points()


@pytest.fixture(scope="session")
def models() -> pd.DataFrame:
    """The paper's models; read-only."""
    return published.load_models()


@pytest.fixture
def make_cases():
    """Build a frame of cases from a few columns; the rest has plain values."""

    def make(**columns) -> pd.DataFrame:
        frame = pd.DataFrame(columns)
        defaults = {"origin": "measured", "model": "m", "source": "books", "n_mem": 1, "protocol": "strict"}
        for column, value in defaults.items():
            if column not in frame:
                frame[column] = value
        if "text_id" not in frame:
            frame["text_id"] = [f"t{i}" for i in range(len(frame))]
        return frame.reindex(columns=CASE_COLUMNS)

    return make
