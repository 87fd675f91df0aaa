"""Points: one per text or model, over two quantities."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from .marks import check_data, family_style, find_family, mark_style, on_white
from .style import GREY, HIGHEST, LENGTH_COLOURS, SERIES_STYLES, SHORTEST_COLOURED_TOKENS, THOUSANDS, UNIT_SLOPE

BOOKS = "#0072B2"


def plot_entropy(data: pd.DataFrame, *, x: str, y: str, hue: str = "length", ax, norm=None, unit_nats: float = 1000):
    """Scatter cross-entropy with the vector over cross-entropy without: colour is length, a cross a random text.

    ``norm`` is the colour scale of lengths in tokens (see ``length_norm``); panels of one figure share theirs.
    Ticks count multiples of ``unit_nats``.
    """
    check_data(data, [x, y, hue, "source"], ax)
    norm = norm or length_norm(data)
    for origin, part in data.groupby("origin", sort=True):
        natural, random = part[part["source"] != "random"], part[part["source"] == "random"]
        colours = plt.get_cmap(LENGTH_COLOURS)(norm(natural[hue].astype(float)))
        fill = {"facecolors": colours} if origin == "published" else {"facecolors": "none", "edgecolors": colours}
        ax.scatter(natural[x], natural[y], s=6, linewidths=0 if origin == "published" else 0.5, zorder=2, **fill)
        ax.scatter(random[x], random[y], s=5, marker="x", c="black", linewidths=0.4, zorder=3)
    ax.set_xlim(0)
    ax.set_ylim(0)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3))
        axis.set_major_formatter(FuncFormatter(lambda nats, _: f"{nats / unit_nats:g}"))
    return ax


def length_norm(data: pd.DataFrame, shortest_tokens: int = SHORTEST_COLOURED_TOKENS) -> LogNorm:
    """Return the logarithmic colour scale of text lengths that all panels of one figure share.

    Lengths below ``shortest_tokens`` have one colour.
    """
    lengths = data["length"].dropna().astype(float)
    return LogNorm(max(lengths.min(), shortest_tokens), lengths.max(), clip=True)


def plot_gains(data: pd.DataFrame, *, x: str, y: str, hue: str = "source", ax):
    """Scatter what each text gained over its cross-entropy: dots for natural text, crosses for random words."""
    check_data(data, [x, y, hue], ax)
    for (random, origin), part in data.groupby([data[hue] == "random", "origin"]):
        fill = {"c": BOOKS, "linewidths": 0}
        if origin == "measured":
            fill = {"facecolors": "none", "edgecolors": BOOKS, "linewidths": 0.5}
        look = {"marker": "x", "c": "black", "linewidths": 0.5} if random else fill
        ax.scatter(part[x], part[y], s=6, label="random words" if random else "books", **look)
    ax.set_ylim(0)
    ax.xaxis.set_major_formatter(THOUSANDS)
    ax.yaxis.set_major_formatter(THOUSANDS)
    return ax


def mark_limit(ax, *, b: float, highest_solved: float, edge: float, label: str):
    """Draw the paper's reading of an entropy panel: y = x - b up to x = ``edge``, and the highest solved point.

    All in nats. ``label`` and b are written into the corner.
    """
    ax.plot([b, edge], [0, edge - b], zorder=4, **UNIT_SLOPE)
    ax.axhline(highest_solved, zorder=4, **HIGHEST)
    ax.text(0.04, 0.97, f"{label}\nb = {b:,.1f}", transform=ax.transAxes, va="top", zorder=5)
    return ax


def add_length_bar(figure, norm: LogNorm, ticks, **options):
    """Add the colour bar of ``length_norm`` beside all panels of ``figure``, with ``ticks`` in tokens; return it."""
    scale = ScalarMappable(norm, LENGTH_COLOURS)
    bar = figure.colorbar(scale, ax=figure.axes, label="length (tokens)", pad=0.02, **options)
    bar.set_ticks(ticks, labels=[THOUSANDS(length) for length in ticks])
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    return bar


def label_points(data: pd.DataFrame, *, x: str, y: str, label: str = "name", offsets: dict, ax):
    """Write its ``label`` beside each point that ``offsets`` names: (right, up) in points, leftward if negative."""
    check_data(data, [x, y, label], ax)
    for row in data[data[label].isin(offsets)].itertuples():
        right, up = offsets[getattr(row, label)]
        ax.annotate(
            getattr(row, label),
            (getattr(row, x), getattr(row, y)),
            xytext=(right, up),
            textcoords="offset points",
            ha="left" if right > 0 else "right",
            va="center",
            **on_white(),
        )
    return ax


def plot_against_theory(data: pd.DataFrame, *, x: str, y: str, hue: str = "family", ax, shares=(0.1, 0.2, 0.3)):
    """Scatter token gain over theoretical capacity, with a line for each share of the theory that is reached."""
    check_data(data, [x, y, hue], ax)
    edge = data[x].max() * 1.1
    for share in shares:
        ax.plot([0, edge], [0, share * edge], color=GREY, linewidth=0.6, linestyle=(0, (1, 2)))
        ax.annotate(
            f"{share:.0%}", (edge, share * edge), xytext=(2, 0), textcoords="offset points", va="center", color=GREY
        )
    for row in data.itertuples():
        mark = mark_style(family_style(find_family(getattr(row, hue))), row.origin, size=4)
        ax.plot(getattr(row, x), getattr(row, y), clip_on=False, **mark)
    ax.set_xlim(0, edge)
    ax.set_ylim(0)
    return ax


def plot_distributions(data: pd.DataFrame, *, x: str, hue: str, n_bins: int = 60, ax):
    """Draw how ``x`` is spread, as a density on shared bins: one outline per ``hue``, in the data's order.

    Each has a hatching of its own, through which the others are seen; those of published numbers are filled.
    """
    check_data(data, [x, hue], ax)
    edges, hatches = np.histogram_bin_edges(data[x], bins=n_bins), itertools.cycle(("///", "\\\\\\", "---"))
    for (name, values), style, hatch in zip(data.groupby(hue, sort=False), SERIES_STYLES, hatches, strict=False):
        look = {"edgecolor": style["color"], "facecolor": "none", "hatch": hatch}
        if values["origin"].iloc[0] == "published":
            look = {"color": style["color"], "alpha": 0.4}
        ax.hist(values[x], edges, density=True, histtype="stepfilled", label=name, linewidth=1.1, **look)
    ax.set_ylim(0)
    return ax
