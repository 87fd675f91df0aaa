"""Two kinds of text compared at equal cross-entropy: does what a vector gains depend on what the text is?

The gain rises with the text's cross-entropy x, and random words lie elsewhere on that axis than books, so mean gains
do not compare. Two statistics do, each a function of bootstrap weights (see ``stats.bootstrap_clusters``).
"""

from collections.abc import Callable

import numpy as np

DEGREE = 3  # of the polynomial in x that both kinds share
N_NEIGHBOURS = 10  # in x


def weighted_fitted_ratio(x, gain, is_random) -> Callable[[np.ndarray], np.ndarray]:
    """Return the bootstrap statistic of gain ~ polynomial of x + offset of random text, as a ratio.

    All arrays (point,); x and gain in nats. The ratio is that of the two fitted curves, averaged over the x of the
    random texts: 1 where the kind of text does not matter. NaN where a resample cannot be fitted.
    """
    x, gain, is_random = _arrays(x, gain, is_random)
    scaled = (x - x.mean()) / x.std()
    shared = scaled[:, None] ** np.arange(DEGREE + 1)
    design = np.column_stack([shared, is_random])

    def ratio(weights):
        squares = np.einsum("rn,np,nq->rpq", weights, design, design, optimize=True)
        products = np.einsum("rn,np,n->rp", weights, design, gain, optimize=True)
        fitted = np.full((len(weights), DEGREE + 2), np.nan)
        regular = np.linalg.cond(squares) < 1e12
        fitted[regular] = np.linalg.solve(squares[regular], products[regular][..., None])[..., 0]
        drawn = weights * is_random
        books = np.einsum("rn,np,rp->r", drawn, shared, fitted[:, :-1], optimize=True) / drawn.sum(axis=1)
        return 1 + fitted[:, -1] / books

    return ratio


def weighted_neighbour_ratio(x, gain, is_random) -> Callable[[np.ndarray], np.ndarray]:
    """Return the bootstrap statistic: mean gain of random texts over that of their nearest natural texts in x.

    Each random text is set against the mean of the ten natural ones nearest in x, drawn ones counted as often as drawn.
    """
    x, gain, is_random = _arrays(x, gain, is_random)
    random, natural = np.flatnonzero(is_random), np.flatnonzero(~is_random)
    distance = np.abs(x[random][:, None] - x[natural][None, :])
    nearest = natural[np.argsort(distance, axis=1, kind="stable")[:, : 5 * N_NEIGHBOURS]]  # (random, neighbour)

    def ratio(weights):
        offered = weights[:, nearest]
        before = np.cumsum(offered, axis=-1) - offered
        taken = np.clip(N_NEIGHBOURS - before, 0, offered)
        with np.errstate(invalid="ignore", divide="ignore"):
            matched = (taken * gain[nearest]).sum(axis=-1) / taken.sum(axis=-1)
        drawn = weights[:, random]
        return drawn @ gain[random] / np.where(drawn > 0, drawn * matched, 0).sum(axis=1)

    return ratio


def find_support(x, is_solved, is_random) -> np.ndarray:
    """Return which points compare: failed, beyond every solved x, where both kinds of text have such points.

    All arrays (point,). Nearer than the last solved text a gain is capped by the text's own cross-entropy.
    """
    x, is_solved, is_random = np.asarray(x, float), np.asarray(is_solved, bool), np.asarray(is_random, bool)
    beyond = ~is_solved & (x > np.max(x[is_solved], initial=-np.inf))
    kinds = [x[beyond & is_random], x[beyond & ~is_random]]
    if not all(map(len, kinds)):
        return np.zeros(len(x), bool)
    return beyond & (x >= max(map(np.min, kinds))) & (x <= min(map(np.max, kinds)))


def _arrays(x, gain, is_random):
    return np.asarray(x, float), np.asarray(gain, float), np.asarray(is_random, bool)
