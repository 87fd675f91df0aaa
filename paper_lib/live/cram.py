"""One call: a text into vectors, and back."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from ..capacity import nats_to_bits
from ..config import Sweep, describe
from ..errors import InputError
from ..frozen import load_frozen_cases
from ..models import default_model
from ..paths import BUILD
from ..storage import find_storage
from ..store import find_stored, read_case, write_case
from .cases import make_case
from .finders import Optimise
from .lm import FrozenLM
from .load import load_lm, load_same
from .proofs import decode_text
from .protocols import find_protocol
from .records import make_records
from .rows import Case, as_array, make_recipe
from .sinks import AUTO, choose_protocol
from .texts import draw_texts
from .tokens import tokenize

load_once = functools.cache(load_lm)


@dataclass(frozen=True)
class Memory:
    """A text in vectors: ``vectors`` (n_mem, d_embed) as they are stored, and the ``record`` of how they were found.

    ``record`` has the columns of a sweep's records.
    """

    vectors: np.ndarray
    record: dict = field(repr=False)
    lm: FrozenLM = field(repr=False)

    def text(self) -> str:
        """Return the text that the vectors decode to, freely."""
        return decode_text(self.lm, self.record, self.vectors)

    @property
    def exact(self) -> bool:
        """Whether free decoding returns the text, by every rung of the ladder."""
        return self.record["exact"]

    @property
    def ladder(self) -> dict:
        """How exact the vectors are, rung by rung (see ``proofs.climb_ladder``)."""
        names = ("tf_accuracy", "tf_exact", "first_error_position", "min_logit_margin", "exact", "exact_length_tokens")
        return {n: value for n, value in self.record.items() if n in names or n.startswith("greedy_exact_")}

    @property
    def bits(self) -> float:
        """The information that the vectors give: how many bits shorter the text is under the model with them."""
        return nats_to_bits(self.record["ce_lm_nats"] - self.record["ce_mem_nats"])

    def save(self, path: str | Path) -> Path:
        """Write vectors and record as one safetensors file, which ``decode`` reads."""
        write_case(Path(path), self.record, self.vectors)
        return Path(path)


def cram(
    text: str | Sequence[str],
    *,
    model: str | FrozenLM | None = None,
    n_mem: int | None = 1,
    recipe: str = "fast",
    protocol: str = AUTO,
    lr: float | None = None,
    max_evaluations: int = 400,
    storage: str = "float16",
    device: str | None = None,
    seed: int = 0,
    on_step: Callable[[dict[str, Tensor]], None] = lambda now: None,
) -> Memory | list[Memory]:
    """Cram a text into ``n_mem`` vectors of a frozen model; a list of texts goes in one batch and comes back as a list.

    ``model`` is a hub id, a folder in the hub's format, a GGUF file, a fetched or a loaded model; by default
    SmolLM2-135M if it is fetched, else the small one that ships. With ``n_mem`` None vectors are doubled, up to 16,
    until every text is exact. ``recipe`` is one of config.RECIPES, ``lr`` its learning rate where another one is
    wanted, ``max_evaluations`` how often a text goes forward and backward through the model; ``protocol``, ``storage``
    and ``seed`` are those of a sweep, and ``on_step`` sees what each evaluation measured (see ``measure.measure``).
    Raises InputError for an empty text, one that is too long for the model, or one that its tokenizer does not give
    back.
    """
    texts = [text] if isinstance(text, str) else list(text)
    if not texts or not all(texts):
        raise InputError("one of the texts is empty; give at least one character")
    device, model = device or ("cuda" if torch.cuda.is_available() else "cpu"), model or default_model()
    optimiser = {"max_steps": max_evaluations} | ({} if lr is None else {"lr": lr})
    sweep = _make_sweep(
        texts, model, recipe=recipe, protocols=(protocol,), optimiser=optimiser, storage=storage, seed=seed
    )
    lm = load_once(model, device=device) if isinstance(model, str) else model
    protocol = find_protocol(choose_protocol(protocol, lm))
    for n_vectors in (n_mem,) if n_mem else (1, 2, 4, 8, 16):
        memories = _cram_together(sweep, lm, n_vectors, protocol, on_step)
        if all(memory.exact for memory in memories):
            break
    return memories[0] if isinstance(text, str) else memories


def decode(path: str | Path, key: str | None = None) -> str | dict[str, str]:
    """Return the text that a file's vectors decode to with the model of its record.

    ``path`` is a file that ``Memory.save`` or a sweep wrote, or the name of a sweep that has run, with a ``key``; of a
    frozen file with many cases (data/vectors) the result is a text by key, or the one whose key begins with ``key``.
    Raises InputError for a damaged file, other weights than those the vectors were found with, or a key that is not
    one.
    """
    path = Path(path)
    if key and (BUILD / "runs" / path).is_dir():
        path = find_stored(path.name, key)
    if not path.is_file():
        raise InputError(f"{path} is missing; give a .safetensors file that cram, run or freeze wrote")
    frozen = load_frozen_cases(path)
    if frozen is None:
        record, vectors = read_case(path, "give a .safetensors file that cram, run or freeze wrote")
        return decode_text(load_same(record, load_once), record, vectors)
    chosen = {name: case for name, case in frozen.items() if name.startswith(key or "")}
    if key and len(chosen) != 1:
        raise InputError(f"{len(chosen)} cases of {path} start with {key!r}; give more characters of one key")
    texts = {name: decode_text(load_same(record, load_once), record, v) for name, (record, v) in chosen.items()}
    return texts[min(texts)] if key else texts


def _make_sweep(texts, model, **settings):
    name = model if isinstance(model, str) else model.model.name_or_path
    source = {"source": "strings", "texts": texts}
    try:
        return Sweep(name="cram", model={"name": name}, texts=source, n_texts=len(texts), lengths=(1,), **settings)
    except ValidationError as error:
        raise InputError(describe(error)) from None


def _cram_together(sweep, lm, n_mem, protocol, on_step):
    # All texts in one batch, each whole; what is measured finally goes by length.
    samples = [
        tokenize(text, lm.tokenizer, None, special_tokens=protocol.special_tokens)
        for text in draw_texts(sweep.texts, sweep.n_texts, 0)
    ]
    for sample in samples:
        protocol.check(lm, len(sample.ids), n_mem)
    cases = [make_case(sweep, lm, protocol, n_mem, sample) for sample in samples]
    runnable = [Case(case.key, torch.tensor(case.sample.ids), n_mem) for case in cases]
    finished = chain.from_iterable(
        Optimise().find(lm, protocol, runnable, make_recipe(cases[0].config), on_step=on_step)
    )
    by_key = {result.case.key: result for result in finished}
    return [_remember(sweep, lm, protocol, case, by_key[case.key]) for case in cases]


def _remember(sweep, lm, protocol, case, result):
    (record,) = make_records(sweep, lm, protocol, [case], [result])
    return Memory(as_array(result.vectors, find_storage(sweep.storage)), record, lm)
