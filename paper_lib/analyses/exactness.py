"""Notebook 07: what each demand on exactness costs."""

import numpy as np
import pandas as pd

from ..capacity import nats_to_bits
from ..stats import Interval, bootstrap_clusters, weighted_mean, weighted_ratio
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
# What changes from one arm of the sweep `exchange_*` to another: factor, arm and evaluations before, the same after,
# and the suffix of the sweep that has the arm after. All arms have the same texts of 64 targets.
ARMS = [
    ("learning rate: .01, to .1", ("published", 400), ("learning rate .1", 400), ""),
    ("evaluations: 200, to 400", ("published", 200), ("published", 400), ""),
    ("first token: given, to a target", ("published", 400), ("first token a target", 400), ""),
    ("vector: at position 0, to after the start token", ("published", 400), ("start token first", 400), ""),
    ("optimiser: published, to AdamW at its best rate", ("published", 200), ("AdamW at its best rate", 200), ""),
    ("optimiser: published, to fast", ("published", 200), ("fast", 200), ""),
    ("all of it: published, to fast and anchored", ("published", 200), ("fast, start token first", 200), ""),
    ("precision: bf16 products, to fp32", *[("fast, start token first", 200)] * 2, "_fp32"),
    ("precision: bf16 products, to bf16 weights too", *[("fast, start token first", 200)] * 2, "_bf16"),
]
# The same of the texts of 16 targets of the sweep `recipe_gemma-3-270m`, and of those that were run in fp32 too.
ARMS_OF_GEMMA = [
    ("Gemma, vector: at position 0, to after the start token", ("fast, vector first", 150), ("fast", 150), ""),
    ("Gemma, precision: bf16 products, to fp32", *[("fast", 150)] * 2, "_fp32"),
]
# Margins of a vector's narrowest token, in logits: what it lies in decides whether it survives another rounding.
MARGIN_EDGES = (0.0, 0.03, 0.1, np.inf)
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
    rates = pd.DataFrame(rows).assign(origin="measured", n_texts=published["text_id"].nunique())
    return rates.assign(tokens_are="longest length held, recipe fast")


def compare_arms(arms: dict[str, pd.DataFrame], changes: list[tuple] = ARMS, **resampling) -> pd.DataFrame:
    """Return what each of ``changes`` brings, in the columns of ``compute_exchange_rates``.

    ``arms`` has the cases of the sweeps that compare them, all of one number of targets, by the suffix of their name;
    texts that both sides have are compared. ``tokens_ratio`` is that of tokens that the vector made right, beyond those
    that the model has right alone; ``gain_ratio`` that of nats. ``n_whole_before`` and ``n_whole_after`` count texts
    with every token right in the end (teacher forced): a search stops there, so where there are any, that side could
    hold more.
    """
    rows, n_targets = [], int(arms[""]["n_targets"].iloc[0])
    for factor, before, after, suffix in changes:
        sides = [_gain_of_arm(arms[""], *before), _gain_of_arm(arms[suffix], *after)]
        common = sides[0].index.intersection(sides[1].index)
        sides = [side.loc[common] for side in sides]
        row = {"factor": factor, "from": _name_arm(*before, ""), "to": _name_arm(*after, suffix)}
        row |= _compare(*sides, "tokens", **resampling).columns("tokens_ratio")
        row |= _compare(*sides, "nats", **resampling).columns("gain_ratio")
        whole = [int(side["whole"].sum()) for side in sides]
        rows.append(row | {"n_texts": len(common), "n_whole_before": whole[0], "n_whole_after": whole[1]})
    return pd.DataFrame(rows).assign(origin="measured", tokens_are=f"made right, of {n_targets}")


def _name_arm(arm, n_evaluations, suffix):
    return f"{arm}{suffix.replace('_', ', ')}, {n_evaluations} evaluations"


def _gain_of_arm(cases, arm, n_evaluations):
    # What was gained by then; a search that had ended stays as it was.
    cases = cases[cases["arm"] == arm]
    best = [_read_curve(case, n_evaluations) for case in cases.itertuples()]
    gains = cases.assign(
        tokens=[n_correct for n_correct, _ in best] - cases["n_correct_lm"],
        nats=cases["ce_lm_nats"] - [nats for _, nats in best],
        whole=cases["tf_exact"].astype(bool),
    )
    return gains.set_index("text_id")[["tokens", "nats", "whole", "cluster_id"]]


def _read_curve(case, n_evaluations):
    if case.n_steps <= n_evaluations:
        return case.n_correct_mem, case.ce_mem_min_nats
    at = list(case.curve_evaluations_each).index(n_evaluations)
    return case.curve_n_correct_each[at], case.curve_ce_nats_each[at]


def compute_learning_curve(cases: pd.DataFrame, evaluations: list[int], **resampling) -> pd.DataFrame:
    """Return what was gained after so many evaluations: tokens made right and nats, means with intervals over books.

    ``growth`` is the ratio of nats to the row before, the same texts on both sides. Cases of one arm.
    """
    arm, rows, before = cases["arm"].iloc[0], [], None
    for n_evaluations in evaluations:
        gained = _gain_of_arm(cases, arm, n_evaluations)
        row = {"origin": "measured", "evaluations": n_evaluations, "n_texts": len(gained)}
        for name in ("tokens", "nats"):
            mean = weighted_mean(gained[name].astype(float))
            row |= bootstrap_clusters(gained["cluster_id"], mean, **resampling).columns(name)
        if before is not None:
            row |= _compare(before, gained, "nats", **resampling).columns("growth")
        rows, before = [*rows, row], gained
    return pd.DataFrame(rows)


def compute_starts(cases: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return how much the random start decides, from several starts of each text: values with intervals over books.

    The share of single searches that end exact; of texts of which the best start does; and the share of the variance
    of information gains, as the searches end, that lies between texts, the rest being between starts of one text.
    """
    gains = cases.assign(nats=cases["ce_lm_nats"] - cases["ce_mem_nats"], exact=cases["exact"].astype(float))
    by_text = gains.groupby("text_id").agg(
        cluster_id=("cluster_id", "first"), single=("exact", "mean"), best=("exact", "max"),
        mean=("nats", "mean"), within=("nats", "var"), n=("nats", "size"),
    )  # fmt: skip

    def share_between(weights):
        within = weighted_mean(by_text["within"])(weights)
        centre = weighted_mean(by_text["mean"])(weights)
        squares = (by_text["mean"].to_numpy() - centre[:, None]) ** 2
        n_drawn = weights.sum(axis=1)
        between = (weights * squares).sum(axis=1) / np.maximum(n_drawn - 1, 1) - within / by_text["n"].mean()
        return np.maximum(between, 0) / (np.maximum(between, 0) + within)

    statistics = {
        "exact, one start": weighted_mean(by_text["single"]),
        f"exact, best of {by_text['n'].max()} starts": weighted_mean(by_text["best"]),
        "variance of the gain between texts": share_between,
    }
    rows = [
        {"origin": "measured", "quantity": name, "n_texts": len(by_text)}
        | bootstrap_clusters(by_text["cluster_id"], statistic, **resampling).columns("share")
        for name, statistic in statistics.items()
    ]
    return pd.DataFrame(rows)


def compute_first_errors(cases: pd.DataFrame) -> pd.DataFrame:
    """Return where texts that are not exact go wrong, per protocol: the share of them in which token 0, 1, 2 is wrong.

    Under teacher forcing; the first token is 0, and null where it is given. Each text at its shortest failed length.
    """
    rows = []
    for protocol, group in cases.groupby("protocol", sort=False):
        failed = group[~group["exact"].astype(bool)].sort_values("length").groupby("text_id").head(1)
        row = {"origin": "measured", "protocol": protocol, "n_texts": len(failed)}
        for token in range(3):
            wrong = [_is_wrong(case, token) for case in failed.itertuples()]
            row[f"wrong_at_{token}"] = np.mean(wrong) if wrong else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def _is_wrong(case, token):
    target = token - (case.length - case.n_targets)
    return np.nan if target < 0 else float(case.margin_each[target] < 0)


def compute_portability(decoded: pd.DataFrame, cases: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return the share of exact vectors that decode on each processor under each condition, by margin (MARGIN_EDGES).

    ``decoded`` says which survived (``frozen.load_findings("portability")``), ``cases`` has margins; the first row of a
    condition has them all. Intervals over books.
    """
    facts = cases.set_index("key")[["min_logit_margin", "cluster_id"]]
    decoded = decoded.join(facts, on="key", how="inner")
    bins = [(0.0, np.inf), *zip(MARGIN_EDGES, MARGIN_EDGES[1:], strict=False)]
    rows = []
    for (processor, condition), group in decoded.groupby(["processor", "condition"], sort=False):
        for low, high in bins:
            here = group[group["min_logit_margin"].between(low, high, inclusive="left")]
            row = {"processor": processor, "condition": condition, "margin_from": low, "margin_to": high}
            row["n_vectors"] = len(here)
            if len(here):
                share = weighted_mean(here["survives"].astype(float))
                row |= bootstrap_clusters(here["cluster_id"], share, **resampling).columns("survive")
            rows.append(row)
    return pd.DataFrame(rows).assign(origin="measured")


def compute_exact_gains(cases: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return what one vector holds exactly, per protocol, at each text's longest exact length, 0 for none; means.

    ``tokens`` and ``bytes`` of text; ``text_bits``, its cross-entropy under the model alone, all of which the vector
    saves a decoder; ``gain_bits``, the information gain, which is less by what the model with the vector still doubts.
    """
    rows = []
    for protocol, group in cases.groupby("protocol", sort=False):
        held = hold_exactly(group)
        row = {"origin": "measured", "protocol": protocol, "n_texts": len(held)}
        for name in ("tokens", "bytes", "text_bits", "gain_bits"):
            mean = weighted_mean(held[name].astype(float))
            row |= bootstrap_clusters(held["cluster_id"], mean, **resampling).columns(name)
        rows.append(row)
    return pd.DataFrame(rows)


def hold_exactly(cases: pd.DataFrame) -> pd.DataFrame:
    """Return by ``text_id`` the sizes of ``compute_exact_gains`` at each text's longest exact length, 0 for none."""
    held = pd.DataFrame({"tokens": cases["length"], "bytes": cases["text_bytes"]})
    held["text_bits"] = nats_to_bits(cases["ce_lm_nats"])
    held["gain_bits"] = nats_to_bits(cases["ce_lm_nats"] - cases["ce_mem_nats"])
    held = held.where(cases["exact"].astype(bool), 0).assign(cluster_id=cases["cluster_id"], text_id=cases["text_id"])
    return held.sort_values("tokens").groupby("text_id").tail(1).set_index("text_id").sort_index()


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
    return bootstrap_clusters(
        before["cluster_id"], weighted_ratio(after[column], before[column]), n_resamples=n_resamples, seed=seed
    )


def judge(rates: pd.DataFrame, curve: pd.DataFrame) -> list[dict]:
    """Return the verdict rows, from ``compute_exchange_rates`` and, of ``fast``, ``compute_learning_curve``."""
    rows, doubled = rates.set_index("to"), curve.iloc[-1]
    last = Interval(doubled["growth"], doubled["growth_low"], doubled["growth_high"])

    def claim_ratio(statement, to, margin):
        row = rows.loc[to]
        interval = Interval(row["tokens_ratio"], row["tokens_ratio_low"], row["tokens_ratio_high"])
        return claim(f"SmolLM2-135M: {statement}", interval, margin, unit="times the tokens")

    return [
        claim_ratio("what is right under teacher forcing decodes freely", list(CRITERIA)[3], (1 - CHEAP, 1)),
        claim_ratio("asking for every token costs nothing against .99", list(CRITERIA)[1], (1 - CHEAP, 1)),
        claim_ratio("more is held where the first token is a target, not given", "strict", (MORE, np.inf)),
        claim_ratio("more is held with the start token in front of the vector", "anchored", (MORE, np.inf)),
        claim(
            "SmolLM2-135M: twice the evaluations of fast gain less than 5 % more", last, (1, 1 + CHEAP), unit="times"
        ),
    ]
