"""Tables: one number format, whole files."""

import math

import numpy as np
import pandas as pd
import pytest

from paper_lib import files, paths, tables
from paper_lib.errors import InputError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1568, "1568"), (np.int64(3), "3"), (1094.1065, "1094.1"), (70.9, "70.9"), (1.4999, "1.50"), (0.28328, "0.283"),
        (0.00002, "2e-05"), (0.0042, "0.004"), (0.0, "0"), (-3.21, "-3.21"), (None, "–"), (math.nan, "–"), (pd.NA, "–"),
        (True, "yes"), ("x", "x"),
    ],
)  # fmt: skip
def test_number_format(value, text):
    assert tables.format_number(value) == text


def test_mean_and_std():
    assert tables.format_mean_std(70.892, 10.975) == "70.9 ± 11.0"
    assert tables.format_mean_std(math.nan, math.nan) == "–"


def test_interval():
    assert tables.format_interval(0.739, 0.61951, 0.8364) == "0.739 [0.620, 0.836]"
    assert tables.format_interval(1.397, math.nan, math.nan) == "1.40"


def test_saved_table_keeps_all_digits_for_machines_and_few_for_people(tmp_path):
    frame = pd.DataFrame({"model": ["a_b", "c"], "gain": [1 / 3, math.nan], "n": pd.array([1, None], "Int64")})
    tables.save_table(frame, "table_test", tmp_path)
    assert (tmp_path / "table_test.csv").read_text() == "model,gain,n\na_b,0.333333333,1\nc,,\n"
    assert "| a_b     |  0.333 |   1 |" in (tmp_path / "table_test.md").read_text()
    latex = (tmp_path / "table_test.tex").read_text()
    assert "\\toprule" in latex
    assert "a\\_b" in latex
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "table_test.csv").astype({"n": "Int64"}), frame, rtol=1e-8)


def test_empty_table_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match="no rows"):
        tables.save_table(pd.DataFrame({"a": []}), "table_test", tmp_path)
    assert not list(tmp_path.iterdir())


def test_intervals_are_a_column_of_text():
    frame = pd.DataFrame({"b": [1.5, 2.0], "lo": [1.25, None], "hi": [1.75, None]})
    assert tables.format_intervals(frame, "b", "lo", "hi") == ["1.50 [1.25, 1.75]", "2.00"]


def test_a_bar_in_a_label_stays_in_its_cell():
    first, _, row = tables.to_markdown(pd.DataFrame({"label": ["a|b"], "n": [1]})).splitlines()
    assert row.replace("\\|", "").count("|") == first.count("|") == 3
    assert "a\\|b" in row


@pytest.mark.parametrize("name", ["mkdir", "access"])
def test_a_read_only_checkout_says_which_setting_helps(tmp_path, monkeypatch, name):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    if name == "mkdir":
        monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    else:
        monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(
        InputError, match="cannot write .*Permission denied; .*set PAPER_LIB_BUILD to a folder that can"
    ):
        files.make_folder(paths.BUILD / "runs" / "mine")
    with pytest.raises(InputError, match="Permission denied; .*-p OUT_DIR=FOLDER"):
        files.make_folder(tmp_path / "figures")


def test_unwritable_place_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write .*choose another place .for figures: -p OUT_DIR=FOLDER"):
        files.write_text(tmp_path / "file" / "table.csv", "a\n")


def test_a_write_that_dies_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    files.write_text(path, "old\n")
    monkeypatch.setattr(
        "pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(InputError, match="No space left"):
        files.write_text(path, "new\n")
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]
    assert path.read_text() == "old\n"
