"""Figures: every plot takes a tidy frame and column names, draws on the axes it is given and returns them."""

from .bars import plot_bars, plot_intervals, plot_landscape, plot_paired_bars
from .clouds import add_length_bar, label_points, length_norm, mark_limit, plot_against_theory, plot_entropy, plot_gains
from .curves import LiveCurves, count_vectors
from .lines import (
    plot_context,
    plot_per_vector,
    plot_plateau,
    plot_positions,
    plot_progress,
    plot_reliability,
    plot_scaling,
    plot_series,
    plot_shares,
)
from .marks import entropy_key, family_key, on_white, origin_key, proof_key
from .panels import make_panels
from .style import (
    FAMILY_COLOURS,
    FAMILY_MARKERS,
    GREY,
    HIGHEST,
    LENGTH_COLOURS,
    PROOF_STYLES,
    TEXT_WIDTH_INCHES,
    UNIT_SLOPE,
    save_figure,
    use_style,
)

__all__ = [
    "FAMILY_COLOURS",
    "FAMILY_MARKERS",
    "GREY",
    "HIGHEST",
    "LENGTH_COLOURS",
    "PROOF_STYLES",
    "TEXT_WIDTH_INCHES",
    "UNIT_SLOPE",
    "LiveCurves",
    "add_length_bar",
    "count_vectors",
    "entropy_key",
    "family_key",
    "label_points",
    "length_norm",
    "make_panels",
    "mark_limit",
    "on_white",
    "origin_key",
    "plot_against_theory",
    "plot_bars",
    "plot_context",
    "plot_entropy",
    "plot_gains",
    "plot_intervals",
    "plot_landscape",
    "plot_paired_bars",
    "plot_per_vector",
    "plot_plateau",
    "plot_positions",
    "plot_progress",
    "plot_reliability",
    "plot_scaling",
    "plot_series",
    "plot_shares",
    "proof_key",
    "save_figure",
    "use_style",
]
