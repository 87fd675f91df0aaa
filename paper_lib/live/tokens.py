"""From text to tokens and back, without loss: what is crammed is the text that was given, byte for byte.

Tokens may end inside a character, so a text cut to a number of tokens is a string of bytes.
"""

import hashlib
import re
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ..errors import InputError
from .texts import Text

BYTE_OF = {letter: byte for byte, letter in bytes_to_unicode().items()}  # of byte-level tokens, such as GPT-2's
REPLACEMENT = "\ufffd"  # what bytes that make no character are decoded to


@dataclass(frozen=True)
class TextSample:
    """A text cut to ``len(ids)`` tokens; ``text_bytes`` and ``sha256`` are those of its bytes in UTF-8."""

    text_id: str
    cluster_id: str
    ids: tuple[int, ...]
    text_bytes: int
    sha256: str


def tokenize(text: Text, tokenizer: PreTrainedTokenizerBase, length: int | None, *, special_tokens: bool) -> TextSample:
    """Return the first ``length`` tokens of a text, None for all, with the tokenizer's special tokens if asked for.

    Names of special tokens in the text, such as "<s>", are ordinary characters. Raises InputError for a text that is
    too short, or that the tokenizer does not know or does not give back.
    """
    said = tokenizer.encode(text.text, add_special_tokens=False, split_special_tokens=True)
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in said:
        raise InputError(f"text {text.text_id} has characters that the tokenizer does not know; choose another source")
    ids = tokenizer.encode(text.text, add_special_tokens=special_tokens, split_special_tokens=True)[:length]
    if length and len(ids) < length:
        raise InputError(f"text {text.text_id} has {len(ids)} tokens, the sweep asks for {length}; shorten lengths")
    given, cut = text.text.encode(), decode_bytes(tokenizer, ids)
    if not given.startswith(cut) or (length is None and given != cut):
        raise InputError(_describe_loss(text, given, cut))
    return TextSample(text.text_id, text.cluster_id, tuple(ids), len(cut), hashlib.sha256(cut).hexdigest())


def decode_bytes(tokenizer: PreTrainedTokenizerBase, ids) -> bytes:
    """Return the bytes of tokens, special ones left out; the last character may lack some of its bytes."""
    ids = [int(token) for token in ids]
    end = next(end for end in range(len(ids), -1, -1) if not _decode(tokenizer, ids[:end]).endswith(REPLACEMENT))
    pieces = tokenizer.convert_ids_to_tokens(ids[end:])
    return _decode(tokenizer, ids[:end]).encode() + b"".join(map(_to_bytes, pieces))


def decode_characters(tokenizer: PreTrainedTokenizerBase, ids) -> str:
    """Return the whole characters of tokens; bytes that make none are left out, not replaced."""
    return decode_bytes(tokenizer, ids).decode(errors="ignore")


def _decode(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _to_bytes(token):
    # Of a token that is part of a character: one byte by its number, or byte-level letters.
    if match := re.fullmatch(r"<0x([0-9A-F]{2})>", token):
        return bytes([int(match[1], 16)])
    return bytes(BYTE_OF[letter] for letter in token if letter in BYTE_OF)


def _describe_loss(text, given, cut):
    place = next((i for i, (a, b) in enumerate(zip(given, cut, strict=False)) if a != b), min(len(given), len(cut)))
    there, here = (part[max(0, place - 8) : place + 12].decode(errors="ignore") for part in (given, cut))
    return (
        f"text {text.text_id}: the tokenizer gives back {here!r} where the text has {there!r}; "
        "write it as the tokenizer does, or choose another model"
    )
