"""One visual language for all notebooks: colours and markers, the style, and a save that gives the same bytes.

Colours (Okabe-Ito, safe for the colour-blind) and markers both name the model family; fill names the origin: published
numbers are solid, numbers measured here are hollow or hatched, so that the two stay apart in grey print.
"""

import io
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import PIL.Image
import seaborn as sns
from IPython.display import Image
from matplotlib.ticker import StrMethodFormatter

from ..files import write_bytes
from ..paths import FIGURES

TEXT_WIDTH_INCHES = 6.30  # of the ACL page, both columns: figures are printed at this width or half, letters >= 6 pt

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
PROOF_STYLES = {
    "quality score": {"marker": "o", "color": "#BDB2DC"},
    "mean accuracy ≥ .99": {"marker": "s", "color": "#9C82CC"},
    "teacher-forced exact": {"marker": "^", "color": "#6F4BA8"},
    "greedy decoding": {"marker": "D", "color": "#35145F"},
}


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
    png = _reduce_colours(_render(figure, "png", {"Software": None}))
    write_bytes(Path(out_dir) / f"{name}.pdf", _render(figure, "pdf", {"CreationDate": None, "Producer": None}))
    write_bytes(Path(out_dir) / f"{name}.png", png)
    width_inches = figure.get_size_inches()[0]
    plt.close(figure)
    return Image(png, width=round(width_inches * 130))


def _render(figure, file_format, metadata):
    buffer = io.BytesIO()
    figure.savefig(buffer, format=file_format, metadata=metadata)
    return buffer.getvalue()


def _reduce_colours(png):
    # To 256: a third of the bytes, in the repository and again in the notebook, for faint steps in a colour bar.
    pixels, buffer = PIL.Image.open(io.BytesIO(png)), io.BytesIO()
    reduced = pixels.convert("RGB").quantize(256, kmeans=1, dither=PIL.Image.Dither.NONE)
    reduced.save(buffer, format="png", optimize=True, dpi=pixels.info["dpi"])
    return buffer.getvalue()
