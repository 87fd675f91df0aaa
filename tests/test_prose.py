"""Numbers in sentences: each is computed from the table it speaks of, written as the sentence has it, and looked for.

A sentence goes stale when a model is replaced or a run is made again; then the test shows what it should say now.
"""

import functools
import json
import math
import re

import pandas as pd
import pytest

from paper_lib import measured, published
from paper_lib.analyses import horizons
from paper_lib.analyses.anchor import ORDERS
from paper_lib.frozen import load_findings
from paper_lib.paths import FIGURES, NOTEBOOKS, ROOT
from paper_lib.verdicts import VERDICTS


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


def held(protocol, n_mem=1, *, name="novels-5m", source="pg19_test_clean"):
    return by_name("measured", source=source, protocol=protocol, n_mem=n_mem).loc[name]


def horizon(arm, name="smollm2-135m"):
    if arm == "printed":
        printed = published.load_followup("progressive_capacity").set_index("model").loc[horizons.PRINTED[name]]
        return printed.rename({"tokens_mean": "tokens", "info_gain_bits": "gain_bits"})
    return table("horizons").set_index(["name", "arm"]).loc[name, arm]


def stages_of(arm):
    return table("stages").set_index(["name", "arm"]).loc["smollm2-135m", arm]


def survivors():
    """Return the rows of all margins of the portability table, by condition; a row for each processor."""
    return table("portability").query("margin_from == 0 and margin_to == inf").set_index("condition")


def count_in_full_precision(processor):
    rows = survivors().query("processor == @processor")
    rows = rows[rows.index.str.startswith(("fp32", "fp64"))]
    assert len(rows) == 5
    return (rows["survive"] * rows["n_vectors"]).min()


def gemma_orders():
    rates = table("exchange_rates").set_index("factor")
    return rates.loc["Gemma, vector: at position 0, to after the start token"]


def held_exactly(name, protocol, unit):
    row = table("held").query("name == @name and protocol == @protocol and unit == @unit").iloc[0]
    return f"{short(row['ratio'])} [{short(row['ratio_low'])}, {short(row['ratio_high'])}]"


def on_lm(protocol, source="pg19_test_clean"):
    return held(protocol, name=SMOL, source=source)


def source_row(source, length):
    return table("own_texts").query("source == @source and length == @length").iloc[0]


def bytes_ratio():
    best = one_vector().loc["Llama-3.1-8B"]
    return best["text_bytes_per_vector"] / best["vector_bytes"]


def on_books():
    return by_name("entropy_test", origin="published", source="pg19")


def here(protocol, column):
    return by_name("entropy_test", source="pg19_test_clean", protocol=protocol, n_mem=1)[column][NOVELS]


def exponent(name, n_mem, quantity="information gain (nats)"):
    return by_name("scaling_exponents", quantity=quantity, n_mem=n_mem).loc[name]


def used(source=None, origin="published"):
    return by_name("utilisation", origin=origin, **({"source": source} if source else {}))


def ratios(origin="published"):
    return by_name("text_sources", origin=origin)


def matched(precision):
    frame = ratios()
    return frame.loc[frame["precision"] == precision, "ratio_matched"]


def smaller_at_best_accuracy():
    """Return by how much the gain at 512 tokens is smaller at the step of the best accuracy, for full vectors."""
    means = published.load_length_means().query("n_mem == 1 and length == 512").set_index("model")
    full = means[means["n_acc_ge_0.99"] == 0]
    loss = full["lm_loss_mean"]
    return ((full["best_loss_at_best_acc_mean"] - full["best_loss_mean"]) / (loss - full["best_loss_mean"])).dropna()


def averaged_multiples():
    """Return the largest multiple of capacity that Figure 4 averages over, with one vector and with sixteen."""
    runs = published.load_capacities().query("source == 'pg19' and n_mem in (1, 16)").set_index("model")
    sixteen = runs.dropna(subset=["failed_lengths"])
    points = published.load_points(list(sixteen.index), "pg19")
    alone = points[~points["solved"]].groupby("model")["length"].max()
    of_sixteen = sixteen["failed_lengths"].str.split().str[-1].astype(float) / sixteen["decoding_capacity_tokens"]
    one = runs.loc[runs["n_mem"] == 1, "decoding_capacity_tokens"]
    return [(alone / one.reindex(alone.index)).max(), of_sixteen.max()]


def context_left():
    rows = published.load_ablations("text_prefix_vs_mem")
    left = rows.pivot_table(index="model", columns=["metric", "setting"], values="value", sort=False)
    alone = left["ce"].iloc[:, 0]
    longest = max(left["ce_with_text_prefix"].columns, key=float)
    return left["ce_with_text_prefix"][longest] / alone, left["ce_with_mem"].iloc[:, 0] / alone


def landscape(row):
    return table("landscape").query("row == @row")[["tokens_per_vector", "tokens_per_vector_high"]].max(axis=None)


def varied(setting):
    runs = published.load_followup(f"progressive_{setting}").query("model == 'EleutherAI/pythia-1.4b'")
    return runs["tokens"].agg(["min", "max"])


def own_nats():
    rows = published.load_ablations("text_prefix_vs_mem").query("metric == 'ce'").set_index("model")["value"]
    return rows["meta-llama/Meta-Llama-3.1-8B"]


def grown_capacity():
    runs = published.load_capacities().query("source == 'pg19' and n_mem in (1, 16)")
    runs = runs.pivot(index="model", columns="n_mem", values="decoding_capacity_tokens").dropna()
    return runs[16] / runs[1]


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
    assert "model: smollm2-135m\n" in said
    n_tokens, n_evaluations = re.search(
        r"(\d+) tokens, of which.*\n1 vector: all tokens right\n(\d+) evaluations", said
    ).groups()
    return n_tokens, n_evaluations


NOVELS = "novels-5m"
GAIN, TOKENS = "information gain (nats)", "exact capacity (tokens)"
SUPPORTED, CONTRADICTED, UNDECIDED = VERDICTS


def plateau(*verdicts):
    frame = by_name("plateau")
    return frame[frame["verdict"].isin(verdicts)]


def claimed(table_name, beginning):
    rows = table(f"verdict_{table_name}")
    return rows[rows["claim"].str.startswith(beginning)].iloc[0]


def count(table_name, beginning):
    """Return how many models support a claim, contradict it, and leave it open, and how many there are."""
    row = claimed(table_name, beginning)
    n = int(row["unit"].split()[1])
    return int(row["low"]), n - int(row["high"]), int(row["high"] - row["low"]), n


PREDICTS = ("entropy_cutoff", "entropy predicts success")
CONSTANT = ("entropy_cutoff", "once no text fits")
FP32 = ("text_sources", "random words gain what books gain, models run in fp32")
BF16 = ("text_sources", "random words gain what books gain, models run under")
BF16_RUN = "bf16 autocast"
FANFICS = ("text_sources", "fanfics")


def precision(source):
    return table("precision").set_index("source")["ratio"][source]


def largest_against(beginning):
    return claimed("landscape", beginning)["estimate"]


def recipe(reference, quantity):
    rows = table("optimizer")
    return rows[(rows["reference"] == reference) & rows["quantity"].str.startswith(quantity)].iloc[0]


def on_real(row):
    return table("optimizer_real")["value"].iloc[row]


def order(model, optimiser, which):
    rows = table("anchor")
    return rows[(rows["model"] == model) & (rows["optimiser"] == optimiser) & (rows["order"] == ORDERS[which])].iloc[0]


def n_exact(*which):
    row = order(*which)
    return round(row["exact_share"] * row["n_texts"])


def price(asks):
    return table("margin_price").set_index("stops at").loc[asks]


def pairs(kind):
    return table("cosines").set_index("pair").loc[kind]


def lines(path="straight"):
    return table("paths").set_index("path").loc[path]


def halfway():
    paths = load_findings("paths", name="geometry_smollm2-135m").query("path == 'straight' and at == 0.5")
    return paths["accuracy"].mean()


def radius(quantity):
    return table("radius").set_index("quantity").loc[quantity]


def perturbed(how, at):
    return table("robustness").set_index(["how", "at"]).loc[(how, at), "all_right"]


def trajectory(recipe):
    return table("trajectories").set_index("recipe").loc[recipe]


def beside(quantity):
    return table("neighbours").set_index("quantity").loc[quantity, "value"]


def kept(mode, n_bits, length):
    return table("vector_bits").set_index(["mode", "bits", "length"]).loc[(mode, n_bits, length)]


def coded_gain():
    rows = table("vector_bits").query("mode == 'optimised' and text_bits_per_vector_bit > 0")
    return rows["text_bits_per_coded_bit"] / rows["text_bits_per_vector_bit"] - 1


def printed_bits():
    return table("bits_at_capacity").query("origin == 'published'")["gain_bits_per_vector_bit"]


def lifted(arm):
    return table("one_step_levers").set_index(["arm", "n_mem"]).loc[(arm, 1)]


def joined(arm, path="curved"):
    return table("one_step_paths").set_index(["arm", "path"]).loc[(arm, path)]


def halfway_between(arm):
    paths = load_findings("paths", name="paths_novels-5m")
    return paths.query("arm == @arm and path == 'straight' and at == 0.5")["accuracy"].mean()


def in_layers(arm, name=NOVELS):
    return table("kv_memory").set_index(["name", "arm"]).loc[(name, arm)]


def beside_another(arm, place):
    return table("composition").set_index(["arm", "place"]).loc[(arm, place), "accuracy"]


def code_ratio(coder, origin="measured", source="books"):
    rows = table("coders").query("source == @source and n_words == 1568").set_index(["origin", "coder"])
    return rows.loc[(origin, coder), "ratio"]


def code_excess(n_words):
    return table("coders").query("coder == 'arithmetic, SmolLM2-135M' and n_words == @n_words")["excess"]


def weighed(weight_bits, length=48):
    return table("weight_bits").set_index(["weight_bits", "length"]).loc[(weight_bits, length)]


def one_step(arm, name=NOVELS):
    return table("one_step_capacity").set_index(["name", "arm"]).loc[(name, arm)]


def arranged(arrangement, n_tokens, name="novels-5m"):
    return (
        table("one_step").set_index(["arrangement", "n_tokens", "name"]).loc[(arrangement, n_tokens, name), "accuracy"]
    )


PUBLISHED, BEST, SMOL, GEMMA = "published", "AdamW at its best rate", "smollm2-135m", "gemma-3-270m"
SECOND = "anchored(n_before=0, n_after=1)"

STATEMENTS = [
    # 06
    (
        "06",
        "Two of one text have a cosine of {} on average, of two texts {}, random directions none: a text leaves a "
        "trace in its vectors, but no pair is nearer than {}, where",
        lambda: [
            *[short(pairs(kind)["cosine"]) for kind in ("one text, two starts", "two texts")],
            short(pairs("one text, two starts")["highest"]),
        ],
    ),
    (
        "06",
        "Halfway {} of the tokens are right; none of {:.0f} lines is free of errors, and {} of their length is at .99. "
        "Along curves with a trained middle point {} of the length is, and {} of the pairs have no error at any place "
        "looked at. Such a curve is {:.2f} times as long",
        lambda: [
            short(halfway()),
            lines()["n_pairs"] + 1e9 * lines()["joined"],
            *[short(lines(path)["share_solved"]) for path in ("straight", "curved")],
            short(lines("curved")["joined"]),
            lines("curved")["length_ratio"],
        ],
    ),
    (
        "06",
        "a move of {} of its length, on average, makes an error. A vector 5 % longer leaves {} of them exact, and one "
        "with two of its 576 coordinates at zero {}.",
        lambda: [
            short(radius("radius, in lengths of the vector")["value"], 3),
            short(perturbed("scaled", 1.05)),
            short(perturbed("dropped", 0.002)),
        ],
    ),
    (
        "06",
        "rank correlation {} [{}, {}]",
        lambda: [short(radius("their rank correlation")[name]) for name in ("value", "value_low", "value_high")],
    ),
    ("06", "It is {:.0f} times as long as a token's embedding", lambda: beside("norm, in those of tokens")),
    (
        "06",
        "it takes {:.0f}, AdamW at a rate of 1 takes {:.0f}, and at the published rate 200 evaluations take it to "
        "{:.1f}, with none of them exact. A trajectory has few dimensions, {:.0f} to {:.0f} principal components",
        lambda: [
            trajectory("as run")["norm"],
            trajectory("AdamW, 1, falling")["norm"],
            trajectory("AdamW, .01")["norm"] + 1e9 * trajectory("AdamW, .01")["reached"],
            table("trajectories")["n_components"].min(),
            table("trajectories")["n_components"].max(),
        ],
    ),
    (
        "06",
        "To the nearest token the cosine is {}, as measured outside too, and {} for random directions",
        lambda: [short(beside("cosine to the nearest token")), short(beside("the same of random directions"))],
    ),
    (
        "06",
        "right behind it costs {:.1f} nats a token instead of {:.1f}",
        lambda: [
            beside("another text behind the vector, nats a token"),
            beside("that text alone, nats a token"),
        ],
    ),
    (
        "06",
        "on the small model {:.1f} at 2 tokens and {:.1f} at 16.",
        lambda: [
            table("trajectory_lengths").set_index(["recipe", "length"]).loc[("as run", length), "n_components"]
            for length in (2, 16)
        ],
    ),
    # 08
    (
        "08",
        "{} of two tokens and {} of four are right",
        lambda: [short(arranged("e*", n_tokens)) for n_tokens in (2, 4)],
    ),
    (
        "08",
        "With learned positions {} of two tokens are right and {} of four, and a recurrence says all {:.0f} texts of "
        "four; of 16 tokens the small models say {} and {}.",
        lambda: [
            *(short(arranged("e*", n_tokens, "gpt2-170k")) for n_tokens in (2, 4)),
            measured.load_arms("arrangements_mamba-400k").query("arm == 'e*' and length == 4")["exact"].eq(True).sum(),
            *(short(arranged("e*", 16, name)) for name in ("gpt2-170k", "mamba-400k")),
        ],
    ),
    (
        "08",
        "{} of four tokens against {}, and still say but one of {:.0f} texts of four tokens whole",
        lambda: [
            short(arranged("halves", 4)),
            short(arranged("halves", 4, "Llama-3.2-1B")),
            measured.load_arms("arrangements_novels-5m")
            .query("arm == 'halves' and length == 4")["exact"]
            .eq(False)
            .sum()
            + 1,
        ],
    ),
    (
        "08",
        "Two vectors give {:.1f} tokens in one pass, at least, since {:.0f} of {:.0f} texts come out at the longest "
        "length tried; two vectors that are read autoregressively give {:.1f}, one {:.1f}. In nats one step by "
        "AdamW holds at least {:.1f} times what one vector holds by `recipe: fast`, {:.1f} times what two do",
        lambda: [
            *one_step("one step, e and m")[["tokens", "at_longest", "n_texts"]],
            one_step("autoregressive, 2 vectors, fast")["tokens"],
            one_step("autoregressive, 1 vector, fast")["tokens"],
            one_step("one step, e and m")["ratio"],
            one_step("one step, e and m")["ratio_of_two"],
        ],
    ),
    (
        "08",
        "It holds {:.1f} tokens, at least, since {:.0f} of {:.0f} texts comes out at 128, the longest tried; e and m "
        "in one pass hold {:.1f}, and {} text of 96. That is at most {} [{}, {}] times the nats",
        lambda: [
            *one_step("autoregressive, 1 vector, fast", SMOL)[["tokens", "at_longest", "n_texts"]],
            one_step("one step, e and m", SMOL)["tokens"],
            {0: "no"}[one_step("one step, e and m", SMOL)["at_longest"]],
            *map(short, one_step("one step, e and m", SMOL)[["ratio", "ratio_low", "ratio_high"]]),
        ],
    ),
    (
        "08",
        "it leaves {:.1f} tokens to each text's own e on the small model, {:.1f} times the nats that one vector holds "
        "autoregressively. Held for {:.0f} other passages it leaves them {:.1f} tokens",
        lambda: [
            *one_step("shared m")[["tokens", "ratio"]],
            *one_step("held m")[["n_texts", "tokens"]],
        ],
    ),
    (
        "08",
        "On SmolLM2-135M it leaves {:.1f} and {:.1f}, at least",
        lambda: [one_step(arm, SMOL)["tokens"] for arm in ("shared m", "held m")],
    ),
    (
        "08",
        "{:.0f} of {:.0f} texts of 32 tokens come out instead of {:.0f}, and as many by L-BFGS or with a third vector",
        lambda: [
            *lifted("one step, T .25")[["at_longest", "n_texts"]],
            lifted("one step, e and m")["at_longest"],
        ],
    ),
    (
        "08",
        "token by token holds {} times the nats, and targets that grow {} times",
        lambda: [short(lifted(arm)["ratio"]) for arm in ("one step, e from one vector", "one step, growing by 4")],
    ),
    (
        "08",
        "has {} of the tokens right at its middle, but {} of the curves have every token right all along, at {:.2f} "
        "times the length",
        lambda: [
            short(halfway_between("one step, e and m")),
            short(joined("one step, e and m")["joined"]),
            joined("one step, e and m")["length_ratio"],
        ],
    ),
    (
        "08",
        "a straight line keeps {} at its middle, and curves join only {} of the pairs",
        lambda: [
            short(halfway_between("autoregressive, 1 vector, fast")),
            short(joined("autoregressive, 1 vector, fast")["joined"]),
        ],
    ),
    (
        "08",
        "One pass is {:.0f} to {:.0f} times as fast",
        lambda: table("one_step_speed").query("how == 'one_pass'")["ratio"].agg(["min", "max"]),
    ),
    # 10
    (
        "10",
        "of bytes ours comes to {:.2f} on novels and {:.2f} on random words, of tokens to {:.2f} and {:.2f}; printed "
        "are {:.2f} and {:.2f}. The code by SmolLM2-135M makes novels {:.2f} times smaller. All {:.0f} codes give back",
        lambda: [
            *[code_ratio("Huffman, bytes", source=source) for source in ("books", "random words")],
            *[code_ratio("Huffman, tokens", source=source) for source in ("books", "random words")],
            *[code_ratio("Huffman", "published", source) for source in ("books", "random words")],
            code_ratio("arithmetic, SmolLM2-135M"),
            (table("coders")["n_texts"] * table("coders")["decoded"]).sum(),
        ],
    ),
    (
        "10",
        "That of the model is within {} % of the model's cross-entropy at 1,568 words; at 64 words it is up "
        "to {:.0f} % longer",
        lambda: [short(100 * code_excess(1568).abs().max(), 1), 100 * code_excess(64).max()],
    ),
    (
        "10",
        "cost the model alone {:.1f} nats a token instead of {:.1f}. Of these texts {} are exact and not {}, yet a "
        "vector gains {:.0f} bits of them and not {:.0f}",
        lambda: [
            weighed(3)["nats_a_token"],
            weighed(4)["nats_a_token"],
            short(weighed(3)["exact_share"]),
            {1: "all"}[weighed(4)["exact_share"]],
            weighed(3)["gain_bits"],
            weighed(4)["gain_bits"],
        ],
    ),
    (
        "10",
        "is open; {} and {} of the texts of 72 tokens are exact.",
        lambda: [short(weighed(weight_bits, 72)["exact_share"]) for weight_bits in (8, 4)],
    ),
    (
        "10",
        "Rounded afterwards, 6 bits lose {} of the texts",
        lambda: short(
            -table("verdict_bits_accounting")
            .set_index("claim")
            .loc["rounded at 6 bits a number, as many texts are exact as at 16", "estimate"]
        ),
    ),
    (
        "10",
        "At 2 bits a number {} of the texts of 24 tokens are exact, {} bits of text for each bit of vector; at 16 bits "
        "a vector has {} at best.",
        lambda: [
            short(kept("optimised", 2, 24)["exact_share"]),
            short(kept("optimised", 2, 24)["text_bits_per_vector_bit"], 3),
            short(table("vector_bits").query("bits == 16")["text_bits_per_vector_bit"].max(), 3),
        ],
    ),
    (
        "10",
        "Entropy coding of the levels adds {:.0f} to {:.0f} % to that.",
        lambda: 100 * coded_gain().agg(["min", "max"]),
    ),
    (
        "10",
        "at 16 bits a number, gain {} to {}.",
        lambda: [
            short(value, 3)
            for value in table("bits_at_capacity")
            .query("origin == 'published'")["gain_bits_per_vector_bit"]
            .agg(["min", "max"])
        ],
    ),
    (
        "10",
        "{:.1f} to {:.1f} times as long as an ideal code by the same model, and longer than the plain text: {} to "
        "{} bytes",
        lambda: [
            *table("shortest")["factor"].agg(["min", "max"]),
            *map(short, table("shortest")["ratio"].agg(["min", "max"])),
        ],
    ),
    (
        "README.md",
        "of SmolLM2-135M is still {:.1f} to {:.1f} times as long as an ideal code",
        lambda: table("shortest")["factor"].agg(["min", "max"]),
    ),
    # 12
    (
        "12",
        "holds {:.0f} tokens exactly, at least, since {:.0f} of {:.0f} texts come out at {:.0f}, near the end of the "
        "context; an input vector holds {:.1f}. That is at least {:.1f} times the nats, and {:.1f} times for each",
        lambda: [
            *in_layers("keys and values")[["tokens", "whole_texts", "n_texts", "at_most"]],
            in_layers("input vector")["tokens"],
            *in_layers("keys and values")[["nats_ratio", "per_number_ratio"]],
        ],
    ),
    (
        "12",
        "{:.0f} of {:.0f} texts come out at {:.0f} tokens, the longest tried, and {:.0f} of {:.0f} from an input "
        "vector at {:.0f}: {:.1f} tokens against {:.1f}, {:.1f} times the nats with {:.0f} times the numbers.",
        lambda: [
            *in_layers("keys and values", SMOL)[["whole_texts", "n_texts", "at_most"]],
            *in_layers("input vector", SMOL)[["whole_texts", "n_texts", "at_most"]],
            *(in_layers(arm, SMOL)["tokens"] for arm in ("keys and values", "input vector")),
            in_layers("keys and values", SMOL)["nats_ratio"],
            in_layers("keys and values", SMOL)["real_numbers"] / in_layers("input vector", SMOL)["real_numbers"],
        ],
    ),
    (
        "12",
        "every fourth layer hold {:.1f} tokens, with {:.0f} of {:.0f} texts whole at {:.0f}; values alone {:.1f},",
        lambda: [
            *in_layers("every fourth layer", SMOL)[["tokens", "whole_texts", "n_texts", "at_most"]],
            in_layers("values", SMOL)["tokens"],
        ],
    ),
    ("12", "prints {:.0f} to {:.0f} times the tokens", lambda: table("kv_printed")["ratio"].agg(["min", "max"])),
    (
        "12",
        "hold {} of the nats, less for each number than an input vector. Keys and values of the first of four layers "
        "hold {:.1f} tokens, those of the last {:.1f}.",
        lambda: [
            short(claimed("kv_memory", "Values alone")["estimate"])
            if in_layers("values")["per_number_ratio_high"] < 1
            else "",
            in_layers("first quarter of the layers")["tokens"],
            in_layers("last quarter of the layers")["tokens"],
        ],
    ),
    (
        "12",
        "From there {:.0f} of {:.0f} texts of {:.0f} tokens are exact, from a random start {} are.",
        lambda: [
            *in_layers("keys and values, from a vector's")[["whole_texts", "n_texts", "at_most"]],
            {12: "all"}[
                measured.load_arms("kv_novels-5m").query("arm == 'keys and values' and length == 192")["exact"].sum()
            ],
        ],
    ),
    (
        "12",
        "Side by side {} of the tokens are right, less than the {} of the model alone.",
        lambda: [short(beside_another("keys and values", place)) for place in ("in front", "none")],
    ),
    (
        "12",
        "{} of the tokens are right in front and {} behind, against {} without any",
        lambda: [short(beside_another("input vector", place)) for place in ("in front", "behind", "none")],
    ),
    # 07
    (
        "07",
        "{:.1f} tokens against {:.1f}. In bits gained the two are closer, {:.0f} against {:.0f}: a token that is held "
        "brings {:.1f} bits here and {:.1f} there.",
        lambda: [
            horizon("published")["tokens"],
            horizon("printed")["tokens"],
            horizon("published")["gain_bits"],
            horizon("printed")["gain_bits"],
            horizon("published")["gain_bits"] / horizon("published")["tokens"],
            horizon("printed")["gain_bits"] / horizon("printed")["tokens"],
        ],
    ),
    (
        "07",
        "at least {:.1f} tokens and {:.0f} bits where {:.1f} and {:.0f} are printed, with {:.0f} of {:.0f} texts cut "
        "short, so the comparison is undecided. `fast` grows badly there: {:.0f} tokens",
        lambda: [
            *horizon("published", "gemma-3-270m")[["tokens", "gain_bits"]],
            *horizon("printed", "gemma-3-270m")[["tokens", "gain_bits"]],
            *horizon("published", "gemma-3-270m")[["n_cut_short", "n_texts"]],
            horizon("fast", "gemma-3-270m")["tokens"],
        ],
    ),
    (
        "07",
        "at least {:.1f} times the tokens that it holds of targets that grow",
        lambda: [table("exchange_rates").set_index("to").loc["each length alone", "tokens_ratio"]],
    ),
    (
        "07",
        "holds {:.0f} tokens and {:.0f} bits after a median of {:.0f} evaluations where the published optimiser took "
        "{:,.0f}",
        lambda: [
            *horizon("fast")[["tokens", "gain_bits", "evaluations"]],
            horizon("published")["evaluations"],
        ],
    ),
    (
        "07",
        "of the stages under the printed rule {} lose information, and the last five tokens of each text bring {:.1f} "
        "bits each",
        lambda: [
            short(stages_of("published")["losing_share"]),
            stages_of("published")["last_bits"],
        ],
    ),
    (
        "07",
        "after 400 evaluations, it brings {} [{}, {:.2f}] times the tokens made right",
        lambda: [
            short(value) if value < 1 else value
            for value in table("exchange_rates")
            .set_index("to")
            .loc["start token first, 400 evaluations", ["tokens_ratio", "tokens_ratio_low", "tokens_ratio_high"]]
        ],
    ),
    (
        "07",
        "all {:.0f} vectors decode in fp32 and fp64. So do all {:.0f} on a processor with narrower vector instructions",
        lambda: [count_in_full_precision(f"x86_64, {name}") for name in ("AVX512", "AVX2")],
    ),
    (
        "07",
        "With weights in bf16, 8 at a time, {} of them do.",
        lambda: short(survivors().loc["bf16 weights, cache, 8 at a time", "survive"]),
    ),
    (
        "07",
        "in {} of the failed texts under `strict`; it is where the vectors of the follow-up break too. With the start "
        "token in front it does so in {}.",
        lambda: [
            short(table("first_errors").set_index("protocol").loc["strict", "wrong_at_1"]),
            {0: "none"}[table("first_errors").set_index("protocol").loc["anchored", "wrong_at_1"]],
        ],
    ),
    # 11
    (
        "11",
        "holds {:.1f} tokens exactly with `fast` and {:.1f} with the published optimiser: {:.1f} times the tokens, "
        "{:.1f} times the nats and {:.1f} times the bytes of text. AdamW at its best rate holds {:.1f}.",
        lambda: [
            *recipe(PUBLISHED, "tokens")[["fast", "other"]],
            *(recipe(PUBLISHED, unit)["ratio"] for unit in ("tokens", "nats", "bytes")),
            recipe(BEST, "tokens")["other"],
        ],
    ),
    (
        "11",
        "holds after {:,} evaluations `fast` holds after {:.0f}, {:.0f} times sooner",
        lambda: [
            round(recipe(PUBLISHED, "evaluations")["other"]),
            *recipe(PUBLISHED, "evaluations")[["fast", "ratio"]],
        ],
    ),
    (
        "11",
        "nine of ten searches for texts of 32 tokens end exact within {:.0f} evaluations; the published optimiser, "
        "after {}, has none of {} texts, AdamW at its best rate, after {}, {} of {} with the start token in front",
        lambda: (
            [
                on_real(0),
                "2,000" if claimed("optimizer", "SmolLM2-135M: fast is exact")["verdict"] == SUPPORTED else "",
                table("optimizer_real")["n_texts"].iloc[1],
                order(SMOL, BEST, "anchored")["max_evaluations"],
                n_exact(SMOL, BEST, "anchored"),
                order(SMOL, BEST, "anchored")["n_texts"],
            ]
            if on_real(1) == 0 and n_exact(SMOL, BEST, "strict") == 0
            else []
        ),
    ),
    (
        "11",
        "gives its start token {} of its attention. With the vector in that place {} of {} texts are exact after {} "
        "evaluations, with the start token in front of it {}. What stays wrong with the vector first is the token at "
        "index {:.0f}, and with the start token between vector and text the one at index {:.0f}",
        lambda: [
            short(order(SMOL, "fast", "strict")["start_attention"]),
            n_exact(SMOL, "fast", "strict"),
            order(SMOL, "fast", "strict")["n_texts"],
            order(SMOL, "fast", "strict")["max_evaluations"],
            n_exact(SMOL, "fast", "anchored"),
            order(SMOL, "fast", "strict")["wrong_index"],
            order(SMOL, "fast", SECOND)["wrong_index"],
        ],
    ),
    (
        "11",
        "without it {} of {} texts are exact, with it before or after the vector {} and {}",
        lambda: [
            n_exact(GEMMA, "fast", "strict"),
            order(GEMMA, "fast", "strict")["n_texts"],
            n_exact(GEMMA, "fast", "anchored"),
            n_exact(GEMMA, "fast", SECOND),
        ],
    ),
    (
        "11",
        "whose start token draws {} of its attention, loses",
        lambda: (
            short(order(NOVELS, "fast", "strict")["start_attention"])
            if order(NOVELS, "fast", "anchored")["gained_high"] < 0
            else ""
        ),
    ),
    (
        "11",
        "took {:.0f}, {:.0f} and {:.0f} evaluations for no margin, .001 and .1, each with starts of its own, so these "
        "do not differ; a margin of 1 took {:.0f}, and {:.0f} % of the texts did not reach it",
        lambda: [
            *(price(asks)["evaluations"] for asks in ("accuracy 1", "margin .001", "margin .1", "margin 1")),
            100 * (1 - price("margin 1")["reached"]),
        ],
    ),
    (
        "README.md",
        "one vector of it holds {:.1f} tokens exactly after 400 evaluations, of novels that the model was trained on",
        lambda: recipe(PUBLISHED, "tokens")["fast"],
    ),
    (
        "README.md",
        "{:.1f} times the tokens of the published optimiser after 400 evaluations, {:.0f} times sooner",
        lambda: [recipe(PUBLISHED, "tokens")["ratio"], recipe(PUBLISHED, "evaluations")["ratio"]],
    ),
    # 07
    (
        "07",
        "With the start token in front of it one vector holds {:.1f} times the tokens that it holds at position 0",
        lambda: table("exchange_rates").set_index("to").loc["anchored", "tokens_ratio"],
    ),
    (
        "README.md",
        "with the start token in front one vector holds {:.1f} times the tokens",
        lambda: table("exchange_rates").set_index("to").loc["anchored", "tokens_ratio"],
    ),
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
    ("01", "1,568 means up to {:,.0f}", lambda: one_vector()["capacity_next_tokens"]["Llama-3.1-8B"] - 1),
    ("01", "a text of {} of its own size", lambda: short(bytes_ratio())),
    ("01", "returns at least {:.1f} tokens of a novel exactly", lambda: held("strict")["exact_tokens_mean"]),
    ("01", "{:.0f} bytes of text", lambda: held("strict")["exact_bytes_mean"]),
    ("01", "from a vector of {:.0f}", lambda: held("strict")["vector_bytes"]),
    ("01", "{:.1f} are estimated", lambda: held("strict")["exact_tokens_estimate"]),
    (
        "01",
        "returns at least {:.0f} tokens of a novel exactly, {:.0f} bytes of text from a vector of {:,}; at position 0 "
        "at least {:.0f} (`strict`). Of random words it returns at least {:.0f} tokens",
        lambda: [
            on_lm("anchored")["exact_tokens_mean"],
            on_lm("anchored")["exact_bytes_mean"],
            round(on_lm("anchored")["vector_bytes"]),
            on_lm("strict")["exact_tokens_mean"],
            on_lm("anchored", "random")["exact_tokens_mean"],
        ],
    ),
    (
        "README.md",
        "one vector of SmolLM2-135M returns at least {:.0f} tokens of a novel exactly, {:.0f} bytes of text in {:,} "
        "bytes of vector, within 200 evaluations, with the start token in front, and at least {:.0f} at position 0",
        lambda: [
            on_lm("anchored")["exact_tokens_mean"],
            on_lm("anchored")["exact_bytes_mean"],
            round(on_lm("anchored")["vector_bytes"]),
            on_lm("strict")["exact_tokens_mean"],
        ],
    ),
    (
        "README.md",
        "texts of 128 tokens that the model says itself, at {:.0f} nats each, came back after a median of {:.0f} "
        "evaluations",
        lambda: [source_row("own", 128)["nats"], source_row("own", 128)["evaluations"]],
    ),
    (
        "02",
        "texts of 128 tokens of its own cost {:.0f} nats, fewer than {} tokens of novels ({:.0f}), and {:.0f} of {} "
        "are exact, half of them within {:.0f} evaluations",
        lambda: [
            source_row("own", 128)["nats"],
            24,
            source_row("pg19_test_clean", 24)["nats"],
            source_row("own", 128)["exact"] * source_row("own", 128)["n_texts"],
            source_row("own", 128)["n_texts"],
            source_row("own", 128)["evaluations"],
        ],
    ),
    (
        "01",
        "{:.0f} nats against {:.0f}",
        lambda: [held(protocol)["info_gain_nats_mean"] for protocol in ("strict", "kuratov2025")],
    ),
    # 02
    ("02", "(AUC {} or more)", lambda: short(on_books()[["auc_entropy", "auc_length"]].min(axis=None))),
    ("02", "predicts success for {} of the {} models", lambda: [count(*PREDICTS)[0], count(*PREDICTS)[3]]),
    ("02", "for the other {} the data cannot tell", lambda: count(*PREDICTS)[2]),
    ("02", "is contradicted for {}", lambda: "none" if count(*PREDICTS)[1] == 0 else count(*PREDICTS)[1]),
    (
        "02",
        "larger Llamas (AUC about {})",
        lambda: short(on_books()["auc_within_length"].nlargest(2).mean(), 1),
    ),
    (
        "02",
        "stays within a tenth for {} models ({})",
        lambda: [count(*CONSTANT)[0], ", ".join(plateau(SUPPORTED).index)],
    ),
    (
        "02",
        "for {} it rises with the length of the text, by {:.0f} % (Pythia-410M), {:.0f} % (Pythia-1.4B) and {:.0f} % "
        "(OPT-1.3B)",
        lambda: [
            count(*CONSTANT)[1],
            *plateau(CONTRADICTED)["change_percent"][["Pythia-410M", "Pythia-1.4B", "OPT-1.3B"]],
        ],
    ),
    ("02", "For the other {} the grid", lambda: count(*CONSTANT)[2]),
    ("02", "(AUC {} under both protocols", lambda: short(here("strict", "auc_within_length"))),
    ("02", "(AUC {} under both protocols", lambda: short(here("kuratov2025", "auc_within_length"))),
    # 03
    ("03", "grows {:.0f} to {:.0f} times with sixteen vectors", lambda: sorted(grown_capacity())),
    (
        "03",
        "sixteen vectors gains {} times as much as one alone (exponent {}; the pooled means gave {})",
        lambda: map(short, exponent("Pythia-160M", 16)[["per_vector", "exponent_matched", "pooled"]]),
    ),
    (
        "03",
        "Llama-3.2-1B's four gains {} times as much (exponent {})",
        lambda: map(short, exponent("Llama-3.2-1B", 4)[["per_vector", "exponent_matched"]]),
    ),
    (
        "03",
        "their exponents are at least {} and {}",
        lambda: [short(exponent("Llama-3.2-1B", n)["exponent_matched"]) for n in (8, 16)],
    ),
    (
        "03",
        "return {:.1f} times as many tokens exactly as one (strict: {:.0f} against {:.1f})",
        lambda: (
            [4 * exponent(f"{NOVELS}, strict", 4, TOKENS)["per_vector"]]
            + [held("strict", n)["exact_tokens_mean"] for n in (4, 1)]
        ),
    ),
    (
        "03",
        "at least {:.1f} to {:.1f} times as many nats",
        lambda: [4 * exponent(f"{NOVELS}, {protocol}", 4)["per_vector"] for protocol in ("kuratov2025", "strict")],
    ),
    (
        "03",
        "at least {} (strict) and {} (published protocol)",
        lambda: [
            short(exponent(f"{NOVELS}, {protocol}", 4)["exponent_matched"]) for protocol in ("strict", "kuratov2025")
        ],
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
    (
        "03",
        "returns {:.1f} tokens exactly, two {:.1f} and four {:.1f}: exponents of {:.2f} [{}, {:.2f}] and "
        "{:.2f} [{:.2f}, {:.2f}]",
        lambda: [
            table("scaling_exact")["gain_one"][0],
            *table("scaling_exact")["gain"],
            *(
                short(value) if value < 0.99 else value
                for value in table("scaling_exact")[
                    ["exponent_matched", "exponent_matched_low", "exponent_matched_high"]
                ]
                .to_numpy()
                .ravel()
            ),
        ],
    ),
    (
        "01",
        "returns at least {:.0f} tokens, {:.0f} bytes from a vector of {:,.0f}",
        lambda: held("anchored", name="gemma-3-270m")[["exact_tokens_mean", "exact_bytes_mean", "vector_bytes"]],
    ),
    (
        "README.md",
        "One vector of Gemma-3-270M returns at least {:.0f} tokens",
        lambda: held("anchored", name="gemma-3-270m")["exact_tokens_mean"],
    ),
    (
        "07",
        "one vector of it holds at least {:.1f} tokens, {:.0f} bits of text",
        lambda: table("exact_gains").set_index("name").loc["gemma-3-270m", ["tokens", "text_bits"]],
    ),
    (
        "07",
        "{:.0f} of {:.0f} come out whole with the start token in front and {:.0f} at position 0",
        lambda: gemma_orders()[["n_whole_after", "n_texts", "n_whole_before"]],
    ),
    ("README.md", "entropy predicts (AUC {})", lambda: short(table("knee").set_index("length").loc[0, "auc"])),
    (
        "README.md",
        "one vector of SmolLM2-135M holds {} times as many tokens of them, exactly, and {} times as many nats",
        lambda: [held_exactly("smollm2-135m", "anchored", unit).split()[0] for unit in ("tokens", "nats")],
    ),
    (
        "02",
        "has the lower entropy of two in {} [{}, {}] of the pairs",
        lambda: map(short, table("knee").set_index("length").loc[0, ["auc", "auc_low", "auc_high"]]),
    ),
    (
        "02",
        "from {:.0f} to {:.0f} tokens, where no text fits, it rises by {:.0f} % [{:.0f}, {:.0f}]",
        lambda: table("plateau_measured").loc[
            0, ["first_length", "last_length", "change_percent", "change_percent_low", "change_percent_high"]
        ],
    ),
    # 05
    (
        "05",
        "gain {:.0f} to {:.0f} % *more* nats",
        lambda: 100 * (matched("fp32").agg(["min", "max"]) - 1),
    ),
    ("05", "for {} of these {} one shared b is contradicted", lambda: [count(*FP32)[1], count(*FP32)[3]]),
    ("05", "the other {} lean the same way", lambda: count(*FP32)[2]),
    (
        "05",
        "lies between {} and {:.2f}",
        lambda: [short(matched("bf16 autocast").min()), matched("bf16 autocast").max()],
    ),
    ("05", "sharing is supported for {} of {}", lambda: [count(*BF16)[0], count(*BF16)[3]]),
    (
        "05",
        "{:.2f} times as much on novels and {:.2f} on random words",
        lambda: [precision("pg19_test_clean"), precision("random")],
    ),
    (
        "05",
        "({:.2f} times in fp32, {:.2f} under bf16)",
        lambda: ratios("measured")["ratio_matched"][[NOVELS, f"{NOVELS} (bf16)"]],
    ),
    (
        "05",
        "within a tenth for {} of {} models; for the other {}",
        lambda: [count(*FANFICS)[0], count(*FANFICS)[3], count(*FANFICS)[2]],
    ),
    (
        "05",
        "holds {} times as many tokens of random words as of novels and {} times as many nats",
        lambda: [held_exactly("smollm2-135m", "anchored", unit) for unit in ("tokens", "nats")],
    ),
    (
        "05",
        "about as many tokens of either ({} under `strict`) and leans to more nats of words ({})",
        lambda: [held_exactly("novels-5m", "strict", unit) for unit in ("tokens", "nats")],
    ),
    ("05", "{:.0f} texts of each cannot tell", lambda: table("held").set_index("name").loc[SMOL, "n_words"].unique()),
    ("05", "leave {:.0f} to {:.0f} % of its cross-entropy", lambda: 100 * context_left()[0].agg(["min", "max"])),
    ("05", "the vector leaves {:.0f} to {:.0f} %", lambda: 100 * context_left()[1].agg(["min", "max"])),
    ("05", "moves it by up to {:.0f} %", lambda: 100 * convention_shift()),
    # 14
    (
        "14",
        "{:.0f} times the best that claims no loss (11 tokens), {:.0f} times the best of any quality (128)",
        lambda: [
            largest_against("the largest capacity is 100 times that of every learnt encoder that claims"),
            largest_against("the largest capacity is 100 times that of every learnt encoder to"),
        ],
    ),
    (
        "14",
        "between {} and {} tokens, the temperature of the loss between {} and {};",
        lambda: [*varied("learning_rate"), *varied("temperature")],
    ),
    ("14", "gives {:,.0f} with Llama-3.1-8B", lambda: landscape("progressive")),
    (
        "14",
        "(variants reach {:,.0f})",
        lambda: max(landscape(row) for row in ("progressive, aligned", "progressive, low-dimensional")),
    ),
    ("14", "always right is {:.0f} tokens", lambda: landscape("with margin, greedy 100 %")),
    ("14", "with Pythia-160M {:.0f} times better", coders),
    ("14", "cost Llama-3.1-8B {:,.0f} nats: {:.0f} bytes", lambda: [own_nats(), own_nats() / math.log(2) / 8]),
    # README
    ("README.md", "{} tokens come back from one vector of SmolLM2-135M, after {} evaluations", lambda: quickstart()),
    ("README.md", "tokens in one vector of Llama-3.1-8B, {} of its bytes", lambda: short(bytes_ratio())),
    ("README.md", "predicts success for {} of {} models", lambda: [count(*PREDICTS)[0], count(*PREDICTS)[3]]),
    ("README.md", "constant within a tenth for {} and rises for {}", lambda: count(*CONSTANT)[:2]),
    (
        "README.md",
        "within a tenth for {} of the {} models and rises with the text's length for {}, by up to {:.0f} %; for {} the "
        "data cannot tell",
        lambda: [
            count(*CONSTANT)[0],
            count(*CONSTANT)[3],
            count(*CONSTANT)[1],
            plateau(CONTRADICTED)["change_percent"].max(),
            count(*CONSTANT)[2],
        ],
    ),
    (
        "README.md",
        "exponent {} for 16 vectors of Pythia-160M, {} for 4 of Llama-3.2-1B",
        lambda: [short(exponent(m, n)["exponent_matched"]) for m, n in (("Pythia-160M", 16), ("Llama-3.2-1B", 4))],
    ),
    (
        "README.md",
        "uses {:.0f} % of its vector in tokens, {:.0f} % in bits",
        lambda: 100 * used("pg19").loc["Llama-3.1-8B", ["utilisation", "utilisation_in_bits"]],
    ),
    (
        "README.md",
        "random words gain {} to {:.2f} times what books gain",
        lambda: [short(ratios()["ratio_matched"].min()), ratios()["ratio_matched"].max()],
    ),
    ("README.md", "{:.0f} tokens per vector is the largest number", lambda: landscape("with margin, greedy 100 %")),
    (
        "README.md",
        "at least {:.1f} tokens of a novel exactly; between the lengths tried, {:.1f} are estimated "
        "(95 % interval over books {:.1f} to {:.1f})",
        lambda: held("strict")[[f"exact_tokens_{part}" for part in ("mean", "estimate", "low", "high")]],
    ),
    (
        "README.md",
        "{:.0f} bytes of text in {:.0f} bytes of vector",
        lambda: held("strict")[["exact_bytes_mean", "vector_bytes"]],
    ),
    (
        "README.md",
        "{:,.1f} nats are {:,.0f} bits, {:.2f} of the 16 bits per dimension",
        lambda: [
            one_vector()["info_gain_nats_mean"]["Llama-3.1-8B"],
            *used("pg19").loc["Llama-3.1-8B", ["info_gain_bits", "bits_per_dimension"]],
        ],
    ),
    (
        "README.md",
        "contradicted for {} of the {} models run in fp32, where random words gain more, and supported for "
        "{} of the {} run under bf16",
        lambda: [count(*FP32)[1], count(*FP32)[3], count(*BF16)[0], count(*BF16)[3]],
    ),
    ("README.md", "moves them by up to {:.0f} %", lambda: 100 * convention_shift()),
    (
        "README.md",
        "the gain is {:.1f} to {:.1f} % smaller at 512 tokens, for the five models",
        lambda: 100 * smaller_at_best_accuracy().agg(["min", "max"]),
    ),
    (
        "README.md",
        "up to {:.1f} times its capacity and sixteen over at most {:.1f} times",
        lambda: averaged_multiples(),
    ),
]


@pytest.mark.parametrize(("document", "template", "values"), STATEMENTS, ids=[f"{d} {t}" for d, t, _ in STATEMENTS])
def test_a_number_in_a_sentence_is_that_of_its_table(document, template, values):
    found = values()
    found = [found] if isinstance(found, str) or not hasattr(found, "__iter__") else list(found)
    said = template.format(*found)
    assert said in read(document), f"{document} should say: {said}"
