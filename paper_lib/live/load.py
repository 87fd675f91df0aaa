"""Loading a causal language model from a folder or the hub; whatever would not be the model it is called is refused."""

import contextlib
import dataclasses
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, FineGrainedFP8Config
from transformers.utils import cached_file, extract_commit_hash, has_file, logging

from ..errors import InputError, first_sentence
from ..files import hash_files
from ..models import locate, weight_bits
from ..paths import ROOT
from .gguf import find_gguf, load_gguf, round_weights, split_name
from .lm import FrozenLM, prepare_lm
from .precision import warn_if_slow

CUDA_KERNELS = ("mamba_ssm", "causal_conv1d")
FINGERPRINTED = ("*.safetensors", "config.json", "tokenizer.json")
WEIGHTS, INDEX, ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_config.json"
WRAPPERS = {"_orig_mod.": "torch.compile", "module.": "DataParallel"}  # what they put before the name of each tensor

# The way out, by what an error says; the first that fits.
WAYS_OUT = {
    "trust_remote_code": "models that bring their own code are not run here; choose one that transformers knows",
    "socksio": "run `pip install socksio`, or unset ALL_PROXY",
    "proxy": "check the environment variables ALL_PROXY, HTTPS_PROXY and HTTP_PROXY",
    "gated repo": "ask for access at https://huggingface.co/{name}, then run `hf auth login`",
    "not a valid git identifier": "choose a revision that https://huggingface.co/{name} lists",
    "deserializing header": "a file of weights is cut off or damaged; download the weights again",
    "backend tokenizer": "put the tokenizer.json of the model beside its weights",
    f"named {WEIGHTS}": "pickled weights (.bin) can run code and are never loaded; if a pull request listed at "
    "https://huggingface.co/{name}/discussions has safetensors weights, set `revision: refs/pr/NUMBER`",
    "": "give a hub id or a folder with config.json and safetensors weights of a causal LM, or a GGUF file",
}


def load_lm(
    name: str,
    *,
    revision: str | None = None,
    gguf: str | None = None,
    dtype: str = "float32",
    autocast: str | None = None,
    device: str = "cpu",
    device_map: str | None = None,
    checkpointing: bool = False,
) -> FrozenLM:
    """Load a causal LM from the hub, a folder in its format or a GGUF file, check and prepare it (``prepare_lm``).

    ``name`` may also be a model that was fetched (models.REAL_MODELS). ``revision`` is a branch, tag, commit or pull
    request (``refs/pr/1``) on the hub; the model is then known by its commit. ``gguf`` is a file in that folder or
    repository. ``dtype``, of the weights, is float32, bfloat16, float16 or float64; ``autocast``, of the matrix
    products, is bfloat16, float16 or None for no other than that of the weights. ``device_map`` "auto" spreads the
    layers over the devices that are there, ``checkpointing`` computes each layer again in the backward pass: for models
    too large otherwise. Warns where a lower precision is slower than float32 on this processor. Weights come from
    safetensors or GGUF only, FP8 ones are converted to ``dtype``, and no remote code is ever run. Raises InputError for
    a model that is missing, incomplete, otherwise quantised, not a causal LM or in need of its own code, for an
    adapter, and for a device that is not there.
    """
    _check_device(device)
    warn_if_slow(autocast or dtype, device)
    bits = weight_bits(name)
    name, gguf = split_name(locate(name), gguf)
    folder = ROOT / Path(name).expanduser()  # models of this repository are named from its root, wherever one stands
    in_folder = folder.is_dir()
    name = str(folder) if in_folder else name
    placed = {"device_map": device_map} if device_map else {}
    try:
        with _errors_in_one_line(name), _kernels_for(device), _without_noise():
            if gguf:
                path, fingerprint = find_gguf(name, gguf, revision, folder)
                model, tokenizer = load_gguf(path, fingerprint, getattr(torch, dtype), **placed)
                if bits:
                    round_weights(model, bits)
                    fingerprint += f", rounded to {bits} bits"
            else:
                commit = _check_folder(folder) if in_folder else _find_commit(name, revision)
                options = {"revision": commit, "trust_remote_code": False}
                model = _load_model(name, getattr(torch, dtype), options | placed)
                tokenizer = AutoTokenizer.from_pretrained(name, **options)
                fingerprint = _hash_folder(folder) if in_folder else f"{name}@{commit}"
            model = _check_placement(model) if device_map else model.to(device)
        lm = prepare_lm(model, tokenizer, fingerprint=fingerprint, checkpointing=checkpointing)
    except torch.OutOfMemoryError:
        raise InputError(f"{name} in {dtype} does not fit on {device}; use bfloat16 or a smaller model") from None
    return dataclasses.replace(lm, autocast=getattr(torch, autocast) if autocast else None)


def load_same(record: dict, load: Callable = load_lm) -> FrozenLM:
    """Return the model of a record; InputError if its weights are not those that the record was measured with."""
    gguf = record.get("gguf")  # null in tables of cases that were measured before there was such a setting
    gguf = gguf if isinstance(gguf, str) else None
    lm = load(record["model"], revision=record["revision"], gguf=gguf, dtype=record["dtype"])
    if lm.fingerprint != record["weights"]:
        raise InputError(f"{record['model']} has other weights than when {record['key'][:12]} was run; restore them")
    return lm


# --- before loading ------------------------------------------------------------------------------------------------


def _check_device(device):
    try:
        if torch.device(device).type not in ("cpu", "cuda"):  # others have no float64
            raise RuntimeError
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        here = ["cpu"] + [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        raise InputError(f"cannot compute on device {device!r}; this torch has: {', '.join(here)}") from None


def _check_folder(folder):
    _refuse_adapter(folder, None)
    if not (folder / "config.json").is_file():
        files = sorted(path.name for path in folder.glob("*.gguf"))
        way_out = f"name its GGUF file: gguf: {files[0]}" if files else WAYS_OUT[""]
        raise InputError(f"{folder} has no config.json; {way_out}")
    weights = _list_weights(folder)
    for path in [folder / "config.json", folder / "tokenizer.json", *weights]:
        if path.is_file() and _begins_with(path, b"version https://git-lfs"):
            raise InputError(f"{path} is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder")
    missing = [path.name for path in weights if not path.is_file()]
    if missing and any(folder.glob("*.bin")):
        raise InputError(
            f"{folder} has pickled weights (.bin) only, which can run code and are never loaded; if you trust them, "
            "convert them: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    if missing:
        raise InputError(f"{folder} lacks {_enumerate(missing)}; download what is missing from where the rest came")


def _list_weights(folder):
    # Those that transformers is going to load.
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return [folder / WEIGHTS]
    return sorted(
        {folder / shard for shard in json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()}
    )


def _begins_with(path, beginning):
    with path.open("rb") as file:
        return file.read(len(beginning)) == beginning


def _find_commit(name, revision):
    # Of a model on the hub, so that all its files are of one commit, and the record can say which.
    if Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise InputError(f"cannot load {name}: there is no such folder; {WAYS_OUT['']}")
    if not ENDPOINT.startswith(("http://", "https://")):
        raise InputError(f"HF_ENDPOINT is {ENDPOINT!r}; begin it with https:// or http://")
    config = cached_file(name, "config.json", revision=revision)
    _refuse_adapter(name, revision)
    commit = extract_commit_hash(config, None)
    if commit is None:
        raise OSError("the hub has no config.json of it")
    return commit


def _refuse_adapter(name, revision):
    # Even beside whole weights: transformers would add it to them where PEFT is installed, and only there.
    if has_file(name, ADAPTER, revision=revision):
        settings = json.loads(Path(cached_file(name, ADAPTER, revision=revision)).read_text(encoding="utf-8"))
        raise InputError(
            f"{name} is a PEFT adapter of {settings.get('base_model_name_or_path')}; merge it into that model "
            "(merge_and_unload, then save_pretrained) and give the folder of the merged one"
        )


# --- loading -------------------------------------------------------------------------------------------------------


def _load_model(name, dtype, options):
    config = AutoConfig.from_pretrained(name, **options)
    quantised = _find_quantisation(config)
    if quantised not in (None, "fp8"):
        raise InputError(
            f"{name} is quantised ({quantised}): its weights have no dtype to choose, and gradients "
            "through them are not supported; give the model that it was made from"
        )
    if quantised:
        options |= {"quantization_config": FineGrainedFP8Config(dequantize=True)}
    model, report = AutoModelForCausalLM.from_pretrained(
        name, dtype=dtype, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    _check_tensors(name, model, report)
    return model.to(dtype) if quantised else model  # transformers leaves it in a mixture


def _check_placement(model):
    # With more weights than all devices hold, accelerate leaves some of them out, and each step would read them anew.
    if any(weight.is_meta for weight in model.parameters()):
        raise InputError(f"{model.name_or_path} does not fit on the devices here; use bfloat16 or a smaller model")
    return model


def _find_quantisation(config):
    # What a config.json says, None where nothing.
    settings = [getattr(part, "quantization_config", None) for part in (config, config.get_text_config())]
    return next((one.get("quant_method", "by an unnamed method") for one in settings if one), None)


def _check_tensors(name, model, report):
    # Where a tensor is missing or has another shape, transformers takes random numbers.
    if report["mismatched_keys"]:
        tensor, stored, expected = min(report["mismatched_keys"])
        raise InputError(
            f"{name}: {tensor} is {tuple(stored)} in the weights, {tuple(expected)} by config.json; "
            "restore the config.json that was saved with these weights"
        )
    unexpected, missing = sorted(report["unexpected_keys"]), sorted(report["missing_keys"])
    for prefix, wrapper in WRAPPERS.items():
        if missing and any(tensor.startswith(prefix) for tensor in unexpected):
            raise InputError(
                f"{name}: the names of its tensors begin with {prefix!r}, as {wrapper} wraps a model; save the model "
                f"inside instead: model.{prefix}save_pretrained(FOLDER)"
            )
    own = {_module_of(tensor) for tensor in model.state_dict()}
    unexpected = [tensor for tensor in unexpected if missing or _module_of(tensor) in own]
    if missing or unexpected:
        wrong = {"missing": missing, "unexpected": unexpected}
        raise InputError(
            f"{name}: its weights are not those of the {type(model).__name__} in its config.json; "
            f"{'; '.join(f'{what}: {_enumerate(tensors)}' for what, tensors in wrong.items() if tensors)}; "
            "give all files of one model"
        )


def _module_of(tensor):
    # In whichever layer. A tensor of a module that the model does not have, such as another head, does no harm.
    return re.sub(r"\d+", "*", tensor.rpartition(".")[0])


def _enumerate(names):
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _hash_folder(folder):
    return f"sha256:{hash_files(path for pattern in FINGERPRINTED for path in folder.glob(pattern))}"


# --- surroundings --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _errors_in_one_line(name):
    # Around the code of others at work on the files of others, where anything may be raised; its cause stays with it.
    try:
        yield
    except (InputError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        said = str(error).lower()
        way_out = next(way for words, way in WAYS_OUT.items() if words in said).format(name=name)
        raise InputError(f"cannot load {name}: {first_sentence(error)}; {way_out}") from error


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


@contextlib.contextmanager
def _without_noise():
    # A download deserves a progress bar, reading a file does not; what transformers would warn of is checked here.
    verbosity, bars, silent = logging.get_verbosity(), logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # and, with it, the hub's
    if not silent:
        enable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if silent:
            disable_progress_bars()
