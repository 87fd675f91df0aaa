"""Two memories side by side: what the model still says of either text.

Keys and values of two texts that were trained apart, or two input vectors, in front of one text (asked in "Cartridges
at Scale", arXiv 2606.04557, of memories that answer questions).
"""

from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import InputError
from ..frozen import load_runs, load_vectors, write_findings
from ..paths import DATA
from .lm import FrozenLM
from .load import load_same
from .measure import fill_batch, score_targets
from .proofs import decode_together
from .protocols import Protocol, find_protocol
from .solutions import describe_case

N_ASKED = 8  # first tokens of a text, by which it is asked for; what counts comes after them


def measure_composition(sweep: str, data: Path = DATA) -> list[Path]:
    """Put each frozen memory of a sweep beside that of the next text; write data/composition/<sweep>.parquet.

    Exact memories of one arm, number of vectors and length. A row for each text and ``place`` of its memory: alone, in
    front of the other, behind it, or none at all; ``accuracy`` is the share of its tokens after the first N_ASKED that
    are right, teacher-forced. InputError for a sweep without two such texts.
    """
    cases = load_runs(data, name=sweep).query("exact and length > @N_ASKED").sort_values("key")
    vectors = load_vectors(sweep, data)
    cases = cases[cases["key"].isin(vectors)].drop_duplicates(["arm", "protocol", "n_mem", "length", "text_id"])
    groups = [group for _, group in cases.groupby(["arm", "protocol", "n_mem", "length"]) if len(group) > 1]
    if not groups:
        raise InputError(f"no two texts of {sweep} are exact at one length above {N_ASKED}; name another sweep")
    lm, rows = load_same(groups[0].iloc[0].to_dict()), []
    for group in tqdm(groups, desc=sweep, unit="group"):
        records = group.to_dict("records")
        own = torch.stack([torch.from_numpy(vectors[record["key"]]).float() for record in records])
        ids = torch.stack(decode_together(lm, records, list(own.numpy())))
        for place, shares in _measure_places(lm, find_protocol(records[0]["protocol"]), own, ids):
            rows += [
                describe_case(record) | {"place": place, "accuracy": share}
                for record, share in zip(records, shares, strict=True)
            ]
    return [write_findings("composition", sweep, pd.DataFrame(rows).assign(sweep=sweep), data)]


@torch.no_grad()
def _measure_places(
    lm: FrozenLM, protocol: Protocol, own: Float[Tensor, "case row width"], ids: Int[Tensor, "case pos"]
):
    other = own.roll(-1, dims=0)
    memories = {
        "alone": own,
        "in front": protocol.combine(lm, own, other),
        "behind": protocol.combine(lm, other, own),
        "none": None,
    }
    n_rows = fill_batch(lm.device, ids.shape[1])
    for place, vectors in memories.items():
        shares = []
        for start in range(0, len(ids), n_rows):
            some = slice(start, start + n_rows)
            hits = score_targets(lm, protocol, None if vectors is None else vectors[some], ids[some]).hit
            shares += hits[:, N_ASKED - protocol.n_given :].float().mean(dim=1).tolist()
        yield place, shares
