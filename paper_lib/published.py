"""The authors' numbers as tidy frames, in the columns that measured runs have, marked ``origin = "published"``.

``load_*`` reads one file of data/published (checked against the manifest) and computes nothing but units and names.
data/README.md says where the numbers come from, and what their traps are.
"""

import math

import pandas as pd
from scipy.stats import norm

from .capacity import (
    CASE_COLUMNS,
    CRITERIA,
    GROUP_COLUMNS,
    SOLVED_ACCURACY,
    compute_gains,
    decoding_capacity,
    nats_to_bits,
)
from .errors import InputError, unknown_name
from .paths import PUBLISHED
from .reproduce.manifest import list_files, read_csv

PROTOCOL = "kuratov2025"
N_TEXTS_PG19 = 50  # the first 50 of the authors' 1000 chunks; the fanfic runs used 50 as well
VECTOR_BYTES_PER_DIMENSION = 2  # 16 bits, the paper's own accounting, although its vectors were trained in fp32

FAMILIES = {"pythia": "Pythia", "opt": "OPT", "olmo": "OLMo", "llama": "Llama", "mamba": "Mamba"}

# The six models whose random-word panel is drawn whole; in the other eight the points to the right are cut off.
COMPLETE_RANDOM_PANELS = (
    "EleutherAI/pythia-160m",
    "EleutherAI/pythia-410m",
    "allenai/OLMo-1B-0724-hf",
    "princeton-nlp/Sheared-LLaMA-1.3B",
    "meta-llama/Llama-3.2-1B",
    "meta-llama/Llama-3.2-3B",
)

CAPACITY_COLUMNS = [
    "origin", "model", "source", "n_mem", "protocol", "convention", "criterion", "decoding_capacity_tokens",
    "capacity_next_tokens", "p_criterion",
    "token_gain_mean", "token_gain_std", "info_gain_nats_mean", "info_gain_nats_std", "info_gain_bits_mean",
    "exact_tokens_mean", "exact_tokens_estimate", "exact_tokens_low", "exact_tokens_high", "exact_bytes_mean",
    "share_ended_by_budget", "vector_bytes", "text_bytes_per_vector", "capacity_how", "info_gain_how",
    "n_texts",
    "sweep",
]  # fmt: skip


WHOLE_COLUMNS = ["n_mem", "decoding_capacity_tokens", "capacity_next_tokens", "vector_bytes", "n_texts"]

# --- loading -------------------------------------------------------------------------------------------------------


def load_models() -> pd.DataFrame:
    """Return the paper's 14 models in its order: ``model`` (hub id), ``name``, ``family``, sizes, ``tokens_per_byte``.

    ``d_model`` is the width of a memory vector, ``vocab_size`` the padded rows of the embedding matrix,
    ``tokens_per_byte`` the tokenizer's density on PG-19. Mamba's density is not published; it shares Pythia's
    tokenizer, so it takes Pythia's figure. OPT's is null. Printed utilisations come along.
    """
    models = read_csv(PUBLISHED / "theoretical_capacity.csv").drop(columns=["estimated_gain_tokens", "file"])
    models = models.drop(columns=[c for c in models if c.startswith("calc_")])
    density = load_ablations("tokens_per_byte").set_index("model")["value"]
    mamba = models["model"].str.contains("mamba")
    models["tokens_per_byte"] = models["model"].map(density).where(~mamba, density["EleutherAI/pythia-160m"])
    models.insert(2, "family", models["name"].str.lower().map(_family))
    models["name"] = models["name"].str.replace("Sh.Llama", "Sheared-LLaMA")
    return models


def load_points(models=None, source: str | None = None) -> pd.DataFrame:
    """Return the per-text points behind the paper's Figures 3 and 6 as cases (columns: capacity.CASE_COLUMNS).

    8,736 points of 14 models, ``source`` pg19 (7,457) or random (1,279). ``models`` and ``source`` filter. The authors
    plot mean loss x N: these are ``paper_ce_*_nats``; the true sums ``ce_*_nats`` need the length, which random points
    do not carry. Beyond the case columns: ``panel_complete``, whether every run of that model and source is drawn,
    and ``sample_idx_prob``, how sure the assignment of a point to its text is.
    """
    points = read_csv(PUBLISHED / "entropy_scatter.csv")
    points = _filter(points, models, source)
    n_targets = points["length"] - 1
    draw = points.groupby(["model", "source"]).cumcount().map("draw-{:03d}".format)
    text = points["sample_idx"].astype("Int64").astype("string").radd("text-")
    cases = pd.DataFrame(
        {
            "origin": "published",
            "model": points["model"],
            "source": points["source"],
            "n_mem": 1,
            "protocol": PROTOCOL,
            "length": points["length"].astype("Int64"),
            "text_id": text.fillna(draw).astype(str),
            "n_targets": n_targets.astype("Int64"),
            "solved": points["acc_ge_0.99"].astype(bool),
            "ce_lm_nats": points["h_lm_nats"] / points["length"] * n_targets,
            "ce_mem_min_nats": points["h_lm_mem_nats"] / points["length"] * n_targets,
            "paper_ce_lm_nats": points["h_lm_nats"],
            "paper_ce_mem_nats": points["h_lm_mem_nats"],
        }
    ).reindex(columns=CASE_COLUMNS)
    cases["panel_complete"] = points["source"].ne("random") | points["model"].isin(COMPLETE_RANDOM_PANELS)
    cases["sample_idx_prob"] = points["sample_idx_prob"]
    return cases


def load_capacities() -> pd.DataFrame:
    """Return every printed capacity and gain: Tables 1 and 3 (latest version) and the n-vector runs of Figure 4.

    Columns: GROUP_COLUMNS, ``decoding_capacity_tokens``, means and standard deviations of ``token_gain`` and
    ``info_gain_nats`` (null where the authors had no failed run), ``decimals`` printed, and for the runs of Figure 4
    ``failed_lengths``, the lengths that gains average over, as text.
    """
    table = read_csv(PUBLISHED / "table1.csv").query("version == 'latest'")
    scaling = read_csv(PUBLISHED / "n_mem_scaling.csv").query("n_mem > 1").assign(precision="6 decimals")
    rows = pd.concat([table, scaling], ignore_index=True).rename(columns={"max_tokens": "decoding_capacity_tokens"})
    rows["decimals"] = rows["precision"].str.extract(r"(\d+)", expand=False).astype(int)
    rows = rows.assign(origin="published", protocol=PROTOCOL)
    rows = rows.rename(columns={"lengths_with_runs_acc_le_0.99": "failed_lengths"})
    gains = [f"{gain}_{part}" for gain in ("token_gain", "info_gain_nats") for part in ("mean", "std")]
    return rows[[*GROUP_COLUMNS, "decoding_capacity_tokens", *gains, "decimals", "failed_lengths"]]


def load_length_means() -> pd.DataFrame:
    """Return PG-19 means per model, n_mem and length: ``mean_accuracy``, its ``accuracy_uncertainty`` and ``how``.

    ``how`` says printed or digitised from a raster figure (error .0009 at most on the points that are also printed);
    OPT and Mamba have no accuracies. ``info_gain_nats_*`` average all runs of a length, in the paper's convention.
    """
    means = read_csv(PUBLISHED / "accuracy_vs_length.csv").drop(columns="files")
    return means.assign(origin="published", protocol=PROTOCOL)


def load_fits() -> pd.DataFrame:
    """Return what is drawn in Figures 3 and 6: ``b_nats_label`` (as printed), ``red_line_nats`` and point counts."""
    fits = read_csv(PUBLISHED / "entropy_fits.csv")
    fits["b_nats_label"] = -fits["fit_intercept_nats_label"]
    return fits[["model", "b_nats_label", "red_line_nats", "n_points_pg19", "n_points_random_shown"]]


def load_stale_capacities() -> pd.DataFrame:
    """Return the first printed version of the two random-word rows that later changed (see load_capacities)."""
    return read_csv(PUBLISHED / "table1.csv").query("version == 'first'").drop(columns=["version", "precision", "file"])


def load_run_grids() -> pd.DataFrame:
    """Return the settings of the authors' launch scripts, with ``precision``: fp32, bf16 autocast or fp16 autocast."""
    grids = read_csv(PUBLISHED / "run_grids.csv")
    kinds = {"float32": "fp32", "bfloat16": "bf16 autocast", "float16": "fp16 autocast"}
    return grids.assign(precision=grids["dtype_flag"].map(kinds))


def load_ablations(experiment: str) -> pd.DataFrame:
    """Return one of the authors' smaller experiments in long format (``metric``, ``value``, ``std``, ``unit``, ...)."""
    rows = read_csv(PUBLISHED / "ablations.csv")
    known = sorted(rows["experiment"].unique())
    if experiment not in known:
        raise unknown_name("experiment", experiment, known)
    return rows[rows["experiment"] == experiment].drop(columns="file").reset_index(drop=True)


def load_followup(name: str) -> pd.DataFrame:
    """Return the numbers of a later paper: data/published/followups/<name>.csv (columns: data/README.md)."""
    known = [path.stem for path in list_files(PUBLISHED / "followups")]
    if name not in known:
        raise unknown_name("follow-up table", name, known)
    return read_csv(PUBLISHED / "followups" / f"{name}.csv")


def _family(name):
    return next(label for key, label in FAMILIES.items() if key in name)


def _filter(points, models, source):
    models = [models] if isinstance(models, str) else models
    for kind, column, wanted in (("model", "model", models), ("source", "source", source and [source])):
        for name in wanted or []:
            if name not in set(points[column]):
                raise unknown_name(kind, name, points[column].unique())
        points = points[points[column].isin(wanted)] if wanted else points
    return points.reset_index(drop=True)


# --- putting published numbers together ----------------------------------------------------------------------------


def select_complete(points: pd.DataFrame) -> pd.DataFrame:
    """Return the points from which a mean over all runs can be taken: PG-19, and the six complete random panels."""
    return points[points["panel_complete"]]


def compute_decoding_capacity(length_means: pd.DataFrame) -> pd.DataFrame:
    """Return per model, source and n_mem the capacity that its per-length mean accuracies give; NaN where undecided.

    An accuracy that its error of digitising leaves on either side of .99 decides nothing.
    """
    decided = length_means.assign(mean_accuracy=length_means["mean_accuracy"].mask(_straddles(length_means)))
    rows = [
        (*key, decoding_capacity(group["length"], group["mean_accuracy"]))
        for key, group in decided.groupby(GROUP_COLUMNS, sort=True)
    ]
    return pd.DataFrame(rows, columns=[*GROUP_COLUMNS, "recomputed_capacity_tokens"])


def _straddles(length_means):
    return (length_means["mean_accuracy"] - SOLVED_ACCURACY).abs() <= length_means["accuracy_uncertainty"]


def compute_capacity_bounds(capacities: pd.DataFrame, length_means: pd.DataFrame) -> pd.DataFrame:
    """Return ``capacities`` with what the grid and the spread of accuracies leave open, on books.

    ``capacity_next_tokens``: the next length that was tried, at which the criterion failed; the true capacity lies
    between. ``p_criterion``: the probability that the mean accuracy at the capacity is .99 or more, from the printed
    mean and deviation over 50 texts (normal); null where no deviation is printed.
    """
    by = ["model", "source", "n_mem"]
    tried = capacities[[*by, "decoding_capacity_tokens"]].merge(length_means, on=by)
    beyond = tried[tried["length"] > tried["decoding_capacity_tokens"]]
    following = beyond.groupby(by)["length"].min().rename("capacity_next_tokens")
    at = tried[tried["length"] == tried["decoding_capacity_tokens"]].set_index(by)
    error = at["std_accuracy"] / math.sqrt(N_TEXTS_PG19)
    p_criterion = pd.Series(norm.cdf((at["mean_accuracy"] - SOLVED_ACCURACY) / error), at.index, name="p_criterion")
    found = pd.concat([following, p_criterion.where(error.notna())], axis=1).reset_index()
    return capacities.merge(found, on=by, how="left")


def compute_capacity_table(points, printed, length_means, models) -> pd.DataFrame:
    """Return the published half of table_capacity (columns: CAPACITY_COLUMNS), conventions ``paper`` and ``sums``.

    Information gains are recomputed from ``points`` wherever these are complete, decoding capacities from
    ``length_means`` wherever the accuracies decide them (``capacity_how`` = recomputed; undecided where their error of
    digitising straddles .99); everything else is as printed.
    Text bytes are capacity / tokens_per_byte / n_mem, on PG-19 only, where the density was measured.
    """
    if missing := set(printed["model"]) - set(models["model"]):
        raise InputError(f"models: no row for {', '.join(sorted(missing))}")
    complete = select_complete(points)
    capacities = printed.merge(compute_decoding_capacity(length_means), on=GROUP_COLUMNS, how="left")
    decided = capacities["recomputed_capacity_tokens"].notna()
    by = ["model", "source", "n_mem"]
    straddling = length_means.loc[_straddles(length_means), by].drop_duplicates().assign(straddles=True)
    undecided = ~decided & capacities[by].merge(straddling, how="left")["straddles"].notna()
    capacities["capacity_how"] = decided.map({True: "recomputed", False: "printed"}).mask(undecided, "undecided")
    capacities["decoding_capacity_tokens"] = capacities["recomputed_capacity_tokens"].where(
        decided, capacities["decoding_capacity_tokens"]
    )
    capacities = compute_capacity_bounds(capacities, length_means)
    capacities["criterion"] = capacities["source"].map(
        lambda source: "longest_solved_text" if source == "random" else CRITERIA["paper"]
    )
    gains = [f"info_gain_nats_{part}" for part in ("mean", "std")]

    paper = capacities.merge(
        compute_gains(complete, convention="paper"), on=GROUP_COLUMNS, how="left", suffixes=("", "_points")
    )
    paper["info_gain_how"] = paper[f"{gains[0]}_points"].notna().map({True: "recomputed", False: "printed"})
    for gain in gains:
        paper[gain] = paper[f"{gain}_points"].fillna(paper[gain])
    paper["n_texts"] = paper["n_texts"].where(paper["source"] == "random", N_TEXTS_PG19)

    natural = complete[complete["source"] != "random"]
    sums = capacities.drop(columns=[*gains, "token_gain_mean", "token_gain_std"])
    sums = sums.merge(compute_gains(natural, convention="sums"), on=GROUP_COLUMNS)

    table = pd.concat([paper.assign(convention="paper"), sums.assign(convention="sums")], ignore_index=True)
    table["info_gain_bits_mean"] = nats_to_bits(table["info_gain_nats_mean"])
    facts = models.set_index("model").reindex(table["model"]).reset_index(drop=True)
    table["vector_bytes"] = facts["d_model"] * VECTOR_BYTES_PER_DIMENSION
    per_vector = table["decoding_capacity_tokens"] / facts["tokens_per_byte"] / table["n_mem"]
    table["text_bytes_per_vector"] = per_vector.where(table["source"] == "pg19", math.nan)
    order = {model: rank for rank, model in enumerate(models["model"])}
    table = table.sort_values(
        by=["convention", "source", "model", "n_mem"], key=lambda c: c.map(order) if c.name == "model" else c
    )
    whole = dict.fromkeys(WHOLE_COLUMNS, "Int64")
    return table.reindex(columns=CAPACITY_COLUMNS).astype(whole).reset_index(drop=True)
