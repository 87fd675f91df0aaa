"""What to run: sweeps read from YAML, and the one case that each measurement is.

Settings are frozen, and an unknown key is an error. The defaults are the paper's (appendix A), so a sweep of the paper
names its model, texts and lengths only.

A *part* (protocol, goal, mover, loss, parametrisation, finder) is named like a call: ``strict``, or with settings of
its own ``momentum(decay=0.8)``; ``parts.py`` reads such names.

The key rule: a case is known by the hash of its settings, so a stored case stays valid only while its key does. A
setting that is added later is declared with ``added_later`` and enters the key only where it is not at its default. A
default never changes; it is superseded by a new setting.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from .errors import InputError, suggest, unknown_name
from .files import read_utf8
from .parts import name_part
from .storage import STORAGES

NAME = "[a-z0-9][a-z0-9_.-]*"  # of a sweep, and so of its folder
Positive = Annotated[int, Field(gt=0)]


class Settings(BaseModel):
    """Base of all settings: immutable, and no key that is not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def added_later(default, **options):
    """Declare a setting that is younger than the first frozen cases (see the key rule above)."""
    return Field(default, json_schema_extra={"added_later": True}, **options)


class Optimiser(Settings):
    """How vectors move: by default AdamW without schedule or clipping. ``max_steps`` counts measurements."""

    lr: float = Field(0.01, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.9, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    max_steps: Positive = 5000
    mover: str = added_later("adamw", description="one of live/movers/")


class Model(Settings):
    """A causal LM: hub id, folder or fetched model, hub revision, precision of weights and products, and for large ones
    how it is spread over devices and whether layers are computed again in the backward pass.
    """

    name: str
    revision: str | None = None
    gguf: str | None = Field(None, description="a GGUF file in that folder or repository; `name` may also end in it")
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    autocast: Literal["bfloat16", "float16"] | None = None
    device_map: Literal["auto"] | None = Field(None, description="layers over all devices, by accelerate")
    checkpointing: bool = Field(False, description="layers computed again in the backward pass: less memory, more time")


class FolderTexts(Settings):
    """Chunks of books in a folder of .txt or .txt.gz files; the second half of a chunk's sentences is the text."""

    source: Literal["folder"]
    path: str
    label: str = Field(description="what the source is called in tables, such as pg19_test_clean")
    chunk_words: Positive = 1000


class WordTexts(Settings):
    """Words drawn independently from a list, one word per line; ``path`` may be gzipped."""

    source: Literal["words"]
    path: str
    label: str = "random"


class StringTexts(Settings):
    """Texts written in the sweep itself."""

    source: Literal["strings"]
    texts: tuple[str, ...] = Field(min_length=1)
    label: str = "strings"


class HubTexts(Settings):
    """Rows of a data set on the hub or in a local folder of its format; chunks as for FolderTexts if ``halve``."""

    source: Literal["hub"]
    path: str
    config: str | None = Field(None, description="name of the configuration, where the data set has several")
    split: str = "train"
    column: str = "text"
    label: str
    halve: bool = True


Texts = Annotated[FolderTexts | WordTexts | StringTexts | HubTexts, Field(discriminator="source")]


# Settings by one word; what a sweep says itself comes before them. notebooks/11_optimizer has how they were found.
RECIPES = {
    "published": {},
    "fast": {
        "protocols": ("auto",),
        "optimiser": {"mover": "lbfgs(patience=20)", "lr": 10.0, "weight_decay": 0.0, "max_steps": 400},
        "loss": "cross_entropy(temperature=0.15)",
    },
}


class Sweep(Settings):
    """All cases of one experiment: every text x length x n_mem x protocol, for one model."""

    name: str = Field(pattern=f"^{NAME}$")
    model: Model
    texts: Texts
    n_texts: Positive = 50
    lengths: tuple[Positive, ...] = Field(min_length=1)
    n_mem: tuple[Positive, ...] = (1,)
    recipe: str = Field("published", description="one of RECIPES: defaults for the settings below")
    protocols: tuple[str, ...] = Field(("kuratov2025",), min_length=1, description="auto chooses by live/sinks.py")
    stopping: str | None = Field(None, description="a goal; by default the one named like the protocol, or strict")
    optimiser: Optimiser = Optimiser()
    loss: str = Field("cross_entropy", description="one of live/loss.py")
    parametrisation: str = Field("free", description="one of live/parametrisations.py")
    finder: str = Field("optimise", description="one of live/finders.py: where vectors come from")
    storage: str = Field("float32", description="precision that vectors are kept in: one of storage.py")
    batch_size: Positive | None = Field(None, description="texts at a time; by default what keeps the device busy")
    seed: int = 0
    text_seed: int | None = Field(
        None, description="seed of the texts drawn; by default `seed`, that of the starts too"
    )
    n_restarts: Positive = Field(1, description="random starts of each text, each a case of its own")
    init_from: str | None = Field(
        None, description="a sweep, run or frozen: each text starts from its longest vectors there, not at random"
    )
    arms: dict[str, dict] = Field({}, description="what is compared: by name, settings that replace those above")

    def give(self, max_evaluations: int) -> "Sweep":
        """Return the sweep with another budget, in every arm."""

        def with_budget(settings):
            return settings | {"optimiser": settings.get("optimiser", {}) | {"max_steps": max_evaluations}}

        arms = {arm: with_budget(changes) for arm, changes in self.arms.items()}
        return Sweep(**with_budget(self.model_dump(exclude_unset=True)) | {"arms": arms})

    @property
    def by_arm(self) -> dict[str, "Sweep"]:
        """Return the sweep of each arm; of a sweep without arms, itself under the name ""."""
        own = self.model_dump(exclude_unset=True, exclude={"arms"})
        return {arm: Sweep(**own | changes) for arm, changes in self.arms.items()} or {"": self}

    @model_validator(mode="before")
    @classmethod
    def _fill_in_recipe(cls, settings):
        if settings.get("arms"):  # each has its own
            return settings
        recipe, moving = RECIPES.get(settings.get("recipe"), {}), settings.get("optimiser", {})
        if recipe and isinstance(moving, dict):  # what is wrong is told below
            settings = settings | {"optimiser": recipe["optimiser"] | moving}
        return recipe | settings

    @field_validator("recipe", "storage")
    @classmethod
    def _know_name(cls, name, info):
        if info.field_name == "storage":
            return name_part("storage", name, STORAGES)
        if name not in RECIPES:
            raise unknown_name("recipe", name, RECIPES)
        return name

    @model_validator(mode="after")
    def _check_arms(self):
        for arm, changes in self.arms.items():
            if fixed := set(changes) & {"name", "model", "texts", "arms"}:
                raise ValueError(f"arm {arm}: {min(fixed)} is the same for all arms; move it out of the arm")
        try:
            self.by_arm  # noqa: B018, tried out
        except ValidationError as error:
            raise ValueError(f"in an arm, {describe(error)}") from None
        return self

    @field_validator("lengths", "n_mem", "protocols")
    @classmethod
    def _no_repeats(cls, values):
        if len(set(values)) != len(values):
            raise ValueError("the same value twice; list each once")
        return values


class CaseConfig(Settings):
    """The unit of work: everything that its result depends on. Two cases with one key are the same measurement."""

    weights: str = Field(description="sha256 of the weight files, or hub id and commit")
    text_id: str
    ids_sha256: str
    length: Positive
    n_mem: Positive
    protocol: str
    stopping: str
    optimiser: Optimiser
    dtype: str
    autocast: str | None
    storage: str
    seed: int
    loss: str = added_later("cross_entropy")
    parametrisation: str = added_later("free")
    finder: str = added_later("optimise")
    restart: int = added_later(0, ge=0)
    init_from: str | None = added_later(None, description="key of the case whose vectors it starts from")
    continues: str | None = added_later(None, description="key it had with fewer evaluations, which its start follows")

    @classmethod
    def from_record(cls, record: dict) -> "CaseConfig":
        """Return the settings that a record was measured with; later settings that it lacks are at their defaults."""
        moving = {name: record.get(OPTIMISER_PREFIX + name) for name in Optimiser.model_fields}
        settings = {name: record.get(name) for name in cls.model_fields if name != "optimiser"}
        return cls(**{"autocast": None} | _drop_null(settings), optimiser=Optimiser(**_drop_null(moving)))

    @property
    def columns(self) -> dict:
        """Return all fields as columns of a record, those of the optimiser as ``optimiser_*``."""
        optimiser = {f"{OPTIMISER_PREFIX}{name}": value for name, value in self.optimiser.model_dump().items()}
        return self.model_dump(mode="json", exclude={"optimiser"}) | optimiser

    @property
    def run_key(self) -> str:
        """Return the sha256 of the canonical JSON of all fields but later ones at their defaults (the key rule)."""
        text = json.dumps(_drop_later_defaults(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


OPTIMISER_PREFIX = "optimiser_"


def _drop_null(values):
    return {name: value for name, value in values.items() if value is not None and value == value}  # NaN is null too


def list_later_defaults() -> dict:
    """Return the columns of a record that were added later, with the defaults that older records were measured at."""
    fields = CaseConfig.model_fields | {OPTIMISER_PREFIX + n: f for n, f in Optimiser.model_fields.items()}
    return {name: field.default for name, field in fields.items() if _is_later(field)}


def _is_later(field):
    return bool((field.json_schema_extra or {}).get("added_later"))


def _drop_later_defaults(settings):
    kept = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if not (_is_later(field) and value == field.default):
            kept[name] = _drop_later_defaults(value) if isinstance(value, Settings) else value
    return kept


def hash_ids(ids) -> str:
    """Return the sha256 of token ids, written as decimal numbers with commas."""
    return hashlib.sha256(",".join(str(int(i)) for i in ids).encode()).hexdigest()


def load_sweep(path: Path, kind: type[Settings] = Sweep) -> Settings:
    """Return the settings in a YAML file, of a sweep or another kind; InputError naming file and first bad key."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is missing; give the path of a sweep, such as one of sweeps/*.yml")
    try:
        content = yaml.safe_load(read_utf8(path))
        if not isinstance(content, dict):
            raise InputError(f"{path}: not a list of `key: value`; see sweeps/ for examples")
        return kind(**content)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise InputError(f"{path}, line {line}: not YAML; see sweeps/ for examples") from None
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """Return the first problem of a validation error in one line, with the allowed keys for an unknown one."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = [name for settings in Settings.__subclasses__() for name in settings.model_fields]
        return f"unknown key {place}{suggest(str(first['loc'][-1]), known)}; remove it or correct its spelling"
    if first["type"] == "missing":
        return f"{place} is missing; add it"
    said = first["msg"].removeprefix("Value error, ")
    return f"{place} = {first['input']!r}: {said}" if place else said
