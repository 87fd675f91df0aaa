"""The table that ends a notebook: its own numbers against the published ones, agree or disagree."""

from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Markdown

from .errors import InputError
from .paths import FIGURES
from .tables import format_number, save_table


def compare(quantity: str, published, here, *, tolerance: float, unit: str = "", names=None) -> dict:
    """Return one row of a verdict table: published numbers against ours, equal lists or two numbers.

    ``tolerance`` is the largest absolute difference that still agrees (same unit). ``names`` label the entries of
    lists, so that a disagreement says whose it is. A missing number on either side disagrees.
    """
    published, here = np.atleast_1d(np.asarray(published, float)), np.atleast_1d(np.asarray(here, float))
    if published.shape != here.shape or not len(published):
        raise InputError(f"{quantity}: {len(published)} published numbers against {len(here)} here; pair them first")
    difference = np.abs(here - published)
    bad = ~(difference <= tolerance)  # NaN disagrees
    who = "" if names is None else ": " + ", ".join(np.asarray(names, dtype=str)[bad])
    verdict = (
        "agree" if not bad.any() else "disagree" if len(bad) == 1 else f"disagree ({bad.sum()} of {len(bad)}{who})"
    )
    single = len(published) == 1
    return {
        "quantity": quantity,
        "unit": unit,
        "published": _format_single(published[0]) if single else f"{len(published)} values",
        "here": _format_single(here[0]) if single else "",
        # to the precision of the data: what is below is rounding, and rounding differs between processors
        "largest difference": round(float(difference.max()), 6),
        "tolerance": float(tolerance),
        "verdict": verdict,
    }


def claim(statement: str, holds: bool | np.bool_, evidence: str) -> dict:
    """Return one row of a verdict table for a claim in words that the numbers ``evidence`` bear out or not."""
    return {"quantity": statement, "here": evidence, "verdict": "agree" if holds else "disagree"}


def contains(frame: pd.DataFrame, interval: str, value: float) -> pd.Series:
    """Return, row by row, whether the interval ``<interval>_low`` to ``<interval>_high`` holds ``value``."""
    return (frame[f"{interval}_low"] <= value) & (frame[f"{interval}_high"] >= value)


def save_verdict(rows: list[dict], name: str, out_dir: str | Path = FIGURES) -> Markdown:
    """Save the table that ends a notebook: its numbers against the published ones (see ``compare`` and ``claim``)."""
    columns = ["quantity", "unit", "published", "here", "largest difference", "tolerance", "verdict"]
    frame = pd.DataFrame(rows, columns=columns)
    text = frame[["unit", "published", "here"]].fillna("")
    return save_table(frame.assign(**text), name, out_dir)


def _format_single(value):
    return format_number(int(value) if float(value).is_integer() else float(value))
