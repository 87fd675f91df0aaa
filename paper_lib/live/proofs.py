"""How exact a vector is, climbed rung by rung; and the proofs that what is stored and frozen still is."""

import functools
import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..config import hash_ids
from ..frozen import list_kept, load_runs, load_vectors
from ..models import is_fetched
from ..paths import DATA
from ..store import Store
from .goals import SAFE_MARGIN
from .lm import FrozenLM
from .load import load_lm, load_same
from .measure import measure
from .protocols import Protocol, find_protocol
from .tokens import decode_bytes, decode_characters

N_DECODED = 32  # texts at a time
FULL_PRECISION = (torch.float32, torch.float64)


class Claim(NamedTuple):
    """A frozen record that says what its vectors decode to."""

    sweep: str
    record: dict
    vectors: np.ndarray


def climb_ladder(
    lm: FrozenLM,
    protocol: Protocol,
    vectors: Float[Tensor, "case row width"],
    ids: Int[Tensor, "case pos"],
    n_active: list[int] | None = None,
) -> list[dict]:
    """Return how exact each vector is: teacher forcing, free decoding in every way the protocol has, margin.

    Free decoding is tried only where teacher forcing is exact, without which it cannot be. ``exact`` asks for all of
    them and for a margin of 1e-3 in logits, computed in fp32 or better: autocast is off here, and of a model with
    weights of lower precision nothing is ever called exact. ``exact_length_tokens`` is the length of the text that is
    exact: all of it, or, of a vector that is for the first ``n_active`` targets only, these and the given tokens; or 0.
    """
    lm, length = lm.without_autocast(), ids.shape[1]
    vectors, ids = vectors.to(lm.device), ids.to(lm.device)
    with torch.no_grad():
        measured = {name: values.tolist() for name, values in measure(lm, protocol, vectors, ids).items()}
    free = _decode_freely(lm, protocol, vectors, ids, measured["all_correct"])
    rungs = [
        {
            "tf_accuracy": measured["n_correct"][row] / protocol.n_targets(length),
            "tf_exact": tf_exact,
            **{f"greedy_exact_{how}": right[row] for how, right in free.items()},
            "first_error_position": None if tf_exact else measured["first_error"][row] + protocol.n_given,
            "min_logit_margin": measured["margin"][row],
            "exact": all(right[row] for right in free.values())
            and measured["margin"][row] >= SAFE_MARGIN
            and lm.dtype in FULL_PRECISION,
            "ladder_device": lm.device.type,
        }
        for row, tf_exact in enumerate(measured["all_correct"])
    ]
    lengths = [length if n is None else protocol.n_given + n for n in n_active or [None] * len(rungs)]
    return [
        rung | {"exact_length_tokens": length if rung["exact"] else _prove_start(lm, protocol, vectors, ids, row, part)}
        for row, (rung, part) in enumerate(zip(rungs, lengths, strict=True))
    ]


def decode_text(lm: FrozenLM, record: dict, vectors: np.ndarray) -> str:
    """Return the text that a stored vector decodes to, freely, from what its record says decoding is given."""
    return decode_characters(lm.tokenizer, _decode_ids(lm, record, vectors))


def prove_on_cpu(store: Store, report: Callable[[str], None] = print) -> None:
    """Measure again, on this CPU, every stored case that was found exact elsewhere, and correct its record.

    The text need not be at hand: the vectors decode to it. Where they do not here, the case is no longer exact, and its
    other rungs, which nobody can climb without the text, are unknown.
    """
    load = functools.cache(load_lm)
    for key in store:
        record, vectors = store.get(key)
        if not record["exact_length_tokens"] or record["ladder_device"] == "cpu":
            continue
        lm, protocol = load_same(record, load), find_protocol(record["protocol"])
        ids = _decode_ids(lm, record, vectors)
        if hash_ids(ids) == record["exact_ids_sha256"]:
            inputs = torch.from_numpy(vectors).float().unsqueeze(0)
            ladder = climb_ladder(lm, protocol, inputs, ids.unsqueeze(0))[0]
            whole = len(ids) == record["length"]
            record |= ladder if whole else {name: ladder[name] for name in ("exact_length_tokens", "ladder_device")}
        else:
            unknown = ["tf_accuracy", "tf_exact", "first_error_position", "min_logit_margin"]
            unknown += [f"greedy_exact_{how}" for how in protocol.decodings]
            record |= dict.fromkeys(unknown) | {"exact": False, "exact_length_tokens": 0, "ladder_device": "cpu"}
        if not record["exact_length_tokens"]:
            report(f"{key}: exact on {record['device']}, not on this CPU")
        store.put(record, vectors)


def check_vectors(data: Path = DATA, report: Callable[[str], None] = print) -> list[str]:
    """Decode every frozen vector and compare the text's hash with its record's; return one line per disagreement.

    The vectors of a sweep are those of each text's longest exact length, or of all its cases, as it was frozen; all of
    them must be there, and no others. Those of a real model that is not fetched cannot be decoded, which is reported
    and is no disagreement.
    """
    runs, wrong, claims, missing = load_runs(data), {}, [], {}
    for sweep, group in runs.groupby("sweep") if len(runs) else ():
        vectors, records = load_vectors(sweep, data), group.set_index("key", drop=False)
        wrong[sweep] = []
        if set(vectors) != list_kept(group, sweep, data):
            wrong[sweep].append(f"data/vectors/{sweep}.safetensors does not hold the vectors that its records ask for")
        missing[sweep] = sorted(name for name in records["model"].unique() if not is_fetched(name))
        exact = records.index[(records["exact_length_tokens"] > 0) & ~records["model"].isin(missing[sweep])]
        claims += [Claim(sweep, records.loc[key].to_dict(), vectors[key]) for key in exact if key in vectors]
    for claim, right in _check_claims(claims, report):
        if not right:
            place = f"data/vectors/{claim.sweep}.safetensors"
            wrong[claim.sweep].append(f"{place}: {claim.record['key']} does not decode to its text")
    n_decoded = Counter(claim.sweep for claim in claims)
    for sweep, problems in wrong.items():
        report(f"vectors: {sweep}: {n_decoded[sweep]} decoded, {len(problems)} problems")
        for name in missing[sweep]:
            report(f"vectors: {sweep}: {name} is not fetched (python -m paper_lib fetch {name}), so not decoded")
    return list(itertools.chain.from_iterable(wrong.values()))


def decode_together(
    lm: FrozenLM, records: list[dict], vectors: list[np.ndarray], *, how: str | None = None
) -> list[Tensor]:
    """Return the tokens that the vectors of each record decode to; ``how``: by default the protocol's last way.

    All are decoded as far as the longest; what follows a text's end is cut off. Records of one protocol.
    """
    protocol = find_protocol(records[0]["protocol"])
    given = torch.tensor([list(record["given_ids"]) for record in records], dtype=torch.long, device=lm.device)
    inputs, lengths = torch.from_numpy(np.stack(vectors)).to(lm.device), [_decoded_length(r) for r in records]
    texts = protocol.decode(lm, inputs, given.view(len(records), -1), max(lengths), how=how or protocol.decodings[-1])
    return [ids[:length] for ids, length in zip(texts, lengths, strict=True)]


def is_its_text(lm: FrozenLM, record: dict, ids: Tensor) -> bool:
    """Return whether decoded tokens are those that a record says are exact, and the text that they spell its own."""
    if hash_ids(ids) != record["exact_ids_sha256"]:
        return False
    said = hashlib.sha256(decode_bytes(lm.tokenizer, ids)).hexdigest()
    return len(ids) < record["length"] or said == record["text_sha256"]


def _decode_freely(lm, protocol, vectors, ids, tried):
    # By way of decoding, which rows come back whole.
    rows = [row for row, try_it in enumerate(tried) if try_it]
    free = {how: [False] * len(ids) for how in protocol.decodings}
    for how in free if rows else ():
        texts = protocol.decode(lm, vectors[rows], ids[rows, : protocol.n_given], ids.shape[1], how=how)
        for row, same in zip(rows, (texts == ids[rows]).all(dim=1).tolist(), strict=True):
            free[how][row] = same
    return free


def _prove_start(lm, protocol, vectors, ids, row, length):
    # How long a beginning of the text is exact, given that the whole is not.
    if length == ids.shape[1]:
        return 0
    one = slice(row, row + 1)
    return climb_ladder(lm, protocol, vectors[one], ids[one, :length])[0]["exact_length_tokens"]


def _check_claims(claims, report):
    # Each claim and whether its vectors decode to its text: those of one model and kind many at a time, of all sweeps.
    load, groups = functools.cache(load_lm), defaultdict(list)
    for claim in claims:
        record = claim.record
        length = None if find_protocol(record["protocol"]).extends else _decoded_length(record)
        groups[record["weights"], record["dtype"], record["protocol"], claim.vectors.shape, length].append(claim)
    for group in groups.values():
        record = group[0].record
        report(f"vectors: decoding {len(group)} of {record['model']}, {record['protocol']}")
        lm, group = load_same(record, load), sorted(group, key=lambda claim: _decoded_length(claim.record))
        for some in (group[start : start + N_DECODED] for start in range(0, len(group), N_DECODED)):
            texts = decode_together(lm, [claim.record for claim in some], [claim.vectors for claim in some])
            for claim, ids in zip(some, texts, strict=True):
                yield claim, is_its_text(lm, claim.record, ids)


def _decode_ids(lm, record, vectors):
    return decode_together(lm, [record], [vectors])[0]


def _decoded_length(record):
    return int(record["exact_length_tokens"] or record["length"])
