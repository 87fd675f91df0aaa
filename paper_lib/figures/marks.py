"""How one mark, one bar and one entry of a legend look, and what every plot asks of its data."""

import numpy as np
from matplotlib.lines import Line2D

from ..errors import InputError, require_columns, unknown_name
from .style import FAMILY_COLOURS, FAMILY_MARKERS, HIGHEST, ORIGINS, PROOF_STYLES, UNIT_SLOPE


def family_key(families) -> list[Line2D]:
    """Return legend handles for model families, in the given order."""
    return [make_key(family, family_style(family)) for family in dict.fromkeys(families)]


def proof_key() -> list[Line2D]:
    """Return legend handles that explain what each mark of ``plot_landscape`` proves."""
    return [make_key(proof, style) for proof, style in PROOF_STYLES.items()]


def origin_key(origins) -> list[Line2D]:
    """Return legend handles for the origins present; empty when there is only one, which needs no key."""
    present = [origin for origin in ORIGINS if origin in set(origins)]
    return [make_key(origin, family_style("other"), origin) for origin in present] if len(present) > 1 else []


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


def make_key(label, style, origin="published"):
    return Line2D([], [], label=label, **mark_style(style, origin, size=4))


def mark_style(style, origin, size):
    solid = {"markerfacecolor": style["color"], "markeredgecolor": "white", "markeredgewidth": 0.3}
    hollow = {"markerfacecolor": "white", "markeredgecolor": style["color"], "markeredgewidth": 0.9}
    return style | {"linestyle": "none", "markersize": size} | (solid if origin == "published" else hollow)


def bar_style(colour, origin):
    solid = {"color": colour, "edgecolor": colour}
    return solid if origin == "published" else {"color": "white", "edgecolor": colour, "hatch": "//////"}


def family_style(family):
    return {"marker": FAMILY_MARKERS[family], "color": FAMILY_COLOURS[family]}


def beside(points):
    return {"xytext": (points, 0), "textcoords": "offset points", "va": "center"}


def find_family(name):
    return name if name in FAMILY_COLOURS else "other"


def check_data(data, columns, ax):
    require_columns(data, [*columns, "origin"], "plot data")
    if data.empty:
        raise InputError("plot data: no rows to draw; check the notebook's parameters")
    if unknown := set(data["origin"]) - set(ORIGINS):
        raise unknown_name("origin", sorted(unknown)[0], ORIGINS)
    if np.ndim(ax) != 0:
        raise InputError("plot: give one Axes, not an array of them")
