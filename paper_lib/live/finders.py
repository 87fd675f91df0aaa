"""Finders: where vectors come from. They may be optimised, or come out of an encoder, or be given.

A finder of your own is an object of a subclass of ``Finder``, entered in ``FINDERS``; ``finder: NAME`` in a
sweep names it. Records are made from what it yields, and know nothing of how it was found.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from .lm import FrozenLM
from .loop import optimise
from .protocols import Protocol
from .rows import Case, Finished, Recipe, Unfinished


class Finder(ABC):
    """What a finder does."""

    @abstractmethod
    def find(
        self, lm: FrozenLM, protocol: Protocol, cases: list[Case], recipe: Recipe, **running
    ) -> Iterator[list[Finished] | list[Unfinished]]:
        """Yield every case once with its vectors, and now and then what is not finished, to go on from.

        ``running`` are the options of ``loop.optimise``: ``batch_size``, ``check_every``, ``save_every_seconds`` and
        ``on_step``. A finder that does not optimise ignores what means nothing to it.
        """


@dataclass(frozen=True)
class Optimise(Finder):
    """Per-sample optimisation, the paper's own way."""

    def find(
        self, lm: FrozenLM, protocol: Protocol, cases: list[Case], recipe: Recipe, **running
    ) -> Iterator[list[Finished] | list[Unfinished]]:
        """Optimise each case with the recipe."""
        return optimise(lm, protocol, cases, recipe, **running)


FINDERS: dict[str, Finder] = {"optimise": Optimise()}
