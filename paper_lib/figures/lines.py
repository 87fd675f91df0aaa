"""A quantity over another, joined by lines."""

import itertools

import numpy as np
import pandas as pd
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, StrMethodFormatter

from .marks import check_data, family_key, family_style, find_family, mark_style
from .style import GREY, SERIES_STYLES, THOUSANDS

PLAIN = StrMethodFormatter("{x:g}")


def plot_scaling(data: pd.DataFrame, *, x: str, y: str, low=None, high=None, hue: str = "model", ax):
    """Draw a quantity over the number of vectors on log axes, with proportional growth from the first, dashed.

    One line per ``hue``, labelled for a legend, in the colour of its ``family`` or, of an unknown family or one with
    several lines, in one of its own. The columns ``low`` and ``high`` give it a band.
    """
    check_data(data, [x, y, hue, "family"] + [low, high] * bool(low), ax)
    others = itertools.cycle(SERIES_STYLES)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    for (name, origin), group in data.dropna(subset=[y]).groupby([hue, "origin"], sort=False):
        group = group.sort_values(x)
        family = find_family(group["family"].iloc[0])
        alone = data.loc[data["family"] == group["family"].iloc[0], hue].nunique() == 1
        style = family_style(family) if alone and family != "other" else next(others)
        colour, first = style["color"], group.iloc[0]
        ends = group[x].iloc[[0, -1]]  # straight on log axes
        ax.plot(ends, first[y] * ends / first[x], color=colour, linewidth=0.8, linestyle=(0, (3, 2)))
        if low:
            ax.fill_between(group[x], group[low], group[high], color=colour, alpha=0.18, linewidth=0)
        ax.plot(
            group[x], group[y], label=name, **(mark_style(style, origin, size=4) | {"linestyle": "-", "linewidth": 1.1})
        )
    ax.xaxis.set_major_locator(FixedLocator(sorted(data.dropna(subset=[y])[x].unique())))
    ax.xaxis.set_major_formatter(THOUSANDS)
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(THOUSANDS)
    ax.yaxis.set_minor_formatter(NullFormatter())
    return ax


def plot_series(data: pd.DataFrame, *, x: str, y: str, hue: str, order: list[str], ax):
    """Draw a quantity over a setting, on a log axis: a line per ``hue``, with the look of its place in ``order``."""
    check_data(data, [x, y, hue], ax)
    for name, group in data.groupby(hue, sort=False):
        style = SERIES_STYLES[order.index(name) % len(SERIES_STYLES)]
        line = mark_style(style, group["origin"].iloc[0], size=4) | {"linestyle": "-", "linewidth": 1.1}
        group = group.sort_values(x)
        ax.plot(group[x], group[y], label=name, **line)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(PLAIN)
    ax.set_ylim(0)
    ax.yaxis.set_major_formatter(THOUSANDS)
    return ax


def plot_shares(
    data: pd.DataFrame, *, x: str = "length", y: str, low=None, high=None, hue: str, order=None,
    sizes=(7.5, 5, 3.5, 2.5), ax,
):  # fmt: skip
    """Draw a share (0 to 1) over text length, one line per ``hue``, labelled for a legend.

    The columns ``low`` and ``high`` give intervals. Marks shrink from line to line (``sizes``, in points), so that
    lines that coincide are seen to; the fifth is dashed as the first is solid. A line has the look of its place in
    ``order``, by default that in the data: panels that share an order share their looks.
    """
    check_data(data, [x, y, hue] + [low, high] * bool(low), ax)
    dashes = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
    looks = itertools.cycle(itertools.product(dashes, zip(SERIES_STYLES, sizes, strict=True)))
    looks = dict(zip(data[hue].unique() if order is None else order, looks, strict=False))
    for label, group in data.groupby(hue, sort=False):
        dash, (style, size) = looks[label]
        group = group.sort_values(x)
        line = mark_style(style, group["origin"].iloc[0], size=size) | {"linestyle": dash, "linewidth": 1.1}
        if low:
            ax.vlines(group[x], group[low], group[high], color=style["color"], linewidth=0.8)
        ax.plot(group[x], group[y], label=label, **line)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_locator(FixedLocator(sorted(data[x].unique())))
    ax.xaxis.set_major_formatter(THOUSANDS)
    ax.set_ylim(-0.07, 1.07)  # room for a whole mark at either end
    return ax


def plot_context(data: pd.DataFrame, *, x: str, y: str, with_vector: str, hue: str = "name", nudges: dict, ax):
    """Draw the share ``y`` of cross-entropy that ``x`` tokens of context leave, one line per ``hue``.

    The mark apart on the right is ``with_vector``, what one vector leaves. ``nudges`` moves names up (points), off each
    other.
    """
    check_data(data, [x, y, with_vector, hue, "family"], ax)
    exponents = np.log2(data[x])
    ticks = range(int(exponents.min()), int(exponents.max()) + 1)
    apart = ticks[-1] + 2
    for (name, family, origin), line in data.groupby([hue, "family", "origin"], sort=False):
        fill = {} if origin == "published" else {"markerfacecolor": "white"}
        style = family_style(find_family(family)) | {"markersize": 3.5} | fill
        ax.plot(np.log2(line[x]), line[y], **style)
        ax.plot(apart, line[with_vector].iloc[0], **style)
        place = (np.log2(line[x].iloc[0]), line[y].iloc[0])
        up = nudges.get(name, 0)
        ax.annotate(name, place, xytext=(-5, up), textcoords="offset points", ha="right", va="center")
    named = [f"{2**exponent:,}" if place % 2 == 0 else "" for place, exponent in enumerate(ticks)]
    ax.set_xticks([*ticks, apart], [*named, "one\nvector"])
    ax.set_xlim(ticks[0] - 3.6, apart + 0.7)
    ax.set_ylim(0, 1.05)
    return ax


def plot_plateau(data: pd.DataFrame, *, x: str = "x_over_b", y: str = "gain_over_b", hue: str = "name", ax):
    """Draw mean gain over cross-entropy, both in units of b: one line per ``hue``, solid from where no text is solved.

    Dashed: gain = cross-entropy, which no text can exceed, and gain = b.
    """
    check_data(data, [x, y, hue, "family", "any_solved"], ax)
    edge = data[x].max()
    ax.plot([0, 1, edge], [0, 1, 1], color="black", linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
    for (_, family, origin), line in data.groupby([hue, "family", "origin"], sort=False):
        line, look = line.sort_values(x), family_style(find_family(family))
        mark = mark_style(look, origin, size=2.5) | {"linewidth": 0.9, "linestyle": "-"}
        ax.plot(line[x], line[y], color=look["color"], linewidth=0.5, alpha=0.5)
        free = line[~line["any_solved"]]
        ax.plot(free[x], free[y], **mark)
    families = [find_family(family) for family in data["family"]]
    ax.legend(handles=family_key(families), loc="lower right")
    ax.set_ylim(0)
    return ax


def plot_per_vector(data: pd.DataFrame, *, x: str, y: str, low: str, high: str, hue: str = "name", ax):
    """Draw what each vector holds relative to one alone, from 1 on, one line per ``hue`` with its intervals.

    Lines of no known family are grey, told apart by marks and dashes.
    An arrow instead of an upper end marks a lower bound (``at_least``).
    """
    check_data(data, [x, y, low, high, hue, "family", "at_least"], ax)
    others = itertools.cycle(zip("PX*h", ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1))), strict=True))
    ax.axhline(1, color=GREY, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
    ax.set_xscale("log", base=2)
    for (name, family, origin), line in data.groupby([hue, "family", "origin"], sort=False):
        known = find_family(family)
        style, dash = family_style(known), "-"
        if known == "other":
            style["marker"], dash = next(others)
        mark = mark_style(style, origin, size=4) | {"linestyle": dash, "linewidth": 1.1}
        ax.plot([1, *line[x]], [1, *line[y]], label=name, **mark)
        for row in line.itertuples():
            place, bottom, top = getattr(row, x), getattr(row, low), getattr(row, high)
            ax.plot([place, place], [bottom, top], color=style["color"], linewidth=1.1)
            if row.at_least:
                ax.annotate(
                    "", (place, top + 0.07), (place, top), arrowprops={"arrowstyle": "->", "color": style["color"]}
                )
    ax.xaxis.set_major_locator(FixedLocator([1, *sorted(data[x].unique())]))
    ax.xaxis.set_major_formatter(THOUSANDS)
    ax.set_ylim(0)
    ax.legend(loc="lower left")
    return ax


def plot_progress(
    data: pd.DataFrame, *, x: str = "evaluations", y: str, low: str, high: str, hue: str = "arm", dash=None, ax
):
    """Draw what is reached over evaluations of the model, on a log axis: a step line and its band per ``hue``.

    Colours follow the order of ``hue`` in the data; lines of any but the first value of the column ``dash``, if given,
    are dashed. A mark ends each line.
    """
    check_data(data, [x, y, low, high, hue] + [dash] * bool(dash), ax)
    colours = {name: SERIES_STYLES[n % len(SERIES_STYLES)]["color"] for n, name in enumerate(data[hue].unique())}
    kinds = data[dash] if dash else pd.Series("", index=data.index)
    for (name, kind), line in data.groupby([hue, kinds], sort=False):
        line, colour = line.sort_values(x), colours[name]
        style = "-" if kind == kinds.iloc[0] else (0, (4, 1.5))
        label = f"{name}: {kind}" if dash else name
        ax.step(line[x], line[y], where="post", label=label, color=colour, linewidth=1.3, linestyle=style)
        ax.fill_between(line[x], line[low], line[high], step="post", color=colour, alpha=0.15, linewidth=0)
        end = mark_style({"color": colour, "marker": "o"}, line["origin"].iloc[0], size=3.5)
        ax.plot(line[x].iloc[-1:], line[y].iloc[-1:], zorder=3, **end)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(PLAIN)
    ax.set_ylim(0)
    return ax


def plot_positions(data: pd.DataFrame, *, x: str = "index", y: str, low: str, high: str, hue: str = "arm", ax):
    """Draw a quantity over the place of a token in its text: a line and its band per ``hue``, in the data's order."""
    check_data(data, [x, y, low, high, hue], ax)
    for (name, line), style in zip(data.groupby(hue, sort=False), itertools.cycle(SERIES_STYLES), strict=False):
        line = line.sort_values(x)
        ax.fill_between(line[x], line[low], line[high], color=style["color"], alpha=0.15, linewidth=0)
        look = mark_style(style, line["origin"].iloc[0], size=3) | {"linestyle": "-", "linewidth": 1.1}
        ax.plot(line[x], line[y], label=name, **look)
    ax.set_ylim(0)
    return ax


def plot_reliability(data: pd.DataFrame, *, x: str = "chance", y: str = "share", low: str, high: str, ax):
    """Draw how often what was given a chance did happen, by origin, with intervals; dashed where the two are equal."""
    check_data(data, [x, y, low, high], ax)
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
    for (origin, group), style in zip(data.groupby("origin", sort=False), SERIES_STYLES, strict=False):
        ax.vlines(group[x], group[low], group[high], color=style["color"], linewidth=0.9)
        ax.plot(group[x], group[y], label=origin, **(mark_style(style, origin, size=4.5) | {"linestyle": "none"}))
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    return ax
