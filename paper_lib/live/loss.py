"""What is minimised, and how right each target is, from the last hidden states, a chunk of positions at a time.

The product of positions and vocabulary is by far the largest tensor of a step: 2 texts of 1,568 tokens under Llama's
128,256 tokens need 1.6 GB for the logits alone, and three times that for the backward pass. The weights of the head are
frozen, so the gradient of a position's loss with respect to its hidden state is known as soon as its logits are; the
logits of a chunk are thrown away before the next chunk is looked at.

A loss of your own is a ``Loss`` with another ``of``, entered in ``LOSSES``.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

CHUNK_BYTES = {"cpu": 2**25, "cuda": 2**28}  # of the logits that exist at one time


class Scores(NamedTuple):
    """What a model makes of each target: ``loss``, which carries the gradient, and facts that do not.

    ``ce`` is the cross-entropy in nats, ``hit`` whether the target is the argmax, ``lead`` its logit minus that of the
    best other token.
    """

    loss: Tensor
    ce: Tensor
    hit: Tensor
    lead: Tensor


@dataclass(frozen=True)
class Loss:
    """A loss per target; the default is its cross-entropy in nats.

    ``temperature`` divides the logits. Below 1 a target that leads weighs less and one that is behind weighs more, so
    more tokens come out right, at the price of nats (Progressive Cramming, appendix).
    """

    temperature: float = 1.0

    def __post_init__(self):
        if not (isinstance(self.temperature, (int, float)) and 0 < self.temperature < math.inf):
            raise ValueError(f"temperature {self.temperature} is not above 0; use one between .1 and 1")

    def of(self, logits: Float[Tensor, "target vocab"], targets: Int[Tensor, " target"]) -> Float[Tensor, " target"]:
        """Return the loss of each target, differentiable in the logits."""
        return functional.cross_entropy(logits / self.temperature, targets, reduction="none")


CROSS_ENTROPY = Loss()
LOSSES = {"cross_entropy": CROSS_ENTROPY}


def score_logits(
    logits: Float[Tensor, "target vocab"], targets: Int[Tensor, " target"], loss: Loss = CROSS_ENTROPY
) -> Scores:
    """Return the scores of each target under its logits."""
    right = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():
        hit = logits.argmax(dim=-1) == targets
        other = logits.scatter(-1, targets.unsqueeze(-1), -torch.inf).amax(dim=-1)
    ce = functional.cross_entropy(logits, targets, reduction="none")
    return Scores(ce if loss == CROSS_ENTROPY else loss.of(logits, targets), ce.detach(), hit, right.detach() - other)


def score_hidden(
    hidden: Float[Tensor, "target d"],
    weight: Float[Tensor, "vocab d"],
    bias: Float[Tensor, " vocab"] | None,
    targets: Int[Tensor, " target"],
    loss: Loss = CROSS_ENTROPY,
) -> Scores:
    """Return the scores under ``hidden @ weight.T + bias``, without ever holding all of these logits."""
    value, ce, hit, lead = _ScoreInChunks.apply(hidden, weight, bias, targets, loss)
    return Scores(value, ce, hit, lead)


class _ScoreInChunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, loss):
        # Results are written into tensors that exist before the first chunk: small ones made between the large ones
        # would keep their memory from being used again.
        precision = torch.promote_types(hidden.dtype, torch.float32)
        value, ce, lead = (torch.empty(len(hidden), dtype=precision, device=hidden.device) for _ in range(3))
        hit = torch.empty(len(hidden), dtype=torch.bool, device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        n_rows = max(1, CHUNK_BYTES[hidden.device.type] // (4 * len(weight)))
        for start in range(0, len(hidden), n_rows):
            rows = slice(start, start + n_rows)
            target = targets[rows].unsqueeze(-1)
            logits = functional.linear(hidden[rows], weight, bias).to(precision)
            right, total = logits.gather(-1, target), logits.logsumexp(dim=-1, keepdim=True)
            ce[rows] = (total - right).squeeze(-1)
            hit[rows] = logits.argmax(dim=-1) == targets[rows]
            if loss == CROSS_ENTROPY:
                value[rows], slope = ce[rows], None
            else:
                value[rows], slope = _differentiate(loss, logits, targets[rows])
            lead[rows] = right.squeeze(-1) - logits.scatter_(-1, target, -torch.inf).amax(dim=-1)
            if gradient is not None:
                if slope is None:  # softmax minus one at the target
                    slope = logits.sub_(total).exp_().scatter_(-1, target, torch.expm1(right - total))
                gradient[rows] = slope.to(weight.dtype) @ weight
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(ce, hit, lead)
        return value, ce, hit, lead

    @staticmethod
    def backward(ctx, grad_loss, _ce, _hit, _lead):
        (gradient,) = ctx.saved_tensors
        slope = grad_loss.unsqueeze(-1).to(gradient.dtype)
        # A target that does not count has none, also where its own loss overflowed.
        return torch.where(slope == 0, 0, slope * gradient), None, None, None, None


def _differentiate(loss, logits, targets):
    # Values of a loss of one's own, and their slopes over the logits.
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        values = loss.of(leaf, targets)
        (slope,) = torch.autograd.grad(values.sum(), leaf)
    return values.detach(), slope
