"""Notebook 10: what coders make of the texts that are crammed, the paper's Table 4."""

import pandas as pd

from ..capacity import nats_to_bits
from ..stats import Interval, bootstrap_clusters, weighted_mean, weighted_ratio
from ..verdicts import claim

NAMES = {
    "huffman": "Huffman",
    "huffman, tokens": "Huffman, tokens",
    "huffman, bytes": "Huffman, bytes",
    "arithmetic+pythia-160m": "arithmetic, Pythia-160M",
    "arithmetic": "arithmetic, SmolLM2-135M",
}
SOURCES = {"pg19": "books", "pg19_test_clean": "books", "blogs_2025_2026": "recent prose", "random": "random words"}
PRINTED_WORDS = 1568  # of the paper's texts
ALIKE = 0.1  # of the printed ratio: a difference that counts as none


def compute_coders(found: pd.DataFrame, printed: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return compression ratios, bits of UTF-8 over bits of code, a row per coder, source and number of words.

    ``found`` as live/coders.py measures it, ``printed`` the paper's Table 4; standard deviations over texts. ``excess``
    is by how much the code is longer than the model's cross-entropy, ``decoded`` the share of texts that came back.
    """
    rows = [
        {
            "origin": "published",
            "coder": NAMES.get(row.coder, row.coder),
            "source": SOURCES.get(row.source, row.source),
            "n_words": PRINTED_WORDS,
            "ratio": row.ratio_mean,
            "ratio_std": row.ratio_std,
        }
        for row in printed.itertuples()
    ]
    found = found.assign(ratio=8 * found["text_bytes"] / found["n_bits"])
    for (coder, source, n_words), group in found.groupby(["coder", "source", "n_words"], sort=False):
        mean = bootstrap_clusters(group["cluster_id"], weighted_mean(group["ratio"]), **resampling)
        over = weighted_ratio(group["n_bits"] - nats_to_bits(group["ce_lm_nats"]), nats_to_bits(group["ce_lm_nats"]))
        excess = bootstrap_clusters(group["cluster_id"], over, **resampling)
        rows.append(
            {
                "origin": "measured",
                "coder": NAMES.get(coder, coder),
                "source": SOURCES.get(source, source),
                "n_words": n_words,
                "n_texts": len(group),
                **mean.columns("ratio"),
                "ratio_std": group["ratio"].std(ddof=1),
                "decoded": group["decoded"].mean(),
                **excess.columns("excess"),
            }
        )
    return pd.DataFrame(rows)


def arrange_coders(coders: pd.DataFrame) -> pd.DataFrame:
    """Return the table of ratios as it is shown: a row per coder, a column per source, words and origin."""
    printed = coders["origin"] == "published"
    column = coders["source"] + ", " + coders["n_words"].astype(str) + printed.map({True: ", printed", False: ""})
    cells = [f"{row.ratio:.2f} ± {row.ratio_std:.2f}" for row in coders.itertuples()]
    wide = coders.assign(column=column, cell=cells).pivot(index="coder", columns="column", values="cell")
    return wide.loc[coders["coder"].unique(), column.unique()].fillna("").rename_axis(columns=None).reset_index()


def judge(coders: pd.DataFrame) -> list[dict]:
    """Return the verdict rows on coders: the paper's ratios of general coders, and the bits of arithmetic coding."""
    long = coders[coders["n_words"] == PRINTED_WORDS].set_index(["origin", "coder", "source"])
    rows = []
    for coder in ("zlib", "bz2", "lzma"):
        for source in ("books", "random words"):
            here, target = long.loc[("measured", coder, source)], long.loc[("published", coder, source), "ratio"]
            rows.append(
                claim(
                    f"{coder} makes {source} {target:g} times smaller (printed)",
                    Interval(here["ratio"], here["ratio_low"], here["ratio_high"]),
                    (round((1 - ALIKE) * target, 2), round((1 + ALIKE) * target, 2)),
                    unit="times",
                )
            )
    excess = long.xs(("measured", NAMES["arithmetic"]), level=("origin", "coder"))
    farthest = excess.loc[excess["excess"].abs().idxmax()]
    return [
        *rows,
        claim(
            "Arithmetic coding of 1,568 words takes the model's cross-entropy, within 1 %",
            Interval(farthest["excess"], farthest["excess_low"], farthest["excess_high"]),
            (-0.01, 0.01),
            unit="of the cross-entropy",
            detail=f"of {farthest.name}, the farthest from it",
        ),
    ]
