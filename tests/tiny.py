"""Tiny random models of every architecture that matters here, made in memory; nothing is downloaded."""

import dataclasses

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    OlmoConfig,
    OPTConfig,
    Qwen3Config,
)

from paper_lib.live.lm import FrozenLM, prepare_lm
from paper_lib.live.protocols import PROTOCOLS, Protocol
from paper_lib.live.rows import Case, draw_start

VOCAB_SIZE = 40
BASE = {"vocab_size": VOCAB_SIZE, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
SIZES |= {"max_position_embeddings": 64}
DECODER = BASE | SIZES
OPT = BASE | {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "ffn_dim": 24,
    "max_position_embeddings": 64,
}

CONFIGS = {
    "gpt_neox": GPTNeoXConfig(**DECODER),
    "opt": OPTConfig(**OPT, word_embed_proj_dim=16, dropout=0.1),
    "opt_projected": OPTConfig(**OPT, word_embed_proj_dim=8, do_layer_norm_before=False),  # the shape of OPT-350M
    "olmo": OlmoConfig(**DECODER),
    "llama": LlamaConfig(**DECODER),
    "mamba": MambaConfig(**BASE, hidden_size=16, num_hidden_layers=2, state_size=4),
    "qwen3": Qwen3Config(**DECODER, num_key_value_heads=1, head_dim=8),
    "gemma3": Gemma3TextConfig(**DECODER, num_key_value_heads=1, head_dim=8),
    "gpt2": GPT2Config(**BASE, n_embd=16, n_layer=2, n_head=2, n_positions=64),
}


def make_lm(architecture: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> FrozenLM:
    """Return a frozen random model, its weights spread enough that tokens matter."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIGS[architecture], dtype=dtype)
    spread_weights(model)
    return prepare_lm(model, fingerprint=f"tiny-{architecture}")


def take_as(kind: type[FrozenLM], lm: FrozenLM, **changes) -> FrozenLM:
    """Return the model as one of a subclass, with changes to its fields."""
    return kind(**{field.name: getattr(lm, field.name) for field in dataclasses.fields(lm)} | changes)


@torch.no_grad()
def spread_weights(model) -> None:
    """Make the random weights large enough that inputs matter; Mamba's recurrence keeps its own, stable start."""
    for name, weight in model.named_parameters():
        if weight.dim() == 2 and "mixer" not in name:
            weight.normal_(0, 0.3)


def start_vectors(lm: FrozenLM, case: Case, protocol: Protocol = PROTOCOLS["strict"]) -> torch.Tensor:
    """Return the random vectors (row, width) that a case starts from."""
    return draw_start(lm, protocol, case)["vectors"]


def random_ids(n_cases: int, length: int, seed: int = 0) -> torch.Tensor:
    """Return random token ids (case, pos)."""
    return torch.randint(2, VOCAB_SIZE, (n_cases, length), generator=torch.Generator().manual_seed(seed))


def save_overflowing_model(folder):
    """Write a model like ``save_tiny_model`` whose logits overflow in float16; return the folder's path."""
    model = AutoModelForCausalLM.from_pretrained(save_tiny_model(folder))
    model.lm_head.weight.data *= 1e6
    model.save_pretrained(folder)
    return str(folder)


def save_tiny_model(folder, **changes):
    """Write a tiny trained-looking Llama with a byte-level tokenizer in the hub's format; return the folder's path."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(["<s>", *alphabet])}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", clean_up_tokenization_spaces=False)
    torch.manual_seed(0)
    config = LlamaConfig(**(DECODER | {"vocab_size": 257, "bos_token_id": 0, "eos_token_id": None} | changes))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    spread_weights(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def save_tiny_gguf(path, **changes):
    """Write a model like ``save_tiny_model`` as one GGUF file, 8 bits a weight; return the file's path."""
    from gguf import GGMLQuantizationType, GGUFWriter, TokenType
    from gguf.quants import quantize
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    size = {"vocab_size": 258, "hidden_size": 32, "intermediate_size": 32, "bos_token_id": 0, "eos_token_id": 0}
    config = LlamaConfig(**(DECODER | size | changes))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    spread_weights(model)
    writer = GGUFWriter(str(path), "llama")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["<s>", *sorted(bytes_to_unicode().values()), "th"])
    writer.add_token_types([TokenType.CONTROL, *[TokenType.NORMAL] * 257])
    writer.add_token_merges(["t h"])  # readers look for some
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    names = {"self_attn.": "attn_", "_proj": "", "mlp.": "ffn_", "model.embed_tokens": "token_embd"}
    names |= {"attn_o.": "attn_output.", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    names |= {"model.norm": "output_norm", "lm_head": "output", "model.layers": "blk"}
    for name, weight in model.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        if weight.dim() == 1:
            writer.add_tensor(name, weight.numpy())
        else:
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(name, quantize(weight.numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
