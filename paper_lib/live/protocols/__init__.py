"""Protocols by name. One of your own is an object of a subclass of ``Protocol``, entered in ``PROTOCOLS``."""

import dataclasses

from ...parts import find_part, name_part
from .base import Protocol
from .kv_prefix import KVPrefix
from .one_step import OneStep
from .prefix import Prefix

PROTOCOLS = {
    "kuratov2025": Prefix("kuratov2025", n_given=1, needs_start=False),
    "strict": Prefix("strict", n_given=0, needs_start=True, special_tokens=False),
    "anchored": Prefix("anchored", n_given=0, needs_start=True, special_tokens=False, n_before=1),
    "one_step": OneStep("one_step", n_given=0, needs_start=True, special_tokens=False),
    "kv_prefix": KVPrefix("kv_prefix", n_given=0, needs_start=True, special_tokens=False),
}


def find_protocol(name: str) -> Protocol:
    """Return the protocol of that name, itself named in canonical form; raise InputError naming the known ones."""
    protocol = find_part("protocol", name, PROTOCOLS)
    return dataclasses.replace(protocol, name=name_part("protocol", name, PROTOCOLS))


__all__ = ["PROTOCOLS", "KVPrefix", "OneStep", "Prefix", "Protocol", "find_protocol"]
