"""What coders make of the texts that are crammed: general ones, and arithmetic coding with the language model itself.

The paper's Table 4 (appendix F). Every text is decoded back. Arithmetic coding asks the model for the probabilities of
the next token, and a decoder must get the very same numbers: both sides feed the model one token at a time, with the
same texts in one batch and in the precision of its weights, so each sum is added up in the same order. One wide forward
pass would be faster and give other last bits.
"""

import bz2
import lzma
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import constriction
import numpy as np
import pandas as pd
import torch
from dahuffman import HuffmanCodec
from pydantic import Field
from tqdm.auto import tqdm

from ..config import NAME, Model, Positive, Settings, Texts
from ..errors import InputError
from ..frozen import write_findings
from ..paths import DATA
from .lm import CACHES, FrozenLM
from .load import load_lm
from .texts import Text, draw_texts, read_folder
from .tokens import decode_bytes, tokenize

GENERAL: dict[str, tuple[Callable, Callable]] = {
    "zlib": (lambda data: zlib.compress(data, 9), zlib.decompress),
    "bz2": (bz2.compress, bz2.decompress),
    "lzma": (lzma.compress, lzma.decompress),
}
Categorical = constriction.stream.model.Categorical


class Coding(Settings):
    """Which texts to code: ``n_texts`` of each source, cut to each number of words, with one model.

    Huffman's code words are made for ``counted``, a folder of other texts, so that a decoder has them already.
    """

    name: str = Field(pattern=f"^{NAME}$")
    model: Model
    sources: tuple[Texts, ...] = Field(min_length=1)
    n_texts: Positive
    n_words: tuple[Positive, ...] = Field(min_length=1)
    counted: str
    seed: int = 0


def measure_coders(coding: Coding, data: Path = DATA) -> list[Path]:
    """Code all texts with all coders; write data/coders/<name>.parquet, a row for each text and coder.

    Columns: what the text is (``source``, ``cluster_id``, ``text_id``, ``n_words``, ``text_bytes``, ``n_tokens``,
    ``ce_lm_nats``), ``coder``, ``n_bits`` of its output, ``decoded`` (the identical text came back), ``model``.
    """
    lm = load_lm(**coding.model.model_dump())
    words = {
        (source.label, n): _cut(draw_texts(source, coding.n_texts, coding.seed), n)
        for source in coding.sources
        for n in coding.n_words
    }
    huffman = _make_huffman(lm, read_folder(coding.counted).values())
    rows = []
    for (label, n_words), texts in words.items():
        coded = _code_generally(texts) | _code_by_huffman(lm, huffman, texts)
        samples = [tokenize(text, lm.tokenizer, None, special_tokens=False) for text in texts]
        n_bits, nats, ids = code_with_model(lm, [sample.ids for sample in samples], f"{label}, {n_words} words")
        back = [decode_bytes(lm.tokenizer, said) == text.text.encode() for said, text in zip(ids, texts, strict=True)]
        coded["arithmetic"] = list(zip(n_bits, back, strict=True))
        for coder, results in coded.items():
            for sample, loss, (bits, decoded) in zip(samples, nats, results, strict=True):
                rows.append(
                    {"source": label, "cluster_id": sample.cluster_id, "text_id": sample.text_id, "n_words": n_words}
                    | {"text_bytes": sample.text_bytes, "n_tokens": len(sample.ids), "ce_lm_nats": loss}
                    | {"coder": coder, "n_bits": bits, "decoded": decoded, "model": coding.model.name}
                )
    return [write_findings("coders", coding.name, pd.DataFrame(rows), data)]


def code_with_model(
    lm: FrozenLM, texts: Sequence[Sequence[int]], name: str = ""
) -> tuple[list[int], list[float], list[list[int]]]:
    """Arithmetic-code texts, given as tokens, with the model; decode them again.

    Returns, for each text, the bits of its code (whole words of 32), its cross-entropy in nats under the probabilities
    used, after the model's start token, and the tokens that came back. How long a text is is not in its code.
    """
    coders = [constriction.stream.queue.RangeEncoder() for _ in texts]
    lengths, nats = [len(ids) for ids in texts], [0.0] * len(texts)

    def write(row, place, probabilities):
        token = texts[row][place]
        coders[row].encode(token, Categorical(probabilities, perfect=False))
        nats[row] -= float(np.log(probabilities[token]))
        return token

    _walk(lm, lengths, write, f"{name}: coding")
    words = [coder.get_compressed() for coder in coders]
    decoders, back = [constriction.stream.queue.RangeDecoder(code) for code in words], [[] for _ in texts]

    def read(row, place, probabilities):
        back[row].append(int(decoders[row].decode(Categorical(probabilities, perfect=False))))
        return back[row][-1]

    _walk(lm, lengths, read, f"{name}: decoding")
    return [32 * len(code) for code in words], nats, back


@torch.no_grad()
def _walk(lm, lengths, visit, name):
    # Through all texts, a token of each at a time; ``visit`` says which it is, given the model's probabilities.
    if lm.start_id is None:
        raise InputError("the model has neither BOS nor EOS to start a text; choose another")
    if max(lengths) > lm.context_tokens:
        raise InputError(
            f"a text has {max(lengths)} tokens, the model's context is {lm.context_tokens:.0f}; lower n_words"
        )
    lm = lm.without_autocast()
    tokens, past = [lm.start_id] * len(lengths), {}
    for place in tqdm(range(max(lengths)), desc=name, unit="token", leave=False):
        ids = torch.tensor(tokens, device=lm.device).unsqueeze(1)
        output = lm.model(inputs_embeds=lm.embed(ids), use_cache=True, **past)
        past = {kept: output[kept] for kept in CACHES if output.get(kept) is not None}
        probabilities = output.logits[:, -1].float().softmax(-1).cpu().numpy()
        for row, length in enumerate(lengths):
            tokens[row] = visit(row, place, probabilities[row]) if place < length else lm.start_id


# --- coders that know no model -------------------------------------------------------------------------------------


def _cut(texts: list[Text], n_words: int) -> list[Text]:
    cut = []
    for text in texts:
        words = text.text.split()
        if len(words) < n_words:
            raise InputError(f"text {text.text_id} has {len(words)} of {n_words} words; raise its chunk_words")
        cut.append(Text(text.text_id, text.cluster_id, " ".join(words[:n_words])))
    return cut


def _code_generally(texts):
    raw = [text.text.encode() for text in texts]
    return {
        name: [(8 * len(code), decompress(code) == data) for data in raw for code in [compress(data)]]
        for name, (compress, decompress) in GENERAL.items()
    }


def _name_symbols(lm):
    def to_tokens(text):
        return lm.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    return {"huffman, bytes": (lambda text: [*text.encode()], 256), "huffman, tokens": (to_tokens, lm.vocab_size)}


def _make_huffman(lm, texts) -> dict[str, HuffmanCodec]:
    # Each symbol is counted once more than it occurs, so that every text can be coded.
    symbols = _name_symbols(lm)
    counts = {name: Counter(range(n_symbols)) for name, (_, n_symbols) in symbols.items()}
    for text in tqdm(texts, desc="counting", unit="text", leave=False):
        for name, (split, _) in symbols.items():
            counts[name].update(split(text))
    return {name: HuffmanCodec.from_frequencies(count) for name, count in counts.items()}


def _code_by_huffman(lm, codecs, texts):
    symbols, coded = _name_symbols(lm), {}
    for name, codec in codecs.items():
        said = [symbols[name][0](text.text) for text in texts]
        codes = [codec.encode(text) for text in said]
        coded[name] = [(8 * len(code), codec.decode(code) == text) for code, text in zip(codes, said, strict=True)]
    return coded
