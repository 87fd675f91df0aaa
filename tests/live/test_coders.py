"""Coding with the model against the cross-entropy of one wide forward; all texts come back; bad input in one line."""

import math

import pytest
import torch
import yaml
from tiny import CONFIGS, VOCAB_SIZE, make_lm

from paper_lib.config import load_sweep
from paper_lib.errors import InputError
from paper_lib.frozen import load_findings
from paper_lib.live.coders import Coding, code_with_model, measure_coders
from paper_lib.live.measure import measure
from paper_lib.live.protocols import find_protocol

TEXT = "It was the best of times, it was the worst of times, said the old man to his dog, and went out. "
OVERHEAD_BITS = 64  # of a range coder: its last two words


@pytest.mark.parametrize("architecture", CONFIGS)
def test_texts_come_back_and_take_their_cross_entropy(architecture):
    lm, draw = make_lm(architecture), torch.Generator().manual_seed(0)
    texts = [torch.randint(VOCAB_SIZE, (n,), generator=draw).tolist() for n in (5, 1, 60)]
    n_bits, nats, back = code_with_model(lm, texts)
    assert back == texts
    for text, bits, loss in zip(texts, n_bits, nats, strict=True):
        wide = measure(lm, find_protocol("strict"), None, torch.tensor([text]))["ce_nats"].item()
        assert loss == pytest.approx(wide, rel=1e-4)
        assert wide / math.log(2) - 1 <= bits <= 1.01 * wide / math.log(2) + OVERHEAD_BITS


def test_a_text_longer_than_the_context_is_refused_in_one_line():
    with pytest.raises(InputError, match="65 tokens, the model's context is 64; lower n_words"):
        code_with_model(make_lm("llama"), [[1] * 65])


@pytest.fixture
def coding(tmp_path):
    for folder in ("told", "counted"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text(60 * TEXT)
    return {
        "name": "some",
        "model": {"name": "data/models/novels-5m"},
        "sources": [{"source": "folder", "path": str(tmp_path / "told"), "label": "told", "chunk_words": 200}],
        "n_texts": 1,
        "n_words": [8, 40],
        "counted": str(tmp_path / "counted"),
    }


@pytest.mark.slow
def test_every_coder_gives_the_text_back_and_longer_texts_take_more_bits(coding, tmp_path):
    (tmp_path / "coding.yml").write_text(yaml.safe_dump(coding))
    measure_coders(load_sweep(tmp_path / "coding.yml", Coding), tmp_path / "data")
    found = load_findings("coders", tmp_path / "data")
    assert set(found["coder"]) == {"zlib", "bz2", "lzma", "huffman, bytes", "huffman, tokens", "arithmetic"}
    assert found["decoded"].all()
    bits = found.pivot(index="coder", columns="n_words", values="n_bits")
    assert (bits[40] > bits[8]).all()
    assert bits.loc["arithmetic", 40] < bits.loc["huffman, tokens", 40] < bits.loc["zlib", 40]


def test_texts_with_too_few_words_and_unknown_keys_are_refused_in_one_line(coding, tmp_path):
    with pytest.raises(InputError, match="of 900 words; raise its chunk_words"):
        measure_coders(Coding(**coding | {"n_words": [900]}), tmp_path / "data")
    (tmp_path / "coding.yml").write_text(yaml.safe_dump(coding | {"n_word": 3}))
    with pytest.raises(InputError, match="unknown key n_word, did you mean 'n_words'"):
        load_sweep(tmp_path / "coding.yml", Coding)
