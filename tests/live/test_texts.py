"""Text sources: the same texts again, distinct ones, and bad input in one line."""

import pandas as pd
import pytest

from paper_lib import config
from paper_lib.errors import InputError
from paper_lib.live import texts


def test_second_half_of_the_sentences():
    assert texts.second_half("One. Two is here! Is three? Four, Mr. Bell.") == "Is three? Four, Mr. Bell."


def test_long_texts_are_split_page_by_page_as_in_one_go():
    written = [f"Sentence {i} of Mr. Bell is {'quite ' * (i % 30)}here." for i in range(400)]
    assert len(" ".join(written)) > 4 * texts.PAGE_CHARACTERS
    assert texts.split_sentences(" ".join(written)) == written


def test_books_give_reproducible_chunks_that_know_their_book(tmp_path):
    for name in "ab":
        book = " ".join(f"Sentence {i} of book {name} is here." for i in range(3000))
        (tmp_path / f"{name}.txt").write_text(book)
    source = config.FolderTexts(source="folder", path=str(tmp_path), label="books", chunk_words=100)
    drawn = texts.draw_texts(source, 4, seed=0)
    assert drawn == texts.draw_texts(source, 4, seed=0) != texts.draw_texts(source, 4, seed=1)
    assert [text.cluster_id for text in drawn] == ["a", "b", "a", "b"]
    assert len({text.text_id for text in drawn}) == 4
    assert all(30 < len(text.text.split()) < 70 for text in drawn)


def test_words_are_drawn_independently_from_the_list(tmp_path):
    (tmp_path / "words.txt").write_text("red\ngreen\nblue\n")
    source = config.WordTexts(source="words", path=str(tmp_path / "words.txt"))
    one, two = texts.draw_texts(source, 2, seed=0)
    assert one.text != two.text
    share = pd.Series(one.text.split()).value_counts(normalize=True)
    assert share.between(0.3, 0.37).all()


def test_hub_source_reads_a_local_data_set(tmp_path):
    rows = pd.DataFrame({"body": ["One. Two. Three. Four.", "Five. Six."]})
    rows.to_parquet(tmp_path / "train.parquet")
    source = config.HubTexts(source="hub", path=str(tmp_path), column="body", label="local")
    assert [text.text for text in texts.draw_texts(source, 2, seed=0)] == ["Three. Four.", "Six."]


def test_no_more_texts_are_read_than_asked_for(monkeypatch):
    def endless(source, n_texts, seed):
        number = 0
        while True:
            yield texts.Text(str(number), "c", "a b c")
            number += 1
            assert number <= n_texts

    monkeypatch.setitem(texts.SOURCES, "strings", endless)
    assert len(texts.draw_texts(config.StringTexts(source="strings", texts=("x",)), 3, seed=0)) == 3


@pytest.mark.parametrize(
    "content", [("a.txt", "naïve".encode("latin-1")), ("a.txt.gz", b"no gzip")], ids=["latin-1", "gz"]
)
def test_a_book_that_cannot_be_read_is_named(tmp_path, content):
    name, raw = content
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(InputError, match=f"cannot read .*{name}: .*; give text in UTF-8"):
        texts.read_folder(tmp_path)


@pytest.mark.parametrize(
    ("content", "first"),
    [
        ("One sentence a line\n" + "".join(f"and line {n}\n" for n in range(400)), ("and", "line")),
        ("".join(f"第{n}句话在这里。" for n in range(400)), ("第",)),
        ("".join(f"Is it {n}? " for n in range(400)), ("Is",)),
    ],
    ids=["lines", "Chinese", "questions"],
)
def test_texts_without_english_full_stops_begin_at_their_sentences(tmp_path, content, first):
    (tmp_path / "a.txt").write_text(content, encoding="utf-8")
    source = config.FolderTexts(source="folder", path=str(tmp_path), label="x", chunk_words=10)
    drawn = texts.draw_texts(source, 8, seed=0)
    assert len({text.text_id for text in drawn}) == len({text.text for text in drawn}) == 8
    assert all(text.text.startswith(first) for text in drawn)


def test_a_folder_with_too_little_text_says_how_many_distinct_ones_it_has(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("One short line. Another. A third.")
    source = config.FolderTexts(source="folder", path=str(tmp_path), label="notes", chunk_words=10)
    with pytest.raises(InputError, match=r"source notes has \d texts, the sweep asks for 8; lower n_texts or add text"):
        texts.draw_texts(source, 8, seed=0)


def test_books_are_drawn_as_they_were_when_runs_were_frozen(tmp_path):
    book = " ".join(f"Sentence number {n} of this book ends here." for n in range(900))
    (tmp_path / "a.txt").write_text(book)
    source = config.FolderTexts(source="folder", path=str(tmp_path), label="x", chunk_words=100)
    drawn = texts.draw_texts(source, 4, seed=0)
    assert [text.text_id for text in drawn] == BOOKS_DRAWN
    assert all(text.text.startswith("Sentence number") for text in drawn)


BOOKS_DRAWN = ["a@33594", "a@31658", "a@21494", "a@5302"]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ({"text": ["One. Two.", None]}, "row 1: column text holds nothing, not text"),
        ({"text": [["One.", "Two."]]}, "row 0: column text holds a list, not text"),
        ({"body": ["One. Two."]}, "unknown column of .* 'text'.*choose from: body"),
    ],
)
def test_rows_that_hold_no_text_are_told_in_one_line(tmp_path, rows, says):
    pd.DataFrame(rows).to_json(tmp_path / "train.jsonl", orient="records", lines=True)
    source = config.HubTexts(source="hub", path=str(tmp_path), label="local")
    with pytest.raises(InputError, match=says) as error:
        texts.draw_texts(source, 2, seed=0)
    assert "\n" not in str(error.value)


def test_a_data_set_of_several_configurations_asks_for_one_and_takes_it(tmp_path):
    for name in ("one", "two"):
        pd.DataFrame({"text": [f"First of {name}. Second of {name}."]}).to_parquet(tmp_path / f"{name}.parquet")
    configs = "".join(f"- config_name: {n}\n  data_files: {n}.parquet\n" for n in ("one", "two"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    source = {"source": "hub", "path": str(tmp_path), "label": "local"}
    with pytest.raises(InputError, match="name one with `config:`") as error:
        texts.draw_texts(config.HubTexts(**source), 1, seed=0)
    assert "\n" not in str(error.value)
    (text,) = texts.draw_texts(config.HubTexts(**source, config="two"), 1, seed=0)
    assert text.text == "Second of two."
