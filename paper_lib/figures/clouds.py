"""Points: one per text or model, over two quantities."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .marks import check_data, family_style, find_family, mark_style
from .style import GREY, LENGTH_COLOURS, SHORTEST_COLOURED_TOKENS


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
