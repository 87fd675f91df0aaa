"""Goals: which targets count, which of two measurements is better, and when a row is done.

A sweep names its goal under ``stopping``. A goal of your own is an object of a subclass of ``Goal``, entered in
``GOALS``.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..parts import find_part

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

    @property
    def grows(self) -> bool:
        """Whether only some targets count at first."""
        return type(self).n_active is not Goal.n_active

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
        self, state: dict[str, Tensor], reached: Bool[Tensor, " row"], now: dict[str, Tensor]
    ) -> tuple[Bool[Tensor, " row"], dict[str, Tensor]]:
        """Return which rows are done, and the state with which the others go on.

        ``now`` is what was just measured, with ``n_steps``, the measurements that each row has had.
        """
        return reached, state

    def gives_up(self, state: dict[str, Tensor]) -> Bool[Tensor, " row"] | bool:
        """Return which rows will not get further."""
        return False

    def report(self, state: dict[str, Tensor]) -> dict[str, list]:
        """Return columns for the record of one row, from its last state (without the row axis)."""
        return {}


@dataclass(frozen=True)
class Growing(Goal):
    """The first targets, then more, stage by stage, each from the vectors of the one before: a horizon is found.

    The first stage is ``stage_tokens`` targets, each next one as many more. One that is not reached in ``stage_steps``
    measurements ends the row. With ``doubling`` stages double, and the first that fails is halved back towards the last
    that was reached, from the vectors as they are then, until the two are one target apart. A mover that starts again
    does so at the stage that is on. A stage of 1, a thousand steps and any margin is the rule of Progressive Cramming
    (arXiv 2607.21231).
    """

    stage_tokens: int = 1
    stage_steps: int = 1000
    doubling: bool = False

    def __post_init__(self):
        whole = isinstance(self.stage_tokens, int) and isinstance(self.stage_steps, int)
        if not whole or self.stage_tokens < 1 or self.stage_steps < 1:
            raise ValueError("stage_tokens and stage_steps are whole numbers of at least 1")
        if self.patience_steps is not None:
            raise ValueError("stage_steps says how long a stage may take; leave patience_steps out")

    def start(self, n_targets: int) -> dict[str, Tensor]:
        """Return the first stage, what was reached and missed, and for each length step and nats when it was passed."""
        numbers = {
            "stage": min(self.stage_tokens, n_targets),
            "whole": n_targets,
            "reached": 0,
            "missed": n_targets + 1,
        }
        state = {name: torch.tensor(value) for name, value in (numbers | {"n_in_stage": 0, "over": 0}).items()}
        return state | {"passed_step": torch.zeros(n_targets), "passed_nats": torch.zeros(n_targets).double()}

    def n_active(self, state: dict[str, Tensor]) -> Int[Tensor, " row"]:
        """Return the targets of each row's stage."""
        return state["stage"]

    def better(self, now: dict[str, Tensor], best: dict[str, Tensor], state: dict[str, Tensor]) -> Bool[Tensor, " row"]:
        """Return which rows are better: those that reach a longer stage; before the first, as without stages."""
        none_yet = state["reached"] == 0
        return torch.where(none_yet, self.reached(now) | super().better(now, best, state), self.reached(now))

    def advance(
        self, state: dict[str, Tensor], reached: Bool[Tensor, " row"], now: dict[str, Tensor]
    ) -> tuple[Bool[Tensor, " row"], dict[str, Tensor]]:
        """Return which rows have reached the whole text, and the next stage of the others."""
        stage, whole, n_in_stage = state["stage"], state["whole"], state["n_in_stage"] + 1
        lost = ~reached & (n_in_stage >= self.stage_steps)
        low, high = torch.where(reached, stage, state["reached"]), torch.where(lost, stage, state["missed"])
        grown = torch.minimum(2 * stage if self.doubling else stage + self.stage_tokens, whole)
        between = ((low + high) // 2).clamp(min=1)
        following = torch.where(high > whole, grown, between) if self.doubling else grown
        places = torch.arange(state["passed_step"].shape[1], device=stage.device)
        passed = reached.unsqueeze(1) & (places == stage.unsqueeze(1) - 1)
        return reached & (low == whole), {
            "stage": torch.where(reached | lost, following, stage),
            "whole": whole,
            "reached": low,
            "missed": high,
            "n_in_stage": torch.where(reached | lost, 0, n_in_stage),
            "over": torch.where(lost if not self.doubling else high - low <= 1, 1, 0),
            "passed_step": torch.where(passed, now["n_steps"].unsqueeze(1).float(), state["passed_step"]),
            "passed_nats": torch.where(passed, now["ce_nats"].unsqueeze(1), state["passed_nats"]),
        }

    def gives_up(self, state: dict[str, Tensor]) -> Bool[Tensor, " row"]:
        """Return which rows have a stage that they did not reach."""
        return state["over"] == 1

    def report(self, state: dict[str, Tensor]) -> dict[str, list]:
        """Return the stages that were passed: how many targets, after how many steps, at what cross-entropy in nats."""
        (at,) = state["passed_step"].nonzero(as_tuple=True)
        return {
            "stage_targets_each": (at + 1).tolist(),
            "stage_steps_each": state["passed_step"][at].int().tolist(),
            "stage_nats_each": [float(f"{nats:.6g}") for nats in state["passed_nats"][at].tolist()],
        }


GOALS = {
    # the authors': accuracy 1 however narrow, or 2000 steps without a new best accuracy
    "kuratov2025": Goal(min_margin=-math.inf, patience_steps=2000),
    "strict": Goal(without_autocast=True),
    "growing": Growing(without_autocast=True),
    "never": Goal(min_margin=math.inf),  # all steps, for measurements of time
}


def find_goal(name: str) -> Goal:
    """Return the goal of that name; raise InputError naming the known ones."""
    return find_part("goal", name, GOALS)
