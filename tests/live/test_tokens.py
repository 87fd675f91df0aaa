"""Tokens: the text that was given comes back byte for byte, or one line says why not."""

import copy
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from paper_lib.errors import InputError
from paper_lib.live import texts, tokens
from paper_lib.live.cram import cram
from paper_lib.live.load import load_lm


def test_tokens_are_cut_on_the_right_and_hashed(model):
    tokenizer = load_lm(model).tokenizer
    text = texts.Text("t", "t", "hello world")
    with_start = tokens.tokenize(text, tokenizer, 6, special_tokens=True)
    without = tokens.tokenize(text, tokenizer, 6, special_tokens=False)
    assert with_start.ids[0] == tokenizer.bos_token_id
    assert (with_start.text_bytes, without.text_bytes) == (5, 6)
    assert without.sha256 == hashlib.sha256(b"hello ").hexdigest()


def test_words_that_the_tokenizer_does_not_know_are_refused(settings):
    lm = load_lm(settings["model"]["name"])
    lm.tokenizer.unk_token = "a"
    with pytest.raises(InputError, match="does not know; choose another source"):
        tokens.tokenize(texts.Text("t", "t", "banana"), lm.tokenizer, 4, special_tokens=False)


@pytest.fixture(scope="module")
def tokenizer(model):
    return load_lm(model).tokenizer


def cut(tokenizer, text, length=None, special_tokens=False):
    return tokens.tokenize(texts.Text("t", "t", text), tokenizer, length, special_tokens=special_tokens)


@pytest.mark.parametrize("special_tokens", [True, False])
def test_the_name_of_a_special_token_in_a_text_is_ordinary_characters(tokenizer, special_tokens):
    text = "He wrote <s> here and then he said"
    sample = cut(tokenizer, text, special_tokens=special_tokens)
    assert sample.ids.count(tokenizer.bos_token_id) == special_tokens
    assert sample.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert tokens.decode_characters(tokenizer, sample.ids) == text
    assert tokens.decode_characters(tokenizer, cut(tokenizer, text, 10).ids) == "He wrote <"


def test_a_tokenizer_whose_unknown_token_is_its_start_token_is_no_obstacle(tokenizer):
    both = copy.deepcopy(tokenizer)
    both.unk_token = both.bos_token  # as OPT has it
    sample = cut(both, "a cat", special_tokens=True)
    assert sample.ids[0] == both.unk_token_id
    assert tokens.decode_characters(both, sample.ids) == "a cat"


def normalising_tokenizer(normalizer):
    words = Tokenizer(models.WordLevel({"a": 0, "cat": 1, "[UNK]": 2}, unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizer, pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a Cat", "gives back 'a cat' where the text has 'a Cat'"),
        ("a  cat", "gives back 'a cat' where the text has 'a  cat'"),
        (" a cat", "gives back 'a cat' where the text has ' a cat'"),
    ],
)
def test_a_text_that_the_tokenizer_changes_is_refused_with_the_place(text, says):
    with pytest.raises(InputError, match=f"text t: the tokenizer {says}; write it as the tokenizer does"):
        cut(normalising_tokenizer(normalizers.Lowercase()), text)
    assert cut(normalising_tokenizer(normalizers.Lowercase()), "a cat").text_bytes == 5


@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12), data=st.data())
def test_any_text_cut_anywhere_is_its_own_first_bytes(tokenizer, text, data):
    n_bytes = len(text.encode())  # one token each in the tiny tokenizer
    length = data.draw(st.integers(1, n_bytes))
    sample = cut(tokenizer, text, length)
    assert sample.text_bytes == length
    assert sample.sha256 == hashlib.sha256(text.encode()[:length]).hexdigest()
    shown = tokens.decode_characters(tokenizer, sample.ids)
    assert text.startswith(shown)
    assert len(text.encode()) - len(shown.encode()) - (n_bytes - length) < 4


def test_byte_fallback_tokens_are_bytes_too():
    vocab = {"▁a": 0, **{f"<0x{byte:02X}>": byte + 1 for byte in range(256)}}
    bpe = Tokenizer(models.BPE(vocab, [], byte_fallback=True))
    bpe.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("▁", " ")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe)
    ids = [0, *(byte + 1 for byte in "é😀".encode())]
    for n in range(1, len(ids) + 1):
        assert tokens.decode_bytes(tokenizer, ids[:n]) == " aé😀".encode()[: n + 1]


def test_an_emoji_cut_in_two_is_crammed_and_decoded_as_far_as_it_goes(model):
    memory = cram(["x😀", "x😀"], model=model, n_mem=2, recipe="published", lr=0.1, max_evaluations=300)[0]
    assert memory.text() in ("x😀", "x") or not memory.exact
    lm = load_lm(model)
    ids = cut(lm.tokenizer, "x😀", 3).ids
    assert (tokens.decode_bytes(lm.tokenizer, ids), tokens.decode_characters(lm.tokenizer, ids)) == (b"x\xf0\x9f", "x")
