"""A grid of panels of one kind, as many as there are things to show."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import InputError
from .style import TEXT_WIDTH_INCHES


def make_panels(
    n_panels: int, n_columns: int = 2, *, height_inches: float, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure of the text's width and ``n_panels`` axes, row by row; what is left of the last row is empty.

    ``height_inches`` is that of one row. Raises InputError where there is nothing to show.
    """
    if n_panels < 1:
        raise InputError("no panel to draw; check the notebook's parameters")
    n_rows = -(-n_panels // n_columns)
    size = (TEXT_WIDTH_INCHES, n_rows * height_inches)
    figure, grid = plt.subplots(n_rows, n_columns, figsize=size, sharey=sharey, squeeze=False)
    for ax in grid.flat[n_panels:]:
        ax.set_axis_off()
    return figure, list(grid.flat[:n_panels])
