"""Notebook 05: of random words and of books, how much does one vector hold exactly, in tokens and in nats?"""

import numpy as np
import pandas as pd

from ..censored import weighted_censored_mean
from ..sizing import SIZES
from ..stats import Interval, bootstrap_clusters
from ..verdicts import claim
from .text_sources import SHARED


def compare_held(cases: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return how many times the books' tokens and nats one vector holds of random words, every token right.

    ``cases`` are those of one vector (see ``measured.load_cases``), of any protocol. A row for each name, protocol,
    natural source and ``unit`` with ``books`` and ``words``: means over texts that each hold between their longest
    exact length and the next one tried (a Weibull distribution, see ``censored``). The interval of ``ratio`` resamples
    books and texts of words apart.
    """
    rows = []
    for (name, protocol), runs in cases.groupby(["name", "protocol"]):
        random = runs["source"] == "random"
        for natural in runs.loc[~random, "source"].unique() if random.any() else []:
            pair = runs[random | (runs["source"] == natural)]
            facts = {"origin": "measured", "name": name, "protocol": protocol, "source": natural}
            facts |= pair.groupby(random)["text_id"].nunique().set_axis(["n_books", "n_words"]).to_dict()
            for unit in SIZES:
                means, ratio = _compare(pair, unit, **resampling)
                rows.append(facts | {"unit": unit} | means | ratio.columns("ratio"))
    return pd.DataFrame(rows)


def _compare(pair, unit, *, n_resamples, seed):
    held = _find_held(pair, SIZES[unit])
    words = (held["source"] == "random").to_numpy()
    of_books, of_words = (weighted_censored_mean(held["at_least"][w], held["below"][w]) for w in (~words, words))
    ratio = bootstrap_clusters(
        held["cluster_id"],
        lambda weights: of_words(weights[:, words]) / of_books(weights[:, ~words]),
        sample=words,
        n_resamples=n_resamples,
        seed=seed,
    )
    means = {"books": of_books(np.ones((1, (~words).sum())))[0], "words": of_words(np.ones((1, words.sum())))[0]}
    return means, ratio


def _find_held(cases, size):
    # Of each text its size at the longest exact length, 0 for none, and at the next length, infinite beyond the last.
    best = cases.sort_values(["length", "exact"]).drop_duplicates(["source", "text_id", "length"], keep="last")
    rows = []
    for (source, _), text in best.groupby(["source", "text_id"]):
        sizes = np.concatenate([[0], text[size], [np.inf]])
        longest = np.flatnonzero(text["exact"].astype(bool)).max(initial=-1) + 1
        rows.append((source, text["cluster_id"].iloc[0], sizes[longest], sizes[longest + 1]))
    return pd.DataFrame(rows, columns=["source", "cluster_id", "at_least", "below"])


def judge(held: pd.DataFrame) -> list[dict]:
    """Return the verdict rows, from ``compare_held``: of each model, under the protocol that holds most of books."""
    rows = []
    for (name, unit), group in held.groupby(["name", "unit"]):
        most = group.iloc[group["books"].fillna(np.inf).argmax()]  # undefined: most texts lie beyond what was tried
        statement = f"{name}, {most['protocol']}: one vector holds as many {unit} of random words as of books, exactly"
        interval = Interval(most["ratio"], most["ratio_low"], most["ratio_high"])
        rows.append(claim(statement, interval, SHARED, unit="times"))
    return rows
