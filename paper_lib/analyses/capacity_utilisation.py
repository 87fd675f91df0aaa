"""Notebook 04: how much of a vector is used (Figure 5), in tokens and in bits."""

import pandas as pd

from ..capacity import nats_to_bits, theoretical_capacity_tokens, utilisation_bits, utilisation_tokens
from ..verdicts import compare


def compute_utilisation(gains: pd.DataFrame) -> pd.DataFrame:
    """Return ``gains`` of one vector each with the share of it that is used, books before random words.

    ``gains`` needs ``source``, ``token_gain_mean`` (tokens), ``info_gain_nats_mean``, ``d_model``, ``vocab_size``.
    Added: ``kind`` (books or random words), ``theoretical_capacity_tokens``, ``utilisation`` (a share, of the gain
    rounded to .1 token, as the authors do), ``info_gain_bits``, ``bits_per_dimension`` and ``utilisation_in_bits`` (a
    share).
    """
    data = gains.copy()
    data["kind"] = data["source"].map(lambda source: "random words" if source == "random" else "books")
    data = data.sort_values("kind", kind="stable", ignore_index=True)
    rows = list(data.itertuples())
    data["theoretical_capacity_tokens"] = [theoretical_capacity_tokens(row.d_model, row.vocab_size) for row in rows]
    data["utilisation"] = [utilisation_tokens(round(r.token_gain_mean, 1), r.d_model, r.vocab_size) for r in rows]
    data["info_gain_bits"] = nats_to_bits(data["info_gain_nats_mean"])
    data["bits_per_dimension"] = data["info_gain_bits"] / data["d_model"]
    data["utilisation_in_bits"] = [utilisation_bits(row.info_gain_nats_mean, row.d_model) for row in rows]
    return data


def judge(utilisation: pd.DataFrame, stale: pd.DataFrame) -> list[dict]:
    """Return the verdict on the printed theory and utilisations, to their 4 decimals.

    ``utilisation`` comes from ``compute_utilisation``, with the columns of ``published.load_models``; ``stale`` from
    ``published.load_stale_capacities``: two gains as first printed, from which Figure 5 was drawn.
    """
    published = utilisation[utilisation["origin"] == "published"]
    books, random = (published[published["source"] == source] for source in ("pg19", "random"))
    first = random["model"].map(stale.set_index("model")["token_gain_mean"].round(1))
    as_drawn = first.fillna(random["token_gain_mean"].round(1)) / random["theoretical_capacity_tokens"]
    theory = compare(
        "theoretical capacity, from width and vocabulary",
        books["max_theoretical_tokens"],
        books["theoretical_capacity_tokens"].round(),
        tolerance=0,
        unit="tokens",
        names=books["name"],
    )
    return [
        theory,
        _compare_rounded(books, "PG-19", books["utilisation_pg19"], books["utilisation"]),
        _compare_rounded(
            random, "random words, gains as printed last", random["utilisation_random"], random["utilisation"]
        ),
        _compare_rounded(random, "random words, gains as printed first", random["utilisation_random"], as_drawn),
    ]


def _compare_rounded(rows, what, printed, here):
    return compare(f"utilisation, {what}", printed.round(4), here.round(4), tolerance=5e-5, names=rows["name"])
