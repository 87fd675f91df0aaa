"""Will a text fit, before it is crammed: its cross-entropy under a model against what the model's vectors held."""

from dataclasses import dataclass

import torch

from ..errors import InputError
from ..measured import load_tried
from ..models import default_model
from ..sizing import SURE, fit_sizing
from .cram import load_once
from .lm import FrozenLM
from .measure import measure
from .protocols import find_protocol
from .sinks import AUTO, choose_protocol
from .texts import Text
from .tokens import tokenize


@dataclass(frozen=True)
class Fit:
    """What ``fit`` found: the size of the text, and the chance (0 to 1) that it fits into one vector.

    ``knee_nats`` is the cross-entropy at which half of the texts fit, ``n_vectors`` the fewest that give a chance of
    .9 (knees rise with vectors as they did where several were tried), ``criterion`` what was asked of the texts that
    the knee was fitted on, under which ``protocol``; ``measured`` names the runs.
    """

    n_tokens: int
    nats: float
    knee_nats: float
    chance: float
    n_vectors: int
    criterion: str
    protocol: str
    measured: str

    def __str__(self):
        return (
            f"{self.n_tokens} tokens, {self.nats:.0f} nats; half of the texts of {self.knee_nats:.0f} nats fit into "
            f"one vector ({self.measured}; {self.criterion})\nchance that this one does: {self.chance:.2f}; "
            f"vectors for a chance of {SURE:g}: {self.n_vectors}"
        )


def fit(text: str, *, model: str | FrozenLM | None = None, protocol: str = AUTO, device: str | None = None) -> Fit:
    """Return whether a text fits into one vector of a model, and how many it takes (see ``sizing``), without cramming.

    ``model`` is as for ``cram``: one whose vectors were measured and frozen here, or one of the paper's. ``protocol``
    is one that was measured; by default the one that suits the model, else the one under which most fits. Raises
    InputError for an empty text, one too long for the model, and a model of whose vectors nothing is known.
    """
    if not text:
        raise InputError("the text is empty; give at least one character")
    device, model = device or ("cuda" if torch.cuda.is_available() else "cpu"), model or default_model()
    lm = load_once(model, device=device) if isinstance(model, str) else model
    name = model if isinstance(model, str) else model.model.name_or_path
    tried = load_tried()
    sizing, there = fit_sizing(tried), _choose(tried, lm, name, protocol)
    labels = [label for label in there["model"].unique() if label in sizing.knees]
    if not labels:
        every = "every text" if there["fits"].all() else "no text"
        raise InputError(f"{every} that was tried with {name} fits, so the limit is unknown; run other lengths")
    best = max(labels, key=sizing.knees.get)
    there = there[there["model"] == best].iloc[0]
    rule = find_protocol(there["protocol"])
    sample = tokenize(Text("text", "text", text), lm.tokenizer, None, special_tokens=rule.special_tokens)
    rule.check(lm, len(sample.ids), 1)
    with torch.no_grad():
        nats = measure(lm, rule, None, torch.tensor([sample.ids], device=lm.device))["ce_nats"].item()
    return Fit(
        n_tokens=len(sample.ids),
        nats=nats,
        knee_nats=sizing.knees[best],
        chance=float(sizing.chance(nats, best)),
        n_vectors=sizing.count_vectors(nats, best),
        criterion=there["criterion"],
        protocol=rule.name,
        measured=best,
    )


def _choose(tried, lm, name, protocol):
    # What is known of this model, under the protocol that is asked for.
    there = tried[(tried["weights"] == lm.fingerprint) | ((tried["origin"] == "published") & (tried["model"] == name))]
    if there.empty:
        known = sorted({row["name"] if row["origin"] == "measured" else row["model"] for _, row in tried.iterrows()})
        raise InputError(
            f"nothing is known of what vectors of {name} hold; run and freeze a sweep of it, or choose one of "
            f"{', '.join(known)}"
        )
    wanted = choose_protocol(protocol, lm)
    if wanted not in set(there["protocol"]) and protocol == AUTO:
        return there
    if wanted not in set(there["protocol"]):
        raise InputError(f"{name} was not measured under {protocol}; use {', '.join(sorted(set(there['protocol'])))}")
    return there[there["protocol"] == wanted]
