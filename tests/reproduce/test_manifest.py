"""The data's hashes: a change of any one character is noticed and named, when read and when verified."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paper_lib.errors import InputError
from paper_lib.paths import DATA
from paper_lib.reproduce import manifest


@pytest.fixture
def data(tmp_path):
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "a.csv").write_text("x\n12\n")
    (tmp_path / "b.csv").write_text("y\n3\n")
    manifest.write_manifest(tmp_path)
    return tmp_path


def test_the_repositorys_data_match():
    assert manifest.check_manifest(DATA) == []


def test_manifest_is_what_sha256sum_writes(data):
    subprocess.run(["sha256sum", "--check", "--strict", manifest.MANIFEST_NAME], cwd=data, check=True)


@pytest.mark.parametrize("name", ["published/a.csv", "b.csv"])
def test_one_flipped_digit_is_named(data, name):
    path = data / name
    path.write_text(path.read_text().replace("3", "4").replace("12", "13"))
    (problem,) = manifest.check_manifest(data)
    assert name in problem
    assert "do not match" in problem
    with pytest.raises(
        InputError, match=f"{name} and its hash in MANIFEST.sha256 do not match; restore it with `git checkout"
    ):
        manifest.read_bytes(path, data)


def test_missing_and_unlisted_files_are_named(data):
    (data / "b.csv").unlink()
    (data / "c.csv").write_text("z\n")
    problems = manifest.check_manifest(data)
    assert any("b.csv is missing" in problem for problem in problems)
    assert any("c.csv is not listed" in problem for problem in problems)
    with pytest.raises(InputError, match=r"b\.csv is missing; restore"):
        manifest.read_csv(data / "b.csv", data)
    with pytest.raises(InputError, match=r"c\.csv is not listed"):
        manifest.read_csv(data / "c.csv", data)


def test_checkpoints_of_an_editor_are_no_data(data):
    for folder in (data / ".ipynb_checkpoints", data / "published" / ".ipynb_checkpoints"):
        folder.mkdir()
        (folder / "a-checkpoint.csv").write_text("x\n12\n")
    assert manifest.check_manifest(data) == []


def test_a_file_may_have_blanks_and_brackets_in_its_name(data):
    path = data / "notes (draft) [2].csv"
    path.write_text("z\n1\n")
    assert any(f"{path.name} is not listed" in problem for problem in manifest.check_manifest(data))
    manifest.write_manifest(data)
    assert manifest.check_manifest(data) == []
    assert list(manifest.read_csv(path, data)["z"]) == [1]


@settings(max_examples=60)
@given(position=st.floats(0, 1, exclude_max=True), digit=st.sampled_from("0123456789abcdef"))
def test_any_changed_character_of_the_manifest_is_noticed(tmp_path_factory, position, digit):
    data = tmp_path_factory.mktemp("data")
    (data / "a.csv").write_text("x\n1\n")
    path = manifest.write_manifest(data)
    text = path.read_text().rstrip("\n")
    place = int(position * len(text))
    if text[place] == digit:
        return
    path.write_text(text[:place] + digit + text[place + 1 :] + "\n")
    try:
        problems = manifest.check_manifest(data)
    except InputError as error:
        problems = [str(error)]
    assert any("a.csv" in problem or "not a `sha256  path` line" in problem for problem in problems)


def test_lost_manifest_is_named(data):
    (data / manifest.MANIFEST_NAME).unlink()
    with pytest.raises(InputError, match=r"MANIFEST\.sha256 is missing; restore it"):
        manifest.check_manifest(data)


def test_two_writers_leave_one_whole_manifest(data):
    code = "import sys; from pathlib import Path; from paper_lib.reproduce.manifest import write_manifest\n"
    code += "for _ in range(50): write_manifest(Path(sys.argv[1]))"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(data)]) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert manifest.check_manifest(data) == []
