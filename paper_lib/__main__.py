"""The command line: ``python -m paper_lib COMMAND``. The Makefile's targets call it."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from .errors import InputError
from .paths import ROOT, relative_to_root

app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)


@app.command()
def execute(
    notebook: Annotated[Path, typer.Argument(help="The notebook to run.")],
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Override, VALUE in JSON.")
    ] = None,
    stamp: Annotated[Path | None, typer.Option(help="File to write when done, with a make rule of products.")] = None,
) -> None:
    """Execute a notebook in place; with -p, a variant that stays in build/executed with its figures."""
    from .notebooks import execute_notebook

    started = time.monotonic()
    executed = execute_notebook(notebook, _parse_parameters(parameter or []))
    seconds = time.monotonic() - started
    if stamp:
        _write_stamp(stamp, executed.products)
    where = f", see {relative_to_root(executed.notebook)}" if parameter else ""
    print(f"{relative_to_root(notebook)}: {len(executed.products)} files in {seconds:.0f} s{where}")


@app.command()
def verify() -> None:
    """Check the data's hashes, recompute every figure, table and notebook, and compare."""
    from .verify import verify

    if problems := verify(report=lambda line: print(line, flush=True)):
        raise InputError("\n".join(problems))
    print("verify: all agree")


@app.command()
def manifest() -> None:
    """Write data/MANIFEST.sha256 anew, after a change of data that is meant."""
    from .manifest import write_manifest

    print(f"wrote {relative_to_root(write_manifest())}")


@app.command()
def links() -> None:
    """Carry the repository's address from pyproject.toml into every badge and clone command."""
    from .notebooks import find_notebooks, repository_url, retarget_links
    from .tables import write_text

    for path in [ROOT / "README.md", ROOT / "CITATION.cff", *find_notebooks()]:
        write_text(path, retarget_links(path.read_text(), repository_url()))


def _parse_parameters(pairs):
    parameters = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise InputError(f"-p {pair}: write NAME=VALUE, with VALUE in JSON")
        try:
            parameters[name] = json.loads(value)
        except json.JSONDecodeError:
            parameters[name] = value  # a bare word is a string
    return parameters


def _write_stamp(stamp, products):
    # A make rule beside the stamp: a product that was deleted or edited by hand makes the stamp stale.
    names = " ".join(relative_to_root(product) for product in products)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.with_suffix(".d").write_text(f"{stamp.as_posix()}: {names}\n{names}:\n")
    stamp.touch()


def main() -> None:
    """Run the command line; bad input ends in one line on stderr and exit status 1."""
    try:
        app()
    except InputError as error:
        sys.exit("\n".join(f"error: {line}" for line in str(error).splitlines()))


if __name__ == "__main__":
    main()
