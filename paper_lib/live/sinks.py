"""Where attention rests: what decides whether a start token stands in front of the vectors.

Many pretrained models put much of their attention on the first position, whatever is there, and read little from it. A
vector at that place would have to be a resting place and a memory at once; where it is one, the start token keeps it.
"""

import functools

import torch

from .lm import FrozenLM

AUTO = "auto"  # in place of a protocol: the one that suits the model
SINK_SHARE = 0.2  # of attention; measured: SmolLM2 .39, Gemma 3 .45, novels-5m .06; spread evenly it would be .04
TEXT = (
    "In the morning the boats came back from the sea, and the women went down to the harbour to see what they had "
    "brought. There was little wind, and nobody spoke. A dog lay in the sun beside the nets and slept until noon."
)
FIRST_QUERY, N_TOKENS = 8, 48  # the first few positions have little else to look at


def choose_protocol(name: str, lm: FrozenLM) -> str:
    """Return the protocol that a name stands for: for "auto" ``anchored`` where the start token draws at least
    SINK_SHARE of the attention, else ``strict``; any other name as it is.
    """
    if name != AUTO:
        return name
    share = measure_start_attention(lm)
    return "anchored" if share is not None and share >= SINK_SHARE else "strict"


@functools.lru_cache(maxsize=1)  # of the model that is there
@torch.no_grad()
def measure_start_attention(lm: FrozenLM) -> float | None:
    """Return the share of attention (0 to 1) that a start token at position 0 draws from later tokens of a plain text.

    The mean over layers, heads and positions from FIRST_QUERY on; None for a model without start token or attention,
    and for one whose context is no longer than that.
    """
    if lm.start_id is None or lm.tokenizer is None or lm.context_tokens <= FIRST_QUERY:
        return None
    n_tokens = int(min(N_TOKENS, lm.context_tokens - 1))
    ids = lm.tokenizer.encode(TEXT, add_special_tokens=False)[:n_tokens]
    before = lm.model.config._attn_implementation
    lm.model.set_attn_implementation("eager")  # the others do not say where they look
    try:
        output = lm.model(input_ids=torch.tensor([[lm.start_id, *ids]], device=lm.device), output_attentions=True)
    finally:
        lm.model.set_attn_implementation(before)
    layers = [weights for weights in getattr(output, "attentions", None) or () if weights is not None]
    if not layers:
        return None
    return float(torch.stack([weights[0, :, FIRST_QUERY:, 0].mean().float() for weights in layers]).mean())
