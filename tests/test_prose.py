"""Numbers in sentences: each is computed from the table it speaks of, written as the sentence has it, and looked for.

A sentence goes stale when a model is replaced or a run is made again; then the test shows what it should say now.
"""

import functools
import json
import re

import pandas as pd
import pytest

from paper_lib import published
from paper_lib.paths import FIGURES, NOTEBOOKS, ROOT


@functools.cache
def read(document):
    """Return the text of README.md or of a notebook's Markdown cells, each run of blanks as one."""
    path = next(iter(NOTEBOOKS.glob(f"{document}_*.ipynb")), ROOT / document)
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")
    return " ".join(text.split())


@functools.cache
def table(name):
    return pd.read_csv(FIGURES / f"table_{name}.csv")


def short(value, digits=2):
    """Write a number below one as the prose does: .84."""
    return f"{value:.{digits}f}".removeprefix("0")


def by_name(name, **where):
    frame = table(name)
    for column, value in where.items():
        frame = frame[frame[column] == value]
    return frame.set_index("name") if "name" in frame else frame.set_index("model")


def one_vector():
    names = published.load_models().set_index("model")["name"]
    rows = by_name("capacity", origin="published", source="pg19", n_mem=1, convention="paper")
    return rows.rename(index=names)


def held(protocol, n_mem=1):
    return by_name("measured", source="pg19_test_clean", protocol=protocol, n_mem=n_mem).loc["novels-5m"]


def bytes_ratio():
    best = one_vector().loc["Llama-3.1-8B"]
    return best["text_bytes_per_vector"] / best["vector_bytes"]


def on_books():
    return by_name("entropy_test", origin="published", source="pg19").rename(
        index=published.load_models().set_index("model")["name"]
    )


def here(protocol, column):
    return by_name("entropy_test", origin="measured", source="pg19_test_clean", protocol=protocol, n_mem=1)[
        column
    ].item()


def exponent(name, quantity="information gain (nats)"):
    return by_name("scaling_exponents", quantity=quantity).loc[name]


def used(source=None, origin="published"):
    return by_name("utilisation", origin=origin, **({"source": source} if source else {}))


def ratios(origin="published"):
    return by_name("text_sources", origin=origin)


def of_families(*families):
    frame = ratios()
    return frame.loc[frame["family"].isin(families), "ratio_random"]


def context_left():
    rows = published.load_ablations("text_prefix_vs_mem")
    left = rows.pivot_table(index="model", columns=["metric", "setting"], values="value", sort=False)
    alone = left["ce"].iloc[:, 0]
    longest = max(left["ce_with_text_prefix"].columns, key=float)
    return left["ce_with_text_prefix"][longest] / alone, left["ce_with_mem"].iloc[:, 0] / alone


def landscape(row):
    return table("landscape").query("row == @row")["tokens_per_vector"].max()


def grown(quantity, protocol):
    row = exponent(f"novels-5m, {protocol}", quantity)
    return row["n_mem_max"] * row["per_vector_at_max"] / row["per_vector_at_1"]


def tokens_beyond_one():
    rows = [exponent(name, "decoding capacity (tokens)") for name in ("Llama-3.2-1B", "Pythia-160M")]
    return [row["n_mem_max"] * row["per_vector_at_max"] / row["per_vector_at_1"] for row in rows]


def bits_per_token():
    frame = used("pg19")
    return frame["info_gain_bits"] / frame["token_gain_mean"]


def convention_shift():
    return (table("pooling")["sums_over_paper"] - 1).abs().max()


def coders():
    rows = published.load_followup("classical_coders").query("source == 'pg19'").set_index("coder")["ratio_mean"]
    return rows["arithmetic+pythia-160m"] / bytes_ratio()


def quickstart():
    notebook = json.loads(next(NOTEBOOKS.glob("00_*.ipynb")).read_text(encoding="utf-8"))
    said = "".join("".join(o.get("text", [])) for c in notebook["cells"] for o in c.get("outputs", []))
    n_tokens, one, two = re.search(
        r"^(\d+) tokens.*\n1 vector: (\d+)%.*\n2 vectors: (\d+)%.*\n4 vectors: all", said
    ).groups()
    assert one == two
    return n_tokens, one


NOVELS = "novels-5m"
TOKENS = "exact capacity (tokens)"
STATEMENTS = [
    # 01
    ("01", "Llama-3.1-8B carries {:,.0f} tokens", lambda: one_vector()["decoding_capacity_tokens"]["Llama-3.1-8B"]),
    (
        "01",
        "{:.0f} times as many as one of Pythia-160M",
        lambda: (
            one_vector()["decoding_capacity_tokens"]["Llama-3.1-8B"]
            / one_vector()["decoding_capacity_tokens"]["Pythia-160M"]
        ),
    ),
    (
        "01",
        "(OPT-1.3B {:.0f}, Llama-3.2-1B {:.0f})",
        lambda: one_vector()["decoding_capacity_tokens"][["OPT-1.3B", "Llama-3.2-1B"]],
    ),
    ("01", "a text of {} of its own size", lambda: short(bytes_ratio())),
    ("01", "returns {:.1f} tokens of a novel exactly", lambda: held("strict")["exact_tokens_mean"]),
    ("01", "{:.0f} bytes of text", lambda: held("strict")["exact_bytes_mean"]),
    ("01", "from a vector of {}", lambda: held("strict")["vector_bytes"]),
    (
        "01",
        "{:.0f} nats against {:.0f}",
        lambda: [held(protocol)["info_gain_nats_mean"] for protocol in ("strict", "kuratov2025")],
    ),
    # 02
    ("02", "(AUC {} or more)", lambda: short(on_books()[["auc_entropy", "auc_length"]].min(axis=None))),
    (
        "02",
        "predict success for {} of the {} models",
        lambda: [(on_books()["auc_within_low"] > 0.5).sum(), len(on_books())],
    ),
    (
        "02",
        "most clearly for the larger Llamas (AUC about {})",
        lambda: short(on_books()["auc_within_length"].nlargest(2).mean(), 1),
    ),
    (
        "02",
        "not detectably for {} and {}",
        lambda: on_books().index[on_books()["auc_within_low"] <= 0.5],
    ),
    ("02", "from {} ({})", lambda: [short(on_books()["slope_free"].max()), on_books()["slope_free"].idxmax()]),
    ("02", "down to {} ({})", lambda: [short(on_books()["slope_free"].min()), on_books()["slope_free"].idxmin()]),
    ("02", "(AUC {} under both protocols", lambda: short(here("strict", "auc_within_length"))),
    ("02", "(AUC {} under both protocols", lambda: short(here("kuratov2025", "auc_within_length"))),
    (
        "02",
        "(slopes {} and {}, intervals below 1)",
        lambda: [short(here(protocol, "slope_free")) for protocol in ("kuratov2025", "strict")],
    ),
    # 03
    ("03", "grows {:.0f} to {:.0f} times with sixteen vectors", lambda: sorted(tokens_beyond_one())),
    ("03", "Llama-3.2-1B's information gain is {}", lambda: short(exponent("Llama-3.2-1B")["exponent"])),
    (
        "03",
        "worth {:,.0f} nats alone, {:,.0f} among sixteen",
        lambda: exponent("Llama-3.2-1B")[["per_vector_at_1", "per_vector_at_max"]],
    ),
    ("03", "Pythia-160M's {} from 1", lambda: short(exponent("Pythia-160M")["exponent"])),
    ("03", "return {:.1f} times as many tokens exactly", lambda: grown(TOKENS, "strict")),
    (
        "03",
        "(strict: {:.0f} against {:.1f})",
        lambda: [held("strict", n)["exact_tokens_mean"] for n in (4, 1)],
    ),
    (
        "03",
        "gain {:.1f} to {:.1f} times as many nats",
        lambda: [grown("information gain (nats)", protocol) for protocol in ("kuratov2025", "strict")],
    ),
    (
        "03",
        "exponents {} (strict) and {} (published protocol)",
        lambda: [short(exponent(f"{NOVELS}, {protocol}")["exponent"]) for protocol in ("strict", "kuratov2025")],
    ),
    # 04
    (
        "04",
        "uses {:.0f} % of its vector in tokens and {:.0f} % in bits",
        lambda: 100 * used("pg19")[["utilisation", "utilisation_in_bits"]].max(),
    ),
    (
        "04",
        "is {} to {} of utilisation in tokens",
        lambda: (used("pg19")["utilisation_in_bits"] / used("pg19")["utilisation"]).agg(["min", "max"]).map(short),
    ),
    ("04", "saved only {:.1f} to {:.1f}", lambda: bits_per_token().agg(["min", "max"])),
    (
        "04",
        "of width {:.0f} with a vocabulary of {:,.0f}, could hold {:.0f} tokens",
        lambda: used("pg19_test_clean", "measured").loc[
            NOVELS, ["d_model", "vocab_size", "theoretical_capacity_tokens"]
        ],
    ),
    (
        "04",
        "here uses {:.1f} % of its vector in tokens",
        lambda: 100 * used("pg19_test_clean", "measured")["utilisation"][NOVELS],
    ),
    (
        "04",
        "and {} % in bits",
        lambda: short(100 * used("pg19_test_clean", "measured")["utilisation_in_bits"][NOVELS], 1),
    ),
    # 05
    (
        "05",
        "random words gain {:.0f} to {:.0f} % *more* nats",
        lambda: 100 * (of_families("Pythia", "OPT", "Mamba").agg(["min", "max"]) - 1),
    ),
    (
        "05",
        "lies between {} and {}",
        lambda: of_families("OLMo", "Llama").agg(["min", "max"]).map(short),
    ),
    ("05", "lie within {:.0f} % of books", lambda: 100 * (ratios()["ratio_fanfics"] - 1).abs().max()),
    ("05", "leave {:.0f} to {:.0f} % of its cross-entropy", lambda: 100 * context_left()[0].agg(["min", "max"])),
    ("05", "the vector leaves {:.0f} to {:.0f} %", lambda: 100 * context_left()[1].agg(["min", "max"])),
    ("05", "moves it by up to {:.0f} %", lambda: 100 * convention_shift()),
    (
        "05",
        "gain {:.2f} times what novels gain, and the interval [{:.2f}, {:.2f}]",
        lambda: ratios("measured").loc[NOVELS, ["ratio_random", "ratio_random_low", "ratio_random_high"]],
    ),
    # 14
    ("14", "gives {:,.0f} with Llama-3.1-8B", lambda: landscape("progressive")),
    (
        "14",
        "(variants reach {:,.0f})",
        lambda: max(landscape(row) for row in ("progressive, aligned", "progressive, low-dimensional")),
    ),
    ("14", "always right is {:.0f} tokens", lambda: landscape("with margin, greedy 100 %")),
    ("14", "with Pythia-160M {:.0f} times better", coders),
    # README
    ("README.md", "{} tokens: one vector gets {} % of them right, so do two, four get all", lambda: quickstart()),
    ("README.md", "tokens in one vector of Llama-3.1-8B, {} of its bytes", lambda: short(bytes_ratio())),
    (
        "README.md",
        "entropy matters for {} of {} models",
        lambda: [(on_books()["auc_within_low"] > 0.5).sum(), len(on_books())],
    ),
    (
        "README.md",
        "information gain {} (Pythia-160M), {} (Llama-3.2-1B)",
        lambda: [short(exponent(name)["exponent"]) for name in ("Pythia-160M", "Llama-3.2-1B")],
    ),
    (
        "README.md",
        "uses {:.0f} % of its vector in tokens, {:.0f} % in bits",
        lambda: 100 * used("pg19").loc["Llama-3.1-8B", ["utilisation", "utilisation_in_bits"]],
    ),
    (
        "README.md",
        "random words gain {} to {} times what books gain",
        lambda: ratios()["ratio_random"].agg(["min", "max"]).map(short),
    ),
    ("README.md", "{:.0f} tokens per vector is the largest number", lambda: landscape("with margin, greedy 100 %")),
    (
        "README.md",
        "returns {:.1f} tokens of a novel exactly (95 % interval over books {:.1f} to {:.1f})",
        lambda: held("strict")[["exact_tokens_mean", "exact_tokens_low", "exact_tokens_high"]],
    ),
    (
        "README.md",
        "{:.0f} bytes of text in {:.0f} bytes of vector",
        lambda: held("strict")[["exact_bytes_mean", "vector_bytes"]],
    ),
    ("README.md", "Random words gain {:.2f} times", lambda: ratios("measured")["ratio_random"][NOVELS]),
    (
        "README.md",
        "{:,.1f} nats are {:,.0f} bits, {:.2f} of the 16 bits per dimension",
        lambda: [
            one_vector()["info_gain_nats_mean"]["Llama-3.1-8B"],
            *used("pg19").loc["Llama-3.1-8B", ["info_gain_bits", "bits_per_dimension"]],
        ],
    ),
    ("README.md", "moves them by up to {:.0f} %", lambda: 100 * convention_shift()),
]


@pytest.mark.parametrize(("document", "template", "values"), STATEMENTS, ids=[f"{d} {t}" for d, t, _ in STATEMENTS])
def test_a_number_in_a_sentence_is_that_of_its_table(document, template, values):
    found = values()
    found = [found] if isinstance(found, str) or not hasattr(found, "__iter__") else list(found)
    said = template.format(*found)
    assert said in read(document), f"{document} should say: {said}"
