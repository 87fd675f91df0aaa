"""The one exception that users meet: bad input, explained in one line with its fix."""

import difflib
import re


class InputError(ValueError):
    """An input that cannot be used. The message is one line: the thing, what is wrong with it, and the way out."""


def unknown_name(kind: str, name: object, known) -> InputError:
    """Return (not raise) the error for a ``name`` that is not among the ``known`` names of its ``kind``."""
    names = [str(each) for each in known]
    return InputError(f"unknown {kind} {name!r}{suggest(str(name), names)}; choose from: {', '.join(names)}")


def suggest(name: str, known: list[str]) -> str:
    """Return ", did you mean ...?" with the nearest of the ``known`` names, or nothing where none is near."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f", did you mean {near[0]!r}?" if near else ""


def first_sentence(error: BaseException) -> str:
    """Return an exception's message as one sentence, preceded by its class where the message alone is too short."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [""]
    said = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
    sentence = re.split(r"(?<!\.)\. ", said)[0].rstrip(".,")
    return sentence if isinstance(error, (OSError, ValueError, ImportError)) else f"{type(error).__name__}: {sentence}"


def require_columns(frame, columns, what: str) -> None:
    """Raise InputError unless every one of ``columns`` is a column of ``frame``; ``what`` names the frame."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        have = ", ".join(map(str, frame.columns))
        raise InputError(f"{what}: missing column {', '.join(missing)}; it has: {have}")
