"""Frames become CSV (all digits, for machines), LaTeX and Markdown (one number format, for people)."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Markdown
from tabulate import tabulate

from .errors import InputError
from .files import write_text
from .paths import FIGURES

MISSING = "–"


def format_number(value) -> str:
    """Return a number as all tables print it: whole numbers whole, else 3 to 5 significant digits; a dash for null."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return str(value)
    if isinstance(value, (float, np.floating)):
        size = abs(value)
        if size == 0:
            return "0"
        if size < 0.001:
            return f"{value:.0e}"
        return f"{value:.{1 if size >= 10 else 2 if size >= 1 else 3}f}"
    return str(value)


def format_mean_std(mean, std) -> str:
    """Return "mean ± std" with one decimal, as the paper prints gains; a dash when the mean is null."""
    return MISSING if pd.isna(mean) else f"{mean:.1f} ± {std:.1f}"


def format_interval(value, low, high) -> str:
    """Return "value [low, high]" in the format of all tables; the value alone when it has no interval."""
    return (
        format_number(value)
        if pd.isna(low)
        else f"{format_number(value)} [{format_number(low)}, {format_number(high)}]"
    )


def format_intervals(frame: pd.DataFrame, value: str, low: str | None = None, high: str | None = None) -> list[str]:
    """Return ``format_interval`` of three columns of ``frame``, row by row; by default value, value_low, value_high."""
    columns = [value, low or f"{value}_low", high or f"{value}_high"]
    return [format_interval(*row) for row in frame[columns].itertuples(index=False)]


def to_markdown(frame: pd.DataFrame) -> str:
    """Return ``frame`` as a Markdown table: formatted numbers, numeric columns to the right."""
    return _tabulate(frame, "pipe")


def show_table(frame: pd.DataFrame) -> Markdown:
    """Return ``frame`` for display in a notebook."""
    return Markdown(to_markdown(frame))


def save_table(
    frame: pd.DataFrame, name: str, out_dir: str | Path = FIGURES, *, show: pd.DataFrame | None = None
) -> Markdown:
    """Write ``name``.csv (9 significant digits), .tex and .md into ``out_dir``, each in one step; return the display.

    ``show`` replaces ``frame`` in the LaTeX, the Markdown and the display: fewer columns, friendlier names. Same frame,
    same bytes. Raises InputError for an empty frame.
    """
    if frame.empty:
        raise InputError(f"{name}: the table has no rows; check the notebook's parameters")
    show = frame if show is None else show
    write_text(Path(out_dir) / f"{name}.csv", frame.to_csv(index=False, float_format="%.9g", lineterminator="\n"))
    write_text(Path(out_dir) / f"{name}.tex", _tabulate(show, "latex_booktabs") + "\n")
    write_text(Path(out_dir) / f"{name}.md", to_markdown(show) + "\n")
    return show_table(show)


def _tabulate(frame, style):
    cells = [[format_number(value) for value in row] for row in frame.itertuples(index=False)]
    numeric = [pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes]
    align = ["right" if is_number else "left" for is_number in numeric]
    if style == "pipe":
        cells = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    headers = [str(column).replace("_", " ") for column in frame.columns]
    if style.startswith("latex"):
        cells = [[cell.replace("≥", ">=") for cell in row] for row in cells]  # pdflatex has no such letter
    return tabulate(cells, headers=headers, tablefmt=style, disable_numparse=True, colalign=align)
