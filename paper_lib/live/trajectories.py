"""The way that a search takes: the vectors of frozen texts, crammed once more and looked at after every evaluation.

Progressive Cramming (arXiv 2607.21231) describes its paths by their length and by how many principal components hold
99 % of their variance.
"""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from ..config import CaseConfig, Optimiser
from ..errors import InputError
from ..frozen import load_runs, load_vectors, write_findings
from ..paths import DATA
from .finders import Optimise
from .goals import GOALS
from .lm import FrozenLM
from .load import load_same
from .loss import CROSS_ENTROPY
from .movers import MOVERS, AdamW
from .proofs import decode_together
from .protocols import find_protocol
from .rows import Case, Recipe, make_recipe

N_TEXTS, N_EVALUATIONS = 4, 200  # of each length
VARIANCE_SHARE = 0.99


def measure_trajectories(sweep: str, data: Path = DATA) -> list[Path]:
    """Cram texts of a frozen sweep again, in its way and by AdamW; write data/trajectories/<sweep>.parquet.

    N_TEXTS exact texts of each length, up to N_EVALUATIONS each, also where all is right before. A row for each text,
    ``recipe`` and ``evaluation``: ``norm`` of the vectors over the mean norm of tokens, ``moved`` since the evaluation
    before, in the same unit, ``ce_nats``, ``all_right`` under teacher forcing; and ``n_components``, how many principal
    components hold 99 % of the variance of the path up to there. InputError for a sweep without exact texts.
    """
    cases = load_runs(data, name=sweep).query("exact").sort_values(["length", "text_id", "key"])
    vectors = load_vectors(sweep, data)
    cases = cases[cases["key"].isin(vectors)].drop_duplicates(["length", "text_id"])
    if cases.empty:
        raise InputError(f"no vector of {sweep} is exact; give a sweep in which some text was")
    records = cases.groupby("length").head(N_TEXTS).to_dict("records")
    lm, protocol = load_same(records[0]), find_protocol(records[0]["protocol"])
    texts = decode_together(lm, records, [vectors[record["key"]] for record in records])
    autocast = records[0]["autocast"]
    lm = dataclasses.replace(lm, autocast=getattr(torch, autocast) if autocast else None)
    own = make_recipe(CaseConfig.from_record(records[0]))
    recipes = {
        "as run": own,
        "AdamW, .01": dataclasses.replace(own, settings=Optimiser(), mover=MOVERS["adamw"], loss=CROSS_ENTROPY),
        "AdamW, 1, falling": dataclasses.replace(
            own, settings=Optimiser(lr=1.0, max_steps=N_EVALUATIONS), mover=AdamW("cosine"), loss=CROSS_ENTROPY
        ),
    }
    rows = []
    trials = [(name, record, ids) for name in recipes for record, ids in zip(records, texts, strict=True)]
    for name, record, ids in tqdm(trials, desc=sweep, unit="search"):
        steps = _follow(lm, protocol, recipes[name], Case(record["key"], ids, record["n_mem"]))
        described = _describe_path(lm, torch.cat([step["vectors"] for step in steps]).flatten(1))
        for evaluation, (step, facts) in enumerate(zip(steps, described, strict=True), start=1):
            where = {column: record[column] for column in ("key", "text_id", "cluster_id", "protocol", "length")}
            now = {"ce_nats": step["ce_nats"].item(), "all_right": step["all_correct"].item()}
            rows.append(where | {"recipe": name, "evaluation": evaluation} | facts | now)
    return [write_findings("trajectories", sweep, pd.DataFrame(rows).assign(sweep=sweep), data)]


def _follow(lm, protocol, recipe: Recipe, case: Case) -> list[dict[str, Tensor]]:
    # One text at a time, since a row that ends early, where a search can go nowhere, leaves its batch.
    steps, settings = [], recipe.settings.model_copy(update={"max_steps": N_EVALUATIONS})
    recipe = dataclasses.replace(recipe, goal=GOALS["never"], settings=settings)
    for _ in Optimise().find(lm, protocol, [case], recipe, on_step=steps.append):
        pass
    return list(itertools.takewhile(lambda step: step["vectors"].isfinite().all(), steps))  # until it diverges


@torch.no_grad()
def _describe_path(lm: FrozenLM, path: Float[Tensor, "evaluation number"]) -> list[dict]:
    ids: Int[Tensor, "1 token"] = torch.arange(lm.vocab_size, device=lm.device).unsqueeze(0)
    unit = lm.embed(ids)[0].float().norm(dim=1).mean()
    moved = torch.cat([torch.zeros(1), (path[1:] - path[:-1]).norm(dim=1)]) / unit
    counts = [count_components(path[:n].numpy()) for n in range(1, len(path) + 1)]
    return [
        {"norm": norm, "moved": step, "n_components": count}
        for norm, step, count in zip((path.norm(dim=1) / unit).tolist(), moved.tolist(), counts, strict=True)
    ]


def count_components(points: np.ndarray) -> int:
    """Return how many principal components hold VARIANCE_SHARE of the variance of ``points`` (point, number)."""
    points = points.astype(np.float64)
    variances = np.linalg.svd(points - points.mean(axis=0), compute_uv=False) ** 2
    if variances.sum() == 0:
        return 0
    return int(np.searchsorted(np.cumsum(variances) / variances.sum(), VARIANCE_SHARE) + 1)
