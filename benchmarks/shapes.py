"""Models to measure with: the shipped one, and random weights in the shapes of real ones."""

import dataclasses

import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig

from paper_lib.live.lm import FrozenLM, prepare_lm
from paper_lib.live.load import load_lm

SHIPPED = "data/models/novels-5m"
CONFIGS = {
    "pythia-160m": GPTNeoXConfig(
        vocab_size=50_304, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
        max_position_embeddings=2048, bos_token_id=0, eos_token_id=0,
    ),
    "smollm2-135m": LlamaConfig(
        vocab_size=49_152, hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        intermediate_size=1536, max_position_embeddings=8192, tie_word_embeddings=True, bos_token_id=1,
    ),
    "llama-3.2-1b": LlamaConfig(
        vocab_size=128_256, hidden_size=2048, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
        head_dim=64, intermediate_size=8192, max_position_embeddings=4096, tie_word_embeddings=True,
    ),
}  # fmt: skip
NAMES = ("shipped", *CONFIGS)


def make_lm(name: str, device: str = "cpu", autocast: str | None = None) -> FrozenLM:
    """Return one of NAMES as a frozen model in fp32, products in ``autocast``'s precision if given."""
    if name == "shipped":
        return load_lm(SHIPPED, device=device, autocast=autocast)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(CONFIGS[name], dtype=torch.float32)
    lm = prepare_lm(model.to(device), fingerprint=f"random {name}")
    return dataclasses.replace(lm, autocast=getattr(torch, autocast) if autocast else None)


def synchronize(lm: FrozenLM) -> None:
    """Wait until a GPU has done what it was told."""
    if lm.device.type == "cuda":
        torch.cuda.synchronize()
