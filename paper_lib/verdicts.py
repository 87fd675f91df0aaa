"""The table that ends a notebook: each claim against a margin that was stated before the number.

``supported``: the whole interval lies within the margin. ``contradicted``: it lies outside. ``undecided``: it does
neither, or there is no interval. An imprecise number is never support.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Markdown

from .errors import InputError
from .paths import FIGURES
from .stats import CONFIDENCE_LEVEL, Interval
from .tables import format_number, save_table

SUPPORTED, CONTRADICTED, UNDECIDED = VERDICTS = ("supported", "contradicted", "undecided")
COLUMNS = ["claim", "estimate", "low", "high", "margin", "unit", "verdict", "detail"]
Margin = tuple[float, float]


def decide(low: float, high: float, margin: Margin) -> str:
    """Return the verdict on a claim that a quantity lies within ``margin``, from its interval ``low`` to ``high``."""
    if np.isnan(low) or np.isnan(high):
        return UNDECIDED
    if margin[0] <= low and high <= margin[1]:
        return SUPPORTED
    return CONTRADICTED if high < margin[0] or low > margin[1] else UNDECIDED


def decide_together(intervals: list[Interval], margin: Margin) -> list[str]:
    """Return one verdict for each of several intervals, with the chance of any false one kept at 5 % (Holm).

    The p values are two-sided, from the intervals' resamples; an interval without resamples is undecided.
    """
    within = adjust(
        [_p_value(i.resamples, lambda r: max(_share(r < margin[0]), _share(r > margin[1]))) for i in intervals]
    )
    outside = adjust(
        [_p_value(i.resamples, lambda r: min(_share(r >= margin[0]), _share(r <= margin[1]))) for i in intervals]
    )
    level = 1 - CONFIDENCE_LEVEL
    return [
        SUPPORTED if inside <= level else CONTRADICTED if out <= level else UNDECIDED
        for inside, out in zip(within, outside, strict=True)
    ]


def _share(holds):
    return (np.count_nonzero(holds) + 1) / (len(holds) + 1)


def _p_value(resamples, of):
    return min(1.0, 2 * of(resamples)) if len(resamples) else 1.0


def adjust(p_values: list[float]) -> np.ndarray:
    """Return p values adjusted for their number by Holm's method."""
    # The smallest of n is multiplied by n, the next by n - 1, ...; none comes out smaller than one before it.
    p_values, n = np.asarray(p_values, float), len(p_values)
    order = np.argsort(p_values)
    adjusted = np.empty(n)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p_values[order] * np.arange(n, 0, -1)))
    return adjusted


def claim(statement: str, interval: Interval, margin: Margin, *, unit: str = "", detail: str = "") -> dict:
    """Return the row of a claim that a quantity lies within ``margin`` (its unit; infinite where it has no end)."""
    return {
        "claim": statement,
        "estimate": interval.value,
        "low": interval.low,
        "high": interval.high,
        "margin": format_margin(margin),
        "unit": unit,
        "verdict": decide(interval.low, interval.high, margin),
        "detail": detail,
    }


def claim_of_most(statement: str, verdicts: list[str], names: list[str]) -> dict:
    """Return the row of a claim about most of several models, from the verdict on each.

    The number of models for which it holds lies between those that support it and those that do not contradict it; the
    claim is supported when even the lower one is more than half.
    """
    supported, contradicted = (sum(v == wanted for v in verdicts) for wanted in (SUPPORTED, CONTRADICTED))
    listed = [
        f"{wanted}: {', '.join(n for n, v in zip(names, verdicts, strict=True) if v == wanted)}"
        for wanted in VERDICTS
        if wanted in verdicts
    ]
    count = Interval(supported, supported, len(verdicts) - contradicted)
    margin = (len(verdicts) // 2 + 1, len(verdicts))
    return claim(statement, count, margin, unit=f"of {len(verdicts)} models", detail="; ".join(listed))


def compare(statement: str, published, here, *, tolerance: float, unit: str = "", names=None) -> dict:
    """Return the row of a claim that printed numbers are those recomputed here; equal lists, or two numbers.

    ``tolerance`` is the largest difference that rounding explains (same unit). ``names`` label the entries of lists, so
    that a disagreement says whose it is. A missing number on either side contradicts.
    """
    published, here = np.atleast_1d(np.asarray(published, float)), np.atleast_1d(np.asarray(here, float))
    if published.shape != here.shape or not len(published):
        raise InputError(f"{statement}: {len(published)} published numbers against {len(here)} here; pair them first")
    difference = np.round(here - published, 6)  # beyond that is rounding, and rounding differs between processors
    bad = ~(np.abs(here - published) <= tolerance)  # NaN is bad
    who = "" if names is None or not bad.any() else ": " + ", ".join(np.asarray(names, dtype=str)[bad])
    detail = f"{len(here)} of {len(here)} agree" if not bad.any() else f"{bad.sum()} of {len(bad)} differ{who}"
    if len(here) == 1:
        detail = f"printed {format_number(float(published[0]))}, here {format_number(float(here[0]))}"
    largest = difference[np.argmax(np.where(np.isnan(difference), np.inf, np.abs(difference)))]
    row = claim(statement, Interval(float(largest)), (-tolerance, tolerance), unit=unit, detail=detail)
    verdict = CONTRADICTED if bad.any() else SUPPORTED
    return row | {"low": float(difference.min()), "high": float(difference.max()), "verdict": verdict}


def format_margin(margin: Margin) -> str:
    """Return a margin as the tables print it: "0.95 to 1.05", "at least 100", "± 0.05"."""
    low, high = margin
    if low == -high:
        return f"± {high:g}"
    if np.isinf(high):
        return f"at least {low:g}"
    return f"at most {high:g}" if np.isinf(low) else f"{low:g} to {high:g}"


def save_verdict(rows: list[dict], name: str, out_dir: str | Path = FIGURES) -> Markdown:
    """Save the table that ends a notebook (rows of ``claim``, ``claim_of_most`` and ``compare``)."""
    return save_table(pd.DataFrame(rows, columns=COLUMNS), name, out_dir)
