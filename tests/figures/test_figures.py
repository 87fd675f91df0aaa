"""Figures: the same bytes for the same data, honest marks for each origin, clear words for bad input."""

import io
import math
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import PIL.Image
import pytest

from paper_lib import figures
from paper_lib.errors import InputError


@pytest.fixture
def ax():
    figures.use_style()
    return plt.subplots(figsize=(3, 2))[1]


@pytest.fixture
def rows() -> pd.DataFrame:
    """One published and one measured row with every column that a plot asks for."""
    return pd.DataFrame(
        {
            "origin": ["published", "measured"],
            "name": ["Pythia-160M", "ours"],
            "model": ["p", "o"],
            "family": ["Pythia", "unheard of"],
            "source": ["pg19", "pg19"],
            "proof": ["quality score", "teacher-forced exact"],
            "length": pd.array([64, 128], "Int64"),
            "n_mem": [1, 1],
            "value": [1.0, 2.0],
            "low": [0.5, 1.5],
            "high": [1.5, 2.5],
            "none": [float("nan")] * 2,
        }
    )


PLOTS = {
    "bars": lambda data, ax: figures.plot_bars(data, x="value", ax=ax),
    "entropy": lambda data, ax: figures.plot_entropy(data, x="value", y="high", ax=ax),
    "intervals": lambda data, ax: figures.plot_intervals(data, x="value", low="low", high="high", ax=ax, reference=1),
    "scaling": lambda data, ax: figures.plot_scaling(data, x="n_mem", y="value", low="low", high="high", ax=ax),
    "shares": lambda data, ax: figures.plot_shares(data, y="value", hue="name", ax=ax),
    "against_theory": lambda data, ax: figures.plot_against_theory(data, x="high", y="value", ax=ax),
    "paired_bars": lambda data, ax: figures.plot_paired_bars(data, x="value", ax=ax),
    "series": lambda data, ax: figures.plot_series(
        data, x="length", y="value", hue="name", order=["Pythia-160M", "ours"], ax=ax
    ),
    "gains": lambda data, ax: figures.plot_gains(data, x="value", y="high", ax=ax),
    "plateau": lambda data, ax: figures.plot_plateau(data.assign(any_solved=False), x="value", y="high", ax=ax),
    "per_vector": lambda data, ax: figures.plot_per_vector(
        data.assign(at_least=True), x="length", y="value", low="low", high="high", ax=ax
    ),
    "progress": lambda data, ax: figures.plot_progress(
        data, x="length", y="value", low="low", high="high", hue="name", dash="origin", ax=ax
    ),
    "positions": lambda data, ax: figures.plot_positions(
        data, x="length", y="value", low="low", high="high", hue="name", ax=ax
    ),
    "reliability": lambda data, ax: figures.plot_reliability(
        data, x="length", y="value", low="low", high="high", ax=ax
    ),
    "context": lambda data, ax: figures.plot_context(
        data, x="n_mem", y="value", with_vector="low", nudges={"ours": 3}, ax=ax
    ),
    "distributions": lambda data, ax: figures.plot_distributions(data, x="value", hue="name", ax=ax),
    "landscape": lambda data, ax: figures.plot_landscape(data, x="value", x_high="none", y="name", ax=ax),
}


@pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS)
def test_plots_draw_on_the_axes_given_and_return_them(plot, rows, ax):
    assert plot(rows, ax) is ax
    assert ax.has_data()
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS)
def test_published_and_measured_differ_without_colour(plot, rows, ax):
    def looks(axes):
        """Fills and hatches of all marks and bars: what is left of them in grey print."""
        fills = [line.get_markerfacecolor() == "white" for line in axes.lines if line.get_marker() not in ("None", "")]
        bars = [bar.get_hatch() for bar in axes.patches]
        clouds = [bool(len(cloud.get_facecolor())) for cloud in axes.collections if len(cloud.get_offsets())]
        return fills + bars + clouds

    _, other = plt.subplots()
    plot(rows.assign(origin="published"), ax)
    plot(rows.assign(origin="measured"), other)
    assert looks(ax) != looks(other)


@pytest.mark.parametrize("plot", PLOTS.values(), ids=PLOTS)
def test_plots_name_what_is_wrong_with_their_data(plot, rows, ax):
    with pytest.raises(InputError, match="plot data: missing column value"):
        plot(rows.drop(columns="value"), ax)
    with pytest.raises(InputError, match="no rows"):
        plot(rows.iloc[:0], ax)
    with pytest.raises(InputError, match="unknown origin 'guessed'; choose from: published, measured"):
        plot(rows.assign(origin="guessed"), ax)


def test_landscape_refuses_an_unknown_proof(rows, ax):
    with pytest.raises(InputError, match="unknown proof 'trust me'"):
        PLOTS["landscape"](rows.assign(proof="trust me"), ax)


def test_intervals_span_their_limits_beside_the_reference(rows, ax):
    figures.plot_intervals(rows, x="value", low="low", high="high", ax=ax, reference=0.7)
    drawn = [tuple(line.get_xdata()) for line in ax.lines]
    assert drawn[0] == (0.7, 0.7)
    assert drawn[1:] == [(0.5, 1.5), (1.0,), (1.5, 2.5), (2.0,)]


def test_an_open_interval_leaves_the_axes_and_does_not_move_them(rows, ax):
    open_above = rows.assign(high=[math.inf, 2.5])
    figures.plot_intervals(open_above, x="value", low="low", high="high", ax=ax, reference=0.7)
    assert ax.get_xlim()[1] < 3
    limits, beyond = (tuple(line.get_xdata()) for line in ax.lines[1:3])
    assert limits == (0.5, 1.0)
    assert beyond[0] == 1
    assert beyond[1] > 1e6


def test_scaling_draws_proportionality_from_the_first_point(ax):
    data = {"origin": "published", "model": "m", "family": "Pythia", "n_mem": [1, 2, 8], "gain": [10.0, 18, 60]}
    figures.plot_scaling(pd.DataFrame(data), x="n_mem", y="gain", ax=ax)
    assert list(ax.lines[0].get_ydata()) == [10, 80]
    assert list(ax.lines[1].get_ydata()) == [10, 18, 60]


def test_shares_draw_every_line_and_tell_them_apart(rows, ax):
    lines = pd.concat([rows.assign(name=f"curve {i}") for i in range(6)])
    figures.plot_shares(lines, y="value", hue="name", ax=ax)
    assert [line.get_label() for line in ax.lines] == [f"curve {i}" for i in range(6)]
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.lines}) == 6


@pytest.mark.parametrize(("n_panels", "n_rows"), [(1, 1), (2, 1), (3, 2)])
def test_panels_fill_a_grid_and_leave_no_empty_axes(n_panels, n_rows):
    figure, axes = figures.make_panels(n_panels, height_inches=2)
    assert len(axes) == n_panels
    assert tuple(figure.get_size_inches()) == (figures.TEXT_WIDTH_INCHES, 2 * n_rows)
    assert sum(ax.axison for ax in figure.axes) == n_panels


def test_no_panels_are_refused():
    with pytest.raises(InputError, match="no panel to draw"):
        figures.make_panels(0, height_inches=2)


def test_theory_lines_are_shares_of_the_theory(rows, ax):
    figures.plot_against_theory(rows, x="high", y="value", ax=ax, shares=(0.2,))
    (zero, edge), (start, end) = ax.lines[0].get_xdata(), ax.lines[0].get_ydata()
    assert (zero, start) == (0, 0)
    assert end == pytest.approx(0.2 * edge)


def test_entropy_ticks_count_thousands(rows, ax):
    PLOTS["entropy"](rows.assign(value=[1000.0, 4000.0]), ax)
    ax.figure.canvas.draw()
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert {"1", "2", "4"} & set(labels)
    assert max(float(label) for label in labels) < 10


def test_a_limit_is_drawn_from_b_to_the_edge_and_written_beside_its_label(ax):
    figures.mark_limit(ax, b=1500, highest_solved=80, edge=4000, label="M")
    unit_slope, highest = ax.lines
    assert list(zip(*unit_slope.get_data(), strict=True)) == [(1500, 0), (4000, 2500)]
    assert set(highest.get_ydata()) == {80}
    assert ax.texts[0].get_text() == "M\nb = 1,500.0"


def test_the_length_bar_has_the_given_ticks(rows, ax):
    norm = figures.length_norm(pd.DataFrame({"length": [8, 2048]}), shortest_tokens=1)
    bar = figures.add_length_bar(ax.figure, norm, [8, 2048])
    assert [label.get_text() for label in bar.ax.get_yticklabels()] == ["8", "2,048"]


def test_only_named_points_are_labelled_on_the_side_asked_for(rows, ax):
    figures.label_points(rows, x="value", y="high", offsets={rows["name"][1]: (-5, 2)}, ax=ax)
    (text,) = ax.texts
    assert (text.get_text(), text.get_ha()) == (rows["name"][1], "right")


def test_missing_bar_is_said_in_words(rows, ax):
    figures.plot_bars(rows, x="none", ax=ax)
    assert [text.get_text() for text in ax.texts] == ["not published"] * 2


def test_origin_key_is_needed_only_with_two_origins():
    assert figures.origin_key(["published"]) == []
    assert [handle.get_label() for handle in figures.origin_key(["measured", "published"])] == ["published", "measured"]


def test_saved_figures_are_the_same_bytes_and_whole(rows, tmp_path):
    written = []
    for _ in range(2):
        figures.use_style()
        figure, ax = plt.subplots()
        PLOTS["bars"](rows, ax)
        figures.save_figure(figure, "fig_test", tmp_path)
        written.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
        time.sleep(1.1)  # a date in the file would show
    assert set(written[0]) == {"fig_test.pdf", "fig_test.png"}
    assert written[0] == written[1]
    assert not plt.get_fignums()


def test_a_png_has_few_colours_near_those_that_were_drawn(tmp_path):
    figure, ax = plt.subplots()
    ax.imshow(np.linspace(0, 1, 1000).reshape(1, -1), aspect="auto", cmap="viridis")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    figures.save_figure(figure, "fig_test", tmp_path)
    saved = PIL.Image.open(tmp_path / "fig_test.png")
    assert saved.mode == "P"
    assert saved.info["dpi"] == pytest.approx((plt.rcParams["savefig.dpi"],) * 2, rel=1e-3)
    pixels = (np.asarray(image.convert("RGB"), dtype=int) for image in (saved, PIL.Image.open(drawn)))
    difference = np.abs(np.subtract(*pixels))
    assert difference.max() <= 64  # of 255, at the edge of a letter
    assert difference.mean() <= 0.5


def test_an_unchanged_figure_is_not_written_again(rows, tmp_path):
    stamps = []
    for _ in range(2):
        figures.use_style()
        figure, ax = plt.subplots()
        PLOTS["bars"](rows, ax)
        figures.save_figure(figure, "fig_test", tmp_path)
        stamps.append((tmp_path / "fig_test.png").stat().st_mtime_ns)
    assert stamps[0] == stamps[1]


def test_the_users_own_style_does_not_leak_in(ax):
    ours = dict(plt.rcParams)
    plt.rcParams.update({"axes.facecolor": "red", "axes.titleweight": "bold", "savefig.transparent": True})
    figures.use_style()
    assert dict(plt.rcParams) == ours


def test_family_colours_stay_apart_for_colour_blind_eyes():
    # Okabe and Ito's palette; markers tell the families apart where colour does not.
    assert len(set(figures.FAMILY_MARKERS.values())) == len(figures.FAMILY_COLOURS) == len(figures.FAMILY_MARKERS)
