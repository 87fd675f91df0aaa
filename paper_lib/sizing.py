"""Will a text fit? The chance that its vector is found, from its cross-entropy, by a curve fitted to what was tried.

Numbers in, numbers out. A model has a *knee*, the size of text of which half fit into one vector; the chance falls from
1 to 0 over sizes in proportion to it, equally steeply for all models:

    P(fits) = 1 / (1 + (size / (n_mem knee)) ** (1 / spread))

a logistic in the logarithm of the size. That n_mem vectors hold n_mem times as much is close to what was measured
(notebooks/03_scaling_vectors).
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


@dataclass(frozen=True)
class Sizing:
    """The ``knees`` of models, in the unit of the sizes they were fitted on, and the ``spread`` that they share."""

    knees: dict[str, float]
    spread: float

    def chance(self, size, model: str, n_mem: int = 1):
        """Return the probability, 0 to 1, that a text (or each of several) fits; InputError for a model of no knee."""
        return _chance(np.asarray(size, dtype=float), n_mem * self._knee(model), self.spread)

    def count_vectors(self, size: float, model: str, chance: float = SURE) -> int:
        """Return the fewest vectors into which a text fits with at least that chance."""
        knee = self._knee(model) * math.exp(-self.spread * math.log(chance / (1 - chance)))
        return max(1, math.ceil(size / knee - 1e-9))

    def _knee(self, model):
        if model not in self.knees:
            raise unknown_name("model with a measured capacity", model, self.knees)
        return self.knees[model]


def fit_sizing(cases: pd.DataFrame, size: str = "nats") -> Sizing:
    """Return the maximum-likelihood curve of cases with one vector: columns ``model``, ``fits`` and that of the size.

    ``size`` is one of SIZES. A model of which every text fits, or none, has no knee. Raises InputError where no model
    has one.
    """
    column = SIZES[size]
    require_columns(cases, ["model", "fits", column], "cases")
    both = cases.groupby("model")["fits"].transform("nunique") == 2
    cases = cases[both & (cases[column] > 0)]
    if cases.empty:
        raise InputError("no model has both texts that fit and texts that do not; run longer or shorter ones")
    models, place = np.unique(cases["model"].astype(str), return_inverse=True)
    logs, sign = np.log(cases[column].to_numpy(float)), np.where(cases["fits"].astype(bool), 1.0, -1.0)

    def loss(numbers):  # minus the log-likelihood, and its slope
        spread = math.exp(numbers[-1])
        lead = sign * (numbers[:-1][place] - logs) / spread
        missed = sign * expit(-lead)
        slope = np.append(np.bincount(place, -missed / spread), (missed * sign * lead).sum())
        return np.logaddexp(0, -lead).sum(), slope

    start = np.append(np.bincount(place, logs) / np.bincount(place), math.log(0.1))
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return Sizing(dict(zip(models.tolist(), np.exp(found[:-1]).tolist(), strict=True)), math.exp(found[-1]))


def predict_held_out(cases: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """Return the cases of one half of the texts with ``chance_nats`` and ``chance_tokens``, fitted on the other half.

    The same texts are held out for every model. Models without a knee in the other half are left out.
    """
    texts = np.sort(cases["text_id"].unique())
    fitted = np.random.default_rng(seed).permutation(texts)[: len(texts) // 2]
    known, new = cases[cases["text_id"].isin(fitted)], cases[~cases["text_id"].isin(fitted)]
    sizings = {size: fit_sizing(known, size) for size in SIZES}
    new = new[new["model"].isin(sizings["nats"].knees)]
    for size, sizing in sizings.items():
        knees = new["model"].map(sizing.knees).to_numpy(float)
        new = new.assign(**{f"chance_{size}": _chance(new[SIZES[size]].to_numpy(float), knees, sizing.spread)})
    return new


def compute_brier(predicted: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return the Brier score of each size by origin, and how much lower that of nats is, with intervals over texts.

    The score is the mean squared distance of chance and outcome: 0 at best, .25 for always saying one half.
    """
    rows = []
    for origin, group in predicted.groupby("origin", sort=False):
        errors = {size: (group[f"chance_{size}"] - group["fits"].astype(float)) ** 2 for size in SIZES}
        for name, values in (errors | {"tokens - nats": errors["tokens"] - errors["nats"]}).items():
            mean = weighted_mean(values)
            score = bootstrap_clusters(group["text_id"], mean, n_resamples=n_resamples, seed=seed)
            rows.append({"origin": origin, "predicted from": name, "n_cases": len(group), **score.columns("brier")})
    return pd.DataFrame(rows)


def compute_reliability(predicted: pd.DataFrame, *, n_resamples: int, seed: int) -> pd.DataFrame:
    """Return per origin and bin of the chance from nats its mean ``chance`` and the ``share`` that did fit.

    The share has its interval over texts.
    """
    rows, bins = [], pd.cut(predicted["chance_nats"], BINS, include_lowest=True)
    for (origin, _), group in predicted.groupby(["origin", bins], observed=True, sort=False):
        mean = weighted_mean(group["fits"].astype(float))
        share = bootstrap_clusters(group["text_id"], mean, n_resamples=n_resamples, seed=seed)
        row = {"origin": origin, "chance": group["chance_nats"].mean(), "n_cases": len(group)}
        rows.append(row | share.columns("share"))
    return pd.DataFrame(rows).sort_values(["origin", "chance"], ascending=[False, True], ignore_index=True)


def _chance(size, knee, spread):
    with np.errstate(divide="ignore"):  # nothing always fits
        return expit((np.log(knee) - np.log(size)) / spread)
