"""Notebook 10: bits of text against bits of vector."""

import numpy as np
import pandas as pd

from ..capacity import nats_to_bits
from ..stats import Interval, bootstrap_clusters, weighted_mean
from ..storage import find_storage
from ..verdicts import claim

SIDE_BITS = 16  # the length of the text
CODER_BITS = 32  # a coder writes whole words


def read_mode(arm: str) -> tuple[str, int]:
    """Return how a vector came to its precision (rounded, optimised) and the bits of each number, from an arm."""
    how, bits = arm.split(", ")
    return how, int(bits)


def entropy_code_bits(cases: pd.DataFrame, vectors: dict[str, np.ndarray]) -> pd.Series:
    """Return, by key, the bits of vectors of one precision when their levels are coded by how often others use them.

    The counts are those of the vectors of all other books, each level once more than it occurs, so a decoder can have
    them. An ideal code, rounded up to whole words of CODER_BITS; the name of the step and the length come on top.
    """
    storage = find_storage(cases["storage"].iloc[0])
    packed = {key: storage.pack(vectors[key]) for key in cases["key"]}
    books, n_levels = cases.set_index("key")["cluster_id"], 2**storage.bits
    counts = {
        key: np.bincount(levels[..., 1:].ravel().astype(int) + n_levels // 2, minlength=n_levels)
        for key, levels in packed.items()
    }
    bits = {}
    for key, own in counts.items():
        others = 1 + sum(counts[other] for other in counts if books[other] != books[key])
        ideal = -(own * np.log2(others / others.sum())).sum()
        step = storage.n_bits(0)
        bits[key] = np.ceil(ideal / CODER_BITS) * CODER_BITS + step * len(packed[key])
    return pd.Series(bits, name="coded_bits")


def compute_vector_bits(cases: pd.DataFrame, vectors: dict[str, np.ndarray]) -> pd.DataFrame:
    """Return each case of a sweep of precisions with the bits of its vector and of its text.

    ``vector_bits`` as stored, with the name of the step and the length of the text; ``coded_bits`` the same, entropy
    coded. ``text_bits`` is the text's cross-entropy under the model, 0 where it is not exact; ``gain_bits`` the part of
    it that the vector brings.
    """
    cases = cases.copy()
    cases[["mode", "bits"]] = [read_mode(arm) for arm in cases["arm"]]
    width = {key: vector.shape[1] for key, vector in vectors.items()}
    cases["vector_bits"] = [
        SIDE_BITS + row.n_mem * find_storage(row.storage).n_bits(width[row.key]) for row in cases.itertuples()
    ]
    coded = [entropy_code_bits(group, vectors) for _, group in cases[cases["bits"] < 16].groupby("arm")]
    cases["coded_bits"] = SIDE_BITS + cases["key"].map(pd.concat(coded))
    exact = cases["exact"].eq(True)
    cases["text_bits"] = np.where(exact, nats_to_bits(cases["ce_lm_nats"]), 0)
    cases["gain_bits"] = np.where(exact, nats_to_bits(cases["ce_lm_nats"] - cases["ce_mem_nats"]), 0)
    return cases


def summarise_vector_bits(cases: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return one row per mode, bits a number and length: exact share, gain, text bits per vector bit; over books."""
    rows = []
    for (mode, bits, length), group in cases.groupby(["mode", "bits", "length"], sort=False):
        row = {"origin": "measured", "mode": mode, "bits": bits, "length": length, "n_texts": len(group)}
        quantities = {
            "exact_share": group["exact"].eq(True).astype(float),
            "gain_bits": group["gain_bits"],
            "text_bits_per_vector_bit": group["text_bits"] / group["vector_bits"],
            "text_bits_per_coded_bit": group["text_bits"] / group["coded_bits"],
        }
        for name, values in quantities.items():
            if values.notna().all():
                mean = bootstrap_clusters(group["cluster_id"], weighted_mean(values), **resampling)
                row |= mean.columns(name)
        rows.append(row | {"vector_bits": group["vector_bits"].mean(), "coded_bits": group["coded_bits"].mean()})
    return pd.DataFrame(rows).sort_values(["mode", "bits", "length"], ascending=[True, False, True], ignore_index=True)


def compute_at_capacity(utilisation: pd.DataFrame, rates: pd.DataFrame) -> pd.DataFrame:
    """Return bits gained on books against bits of one vector: the printed gains, and ours that are exact, by precision.

    ``utilisation`` of the published models (capacity_utilisation.compute_utilisation), where a gain is a mean over
    texts that failed; ``rates`` from ``summarise_vector_bits``, of which each precision has its best length.
    """
    books = utilisation[utilisation["kind"] == "books"]
    printed = pd.DataFrame(
        {
            "origin": books["origin"],
            "name": books["name"],
            "vector_bits": 16 * books["d_model"],
            "gain_bits": books["info_gain_bits"],
        }
    )
    best = rates.loc[rates.groupby(["mode", "bits"], sort=False)["gain_bits"].idxmax()]
    best = best[(best["mode"] == "optimised") | (best["bits"] == 16)].sort_values("bits", ascending=False)
    here = best.assign(
        name=[f"SmolLM2-135M, {row.bits} bits a number, {row.length} tokens" for row in best.itertuples()]
    )
    table = pd.concat([printed, here[["origin", "name", "vector_bits", "gain_bits"]]], ignore_index=True)
    return table.assign(gain_bits_per_vector_bit=table["gain_bits"] / table["vector_bits"])


def compute_shortest(cases: pd.DataFrame, **resampling) -> pd.DataFrame:
    """Return, by length, the shortest description by an exact vector over that by arithmetic coding with the model.

    Texts that some vector holds exactly. The code is ideal, whole words of CODER_BITS, and the length of the text.
    """
    exact = cases[cases["exact"].eq(True)].assign(shortest=cases[["vector_bits", "coded_bits"]].min(axis=1))
    rows = []
    for length, group in exact.groupby("length"):
        best = group.loc[group.groupby("text_id")["shortest"].idxmin()]
        code = SIDE_BITS + np.ceil(best["text_bits"] / CODER_BITS) * CODER_BITS
        row = {"origin": "measured", "length": length, "n_texts": len(best)}
        for name, values in (
            ("vector_bits", best["shortest"]),
            ("code_bits", code),
            ("factor", best["shortest"] / code),
            ("ratio", 8 * best["text_bytes"] / best["shortest"]),
            ("code_ratio", 8 * best["text_bytes"] / code),
        ):
            row |= bootstrap_clusters(best["cluster_id"], weighted_mean(values), **resampling).columns(name)
        rows.append(row)
    return pd.DataFrame(rows)


def compare_weights(sweeps: dict[int, pd.DataFrame], **resampling) -> pd.DataFrame:
    """Return, by bits a weight and length, what texts cost the model alone, exact share and gain; means over books.

    ``gain_bits`` of all texts, exact or not.
    """
    rows = []
    for weight_bits, cases in sorted(sweeps.items(), reverse=True):
        for length, group in cases.groupby("length"):
            row = {"origin": "measured", "weight_bits": weight_bits, "length": length, "n_texts": len(group)}
            for name, values in (
                ("nats_a_token", group["ce_lm_nats"] / group["n_targets"]),
                ("exact_share", group["exact"].eq(True).astype(float)),
                ("gain_bits", pd.Series(nats_to_bits(group["ce_lm_nats"] - group["ce_mem_nats"]))),
            ):
                row |= bootstrap_clusters(group["cluster_id"], weighted_mean(values), **resampling).columns(name)
            rows.append(row)
    return pd.DataFrame(rows)


def compute_losses(cases: pd.DataFrame, **resampling) -> dict[tuple[str, int], Interval]:
    """Return, by mode and bits below 16, the share of exact texts minus that at 16 bits: the same texts and lengths."""
    exact = cases.assign(exact=cases["exact"].eq(True).astype(float))
    exact = exact.pivot_table(index=["cluster_id", "text_id", "length"], columns=["mode", "bits"], values="exact")
    books = exact.index.get_level_values("cluster_id")
    return {
        (mode, bits): bootstrap_clusters(
            books, weighted_mean((exact[mode, bits] - exact["rounded", 16]).to_numpy()), **resampling
        )
        for mode, bits in sorted(exact.columns, key=lambda column: (column[0], -column[1]))
        if bits < 16
    }


def judge(losses: dict[tuple[str, int], Interval]) -> list[dict]:
    """Return the verdict rows on precision: bits that cost no exactness."""
    return [
        claim(
            f"{mode} at {bits} bits a number, as many texts are exact as at 16",
            loss,
            (-0.05, 1),
            unit="difference of shares",
        )
        for (mode, bits), loss in losses.items()
    ]
