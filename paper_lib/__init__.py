"""Cramming texts into memory vectors: the paper's numbers, mathematics, figures and tables.

    >>> import paper_lib
    >>> memory = paper_lib.cram("The rain had stopped.", n_mem=2)
    >>> memory.text()

Public names load their module on first use, so ``import paper_lib`` stays instant and never imports torch; only using
``cram`` and ``decode`` does.
"""

from importlib import import_module

_HOME = {
    "InputError": "errors",
    "cram": "live.cram",
    "decode": "live.cram",
    "fit": "live.fit",
    "load_cases": "measured",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'paper_lib' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__():
    return __all__
