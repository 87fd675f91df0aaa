"""Parts by name: what a sweep calls ``momentum(decay=0.8)`` as the object that does it.

A registry maps names to dataclass objects at their default settings. A name alone is that object; settings in brackets
replace its fields. The same text is the part's name in keys and records, so it is brought into one canonical form:
fields in their own order, those at their defaults left out.
"""

import ast
import dataclasses

from .errors import InputError, unknown_name


def find_part(kind: str, text: str, registry: dict):
    """Return the part of a ``registry`` that ``text`` names, its settings replaced by those in brackets.

    Raises InputError for an unknown name, an unknown setting, or a text that is no name or call.
    """
    name, settings = _parse(kind, text)
    if name not in registry:
        raise unknown_name(kind, name, registry)
    part = registry[name]
    known = [field.name for field in dataclasses.fields(part)]
    for setting in settings:
        if setting not in known:
            raise unknown_name(f"setting of {kind} {name}", setting, known or ["none"])
    try:
        return dataclasses.replace(part, **settings) if settings else part
    except (TypeError, ValueError) as error:
        raise InputError(f"{kind} {text}: {error}") from None


def name_part(kind: str, text: str, registry: dict) -> str:
    """Return ``text`` in canonical form, for keys and records; raises what ``find_part`` does."""
    part = find_part(kind, text, registry)
    name, _ = _parse(kind, text)
    default = registry[name]
    changed = [
        f"{field.name}={getattr(part, field.name)!r}"
        for field in dataclasses.fields(part)
        if getattr(part, field.name) != getattr(default, field.name)
    ]
    return f"{name}({', '.join(changed)})" if changed else name


def _parse(kind, text):
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, {}
        if isinstance(node, ast.Call) and not node.args:
            return node.func.id, {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
    except (SyntaxError, ValueError, AttributeError):
        pass
    if "(" not in text:  # names need not be Python's: a-b is one
        return text, {}
    raise InputError(f"{kind} {text!r}: write a name, or name(setting=value, ...)")
