"""Notebook 07: what each demand on exactness costs."""

import numpy as np
import pandas as pd

from ..stats import Interval, bootstrap_clusters, weighted_mean
from ..verdicts import claim

# What may be asked of a text, each more than the one before; of the same run.
CRITERIA = {
    "accuracy of .99": lambda cases: cases["solved"],
    "every token, teacher forced": lambda cases: cases["tf_exact"],
    "free decoding, whole forward": lambda cases: cases["greedy_exact_full"],
    "free decoding, with the cache too": lambda cases: cases["greedy_exact_full"] & cases["greedy_exact_cached"],
    "each by a margin of .001": lambda cases: cases["exact"],
}
EXACT = list(CRITERIA)[-1]
PROTOCOLS = {  # what changes from one protocol to the next
    ("kuratov2025", "strict"): "first token: given, to a target",
    ("strict", "anchored"): "vector: at position 0, to after the start token",
}
CHEAP, MORE = 0.05, 1.25  # share of the tokens that counts as nothing, ratio that counts as more


def compute_criteria(cases: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return the tokens of each text's longest length that meets each of CRITERIA, on average, per protocol.

    All criteria are read off the same runs. Cases of one model and source with one vector; intervals over books.
    """
    rows = []
    for protocol, group in cases.groupby("protocol", sort=False):
        for criterion in CRITERIA:
            held = _hold(group, criterion)
            mean = bootstrap_clusters(held["cluster_id"], weighted_mean(held["tokens"]), **resampling)
            row = {"origin": "measured", "protocol": protocol, "criterion": criterion, "n_texts": len(held)}
            rows.append(row | mean.columns("tokens"))
    return pd.DataFrame(rows)


def compute_exchange_rates(cases: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return what each change costs or brings: the ratio of tokens held, the same texts on both sides.

    Rows: each of CRITERIA against the one before, under the published protocol; each change of PROTOCOLS, with
    exactness asked of both, over the lengths that both were run at. ``gain_ratio`` is that of information gains at the
    longest of these, null for criteria, which are read off the same vectors. Intervals resample books, the same ones on
    both sides.
    """
    runs, rows = dict(list(cases.groupby("protocol"))), []
    published = runs["kuratov2025"]
    names = list(CRITERIA)
    for before, after in zip(names, names[1:], strict=False):
        ratio = _compare(_hold(published, before), _hold(published, after), "tokens", **resampling)
        rows.append({"factor": "criterion", "from": before, "to": after} | ratio.columns("tokens_ratio"))
    for (before, after), factor in PROTOCOLS.items():
        common = sorted(set(runs[before]["length"]) & set(runs[after]["length"]))
        sides = [runs[protocol][runs[protocol]["length"].isin(common)] for protocol in (before, after)]
        row = {"factor": factor, "from": before, "to": after}
        row |= _compare(*(_hold(side, EXACT) for side in sides), "tokens", **resampling).columns("tokens_ratio")
        gains = [_gain(side, common[-1]) for side in sides]
        rows.append(row | _compare(*gains, "nats", **resampling).columns("gain_ratio"))
    return pd.DataFrame(rows).assign(origin="measured", n_texts=published["text_id"].nunique())


def _hold(cases, criterion):
    # Of each text the longest length at which it meets the criterion, 0 for none.
    met = CRITERIA[criterion](cases).fillna(False).astype(bool)
    held = cases.assign(tokens=cases["length"].where(met, 0).astype(float))
    return held.groupby("text_id").agg(tokens=("tokens", "max"), cluster_id=("cluster_id", "first"))


def _gain(cases, length):
    here = cases[cases["length"] == length].set_index("text_id")
    return here.assign(nats=here["ce_lm_nats"] - here["ce_mem_nats"])[["nats", "cluster_id"]]


def _compare(before, after, column, *, n_resamples, seed):
    # The ratio of means over the same texts.
    after = after.loc[before.index]
    above, below = after[column].to_numpy(float), before[column].to_numpy(float)

    def ratio(weights):
        held = weights @ below
        return np.divide(weights @ above, held, out=np.full(held.shape, np.nan), where=held > 0)

    return bootstrap_clusters(before["cluster_id"], ratio, n_resamples=n_resamples, seed=seed)


def judge(rates: pd.DataFrame) -> list[dict]:
    """Return the verdict rows, from the table of ``compute_exchange_rates``."""
    rows = rates.set_index("to")

    def claim_ratio(statement, to, margin):
        row = rows.loc[to]
        interval = Interval(row["tokens_ratio"], row["tokens_ratio_low"], row["tokens_ratio_high"])
        return claim(f"SmolLM2-135M: {statement}", interval, margin, unit="times the tokens")

    return [
        claim_ratio("what is right under teacher forcing decodes freely", list(CRITERIA)[3], (1 - CHEAP, 1)),
        claim_ratio("asking for every token costs nothing against .99", list(CRITERIA)[1], (1 - CHEAP, 1)),
        claim_ratio("more is held where the first token is a target, not given", "strict", (MORE, np.inf)),
        claim_ratio("more is held with the start token in front of the vector", "anchored", (MORE, np.inf)),
    ]
