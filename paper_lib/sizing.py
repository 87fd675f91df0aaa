"""Will a text fit? The chance that its vector is found, from its cross-entropy, by a curve fitted to what was tried.

Numbers in, numbers out. A model has a *knee*, the size of text of which half fit into one vector; the chance falls from
1 to 0 over sizes in proportion to it, equally steeply for all models:

    P(fits) = 1 / (1 + (size / (knee n_mem ** growth)) ** (1 / spread))

a logistic in the logarithm of the size. Models differ in how steep they are, but a spread of each model's own predicts
held-out texts no better (LOG.md).
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit

from .errors import InputError, require_columns, unknown_name
from .stats import bootstrap_clusters, weighted_mean

SIZES = {"nats": "ce_lm_nats", "tokens": "length"}  # what a text may be measured in, and its column
SURE = 0.9  # the chance that counts as fitting
BINS = (0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1)
SPREADS, GROWTHS = (0.02, 1.0), (0.0, 1.5)  # what a fit may find


@dataclass(frozen=True)
class Sizing:
    """The ``knees`` of models, in the unit of the sizes they were fitted on; the ``spread`` that they share.

    ``growth`` is the exponent by which knees rise with the number of vectors; 1 where only single ones were tried.
    """

    knees: dict[str, float]
    spread: float
    growth: float = 1.0

    def chance(self, size, model: str, n_mem: int = 1):
        """Return the probability, 0 to 1, that a text (or each of several) fits; InputError for a model of no knee."""
        return _chance(np.asarray(size, dtype=float), self._knee(model) * n_mem**self.growth, self.spread)

    def count_vectors(self, size: float, model: str, chance: float = SURE) -> int:
        """Return the fewest vectors into which a text fits with at least that chance (above 0, below 1)."""
        if not 0 < chance < 1:
            raise InputError(f"chance {chance}: give one between 0 and 1")
        alone = self._knee(model) * math.exp(-self.spread * math.log(chance / (1 - chance)))
        if size <= alone:
            return 1
        return math.ceil((size / alone) ** (1 / max(self.growth, 0.1)) - 1e-9)

    def _knee(self, model):
        if model not in self.knees:
            raise unknown_name("model with a measured capacity", model, self.knees)
        return self.knees[model]


def fit_sizing(cases: pd.DataFrame, size: str = "nats") -> Sizing:
    """Return the maximum-likelihood curve of cases: columns ``model``, ``n_mem``, ``fits`` and that of the size.

    ``size`` is one of SIZES. A model of which every text fits, or none, has no knee. Raises InputError where no model
    has one.
    """
    column = SIZES[size]
    require_columns(cases, ["model", "n_mem", "fits", column], "cases")
    cases = cases[cases[column] > 0]
    cases = cases[cases.groupby("model")["fits"].transform("nunique") == 2]
    if cases.empty:
        raise InputError("no model has both texts that fit and texts that do not; run longer or shorter ones")
    models, place = np.unique(cases["model"].astype(str), return_inverse=True)
    sizes, vectors = (np.log(cases[name].to_numpy(float)) for name in (column, "n_mem"))
    sign = np.where(cases["fits"].astype(bool), 1.0, -1.0)

    def loss(numbers):  # minus the log-likelihood, and its slope
        growth, spread = numbers[-2], math.exp(numbers[-1])
        lead = sign * (numbers[:-2][place] + growth * vectors - sizes) / spread
        missed = -sign * expit(-lead)  # its derivative in what is in the bracket, times the spread
        slope = [np.bincount(place, missed) / spread, [missed @ vectors / spread], [-(missed * sign) @ lead]]
        return np.logaddexp(0, -lead).sum(), np.concatenate(slope)

    start = np.concatenate([np.bincount(place, sizes - vectors) / np.bincount(place), [1.0, math.log(0.1)]])
    bounds = [(None, None)] * len(models) + [GROWTHS if vectors.any() else (1, 1), tuple(map(math.log, SPREADS))]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    knees = dict(zip(models.tolist(), np.exp(found[:-2]).tolist(), strict=True))
    return Sizing(knees, math.exp(found[-1]), float(found[-2]))


def predict_held_out(cases: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return the cases of one half of the clusters with ``chance_nats`` and ``chance_tokens``, fitted on the other.

    Clusters are books, or texts where nobody knows the book; the same are held out for every model. Models without a
    knee in the other half are left out.
    """
    clusters = np.sort(cases["cluster_id"].unique())
    fitted = np.random.default_rng(seed).permutation(clusters)[: len(clusters) // 2]
    known, new = cases[cases["cluster_id"].isin(fitted)], cases[~cases["cluster_id"].isin(fitted)]
    sizings = {size: fit_sizing(known, size) for size in SIZES}
    new = new[new["model"].isin(sizings["nats"].knees)]
    for size, sizing in sizings.items():
        knees = new["model"].map(sizing.knees).to_numpy(float) * new["n_mem"].to_numpy(float) ** sizing.growth
        new = new.assign(**{f"chance_{size}": _chance(new[SIZES[size]].to_numpy(float), knees, sizing.spread)})
    return new


def compute_brier(predicted: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return the Brier score of each size by origin, and how much lower that of nats is, with intervals over clusters.

    The score is the mean squared distance of chance and outcome: 0 at best, .25 for always saying one half.
    """
    rows = []
    for origin, group in predicted.groupby("origin", sort=False):
        errors = {size: (group[f"chance_{size}"] - group["fits"].astype(float)) ** 2 for size in SIZES}
        for name, values in (errors | {"tokens - nats": errors["tokens"] - errors["nats"]}).items():
            mean = weighted_mean(values)
            score = bootstrap_clusters(group["cluster_id"], mean, n_resamples=n_resamples, seed=seed)
            rows.append({"origin": origin, "predicted from": name, "n_cases": len(group), **score.columns("brier")})
    return pd.DataFrame(rows)


def compute_reliability(predicted: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return per origin and bin of the chance from nats its mean ``chance`` and the ``share`` that did fit.

    The share has its interval over clusters.
    """
    rows, bins = [], pd.cut(predicted["chance_nats"], BINS, include_lowest=True)
    for (origin, _), group in predicted.groupby(["origin", bins], observed=True, sort=False):
        mean = weighted_mean(group["fits"].astype(float))
        share = bootstrap_clusters(group["cluster_id"], mean, n_resamples=n_resamples, seed=seed)
        row = {"origin": origin, "chance": group["chance_nats"].mean(), "n_cases": len(group)}
        rows.append(row | share.columns("share"))
    return pd.DataFrame(rows).sort_values(["origin", "chance"], ascending=[False, True], ignore_index=True)


def _chance(size, knee, spread):
    with np.errstate(divide="ignore"):  # nothing always fits
        return expit((np.log(knee) - np.log(size)) / spread)
