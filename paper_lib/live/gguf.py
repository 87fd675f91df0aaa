"""Models in one GGUF file, with quantised weights that are computed back to full numbers when they are loaded.

They are real weights, but not bit for bit those that the file was made from.
"""

import contextlib
import importlib.util
import io
import shutil
import tempfile
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file, extract_commit_hash

from ..errors import InputError, first_sentence
from ..files import hash_bytes, hash_file, hash_files, make_folder
from ..models import REAL_MODELS
from ..paths import BUILD

SUFFIX = ".gguf"
MAGIC = b"GGUF"
DIGEST = "weights.sha256"  # beside what is kept
BLOCK = 32  # weights that share a scale when they are rounded
MOST_KEPT = 10**9  # weights, 4 bytes each on disk, of a model that is kept in the hub's format


def split_name(name: str, file: str | None) -> tuple[str, str | None]:
    """Return folder or hub id, and GGUF file: ``name`` may end in the file, which is None for another kind of model."""
    if file is None and name.endswith(SUFFIX):
        folder, _, file = name.rpartition("/")
        return folder or ".", file
    return name, file


def find_gguf(name: str, file: str, revision: str | None, folder: Path) -> tuple[Path, str]:
    """Return where the GGUF file is, downloaded from the hub unless ``folder`` is there, and its fingerprint.

    Raises InputError for a file that is missing, is no GGUF file, or is a fetched model that has been damaged, and
    where the package gguf is not installed.
    """
    if not importlib.util.find_spec("gguf"):
        raise InputError(f"{file} needs the package gguf, which is not installed; run `make live`")
    path, commit = folder / file, None
    if not folder.is_dir():
        path = Path(cached_file(name, file, revision=revision))
        commit = extract_commit_hash(str(path), None)
    if not path.is_file():
        raise InputError(f"{path} is missing; give the path of a GGUF file")
    with path.open("rb") as content:
        if content.read(len(MAGIC)) != MAGIC:
            raise InputError(f"{path} is no GGUF file; download it again")
    digest = hash_file(path)
    for model in REAL_MODELS.values():
        if path == model.path and digest != model.sha256:
            raise InputError(f"{path} is damaged; run: python -m paper_lib fetch {model.name}")
    return path, f"{name}/{file}@{commit}" if commit else f"sha256:{digest}"


def load_gguf(
    path: Path, fingerprint: str, dtype: torch.dtype, **options
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return model and tokenizer of a GGUF file, its weights computed back to ``dtype``.

    A small model that is loaded in fp32 is kept in the hub's format under build/gguf, by its ``fingerprint``: reading
    that takes half a second, the GGUF file of SmolLM2-135M sixteen. Raises InputError for a file that is cut off or
    damaged, and an architecture that transformers does not read.
    """
    kept = BUILD / "gguf" / hash_bytes(f"{fingerprint} {transformers.__version__}".encode())[:16]
    with _errors_in_one_line(path):
        if _is_whole(kept):
            model = AutoModelForCausalLM.from_pretrained(kept, dtype=dtype, **options)
            tokenizer = AutoTokenizer.from_pretrained(kept)
        else:
            model, tokenizer = _read_gguf(path, dtype, **options)
            if dtype == torch.float32 and not options and model.num_parameters() < MOST_KEPT:
                _keep(model, tokenizer, kept)
    model.name_or_path = str(path)
    return model, tokenizer


@torch.no_grad()
def round_weights(model: PreTrainedModel, bits: int) -> None:
    """Round all matrices, in place, to ``bits`` a weight: evenly spaced levels around 0, a scale for each 32 in a row.

    The scale takes the largest of the 32 to the outermost level, as in the simplest GGUF formats.
    """
    highest = 2 ** (bits - 1) - 1
    for weight in {
        parameter.data_ptr(): parameter for parameter in model.parameters() if parameter.dim() == 2
    }.values():
        blocks = weight.unflatten(1, (-1, min(BLOCK, weight.shape[1])))
        scale = blocks.abs().amax(dim=2, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny) / highest
        weight.copy_(((blocks / scale).round() * scale).flatten(1))


def _read_gguf(path, dtype, **options):
    folder, file = str(path.parent), {"gguf_file": path.name}
    config = AutoConfig.from_pretrained(folder, **file)
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=dtype, output_loading_info=True, **file, **options
    )
    if missing := sorted(report["missing_keys"] | {name for name, *_ in report["mismatched_keys"]}):
        raise InputError(f"{path} lacks tensors of its {type(model).__name__}, such as {missing[0]}; give a whole file")
    # What is loaded is an ordinary model; these would forbid to save or move it.
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    return model, AutoTokenizer.from_pretrained(folder, **file)


def _keep(model, tokenizer, folder):
    # In one step. Without the room for it, or where another process was faster, nothing is lost.
    shutil.rmtree(folder, ignore_errors=True)  # what was there is damaged
    temporary = Path(tempfile.mkdtemp(prefix=".partial-", dir=make_folder(folder.parent)))
    with contextlib.suppress(OSError):
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        (temporary / DIGEST).write_text(_hash_weights(temporary))
        temporary.rename(folder)
    shutil.rmtree(temporary, ignore_errors=True)


def _is_whole(folder):
    return (folder / DIGEST).is_file() and (folder / DIGEST).read_text() == _hash_weights(folder)


def _hash_weights(folder):
    return hash_files(folder.glob("*.safetensors"))


@contextlib.contextmanager
def _errors_in_one_line(path):
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a bar for each file that is read
            yield
    except (InputError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # from readers that trust what they read
        raise InputError(
            f"cannot load {path}: {first_sentence(error)}; download it again if it may be damaged, "
            "or choose an architecture that transformers reads from GGUF"
        ) from error
