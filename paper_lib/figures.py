"""One visual language for all notebooks: a style, the plots, and a save that gives the same bytes for the same data.

Colours (Okabe-Ito, safe for the colour-blind) and markers both name the model family; fill names the origin: published
numbers are solid, numbers measured here are hollow or hatched, so that the two stay apart in grey print. Every plot
takes a tidy frame and column names, draws on the axes it is given and returns them.
"""

import io
import itertools
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Image
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from .errors import InputError, require_columns, unknown_name
from .paths import FIGURES
from .tables import format_number, write_bytes

TEXT_WIDTH_INCHES = 6.30  # of the ACL page, both columns

FAMILY_COLOURS = {
    "Pythia": "#0072B2",
    "OPT": "#E69F00",
    "OLMo": "#CC79A7",
    "Llama": "#D55E00",
    "Mamba": "#009E73",
    "other": "#555555",
}
FAMILY_MARKERS = {"Pythia": "o", "OPT": "D", "OLMo": "^", "Llama": "s", "Mamba": "v", "other": "P"}
SERIES_STYLES = [
    {"color": "#0072B2", "marker": "o"},
    {"color": "#D55E00", "marker": "s"},
    {"color": "#009E73", "marker": "^"},
    {"color": "#CC79A7", "marker": "D"},
]  # for lines that are no model families
ORIGINS = ("published", "measured")
GREY = "#6b6b6b"
LENGTH_COLOURS = "viridis"
SHORTEST_COLOURED_TOKENS = 32  # shorter texts share one colour, so that the others stay apart
UNIT_SLOPE = {"color": "black", "linewidth": 0.8, "linestyle": (0, (3, 2))}
HIGHEST = {"color": "#c1272d", "linewidth": 0.8, "linestyle": (0, (1, 1.5))}
THOUSANDS = StrMethodFormatter("{x:,.0f}")


def use_style() -> None:
    """Reset matplotlib to its defaults and set the style of this repository, whatever the user's own settings say."""
    matplotlib.rcdefaults()
    sns.set_theme(
        context="paper",
        style="ticks",
        font="DejaVu Sans",  # ships with matplotlib, so it is the same everywhere
        rc={
            "font.size": 7,
            "axes.titlesize": 7.5,
            "axes.labelsize": 7,
            "xtick.labelsize": 6.5,
            "ytick.labelsize": 6.5,
            "legend.fontsize": 6.5,
            "legend.title_fontsize": 6.5,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.6,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.linewidth": 0.4,
            "grid.color": "#e4e4e4",
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.major.size": 2.5,
            "ytick.major.size": 2.5,
            "xtick.minor.size": 0,
            "ytick.minor.size": 0,
            "lines.linewidth": 1,
            "hatch.linewidth": 0.6,
            "figure.dpi": 100,
            "savefig.dpi": 240,
            "pdf.fonttype": 42,  # TrueType, as publishers ask
            "svg.hashsalt": "paper_lib",
            "figure.constrained_layout.use": True,
        },
    )


def save_figure(figure, name: str, out_dir: str | Path = FIGURES) -> Image:
    """Write ``name``.pdf and .png into ``out_dir``, each in one step, close the figure and return the PNG for display.

    The files carry no date and no version: the same data give the same bytes in the same environment.
    """
    png = _render(figure, "png", {"Software": None})
    write_bytes(Path(out_dir) / f"{name}.pdf", _render(figure, "pdf", {"CreationDate": None, "Producer": None}))
    write_bytes(Path(out_dir) / f"{name}.png", png)
    width_inches = figure.get_size_inches()[0]
    plt.close(figure)
    return Image(png, width=round(width_inches * 130))


def _render(figure, file_format, metadata):
    buffer = io.BytesIO()
    figure.savefig(buffer, format=file_format, metadata=metadata)
    return buffer.getvalue()


# --- plots ---------------------------------------------------------------------------------------------------------


def plot_bars(data: pd.DataFrame, *, x: str, y: str = "name", hue: str = "family", ax, number=format_number):
    """Draw one horizontal bar per row, top to bottom as given; null is said in words.

    ``number`` turns a value into the text at the end of its bar.
    """
    _check(data, [x, y, hue], ax)
    for place, row in enumerate(data.itertuples()):
        value, colour = getattr(row, x), FAMILY_COLOURS[_family(getattr(row, hue))]
        if pd.isna(value):
            ax.annotate("not published", (0, place), color=GREY, **_beside(3))
            continue
        ax.barh(place, value, height=0.72, linewidth=0.7, **_bar(colour, row.origin))
        ax.annotate(number(value), (value, place), **_beside(2), **on_white())
    ax.set_yticks(range(len(data)), data[y])
    ax.set_ylim(len(data) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    ax.margins(x=0.14)
    return ax


def plot_entropy(data: pd.DataFrame, *, x: str, y: str, hue: str = "length", ax, norm=None, unit_nats: float = 1000):
    """Scatter cross-entropy with the vector over cross-entropy without: colour is length, a cross a random text.

    ``norm`` is the colour scale of lengths in tokens (see ``length_norm``); panels of one figure share theirs.
    Ticks count multiples of ``unit_nats``.
    """
    _check(data, [x, y, hue, "source"], ax)
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


def plot_intervals(
    data: pd.DataFrame, *, x: str, low: str, high: str, y: str = "name", hue: str = "family", ax, reference: float
):
    """Draw one estimate with its interval per row and a reference line; without limits, a mark alone."""
    _check(data, [x, low, high, y, hue], ax)
    ax.axvline(reference, color=GREY, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
    for place, row in enumerate(data.itertuples()):
        value, family = getattr(row, x), _family(getattr(row, hue))
        if pd.isna(value):
            continue
        colour = FAMILY_COLOURS[family]
        ax.plot([getattr(row, low), getattr(row, high)], [place, place], color=colour, linewidth=1.3, zorder=2)
        ax.plot(value, place, zorder=3, **_mark(_family_style(family), row.origin, size=4))
    ax.set_yticks(range(len(data)), data[y])
    ax.set_ylim(len(data) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    return ax


def plot_scaling(data: pd.DataFrame, *, x: str, y: str, low=None, high=None, hue: str = "model", ax):
    """Draw a quantity over the number of vectors on log axes, with proportional growth from the first, dashed.

    One line per ``hue``, labelled for a legend, in the colour of its ``family`` or, of an unknown family or one with
    several lines, in one of its own. The columns ``low`` and ``high`` give it a band.
    """
    _check(data, [x, y, hue, "family"] + [low, high] * bool(low), ax)
    others = itertools.cycle(SERIES_STYLES)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    for (name, origin), group in data.dropna(subset=[y]).groupby([hue, "origin"], sort=False):
        group = group.sort_values(x)
        family = _family(group["family"].iloc[0])
        alone = data.loc[data["family"] == group["family"].iloc[0], hue].nunique() == 1
        style = _family_style(family) if alone and family != "other" else next(others)
        colour, first = style["color"], group.iloc[0]
        ax.plot(group[x], first[y] * group[x] / first[x], color=colour, linewidth=0.8, linestyle=(0, (3, 2)))
        if low:
            ax.fill_between(group[x], group[low], group[high], color=colour, alpha=0.18, linewidth=0)
        ax.plot(group[x], group[y], label=name, **(_mark(style, origin, size=4) | {"linestyle": "-", "linewidth": 1.1}))
    ax.xaxis.set_major_locator(FixedLocator(sorted(data.dropna(subset=[y])[x].unique())))
    ax.xaxis.set_major_formatter(THOUSANDS)
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(THOUSANDS)
    ax.yaxis.set_minor_formatter(NullFormatter())
    return ax


def plot_shares(data: pd.DataFrame, *, x: str = "length", y: str, hue: str, ax):
    """Draw a share (0 to 1) over text length, one line per ``hue``, labelled for a legend.

    Marks shrink from line to line, so that lines that coincide are seen to.
    """
    _check(data, [x, y, hue], ax)
    sizes = (7.5, 5, 3.5, 2.5)
    for (label, group), style, size in zip(data.groupby(hue, sort=False), SERIES_STYLES, sizes, strict=False):
        group = group.sort_values(x)
        line = _mark(style, group["origin"].iloc[0], size=size) | {"linestyle": "-", "linewidth": 1.1}
        ax.plot(group[x], group[y], label=label, **line)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator(sorted(data[x].unique())))
    ax.xaxis.set_major_formatter(THOUSANDS)
    ax.set_ylim(-0.04, 1.04)
    return ax


def plot_against_theory(data: pd.DataFrame, *, x: str, y: str, hue: str = "family", ax, shares=(0.1, 0.2, 0.3)):
    """Scatter token gain over theoretical capacity, with a line for each share of the theory that is reached."""
    _check(data, [x, y, hue], ax)
    edge = data[x].max() * 1.1
    for share in shares:
        ax.plot([0, edge], [0, share * edge], color=GREY, linewidth=0.6, linestyle=(0, (1, 2)))
        ax.annotate(
            f"{share:.0%}", (edge, share * edge), xytext=(2, 0), textcoords="offset points", va="center", color=GREY
        )
    for row in data.itertuples():
        mark = _mark(_family_style(_family(getattr(row, hue))), row.origin, size=4)
        ax.plot(getattr(row, x), getattr(row, y), clip_on=False, **mark)
    ax.set_xlim(0, edge)
    ax.set_ylim(0)
    return ax


def plot_paired_bars(data: pd.DataFrame, *, x: str, y: str = "name", hue: str = "source", family: str = "family", ax):
    """Draw bars of two kinds side by side for each row label: the first kind solid, the second pale."""
    _check(data, [x, y, hue, family], ax)
    names, kinds = list(dict.fromkeys(data[y])), list(dict.fromkeys(data[hue]))
    height = 0.8 / len(kinds)
    for row in data.itertuples():
        kind = kinds.index(getattr(row, hue))
        colour = FAMILY_COLOURS[_family(getattr(row, family))]
        place = names.index(getattr(row, y)) + (kind - (len(kinds) - 1) / 2) * height
        alpha = 1 if kind == 0 else 0.4
        ax.barh(place, getattr(row, x), height=height * 0.92, alpha=alpha, linewidth=0.5, **_bar(colour, row.origin))
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    return ax


PROOF_STYLES = {
    "quality score": {"marker": "o", "color": "#56B4E9"},
    "mean accuracy ≥ .99": {"marker": "s", "color": "#D55E00"},
    "teacher-forced exact": {"marker": "^", "color": "#0072B2"},
    "greedy share printed": {"marker": "D", "color": "#009E73"},
}


def plot_landscape(data: pd.DataFrame, *, x: str, x_high: str, y: str, hue: str = "proof", ax):
    """Mark every result on a log axis, one row per ``y``, shape and colour telling what was proven of it.

    ``x_high`` is the upper end of a printed range (null for a single number), drawn as a line. The largest number of
    each row is written beside its mark.
    """
    _check(data, [x, x_high, y, hue], ax)
    rows = list(dict.fromkeys(data[y]))
    for row in data.itertuples():
        proof, low, high = getattr(row, hue), getattr(row, x), getattr(row, x_high)
        if proof not in PROOF_STYLES:
            raise unknown_name("proof", proof, PROOF_STYLES)
        style, ends = PROOF_STYLES[proof], [low] if pd.isna(high) else [low, high]
        ax.plot(ends, [rows.index(getattr(row, y))] * len(ends), color=style["color"], linewidth=1, zorder=2)
        ax.plot(ends, [rows.index(getattr(row, y))] * len(ends), zorder=3, **_mark(style, row.origin, size=4))
    for place, row in enumerate(rows):
        most = data.loc[data[y] == row, [x, x_high]].max(axis=None)
        ax.annotate(f"{most:,.0f}", (most, place), fontsize=6, **_beside(4), **on_white())
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(THOUSANDS)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    return ax


# --- keys ----------------------------------------------------------------------------------------------------------


def family_key(families) -> list[Line2D]:
    """Return legend handles for model families, in the given order."""
    return [_key(family, _family_style(family)) for family in dict.fromkeys(families)]


def proof_key() -> list[Line2D]:
    """Return legend handles that tell what each mark of ``plot_landscape`` proves."""
    return [_key(proof, style) for proof, style in PROOF_STYLES.items()]


def origin_key(origins) -> list[Line2D]:
    """Return legend handles for the origins present; empty when there is only one, which needs no key."""
    present = [origin for origin in ORIGINS if origin in set(origins)]
    return [_key(origin, _family_style("other"), origin) for origin in present] if len(present) > 1 else []


def entropy_key(origin: str = "published") -> list[Line2D]:
    """Return legend handles for the marks of an entropy panel and its two lines."""
    fill = {} if origin == "published" else {"markerfacecolor": "none"}
    books = Line2D([], [], linestyle="none", marker="o", markersize=3.5, color="#35b779", label="books", **fill)
    random = Line2D([], [], linestyle="none", marker="x", markersize=3.5, color="black", label="random words")
    return [
        books,
        random,
        Line2D([], [], label="y = x − b", **UNIT_SLOPE),
        Line2D([], [], label="highest solved", **HIGHEST),
    ]


def on_white() -> dict:
    """Return the options of a text that must stay readable above lines."""
    return {"bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8}, "zorder": 2.5}


def _key(label, style, origin="published"):
    return Line2D([], [], label=label, **_mark(style, origin, size=4))


def _mark(style, origin, size):
    solid = {"markerfacecolor": style["color"], "markeredgecolor": "white", "markeredgewidth": 0.3}
    hollow = {"markerfacecolor": "white", "markeredgecolor": style["color"], "markeredgewidth": 0.9}
    return style | {"linestyle": "none", "markersize": size} | (solid if origin == "published" else hollow)


def _bar(colour, origin):
    solid = {"color": colour, "edgecolor": colour}
    return solid if origin == "published" else {"color": "white", "edgecolor": colour, "hatch": "//////"}


def _family_style(family):
    return {"marker": FAMILY_MARKERS[family], "color": FAMILY_COLOURS[family]}


def _beside(points):
    return {"xytext": (points, 0), "textcoords": "offset points", "va": "center"}


def _family(name):
    return name if name in FAMILY_COLOURS else "other"


def _check(data, columns, ax):
    require_columns(data, [*columns, "origin"], "plot data")
    if data.empty:
        raise InputError("plot data: no rows to draw; check the notebook's parameters")
    if unknown := set(data["origin"]) - set(ORIGINS):
        raise unknown_name("origin", sorted(unknown)[0], ORIGINS)
    if np.ndim(ax) != 0:
        raise InputError("plot: give one Axes, not an array of them")
