"""From vectors to records: what was measured of a case, wherever its vectors came from."""

import functools
import importlib.metadata
import itertools
import math
import platform

import torch

from ..capacity import SOLVED_ACCURACY
from ..config import Sweep, hash_ids
from ..storage import find_storage
from .cases import SweepCase
from .lm import FrozenLM
from .measure import run_in_parts, score_targets
from .proofs import climb_ladder
from .protocols import Protocol
from .rows import Finished
from .sinks import measure_start_attention

PACKAGES = ("torch", "transformers", "tokenizers")


def make_records(
    sweep: Sweep, lm: FrozenLM, protocol: Protocol, cases: list[SweepCase], finished: list[Finished]
) -> list[dict]:
    """Return a record of each case; those that finished together are measured together.

    They are measured without vectors, and with their vectors on every rung of the ladder (see ``climb_ladder``).
    """
    vectors = torch.stack([result.vectors for result in finished])
    ids = torch.stack([result.case.ids for result in finished])
    n_active = torch.tensor([result.n_active or protocol.n_targets(ids.shape[1]) for result in finished])

    def measure_finally(vectors, ids, n_active):
        exact_lm, there = lm.without_autocast(), ids.to(lm.device)
        with torch.no_grad():
            alone, with_vectors = (
                score_targets(exact_lm, protocol, given, there) for given in (None, vectors.to(lm.device))
            )
        ladder = climb_ladder(lm, protocol, vectors, ids, n_active.tolist())
        sums = [_sum_up(*scores) for scores in zip(_rows(alone), _rows(with_vectors), strict=True)]
        return list(zip(sums, ladder, strict=True))

    parts, _ = run_in_parts(measure_finally, len(ids), vectors, ids, n_active)
    return [
        _make_record(sweep, lm, protocol, case, result, *measured)
        for case, result, measured in zip(cases, finished, itertools.chain.from_iterable(parts), strict=True)
    ]


def _rows(scores):
    # Cross-entropy, hits and leads of one case after the other.
    return zip(scores.ce, scores.hit, scores.lead, strict=True)


def _sum_up(alone, with_vectors):
    # Of the LM alone and with vectors: sums over targets, and target by target, to what single precision holds.
    (ce_lm, hit_lm, _), (ce_mem, hit_mem, lead_mem) = alone, with_vectors
    each = {"ce_lm_nats_each": ce_lm, "ce_mem_nats_each": ce_mem, "margin_each": lead_mem}
    ce_mem_nats = ce_mem.double().sum().item()
    return {
        "n_correct_lm": int(hit_lm.sum()),
        "n_correct_mem": int(hit_mem.sum()),
        "ce_lm_nats": ce_lm.double().sum().item(),
        "ce_mem_nats": ce_mem_nats,
        "ce_mem_min_nats": ce_mem_nats,
    } | {name: [float(f"{number:.6g}") for number in values.tolist()] for name, values in each.items()}


def _make_record(sweep, lm, protocol, case, result, sums, ladder):
    config, sample = case.config, case.sample
    n_targets = protocol.n_targets(config.length)
    sums = sums | result.measured
    exact_ids = sample.ids[: ladder["exact_length_tokens"]]
    return {
        "key": case.key,
        "model": sweep.model.name,
        "revision": lm.commit,
        "gguf": sweep.model.gguf,
        "d_embed": lm.d_embed,
        "vocab_size": lm.vocab_size,
        "n_parameters": lm.n_parameters,
        "arm": case.arm,
        "source": sweep.texts.label,
        "cluster_id": sample.cluster_id,
        "text_sha256": sample.sha256,
        "text_bytes": sample.text_bytes,
        **config.columns,
        "ended": result.ended,
        "n_steps": result.n_steps,
        "n_targets": n_targets,
        **sums,
        "solved": sums["n_correct_mem"] / n_targets >= SOLVED_ACCURACY,
        **ladder,
        "exact_ids_sha256": hash_ids(exact_ids) if exact_ids else None,
        "given_ids": list(sample.ids[: protocol.n_given]),
        "side_information_bits": protocol.side_information_bits(lm, config.length),
        "start_id": protocol.start_id(lm),
        "start_attention": measure_start_attention(lm),
        "vector_bytes": _vector_bytes(lm, protocol, config),
        "wall_seconds": result.wall_seconds,
        "device": torch.cuda.get_device_name(lm.device) if lm.device.type == "cuda" else platform.machine(),
        "python": platform.python_version(),
        **_list_versions(),
    }


@functools.cache
def _list_versions():
    return {package: importlib.metadata.version(package) for package in PACKAGES}


def _vector_bytes(lm, protocol, config):
    # Of one of the n_mem vectors, as it is stored.
    n_rows, width = protocol.vector_shape(lm, config.n_mem)
    return math.ceil(n_rows * find_storage(config.storage).n_bits(width) / 8 / config.n_mem)
