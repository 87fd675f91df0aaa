"""Files written whole or not at all, and their hashes."""

import contextlib
import errno
import hashlib
import os
from pathlib import Path

from .errors import InputError
from .paths import BUILD


def hash_bytes(content: bytes) -> str:
    """Return the sha256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's content, in hexadecimal, without holding it in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(paths) -> str:
    """Return one sha256 of the names and contents of files, in the order of their paths, in hexadecimal."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode() + bytes.fromhex(hash_file(path)))
    return digest.hexdigest()


def make_folder(path: Path) -> Path:
    """Make a folder and those above it, if they are not there; InputError says how to choose another place."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; {_way_out(path)}") from None
    return path


def read_utf8(path: Path) -> str:
    """Return the text of a file, UTF-8 whatever the locale; InputError for a file in another encoding."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not in UTF-8; save it in that encoding") from None


def write_text(path: Path, text: str) -> None:
    """Write a product whole or not at all, and leave the file alone if it already has the same content."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a product whole or not at all, and leave the file alone where it already holds the same bytes."""
    with contextlib.suppress(OSError):  # not there, or another process has just removed it
        if path.read_bytes() == content:
            return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; {_way_out(path)}") from None
    finally:
        if temporary.exists():
            temporary.unlink()


def _way_out(path):
    if path.is_relative_to(BUILD):
        return "free some space, or set PAPER_LIB_BUILD to a folder that can be written"
    return "free some space, or choose another place (for figures: -p OUT_DIR=FOLDER)"
