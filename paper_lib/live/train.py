"""Training a small language model of our own from a folder of text, with transformers.Trainer.

The recipe counts tokens, never minutes, so that it gives the same model on any machine, and the run resumes from its
last checkpoint. Every training sequence begins with a start token at position 0, the place that a memory vector takes
later, and weights start large (``init_std``), which makes a model easier to steer by its inputs.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from ..errors import InputError
from ..files import hash_bytes, make_folder, read_utf8, write_text
from .texts import read_folder

START_TOKEN = "<s>"
CARD = "training.json"  # in a trained model's folder, written last


class Recipe(BaseModel):
    """Everything that decides which model comes out of a text folder; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["llama", "gpt2", "mamba"] = Field("llama", description="rotary or learned positions, or a recurrence")
    vocab_size: int = Field(ge=258, description="byte-level BPE tokens, start token included")
    d_model: int = Field(gt=0)
    d_mlp: int = Field(gt=0, description="width inside a layer; of a recurrence rounded to a multiple of d_model")
    n_layers: int = Field(gt=0)
    n_heads: int = Field(gt=0, description="of attention; a recurrence has none")
    init_std: float = Field(gt=0, description="of all weights; 1/sqrt(d_model) or more for a good memory")
    sequence_length: int = Field(gt=1, description="tokens, start token included")
    batch_size: int = Field(gt=0, description="sequences per step")
    n_tokens: int = Field(gt=0, description="tokens to train on, repeating the text if it is shorter")
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(ge=0)
    weight_decay: float = Field(ge=0)
    bf16: bool = Field(description="train in bf16 autocast; two to three times faster where the machine has bf16 units")
    seed: int = 0

    @property
    def n_steps(self) -> int:
        """Optimiser steps: n_tokens / (batch_size * sequence_length), rounded up."""
        return math.ceil(self.n_tokens / (self.batch_size * self.sequence_length))

    @property
    def identity(self) -> dict[str, Any]:
        """What tells its model apart; ``kind``, which is younger than the first models, only where it is not llama."""
        return self.model_dump(exclude={"kind"} if self.kind == "llama" else None)


def load_recipe(path: Path) -> Recipe:
    """Return the recipe in a YAML file; raise InputError naming the file and the first bad key."""
    try:
        return Recipe(**yaml.safe_load(read_utf8(Path(path))))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; give the path of a recipe") from None
    except (ValidationError, TypeError, yaml.YAMLError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": ["file"], "msg": str(error)}
        raise InputError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}".splitlines()[0]) from None


def train_model(recipe: Recipe, text: Path, valid: Path, out: Path, work: Path, report=print) -> dict:
    """Train tokenizer and model on the folder ``text``, measure on ``valid``, write hub format into ``out``.

    Checkpoints go to a folder under ``work`` that belongs to this recipe and text; a run that was stopped goes on from
    there, and one that is finished is not trained again. The weights are rounded to bf16 before they are measured.
    Returns the held-out loss in nats per token and per byte, and sizes. Raises InputError for folders without text, and
    where ``out`` holds another model.
    """
    documents, held_out = read_folder(text), read_folder(valid)
    run = _hash_run(recipe.identity, documents)
    finished = {"run": run, "valid": _hash_run(held_out)}
    if (out / CARD).is_file():
        return _read_finished(out / CARD, finished)
    make_folder(out)
    work = make_folder(work / run[:16])
    set_seed(recipe.seed)
    tokenizer = train_tokenizer(documents.values(), recipe)
    dataset = PackedSequences(documents.values(), tokenizer, recipe.sequence_length)
    report(f"{len(documents)} documents, {len(dataset):,} sequences of {recipe.sequence_length} tokens")
    trainer = Trainer(
        model=make_model(recipe, tokenizer),
        args=TrainingArguments(
            output_dir=str(work),
            max_steps=recipe.n_steps,
            per_device_train_batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=recipe.warmup_steps,
            weight_decay=recipe.weight_decay,
            adam_beta2=0.95,
            bf16=recipe.bf16,
            use_cpu=not torch.cuda.is_available(),
            seed=recipe.seed,
            save_steps=max(1, recipe.n_steps // 20),
            save_total_limit=2,
            logging_steps=max(1, recipe.n_steps // 100),
            report_to="none",
            dataloader_pin_memory=False,
        ),
        train_dataset=dataset,
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(work)))
    model = trainer.model.to("cpu", torch.bfloat16)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    measured = measure_loss(model.float(), tokenizer, held_out.values(), recipe.sequence_length)
    measured |= {
        "n_parameters": model.num_parameters(),
        "n_training_tokens": recipe.n_steps * recipe.batch_size * recipe.sequence_length,
    }
    write_text(out / CARD, json.dumps({"recipe": recipe.identity, **measured, **finished}, indent=1) + "\n")
    return measured


def _hash_run(*parts):
    return hash_bytes(json.dumps(parts, sort_keys=True).encode())


def _read_finished(card, finished):
    # What was measured of the model that is there, if it is the one that is asked for.
    there = json.loads(read_utf8(card))
    if any(there.get(name) != value for name, value in finished.items()):
        raise InputError(
            f"{card.parent} holds a model of another recipe or other text; give another --out, or delete that folder"
        )
    return {name: value for name, value in there.items() if name not in ("recipe", *finished)}


def train_tokenizer(texts, recipe: Recipe) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer: lossless on any text, start token in front by default, as Llama's."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab_size, special_tokens=[START_TOKEN], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single=f"{START_TOKEN} $A", special_tokens=[(START_TOKEN, bpe.token_to_id(START_TOKEN))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=START_TOKEN, clean_up_tokenization_spaces=False)


def make_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Return an untrained model of the recipe's kind; input and output embeddings are one matrix."""
    config = CONFIGS[recipe.kind](
        recipe,
        vocab_size=len(tokenizer),
        initializer_range=recipe.init_std,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=None,
        pad_token_id=None,
    )
    return AutoModelForCausalLM.from_config(config)


def _configure_llama(recipe, **common):
    return LlamaConfig(
        hidden_size=recipe.d_model,
        intermediate_size=recipe.d_mlp,
        num_hidden_layers=recipe.n_layers,
        num_attention_heads=recipe.n_heads,
        num_key_value_heads=recipe.n_heads,
        max_position_embeddings=recipe.sequence_length,
        **common,
    )


def _configure_gpt2(recipe, **common):
    sizes = {"n_embd": recipe.d_model, "n_inner": recipe.d_mlp, "n_layer": recipe.n_layers, "n_head": recipe.n_heads}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2Config(n_positions=recipe.sequence_length, **sizes, **dropout, **common)


def _configure_mamba(recipe, **common):
    # One scan over a sequence instead of one position after the other.
    sizes = {"hidden_size": recipe.d_model, "num_hidden_layers": recipe.n_layers}
    return MambaConfig(expand=max(1, round(recipe.d_mlp / recipe.d_model)), use_mambapy=True, **sizes, **common)


CONFIGS: dict[str, Callable[..., PreTrainedConfig]] = {
    "llama": _configure_llama,
    "gpt2": _configure_gpt2,
    "mamba": _configure_mamba,
}


class PackedSequences(torch.utils.data.Dataset):
    """Non-overlapping pieces of each document, each after a start token; a document's last, short piece is dropped."""

    def __init__(self, texts, tokenizer, sequence_length: int):
        pieces = []
        for text in texts:
            ids = np.array(tokenizer.encode(text, add_special_tokens=False), dtype=np.uint16)
            n_pieces = len(ids) // (sequence_length - 1)
            pieces.append(ids[: n_pieces * (sequence_length - 1)].reshape(n_pieces, sequence_length - 1))
        body = np.concatenate(pieces)
        start = np.full((len(body), 1), tokenizer.bos_token_id, dtype=np.uint16)
        self.ids = np.concatenate([start, body], axis=1)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict:
        ids = torch.from_numpy(self.ids[index].astype(np.int64))
        return {"input_ids": ids, "labels": ids}


@torch.no_grad()
def measure_loss(model, tokenizer, texts, sequence_length: int, n_sequences: int = 256) -> dict:
    """Return held-out nats per token and per UTF-8 byte over evenly spaced sequences, start token given."""
    ids = PackedSequences(texts, tokenizer, sequence_length).ids
    ids = torch.from_numpy(ids[:: max(1, len(ids) // n_sequences)].astype(np.int64))
    losses = [model(input_ids=batch, labels=batch).loss.item() * len(batch) for batch in ids.split(32)]
    nats_per_token = sum(losses) / len(ids)
    n_bytes = sum(len(text.encode()) for text in tokenizer.batch_decode(ids[:, 1:]))
    return {
        "valid_nats_per_token": round(nats_per_token, 4),
        "valid_nats_per_byte": round(nats_per_token * ids[:, 1:].numel() / n_bytes, 4),
    }
