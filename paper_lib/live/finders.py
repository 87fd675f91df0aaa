"""Finders: where vectors come from. They may be optimised, or come out of an encoder, or be given.

A finder of your own is an object of a subclass of ``Finder``, entered in ``FINDERS``; ``finder: NAME`` in a
sweep names it. Records are made from what it yields, and know nothing of how it was found.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from .lm import FrozenLM
from .loop import optimise
from .protocols import Protocol
from .rows import Case, Finished, Recipe, Unfinished
from .shared import optimise_together


class Finder(ABC):
    """What a finder does. ``together``: cases depend on each other, so they are not divided among workers."""

    together: ClassVar[bool] = False

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


@dataclass(frozen=True)
class SharedLast(Finder):
    """The last vector is the same for all texts of one length, trained with all of them (see ``shared``)."""

    together = True

    def find(
        self, lm: FrozenLM, protocol: Protocol, cases: list[Case], recipe: Recipe, **running
    ) -> Iterator[list[Finished] | list[Unfinished]]:
        """Optimise the cases of each length together."""
        options = {name: running[name] for name in ("save_every_seconds", "on_step") if name in running}
        by_length = defaultdict(list)
        for case in cases:
            by_length[len(case.ids)].append(case)
        for group in by_length.values():
            yield from optimise_together(lm, protocol, group, recipe, **options)


FINDERS: dict[str, Finder] = {"optimise": Optimise(), "shared_last": SharedLast()}
