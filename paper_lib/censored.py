"""Exact lengths between the lengths that were tried: a text exact at 8 tokens and not at 12 holds between 8 and 12.

All texts of a group share one grid, so the bins do not overlap, and the non-parametric estimate (Turnbull) is the share
of texts in each bin: it bounds the mean, and no more. A Weibull distribution places the texts within their bins.
"""

import numpy as np
from scipy import stats

SHAPES = np.geomspace(0.5, 12, 60)
N_SCALES = 300  # from a third of the shortest bin's upper end to twice the longest end
N_AT_ONCE = 16  # resamples, whose likelihoods stay in the processor's cache


def find_bins(longest, lengths) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper end, in tokens, of the bin that each text's capacity lies in.

    ``longest`` (text,): its longest exact length, 0 for none; ``lengths``: those tried. The upper end is the next
    length tried, infinite beyond the last.
    """
    lengths = np.unique(np.asarray(lengths, float))
    upper = np.append(lengths, np.inf)[np.searchsorted(lengths, longest, side="right")]
    return np.asarray(longest, float), upper


def weighted_censored_mean(lower, upper):
    """Return the bootstrap statistic: the mean of a Weibull distribution, by maximum likelihood over binned points.

    ``lower`` and ``upper`` (point,) are the ends of each point's bin. The maximum is taken on a grid of shapes and
    scales, the same for all resamples, 2 % apart for a hundredfold range of lengths. NaN in a resample where every
    point lies beyond the longest length, and in all where most points do: nothing bounds it.
    """
    lower, upper = np.asarray(lower, float), np.asarray(upper, float)
    if np.isinf(upper).mean() > 0.5:
        return lambda weights: np.full(len(weights), np.nan)
    ends = np.unique(np.stack([lower, upper], axis=1), axis=0)
    member = (lower[:, None] == ends[:, 0]) & (upper[:, None] == ends[:, 1])
    finite = upper[np.isfinite(upper)] if np.isfinite(upper).any() else lower
    scales = np.geomspace(max(finite.min(), 1) / 3, 2 * max(lower.max(), finite.max(), 1), N_SCALES)
    weibull = stats.weibull_min(SHAPES[:, None, None], scale=scales[None, :, None])
    log_share = np.log(np.maximum(weibull.cdf(ends[:, 1]) - weibull.cdf(ends[:, 0]), 1e-300)).reshape(-1, len(ends))
    means = stats.weibull_min(SHAPES[:, None], scale=scales[None, :]).mean().ravel()

    def mean(weights):
        parts = np.array_split(weights @ member, -(-len(weights) // N_AT_ONCE))
        found = means[np.concatenate([np.argmax(counts @ log_share.T, axis=1) for counts in parts])]
        return np.where(weights @ np.isfinite(upper) > 0, found, np.nan)

    return mean
