"""Text sources: from a sweep's settings to texts, each with the place it came from.

The paper's rule for books: take a chunk of consecutive sentences, keep the second half of them (the first is left as
natural context), join with spaces, tokenise with the protocol's special tokens, cut on the right. Random text is words
drawn independently from a list. A source of your own is a function from (settings, n_texts, seed) to ``Text`` objects,
entered in ``SOURCES``.
"""

import gzip
import itertools
import os
import random
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pysbd

from ..errors import InputError, first_sentence, unknown_name


@dataclass(frozen=True)
class Text:
    """A text before tokenisation. ``cluster_id`` names what it shares with others (its book), for the bootstrap."""

    text_id: str
    cluster_id: str
    text: str


def read_folder(folder: str | Path) -> dict[str, str]:
    """Return the texts of a folder's .txt and .txt.gz files by name, sorted; raise InputError when there is none."""
    paths = sorted(p for p in Path(folder).expanduser().glob("*") if p.name.endswith((".txt", ".txt.gz")))
    if not paths:
        raise InputError(f"{folder}: no .txt or .txt.gz file there; give a folder of text")
    return {path.name.removesuffix(".gz").removesuffix(".txt"): _read(path) for path in paths}


def draw_texts(settings, n_texts: int, seed: int) -> list[Text]:
    """Return ``n_texts`` texts of a source (see config.Texts); InputError when the source has fewer."""
    if settings.source not in SOURCES:
        raise unknown_name("text source", settings.source, SOURCES)
    texts = list(itertools.islice(SOURCES[settings.source](settings, n_texts, seed), n_texts))
    if len(texts) < n_texts:
        raise InputError(
            f"source {settings.label} has {len(texts)} texts, the sweep asks for {n_texts}; lower n_texts or add text"
        )
    return texts


# --- sources -------------------------------------------------------------------------------------------------------


def _from_folder(settings, n_texts, seed) -> Iterator[Text]:
    # Round after round one chunk of each book; one that was drawn before is passed over.
    books, drawn = read_folder(settings.path), set()
    for round_number in range(ROUNDS * -(-n_texts // len(books))):
        for name, book in books.items():
            start, chunk = _draw_chunk(book, settings.chunk_words, random.Random(f"{seed} {name} {round_number}"))
            text = second_half(chunk)
            if text and (name, text) not in drawn:
                drawn.add((name, text))
                yield Text(f"{name}@{start}", name, text)


def _from_hub(settings, n_texts, seed) -> Iterator[Text]:
    import datasets

    try:  # as a stream, so that a large set is read no further than asked for
        path = os.path.expanduser(settings.path)
        rows = datasets.load_dataset(path, settings.config, split=settings.split, streaming=True)
        for number, row in enumerate(rows):
            yield from _read_row(settings, number, row)
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        hint = "; name one with `config:`" if "Config name is missing" in str(error) else ""
        raise InputError(f"cannot load data set {settings.path}: {first_sentence(error)}{hint}") from None


def _read_row(settings, number, row):
    if settings.column not in row:
        raise unknown_name(f"column of {settings.path}", settings.column, row)
    content = row[settings.column]
    if not isinstance(content, str):
        what = "nothing" if content is None else f"a {type(content).__name__}"
        raise InputError(
            f"{settings.path}, row {number}: column {settings.column} holds {what}, not text; "
            "choose another column, or remove such rows"
        )
    text = " ".join(content.split())
    if text := second_half(text) if settings.halve else text:
        yield Text(f"{settings.label}-{number}", str(number), text)


def _from_words(settings, n_texts, seed) -> Iterator[Text]:
    path = Path(settings.path).expanduser()
    if not path.is_file():
        raise InputError(f"{path} is missing; give a list of words, one a line")
    words = _read(path).split()
    if not words:
        raise InputError(f"{path} has no words; give a list of words, one a line")
    for number in range(n_texts):
        draw = random.Random(f"{seed} {number}")
        text_id = f"{settings.label}-{seed}-{number}"
        yield Text(text_id, text_id, " ".join(draw.choices(words, k=WORDS_DRAWN)))


def _from_strings(settings, n_texts, seed) -> Iterator[Text]:
    for number, text in enumerate(settings.texts):
        if not text:
            raise InputError(f"texts.texts.{number} is empty; write a text or remove it")
        yield Text(f"{settings.label}-{number}", f"{settings.label}-{number}", text)


PAGE_CHARACTERS = 5000
ROUNDS = 4  # of drawing from each book, as many as would do if no chunk came twice
SENTENCE_END = re.compile(r"[.!?…。！？؟।][\"'»”’）)]*\s*|\n+")
WORDS_DRAWN = 5000  # more than any length that the sweeps ask for; what is cut off costs nothing

SOURCES: dict[str, Callable] = {
    "folder": _from_folder,
    "hub": _from_hub,
    "words": _from_words,
    "strings": _from_strings,
}


def second_half(chunk: str) -> str:
    """Return the second half of a chunk's sentences, joined with spaces (the middle one goes to the second half)."""
    sentences = split_sentences(chunk)
    return " ".join(sentences[len(sentences) // 2 :])


def split_sentences(text: str) -> list[str]:
    """Return the sentences of an English text, without the white space around them."""
    segmenter, sentences, rest = pysbd.Segmenter(language="en", clean=False), [], ""
    # The splitter's time grows with the square of its input, so it gets one page at a time, the last sentence, which
    # may go on over the page, again with the next.
    for start in range(0, len(text), PAGE_CHARACTERS):
        *whole, rest = segmenter.segment(rest + text[start : start + PAGE_CHARACTERS]) or [""]
        sentences += whole
    return [sentence.strip() for sentence in [*sentences, rest] if sentence.strip()]


def _draw_chunk(book, n_words, draw):
    # A chunk begins at the first sentence end after a random place, and white space is normalised, as in the paper.
    place = draw.randrange(max(1, len(book) - 8 * n_words))
    start = _find_sentence(book, place)
    return start, " ".join(book[start : start + 12 * n_words].split()[:n_words])


def _find_sentence(book, place):
    # Without ". " in the rest of the book, any end of a sentence will do, then any line, then the book's beginning.
    if (end := book.find(". ", place)) >= 0:
        return end + 2
    ends = [match.end() for match in SENTENCE_END.finditer(book) if match.end() < len(book)]
    return next((end for end in ends if end > place), max(ends, default=0))


def _read(path):
    try:
        return (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
    except (UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}; give text in UTF-8, plain or gzipped") from None
