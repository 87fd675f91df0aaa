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
    scales, the same for all resamples, 2 % apart for a hundredfold range of lengths. A resample whose maximum is the
    largest scale, twice the longest length, has no bound: it is infinite, and so may be the end of an interval.
    Where most points lie beyond the longest length it is NaN throughout.
    """
    lower, upper = np.asarray(lower, float), np.asarray(upper, float)
    beyond = np.isinf(upper)
    if beyond.mean() > 0.5:
        return lambda weights: np.full(len(weights), np.nan)
    ends = np.unique(np.stack([lower, upper], axis=1), axis=0)
    member = (lower[:, None] == ends[:, 0]) & (upper[:, None] == ends[:, 1])
    finite = upper[~beyond]
    scales = np.geomspace(max(finite.min(), 1) / 3, 2 * max(lower.max(), finite.max(), 1), N_SCALES)
    weibull = stats.weibull_min(SHAPES[:, None, None], scale=scales[None, :, None])
    log_share = np.log(np.maximum(weibull.cdf(ends[:, 1]) - weibull.cdf(ends[:, 0]), 1e-300)).reshape(-1, len(ends))
    means = stats.weibull_min(SHAPES[:, None], scale=scales[None, :]).mean()
    means[:, -1] = np.inf

    def mean(weights):
        parts = np.array_split(weights @ member, -(-len(weights) // N_AT_ONCE))
        return means.ravel()[np.concatenate([np.argmax(counts @ log_share.T, axis=1) for counts in parts])]

    return mean
