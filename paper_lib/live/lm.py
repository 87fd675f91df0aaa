"""A frozen causal language model: loaded, checked, asked for logits. Only here are transformers' models known."""

import contextlib
import dataclasses
import hashlib
import math
import sys
from dataclasses import dataclass, field
from typing import Any

import torch
from huggingface_hub.utils import enable_progress_bars
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D
from transformers.utils import cached_file, extract_commit_hash, logging
from transformers.utils.import_utils import is_mambapy_available

from ..errors import InputError
from ..paths import ROOT
from .loss import CROSS_ENTROPY, Loss, Scores, score_hidden, score_logits

# A download deserves a progress bar, reading a file does not.
logging.disable_progress_bar()
enable_progress_bars()

# By default torch rounds the inputs of convolutions (Mamba has some) to 10 bits on GPUs; fp32 is to mean fp32.
torch.backends.cudnn.conv.fp32_precision = "ieee"

CUDA_KERNELS = ("mamba_ssm", "causal_conv1d")
WEIGHT_FILES = ("*.safetensors", "config.json", "tokenizer.json")


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
    matrix products run in, if any. ``plain_head`` tells that logits are a linear function of the last hidden states.
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
        with self._autocast():
            return self.model(
                inputs_embeds=inputs.embeds, logits_to_keep=inputs.positions, use_cache=False, **inputs.options
            ).logits

    def score(self, inputs: Inputs, targets: Int[Tensor, "case kept"], loss: Loss = CROSS_ENTROPY) -> Scores:
        """Return the scores, each (case, kept), of the tokens ``targets`` at the positions asked for."""
        if self.plain_head:
            with self._autocast():
                output = self.model.base_model(inputs_embeds=inputs.embeds, use_cache=False, **inputs.options)
            head = self.model.get_output_embeddings()
            dtype = self.autocast or head.weight.dtype
            bias = None if head.bias is None else head.bias.to(dtype)
            hidden = output.last_hidden_state[:, inputs.positions].flatten(0, 1).to(dtype)
            scores = score_hidden(hidden, head.weight.to(dtype), bias, targets.flatten(), loss)
        else:
            logits = self.logits(inputs).flatten(0, 1)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            scores = score_logits(logits, targets.flatten(), loss)
        return Scores(*(score.view(targets.shape) for score in scores))

    def _autocast(self):
        return torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None)

    @torch.no_grad()
    def greedy(
        self, inputs: Float[Tensor, "case pos d_embed"], n_tokens: int, *, cached: bool
    ) -> Int[Tensor, "case n_tokens"]:
        """Return ``n_tokens`` freely decoded tokens after ``inputs``, with the KV cache or with full forwards."""
        return self._continue_cached(inputs, n_tokens) if cached else self._continue_in_full(inputs, n_tokens)

    def _continue_cached(self, inputs, n_tokens):
        mask = torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)
        return self.model.generate(
            inputs_embeds=inputs,
            attention_mask=mask,
            do_sample=False,
            min_new_tokens=n_tokens,
            max_new_tokens=n_tokens,
            eos_token_id=None,
            pad_token_id=0,
        )

    def _continue_in_full(self, inputs, n_tokens):
        # `generate` always uses the cache when it is given vectors, whatever it is asked.
        said = []
        for _ in range(n_tokens):
            last = torch.tensor([inputs.shape[1] - 1], device=inputs.device)
            said.append(self.logits(Inputs(inputs, last)).argmax(dim=-1))
            inputs = torch.cat([inputs, self.embed(said[-1])], dim=1)
        return torch.cat(said, dim=1)


def load_lm(
    name: str,
    *,
    revision: str | None = None,
    dtype: str = "float32",
    autocast: str | None = None,
    device: str = "cpu",
) -> FrozenLM:
    """Load a causal LM from the hub or from a folder in the hub's format, freeze it and check that it is causal.

    ``dtype``, of the weights, is float32, bfloat16, float16 or float64; ``autocast``, of the matrix products, is
    bfloat16, float16 or None for no other than that of the weights. Weights come from safetensors only and no remote
    code is ever run. Raises InputError for a model that is missing, is not a causal LM, or needs code of its own, and
    for a device that is not there.
    """
    _check_device(device)
    folder = ROOT / name  # models of this repository are named from its root, wherever one stands
    name = str(folder) if folder.is_dir() else name
    try:
        revision = revision if folder.is_dir() else _find_commit(name, revision)
        options = {"revision": revision, "trust_remote_code": False}
        with _kernels_for(device):
            model = AutoModelForCausalLM.from_pretrained(
                name, dtype=getattr(torch, dtype), use_safetensors=True, **options
            ).to(device)
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
    except torch.OutOfMemoryError:
        raise InputError(f"{name} in {dtype} does not fit on {device}; use bfloat16 or a smaller model") from None
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(f"cannot load {name}: {_first_sentence(error)}; {_way_out(error)}") from None
    fingerprint = _hash_folder(folder) if folder.is_dir() else f"{name}@{revision}"
    lm = freeze(model, tokenizer, fingerprint=fingerprint)
    return dataclasses.replace(lm, autocast=getattr(torch, autocast) if autocast else None)


def freeze(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None = None, *, fingerprint: str) -> FrozenLM:
    """Return ``model`` as a FrozenLM: eval mode, no gradients to weights; InputError if it looks ahead (encoders)."""
    model.eval().requires_grad_(False)
    for module in model.modules():
        if hasattr(module, "use_mambapy"):  # Mamba's recurrence in one scan, not position after position
            module.use_mambapy = is_mambapy_available()
    model.generation_config = GenerationConfig()  # some models come with penalties; greedy is to mean the argmax
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
    _check_causal(lm)
    return dataclasses.replace(lm, plain_head=_has_plain_head(lm))


@contextlib.contextmanager
def _kernels_for(device):
    # When transformers first builds a Mamba, it takes the CUDA kernels if they are installed, for a CPU too.
    hidden = {} if torch.device(device).type == "cuda" else {name: sys.modules.get(name) for name in CUDA_KERNELS}
    sys.modules.update(dict.fromkeys(hidden))  # None: not to be imported
    try:
        yield
    finally:
        for name, module in hidden.items():
            del sys.modules[name]
            if module:
                sys.modules[name] = module


def _check_device(device):
    try:
        if torch.device(device).type not in ("cpu", "cuda"):  # others have no float64
            raise RuntimeError
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        here = ["cpu"] + [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        raise InputError(f"cannot compute on device {device!r}; this torch has: {', '.join(here)}") from None


@torch.no_grad()
def _check_causal(lm):
    inputs = torch.randn(1, 4, lm.d_embed, generator=torch.Generator().manual_seed(0))
    inputs = (inputs * lm.embedding_std).to(lm.device, lm.dtype)
    changed = inputs.clone()
    changed[:, -1] *= -1
    everywhere = torch.arange(4, device=lm.device)
    moved = (lm.logits(Inputs(inputs, everywhere)) - lm.logits(Inputs(changed, everywhere))).abs().float()
    if moved[:, :-1].max() > 1e-3 * moved[:, -1].max():
        raise InputError(
            f"{type(lm.model).__name__} looks at later tokens; give a causal language model, not an encoder"
        )


@torch.no_grad()
def _has_plain_head(lm):
    # Some models scale or cap their logits, or project what they call the last hidden state; then they are asked whole.
    inputs = torch.randn(1, 4, lm.d_embed, generator=torch.Generator().manual_seed(1))
    inputs = (inputs * lm.embedding_std).to(lm.device, lm.dtype)
    everywhere = torch.arange(4, device=lm.device)
    logits, head = lm.logits(Inputs(inputs, everywhere)), lm.model.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear):
        return False
    hidden = lm.model.base_model(inputs_embeds=inputs, use_cache=False).last_hidden_state
    return hidden.shape[-1] == head.in_features and torch.equal(head(hidden).to(logits.dtype), logits)


def _find_commit(name, revision):
    # Of a model on the hub, so that all its files are of one commit, and the record can say which.
    commit = extract_commit_hash(cached_file(name, "config.json", revision=revision), None)
    if commit is None:
        raise OSError("the hub did not say at which commit it is")
    return commit


def _hash_folder(folder):
    digest = hashlib.sha256()
    for path in sorted(p for pattern in WEIGHT_FILES for p in folder.glob(pattern)):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return f"sha256:{digest.hexdigest()}"


def _first_sentence(error):
    return str(error).strip().splitlines()[0].split(". ")[0].rstrip(".")


def _way_out(error):
    if "trust_remote_code" in str(error):
        return "models that bring their own code are not run here; choose one that transformers knows"
    return "give a hub id or a folder with config.json and safetensors weights of a causal LM"
