"""One row per label: bars, intervals, and the landscape of results."""

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from ..errors import unknown_name
from ..tables import format_number
from .marks import bar_style, beside, check_data, family_style, find_family, mark_style, on_white
from .style import FAMILY_COLOURS, GREY, PROOF_STYLES, THOUSANDS

FAR = 1e9  # in place of infinity, which no line reaches


def plot_bars(
    data: pd.DataFrame,
    *,
    x: str,
    y: str = "name",
    hue: str = "family",
    high: str | None = None,
    ax,
    number=format_number,
):
    """Draw one horizontal bar per row, top to bottom as given; a missing value is named.

    ``number`` turns a value into the text at the end of its bar. ``high``, if given, is the column of an upper bound: a
    whisker goes there from the end of the bar.
    """
    check_data(data, [x, y, hue] + [high] * bool(high), ax)
    for place, row in enumerate(data.itertuples()):
        value, colour = getattr(row, x), FAMILY_COLOURS[find_family(getattr(row, hue))]
        if pd.isna(value):
            ax.annotate("not published", (0, place), color=GREY, **beside(3))
            continue
        ax.barh(place, value, height=0.72, linewidth=0.7, **bar_style(colour, row.origin))
        end = getattr(row, high) if high and not pd.isna(getattr(row, high)) else value
        if end > value:
            ax.plot([value, end], [place, place], color=GREY, linewidth=0.9, marker="|", markersize=4, zorder=2)
        ax.annotate(number(value), (end, place), **beside(3 if end > value else 2), **on_white())
    ax.set_yticks(range(len(data)), data[y])
    ax.set_ylim(len(data) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    ax.margins(x=0.14)
    return ax


def plot_paired_bars(data: pd.DataFrame, *, x: str, y: str = "name", hue: str = "source", family: str = "family", ax):
    """Draw bars of two kinds side by side for each row label: the first kind solid, the second pale."""
    check_data(data, [x, y, hue, family], ax)
    names, kinds = list(dict.fromkeys(data[y])), list(dict.fromkeys(data[hue]))
    height = 0.8 / len(kinds)
    for row in data.itertuples():
        kind = kinds.index(getattr(row, hue))
        colour = FAMILY_COLOURS[find_family(getattr(row, family))]
        place = names.index(getattr(row, y)) + (kind - (len(kinds) - 1) / 2) * height
        alpha = 1 if kind == 0 else 0.4
        ax.barh(
            place, getattr(row, x), height=height * 0.92, alpha=alpha, linewidth=0.5, **bar_style(colour, row.origin)
        )
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    return ax


def plot_intervals(
    data: pd.DataFrame,
    *,
    x: str,
    low: str,
    high: str,
    y: str = "name",
    hue: str = "family",
    ax,
    reference: float,
    margin: tuple[float, float] | None = None,
):
    """Draw one estimate with its interval per row, a reference line and a band for ``margin``; no limits, no line.

    An interval that is open (an infinite limit) leaves the axes on that side.
    """
    check_data(data, [x, low, high, y, hue], ax)
    if margin:
        ax.axvspan(*margin, color="#e9e9e9", zorder=0)
    ax.axvline(reference, color=GREY, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
    for place, row in enumerate(data.itertuples()):
        value, family = getattr(row, x), find_family(getattr(row, hue))
        if pd.isna(value):
            continue
        colour = FAMILY_COLOURS[family]
        limits = np.array([getattr(row, low), getattr(row, high)], float)
        line = {"color": colour, "linewidth": 1.3, "zorder": 2}
        ax.plot(np.where(np.isinf(limits), value, limits), [place, place], **line)
        for limit in limits[np.isinf(limits)]:  # an artist does not move the axes
            ax.add_artist(Line2D([value, np.copysign(FAR, limit)], [place, place], **line))
        ax.plot(value, place, zorder=3, **mark_style(family_style(family), row.origin, size=4))
    ax.set_yticks(range(len(data)), data[y])
    ax.set_ylim(len(data) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    return ax


def plot_landscape(data: pd.DataFrame, *, x: str, x_high: str, y: str, hue: str = "proof", ax):
    """Mark every result on a log axis, one row per ``y``, shape and colour telling what was proven of it.

    ``x_high`` is the upper end of a printed range (null for a single number), drawn as a line. The largest number of
    each row is written beside its mark.
    """
    check_data(data, [x, x_high, y, hue], ax)
    rows = list(dict.fromkeys(data[y]))
    for row in data.itertuples():
        proof, low, high = getattr(row, hue), getattr(row, x), getattr(row, x_high)
        if proof not in PROOF_STYLES:
            raise unknown_name("proof", proof, PROOF_STYLES)
        style, ends = PROOF_STYLES[proof], [low] if pd.isna(high) else [low, high]
        ax.plot(ends, [rows.index(getattr(row, y))] * len(ends), color=style["color"], linewidth=1, zorder=2)
        ax.plot(ends, [rows.index(getattr(row, y))] * len(ends), zorder=3, **mark_style(style, row.origin, size=4))
    for place, row in enumerate(rows):
        most = data.loc[data[y] == row, [x, x_high]].max(axis=None)
        ax.annotate(f"{most:,.0f}", (most, place), fontsize=6, **beside(4), **on_white())
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(THOUSANDS)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    return ax
