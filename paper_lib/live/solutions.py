"""Exact solutions of the texts of a frozen sweep, several of each, and what the model makes of vectors near them."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import InputError
from ..frozen import load_runs, load_vectors
from ..paths import DATA
from .lm import FrozenLM
from .load import load_same
from .measure import fill_batch, measure
from .proofs import decode_together
from .protocols import Protocol, find_protocol


class Solutions(NamedTuple):
    """What solves one text at one length under one arm: ``records`` of its cases, ``vectors`` in the same order."""

    records: list[dict]
    vectors: Float[Tensor, "case row width"]
    protocol: Protocol
    ids: Int[Tensor, "1 pos"]


def load_solutions(sweep: str, data: Path = DATA) -> tuple[FrozenLM, FrozenLM, list[Solutions]]:
    """Return the model in the precision of its weights, the same as the sweep had it, and each text's exact solutions.

    InputError for a sweep that has no text with two of them.
    """
    cases = load_runs(data, name=sweep).query("exact").sort_values(["text_id", "key"])
    vectors = load_vectors(sweep, data)
    cases = cases[cases["key"].isin(vectors)]
    groups = cases.groupby(["arm", "protocol", "n_mem", "text_id", "length"])
    texts = [group.to_dict("records") for _, group in groups if len(group) > 1]
    if not texts:
        raise InputError(f"no text of {sweep} has two exact solutions; give it n_restarts, freeze it with --keep all")
    lm, autocast = load_same(texts[0][0]), texts[0][0]["autocast"]
    same = dataclasses.replace(lm, autocast=getattr(torch, autocast) if autocast else None)
    return lm, same, [_load_text(lm, records, vectors) for records in texts]


def _load_text(lm, records, vectors):
    found = torch.stack([torch.from_numpy(vectors[record["key"]]).float() for record in records])
    ids = decode_together(lm, records[:1], [vectors[records[0]["key"]]])[0].unsqueeze(0)
    return Solutions(records, found, find_protocol(records[0]["protocol"]), ids)


@torch.no_grad()
def measure_all(
    lm: FrozenLM, protocol: Protocol, vectors: Float[Tensor, "case row width"], ids: Int[Tensor, "1 pos"]
) -> list[dict]:
    """Return ``accuracy`` and ``all_right`` of one text behind each of the vectors, teacher-forced."""
    n_targets, facts = protocol.n_targets(ids.shape[1]), []
    for some in vectors.split(fill_batch(lm.device, ids.shape[1])):
        now = measure(lm, protocol, some, ids.expand(len(some), -1))
        shares = (now["n_correct"] / n_targets).tolist()
        facts += zip(shares, now["all_correct"].tolist(), strict=True)
    return [{"accuracy": share, "all_right": right} for share, right in facts]


def describe_case(record: dict) -> dict:
    """Return the columns that say whose case a finding is about."""
    return {name: record[name] for name in ("key", "arm", "text_id", "cluster_id", "protocol", "length")}
