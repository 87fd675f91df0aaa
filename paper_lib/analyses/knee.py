"""Notebook 02: the claim at lengths of our own choice, a few tokens apart, where texts stop fitting."""

import pandas as pd

from ..stats import Interval, bootstrap_clusters, weighted_auc
from ..verdicts import claim
from .entropy_cutoff import FLAT, PREDICTS

FEWEST = 5  # texts of either outcome, or a length tells nothing


def compare_at_lengths(cases: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return how well a text's cross-entropy tells whether it comes back exactly, beside texts of the same length.

    One row for each length with at least FEWEST texts of either outcome: ``n_texts``, ``n_exact``, mean ``nats`` and
    ``auc``, how often an exact text has the lower cross-entropy of two (.5: it tells nothing). The last row,
    ``length`` 0, pools the pairs of all these lengths. Cases of one model and protocol; intervals resample books.
    """
    exact = cases["exact"].astype(bool)
    n_exact, n_texts = (
        exact.groupby(cases["length"]).transform("sum"),
        cases.groupby("length")["exact"].transform("size"),
    )
    near = cases[(n_exact >= FEWEST) & (n_texts - n_exact >= FEWEST)]
    rows = []
    for length, group in [*near.groupby("length"), (0, near)]:
        auc = weighted_auc(group["exact"], -group["ce_lm_nats"], stratum=group["length"])
        found = bootstrap_clusters(group["cluster_id"], auc, n_resamples=n_resamples, seed=seed)
        row = {"origin": "measured", "length": length, "n_texts": len(group), "n_exact": int(group["exact"].sum())}
        rows.append(row | {"nats": group["ce_lm_nats"].mean(), **found.columns("auc")})
    return pd.DataFrame(rows)


def judge(lengths: pd.DataFrame, plateau: pd.DataFrame) -> list[dict]:
    """Return the verdict rows, from ``compare_at_lengths`` and the one row of ``entropy_cutoff.compute_plateau``."""
    pooled, gain = lengths.iloc[-1], plateau.iloc[0]
    return [
        claim(
            f"the small model, {len(lengths) - 1} lengths near its knee: entropy predicts within one length",
            Interval(pooled["auc"], pooled["auc_low"], pooled["auc_high"]),
            PREDICTS,
            unit="AUC",
        ),
        claim(
            "the small model, once no text fits: the gain is a constant",
            Interval(*gain[["change_percent", "change_percent_low", "change_percent_high"]]),
            FLAT,
            unit="% from the first length to the last",
        ),
    ]
