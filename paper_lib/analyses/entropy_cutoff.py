"""Notebook 02: is the limit the text's cross-entropy, or its length (Figures 3 and 6)?"""

import pandas as pd

from ..published import select_complete
from ..stats import compute_entropy_test
from ..verdicts import claim, compare, contains


def compute_published_test(points: pd.DataFrame, models: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return ``stats.compute_entropy_test`` of the authors' points, books first, models in the paper's order.

    The columns ``name`` and ``family`` are added. Random words only where all their points are drawn.
    """
    test = compute_entropy_test(select_complete(points), n_resamples=n_resamples, seed=seed)
    test = name_models(test, models)
    return test.sort_values("source", kind="stable", ignore_index=True)


def name_models(frame: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """Return ``frame`` with the ``name`` and ``family`` of each model, in the order of ``models``."""
    names = models.set_index("model")[["name", "family"]]
    return names.join(frame.set_index("model")).rename_axis("model").reset_index()


def judge(on_books: pd.DataFrame, slopes: pd.DataFrame, fits: pd.DataFrame) -> list[dict]:
    """Return the verdict on the abstract's claim; each frame has one row per model.

    ``on_books``: the entropy test on PG-19; ``slopes``: ``stats.compute_slopes``, in the same order; ``fits``:
    ``published.load_fits``, the printed b in nats.
    """
    labels = on_books.merge(fits, on="model")
    claims = {
        "entropy separates better than length (AUC difference above 0)": on_books["auc_diff_low"] > 0,
        "entropy matters within one length (AUC above .5)": on_books["auc_within_low"] > 0.5,
        "the gain is a constant of the model (interval of the slope holds 1)": contains(on_books, "slope_free", 1),
        "the same within one length": contains(slopes, "within", 1),
        "the same beyond all solved lengths": contains(slopes, "beyond", 1),
    }
    b = compare(
        "b, as printed beside the lines",
        labels["b_nats_label"],
        labels["slope1_b_nats"],
        tolerance=0.05,
        unit="nats",
        names=labels["name"],
    )
    return [b, *(claim(what, holds.all(), count_models(on_books["name"], holds)) for what, holds in claims.items())]


def count_models(names: pd.Series, holds: pd.Series) -> str:
    """Return for how many models a claim holds, and for which, or for which not, whichever is shorter."""
    yes, no = names.to_numpy()[holds.to_numpy()], names.to_numpy()[~holds.to_numpy()]
    listed = f": {', '.join(yes)}" if len(yes) <= len(no) else f"; not {', '.join(no)}"
    return f"{len(yes)} of {len(holds)} models" + (listed if len(yes) and len(no) else "")
