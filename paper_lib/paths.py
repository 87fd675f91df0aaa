"""Where things are. Everything is found from this file, so that nothing depends on the working directory."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
DATA = ROOT / "data"
PUBLISHED = DATA / "published"
FIGURES = ROOT / "figures"
# Working files: the run store, executed copies, checkpoints. Set the variable where the checkout is read-only.
BUILD = Path(os.environ.get("PAPER_LIB_BUILD") or ROOT / "build").expanduser().resolve()
SHIPPED = "data/models/novels-5m"  # the small model of this repository, named from its root


def relative_to_root(path: Path) -> str:
    """Return ``path`` as people write it: from the repository's root where it lies inside, else as it is."""
    path = Path(path).resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
