"""Sweep files: every wrong one is told in one line, whatever the locale."""

import os
import subprocess
import sys

import pytest

from paper_lib import config
from paper_lib.errors import InputError
from paper_lib.paths import ROOT


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "is missing; give the path of a sweep"),
        ("a: [", "line 1: not YAML"),
        ("- a", "not a list of"),
        ("{}", "name is missing"),
    ],
)
def test_bad_sweep_files_are_told_in_one_line(tmp_path, content, says):
    path = tmp_path / "sweep.yml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=says) as error:
        config.load_sweep(path)
    assert "\n" not in str(error.value)


SWEEP = "name: café\nmodel: {name: m}\ntexts: {source: strings, texts: [naïve]}\nlengths: [2]\n".replace("café", "cafe")


@pytest.mark.parametrize("locale", ["C", "POSIX", "de_DE.ISO-8859-1"])
def test_a_sweep_file_is_utf8_whatever_the_locale(tmp_path, locale):
    path = tmp_path / "sweep.yml"
    path.write_bytes(SWEEP.encode())
    code = "import sys; from paper_lib.config import load_sweep; print(ascii(load_sweep(sys.argv[1]).texts.texts[0]))"
    environment = os.environ | {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code, str(path)]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == "'na\\xefve'\n"


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_sweep_file_in_another_encoding_is_told_in_one_line(tmp_path, encoding):
    path = tmp_path / "sweep.yml"
    path.write_bytes(SWEEP.encode(encoding))
    with pytest.raises(InputError, match=r"sweep\.yml is not in UTF-8; save it in that encoding"):
        config.load_sweep(path)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (tmp_path / "sweep.yml").write_bytes(SWEEP.encode("utf-8-sig"))
    assert config.load_sweep(tmp_path / "sweep.yml").name == "cafe"
