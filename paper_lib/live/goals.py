"""Goals: which targets count, which of two measurements is better, and when a row is done.

A sweep names its goal under ``stopping``. A goal of your own is an object of a subclass of ``Goal``, entered in
``GOALS``.
"""

import math
from dataclasses import dataclass

from jaxtyping import Bool, Int
from torch import Tensor

from .parts import find_part

SAFE_MARGIN = 1e-3  # logits, fp32: what makes an argmax the same on another machine


@dataclass(frozen=True)
class Goal:
    """All targets right, each leading by at least ``min_margin`` logits.

    A row without one more target right for ``patience_steps`` ends. ``without_autocast`` asks that what was reached
    under autocast is also reached without it.
    """

    min_margin: float = SAFE_MARGIN
    patience_steps: int | None = None
    without_autocast: bool = False

    def start(self, n_targets: int) -> dict[str, Tensor]:
        """Return the state of one new row, tensors without the row axis; none where every target counts throughout."""
        return {}

    def n_active(self, state: dict[str, Tensor]) -> Int[Tensor, " row"] | None:
        """Return how many targets of each row count now; None for all."""
        return None

    def reached(self, now: dict[str, Tensor]) -> Bool[Tensor, " row"]:
        """Return which rows have all active targets right by the margin, from what was measured (see ``measure``)."""
        return now["all_correct"] & (now["margin"] >= self.min_margin)

    def better(self, now: dict[str, Tensor], best: dict[str, Tensor], state: dict[str, Tensor]) -> Bool[Tensor, " row"]:
        """Return which rows are better than their best so far (its ``n_correct``, ``margin`` and ``n_active``).

        More targets right are better, and with all of them right a larger margin.
        """
        more = now["n_correct"] > best["n_correct"]
        return more | (now["all_correct"] & (now["margin"].double() > best["margin"]))

    def advance(
        self, state: dict[str, Tensor], reached: Bool[Tensor, " row"]
    ) -> tuple[Bool[Tensor, " row"], dict[str, Tensor]]:
        """Return which rows are done, and the state with which the others go on."""
        return reached, state


GOALS = {
    # the authors': accuracy 1 however narrow, or 2000 steps without a new best accuracy
    "kuratov2025": Goal(min_margin=-math.inf, patience_steps=2000),
    "strict": Goal(without_autocast=True),
    "never": Goal(min_margin=math.inf),  # all steps, for measurements of time
}


def find_goal(name: str) -> Goal:
    """Return the goal of that name; raise InputError naming the known ones."""
    return find_part("goal", name, GOALS)
