"""A frozen causal language model: tried out, then asked for logits. How one is loaded: ``load``."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D
from transformers.utils.import_utils import is_mambapy_available

from ..errors import InputError, first_sentence
from .loss import CROSS_ENTROPY, Loss, Scores, score_hidden, score_logits

# Positions; in short texts torch's fused attention is slower in low precision on CPUs (benchmarks/ideas.py).
FUSED_FROM = 256
CACHES = ("past_key_values", "cache_params")  # what models call what they keep of the tokens so far


@dataclass(frozen=True)
class Inputs:
    """What goes into the model, without padding, and the positions at which it is asked for the next token.

    ``options`` are further arguments of the model's forward, such as ``past_key_values``.
    """

    embeds: Float[Tensor, "case input d_embed"]
    positions: Int[Tensor, " kept"]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FrozenLM:
    """A causal language model whose weights never change.

    ``d_embed`` is the width of an input vector (OPT's word_embed_proj_dim where it has one), ``embedding_std`` the
    standard deviation of all input embeddings as the model sees them, ``context_tokens`` the longest input (infinite
    for Mamba), ``start_id`` the token before a text (BOS, else EOS, else none) and ``fingerprint`` says which weights
    these are: the sha256 of the files of a folder, or the commit on the hub. ``autocast`` is the lower precision that
    matrix products run in, if any. ``plain_head`` is true if logits are a linear function of the last hidden states.
    ``checkpointing`` computes each layer a second time, in the backward pass, instead of keeping what it computed.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    d_embed: int
    vocab_size: int
    embedding_std: float
    context_tokens: float
    start_id: int | None
    fingerprint: str
    autocast: torch.dtype | None = None
    plain_head: bool = False
    checkpointing: bool = False

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights, in which everything is computed unless ``autocast`` is set."""
        return self.model.dtype

    @property
    def n_parameters(self) -> int:
        """How many weights the model has, shared ones counted once."""
        return self.model.num_parameters()

    @property
    def n_matrix_weights(self) -> int:
        """How many weights are multiplied with each token: those of all matrices, output head in, input table out."""
        layers = (module for module in self.model.modules() if isinstance(module, (torch.nn.Linear, Conv1D)))
        return sum(layer.weight.numel() for layer in layers)

    @property
    def commit(self) -> str | None:
        """The commit of a model from the hub, None for one from a folder."""
        return self.fingerprint.partition("@")[2] or None

    def without_autocast(self) -> "FrozenLM":
        """Return the same model, computing in the precision of its weights."""
        return dataclasses.replace(self, autocast=None)

    def embed(self, ids: Int[Tensor, "case pos"]) -> Float[Tensor, "case pos d_embed"]:
        """Return the input vectors of tokens, scaled as the model scales them (Gemma)."""
        return self.model.get_input_embeddings()(ids)

    def logits(self, inputs: Inputs) -> Float[Tensor, "case kept vocab"]:
        """Return the logits at the positions asked for only."""
        with self._computing(inputs.embeds.shape[1]):
            return self.model(
                inputs_embeds=inputs.embeds, logits_to_keep=inputs.positions, use_cache=False, **inputs.options
            ).logits

    def score(
        self,
        inputs: Inputs,
        targets: Int[Tensor, "case kept"],
        loss: Loss = CROSS_ENTROPY,
        counts: Bool[Tensor, "case kept"] | None = None,
    ) -> Scores:
        """Return the scores, each (case, kept), of the tokens ``targets`` at the positions asked for.

        What is returned of targets that do not count means nothing: on a CPU they do not go through a plain head, which
        is most of the work where the vocabulary is large.
        """
        skips = counts is not None and counts.device.type == "cpu"  # a GPU would have to be waited for
        if self.plain_head:
            with self._computing(inputs.embeds.shape[1]):
                output = self.model.base_model(inputs_embeds=inputs.embeds, use_cache=False, **inputs.options)
                head = self.model.get_output_embeddings()
                weight, bias = head.weight, head.bias
            dtype = self.autocast or weight.dtype
            bias = None if bias is None else bias.to(dtype)
            hidden, asked = output.last_hidden_state[:, inputs.positions].flatten(0, 1), targets.flatten()
            if skips:
                (chosen,) = counts.flatten().nonzero(as_tuple=True)
                hidden, asked = hidden[chosen], asked[chosen]
            scores = score_hidden(hidden.to(dtype), weight.to(dtype), bias, asked, loss)
            if skips:
                scores = [score.new_zeros(counts.numel()).index_put((chosen,), score) for score in scores]
        else:
            logits = self.logits(inputs).flatten(0, 1)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            scores = score_logits(logits, targets.flatten(), loss)
        return Scores(*(score.view(targets.shape) for score in scores))

    @contextlib.contextmanager
    def _computing(self, n_positions=math.inf):
        # transformers checkpoints layers in training mode only, which would also switch on what is inside them.
        modules = self.model.modules() if self.checkpointing and torch.is_grad_enabled() else ()
        layers = [module for module in modules if isinstance(module, GradientCheckpointingLayer)]
        attention, on_cpu = self.model.config._attn_implementation, self.device.type == "cpu"
        plain = self.autocast is not None and on_cpu and n_positions < FUSED_FROM and not layers
        own = [(module, dict(module._parameters)) for module in self._cast_weights]
        for layer in layers:
            layer.training = True
        try:
            for module, cast in self._cast_weights.items():
                module._parameters.update(cast)
            if plain:
                self.model.set_attn_implementation("eager")
            with torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
                yield
        finally:
            for module, weights in own:
                module._parameters.update(weights)
            if plain:
                self.model.set_attn_implementation(attention)
            for layer in layers:
                layer.training = False

    @functools.cached_property
    def _cast_weights(self) -> dict[torch.nn.Linear, dict[str, Tensor | None]]:
        # Autocast would cast them anew in each pass, which on a CPU takes longer than a few tokens do
        # (benchmarks/ideas.py). Not where memory is short: on a GPU, and under checkpointing.
        if self.autocast is None or self.device.type != "cpu" or self.checkpointing:
            return {}
        layers = [module for module in self.model.modules() if isinstance(module, torch.nn.Linear)]
        return {
            layer: {
                name: None if values is None else values.to(self.autocast) for name, values in layer._parameters.items()
            }
            for layer in layers
        }

    @torch.no_grad()
    def greedy(
        self,
        inputs: Float[Tensor, "case pos d_embed"],
        n_tokens: int,
        *,
        cached: bool,
        before: Callable[[], dict[str, Any]] = dict,
    ) -> Int[Tensor, "case n_tokens"]:
        """Return ``n_tokens`` freely decoded tokens after ``inputs``, with the cache (if the model has one) or without.

        ``before`` makes the options of a forward pass that begins with ``inputs``, such as a cache of what lies before
        them. Not by ``generate``, which cannot begin with vectors for many models.
        """
        said, past = [], before()
        for _ in range(n_tokens):
            with self._computing():  # of a copy, since CTRL scales what it is given in place
                output = self.model(inputs_embeds=inputs.clone(), logits_to_keep=1, use_cache=cached, **past)
            said.append(output.logits[:, -1:].argmax(dim=-1))
            kept = {name: output[name] for name in CACHES if cached and output.get(name) is not None}
            token = self.embed(said[-1])
            inputs, past = (token, kept) if kept else (torch.cat([inputs, token], dim=1), before())
        return torch.cat(said, dim=1)


def prepare_lm(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    fingerprint: str,
    checkpointing: bool = False,
) -> FrozenLM:
    """Return ``model`` as a FrozenLM: eval mode, no gradients to weights, tried out on random input vectors.

    From then on convolutions in fp32 are in full precision, in this whole process. Raises InputError for a model that
    looks ahead (encoders), that cannot be run or decoded from input vectors, or that cannot do ``checkpointing``.
    """
    # By default torch rounds the inputs of convolutions (Mamba has some) to 10 bits on GPUs; fp32 is to mean fp32.
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    model.eval().requires_grad_(False)
    for module in model.modules():
        if hasattr(module, "use_mambapy"):  # Mamba's recurrence in one scan, not position after position
            module.use_mambapy = is_mambapy_available()
    embedding = model.get_input_embeddings()
    vocab_size = embedding.num_embeddings
    with torch.no_grad():
        rows = embedding(torch.arange(vocab_size, device=model.device))
    config = model.config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)  # absent from Mamba
    lm = FrozenLM(
        model=model,
        tokenizer=tokenizer,
        d_embed=rows.shape[1],
        vocab_size=vocab_size,
        embedding_std=rows.double().std().item(),
        context_tokens=limit or math.inf,
        start_id=next((i for i in (config.bos_token_id, config.eos_token_id) if isinstance(i, int)), None),
        fingerprint=fingerprint,
    )
    try:
        _check_causal(lm)
        _check_decoding(lm)
        lm = dataclasses.replace(lm, plain_head=_has_plain_head(lm))
        return _checkpoint(lm) if checkpointing else lm
    except (InputError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # from the code of any of transformers' hundreds of models
        way_out = "choose another model" if lm.dtype == torch.float32 else "choose dtype float32 or another model"
        raise InputError(
            f"{type(model).__name__} cannot be run from input vectors in {str(lm.dtype).removeprefix('torch.')}: "
            f"{first_sentence(error)}; {way_out}"
        ) from error


def _random_inputs(lm, seed):
    inputs = torch.randn(1, 4, lm.d_embed, generator=torch.Generator().manual_seed(seed))
    return (inputs * lm.embedding_std).to(lm.device, lm.dtype)


@torch.no_grad()
def _check_causal(lm):
    inputs = _random_inputs(lm, 0)
    changed = inputs.clone()
    changed[:, -1] *= -1
    everywhere = torch.arange(4, device=lm.device)
    moved = (lm.logits(Inputs(inputs, everywhere)) - lm.logits(Inputs(changed, everywhere))).abs().float()
    if moved[:, :-1].max() > 1e-3 * moved[:, -1].max():
        raise InputError(
            f"{type(lm.model).__name__} looks at later tokens; give a causal language model, not an encoder"
        )


def _check_decoding(lm):
    # Before any work, rather than when the first vector is done.
    for cached in (False, True):
        lm.greedy(_random_inputs(lm, 2), 2, cached=cached)


def _checkpoint(lm):
    # Layers that have more than their training mode to tell them apart, such as OPT's dropout, would compute otherwise.
    name = type(lm.model).__name__
    if not lm.model.supports_gradient_checkpointing:
        raise InputError(f"{name} has no gradient checkpointing; leave it out, or choose another model")
    # The older name goes in transformers 6.
    enable = getattr(lm.model, "activation_checkpointing_enable", lm.model.gradient_checkpointing_enable)
    enable({"use_reentrant": False})
    there, last = dataclasses.replace(lm, checkpointing=True), torch.tensor([3], device=lm.device)
    inputs = Inputs(_random_inputs(lm, 3).requires_grad_(), last)
    if not torch.equal(there.logits(inputs), lm.logits(inputs)):
        raise InputError(f"{name} computes something else under gradient checkpointing; leave it out")
    return there


@torch.no_grad()
def _has_plain_head(lm):
    # Some models scale or cap their logits, or project what they call the last hidden state; then they are asked whole.
    if getattr(lm.model, "hf_device_map", None):  # head and last hidden state may lie on different devices
        return False
    inputs = _random_inputs(lm, 1)
    everywhere = torch.arange(4, device=lm.device)
    logits, head = lm.logits(Inputs(inputs, everywhere)), lm.model.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear):
        return False
    hidden = lm.model.base_model(inputs_embeds=inputs, use_cache=False).last_hidden_state
    return hidden.shape[-1] == head.in_features and torch.equal(head(hidden).to(logits.dtype), logits)
