"""Cramming texts into memory vectors: the paper's numbers, mathematics, figures and tables.

Public names load their module on first use, so that ``import paper_lib`` stays instant and never imports torch.
"""

from importlib import import_module

_HOME = {
    "InputError": "errors",
    "load_models": "published",
    "load_points": "published",
    "load_capacities": "published",
    "load_length_means": "published",
    "load_followup": "published",
    "compute_gains": "capacity",
    "compute_exact_capacity": "capacity",
    "decoding_capacity": "capacity",
    "theoretical_capacity_tokens": "capacity",
    "compute_entropy_test": "stats",
    "save_figure": "figures",
    "save_table": "tables",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'paper_lib' has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__():
    return __all__
