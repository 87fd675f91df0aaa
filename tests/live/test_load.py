"""Models as users have them: what loads is what its files say; all else is told in one line, before any work."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from command_line import run
from safetensors.torch import load_file, save_file
from tiny import BASE, CONFIGS, DECODER, save_tiny_model, spread_weights
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertLMHeadModel,
    CTRLConfig,
    FalconH1Config,
    NemotronHConfig,
    OpenAIGPTConfig,
)

from paper_lib.config import Sweep
from paper_lib.errors import InputError
from paper_lib.live.lm import Inputs, prepare_lm
from paper_lib.live.load import load_lm, load_same
from paper_lib.live.sweep import run_sweep
from paper_lib.paths import ROOT
from paper_lib.store import Store

pytestmark = pytest.mark.slow

WEIGHTS = "model.safetensors"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def folder(tmp_path):
    """A tiny model of two layers in the hub's format."""
    return Path(save_tiny_model(tmp_path / "model"))


@pytest.fixture
def sweep(tmp_path, folder):
    """The content of a sweep file of four quick cases."""
    return {
        "name": "load-test",
        "model": {"name": str(folder)},
        "texts": {"source": "strings", "texts": ["hi", "yo"]},
        "n_texts": 2,
        "lengths": [1, 2],
        "protocols": ["strict"],
        "optimiser": {"lr": 0.1, "max_steps": 5},
    }


def refuse(name, says, **options):
    """Check that a model is refused in one line."""
    with pytest.raises(InputError, match=says) as error:
        load_lm(str(name), **options)
    assert "\n" not in str(error.value)


def change_tensors(folder, change):
    tensors = load_file(folder / WEIGHTS)
    save_file(change(tensors) or tensors, folder / WEIGHTS, {"format": "pt"})


def change_config(folder, **settings):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def run_python(code, *arguments, **environment):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)


# --- weights that are not those of the model -----------------------------------------------------------------------


def prefix_names(prefix):
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


WRONG_TENSORS = {
    "a matrix is missing": (lambda tensors: tensors.pop(Q_PROJ) is None, f"missing: {Q_PROJ}; give all files of one"),
    "the head is missing": (lambda tensors: tensors.pop("lm_head.weight") is None, "missing: lm_head.weight;"),
    "another name": (
        lambda tensors: tensors.update({"model.q": tensors.pop(Q_PROJ)}),
        f"missing: {Q_PROJ}; unexpected: model.q; give",
    ),
    "most are missing": (
        lambda tensors: {"model.norm.weight": tensors["model.norm.weight"]},
        "missing: lm_head.weight, model.embed_tokens.weight, .* and 17 more; give",
    ),
    "a bias more": (
        lambda tensors: tensors.update({Q_PROJ.replace("weight", "bias"): torch.ones(16)}),
        "unexpected: model.layers.0.self_attn.q_proj.bias; give all files of one model",
    ),
    "a layer more": (
        lambda tensors: tensors.update({k.replace("layers.0", "layers.2"): v.clone() for k, v in tensors.items()}),
        "unexpected: model.layers.2.input_layernorm.weight, .* and 6 more; give",
    ),
    "compiled": (prefix_names("_orig_mod."), r"as torch.compile wraps a model; .*: model\._orig_mod\.save_pretrained"),
    "in parallel": (prefix_names("module."), r"as DataParallel wraps a model; .*: model\.module\.save_pretrained"),
}


@pytest.mark.parametrize(("change", "says"), WRONG_TENSORS.values(), ids=WRONG_TENSORS)
def test_tensors_that_are_not_those_of_the_model_are_named(folder, change, says):
    change_tensors(folder, change)
    refuse(folder, says)


def test_no_sweep_runs_with_random_numbers_for_a_missing_tensor(folder, sweep, tmp_path):
    change_tensors(folder, lambda tensors: tensors.pop(Q_PROJ) is None)
    (tmp_path / "sweep.yml").write_text(yaml.safe_dump(sweep))
    code = "import sys; from paper_lib.__main__ import main; main()"  # where libraries may write to stderr, too
    result = run_python(code, "run", tmp_path / "sweep.yml")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {folder}: its weights are not those of the LlamaForCausalLM in its config")
    assert result.stderr.count("\n") == 1
    assert not list(Store("load-test"))


def test_a_tied_head_is_not_missing(tmp_path):
    folder = Path(save_tiny_model(tmp_path / "tied", tie_word_embeddings=True))
    assert "lm_head.weight" not in load_file(folder / WEIGHTS)
    model = load_lm(str(folder)).model
    assert torch.equal(model.lm_head.weight, load_file(folder / WEIGHTS)["model.embed_tokens.weight"])


def test_a_head_of_another_kind_does_no_harm(folder):
    change_tensors(folder, lambda tensors: tensors.update({"v_head.weight": torch.ones(1, 16)}))
    assert load_lm(str(folder)).n_parameters


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"vocab_size": 300}, r"is \(257, 16\) in the weights, \(300, 16\) by config.json; restore"),
        ({"hidden_size": 32}, r"is \(257, 16\) in the weights, \(257, 32\) by config.json; restore"),
        ({"intermediate_size": 32}, r"mlp.down_proj.weight is \(16, 24\) in the weights, \(16, 32\) by config.json;"),
    ],
)
def test_shapes_that_are_not_those_of_the_config_are_named(folder, settings, says):
    change_config(folder, **settings)
    refuse(folder, says)


# --- quantised weights ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_4bit": True}, "by an unnamed method"),
    ],
)
def test_quantised_weights_are_refused_whatever_is_installed(folder, settings, method):
    change_config(folder, quantization_config=settings)
    refuse(folder, rf"is quantised \({method}\): .* gradients through them are not supported; give the model")


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_fp8_weights_are_computed_with_in_the_dtype_that_is_asked_for(folder, dtype):
    values = {}

    def quantise(tensors):
        for name in [name for name in tensors if "_proj" in name]:
            scale = tensors[name].abs().max() / 448
            tensors[name] = (tensors[name] / scale).to(torch.float8_e4m3fn)
            tensors[f"{name}_scale_inv"] = scale.view(1, 1)
            values[name] = tensors[name].float() * scale

    change_tensors(folder, quantise)
    change_config(folder, quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]})
    lm = load_lm(str(folder), dtype=dtype)
    assert {weight.dtype for weight in lm.model.parameters()} == {lm.dtype} == {getattr(torch, dtype)}
    for name, weight in values.items():
        torch.testing.assert_close(lm.model.state_dict()[name], weight.to(lm.dtype))
    assert lm.logits(Inputs(torch.zeros(1, 2, 16, dtype=lm.dtype), torch.tensor([1]))).dtype == lm.dtype


# --- files that are not those of a model ---------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False], ids=["beside a model", "alone"])
def test_an_adapter_is_sent_to_its_base_model(folder, whole):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/base", "peft_type": "LORA"}')
    if not whole:
        (folder / "config.json").unlink()
        (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")
    refuse(folder, "is a PEFT adapter of someone/base; merge it into that model")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", WEIGHTS])
def test_a_git_lfs_pointer_is_named(folder, name):
    (folder / name).write_text(POINTER)
    refuse(folder, f"{name} is a Git LFS pointer, not the file itself; run `git lfs pull`")


def test_a_pointer_to_what_is_not_loaded_does_no_harm(folder):
    (folder / "pytorch_model.bin").write_text(POINTER)
    (folder / "consolidated.safetensors").write_text(POINTER)
    assert load_lm(str(folder)).n_parameters


def test_pickled_weights_are_never_loaded(folder):
    (folder / "pytorch_model.bin").write_bytes((folder / WEIGHTS).read_bytes())
    (folder / WEIGHTS).unlink()
    refuse(folder, r"has pickled weights \(.bin\) only, .* never loaded; .* convert them: AutoModelForCausalLM")


def test_a_missing_shard_is_named(folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "sharded")
    shards = sorted((tmp_path / "sharded").glob("*.safetensors"))
    assert len(shards) > 2
    whole, parts = load_lm(str(folder)).model.state_dict(), load_lm(str(tmp_path / "sharded")).model.state_dict()
    assert all(torch.equal(parts[name], weight) for name, weight in whole.items())
    shards[1].unlink()
    refuse(tmp_path / "sharded", f"lacks {shards[1].name}; download what is missing from where the rest came")


def test_a_folder_without_config_or_that_is_not_there_is_told(folder):
    (folder / "config.json").unlink()
    refuse(folder, "has no config.json; give a hub id or a folder")
    refuse(folder / "none", "there is no such folder; give a hub id or a folder")


@pytest.mark.parametrize(
    ("name", "content", "way_out"),
    [
        ("tokenizer.json", None, "put the tokenizer.json of the model beside its weights"),
        ("tokenizer.json", b"{}", "give a hub id or a folder"),
        (WEIGHTS, None, "download what is missing from where the rest came"),
        (WEIGHTS, b"cut off", "a file of weights is cut off or damaged; download the weights again"),
        ("config.json", b"{", "give a hub id or a folder"),
    ],
)
def test_a_model_with_a_missing_or_damaged_file_is_told_in_one_line(folder, name, content, way_out):
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    refuse(folder, f"{folder}.*; {way_out}")


@pytest.mark.parametrize("settings", [{"hidden_size": "wide"}, {"num_attention_heads": 0}, {"rope_parameters": 3}])
def test_a_config_that_makes_no_sense_is_told_in_one_line(folder, settings):
    change_config(folder, **settings)
    refuse(folder, f"cannot load {folder}: .*; give a hub id or a folder")


def test_a_model_that_brings_its_own_code_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mine", "auto_map": {"AutoConfig": "code.Mine"}}')
    (tmp_path / "code.py").write_text("raise SystemExit('this code must never run')")
    (tmp_path / WEIGHTS).write_bytes(b"")
    refuse(tmp_path, "are not run here")


# --- models that cannot be crammed with ----------------------------------------------------------------------------


def test_an_encoder_is_refused(folder, tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertLMHeadModel(BertConfig(vocab_size=30, **sizes)).save_pretrained(tmp_path / "bert")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "bert")
    refuse(tmp_path / "bert", "looks at later tokens; give a causal language model")


GPT = BASE | {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
MIXERS = DECODER | {"num_key_value_heads": 1, "head_dim": 8}
WITHOUT_GENERATE = {
    "gpt1": OpenAIGPTConfig(**GPT),
    "ctrl": CTRLConfig(**GPT, dff=24),
    "falcon_h1": FalconH1Config(
        **MIXERS, mamba_d_ssm=16, mamba_n_heads=2, mamba_d_head=8, mamba_n_groups=1, mamba_d_state=4, mamba_expand=1
    ),
    "nemotron_h": NemotronHConfig(
        **MIXERS, layers_block_type=["mamba", "attention", "mamba"], ssm_state_size=4, mamba_num_heads=2,
        mamba_head_dim=8, n_groups=1, expand=1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("architecture", WITHOUT_GENERATE)
def test_models_that_cannot_generate_from_vectors_decode_all_the_same(architecture):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(WITHOUT_GENERATE[architecture], dtype=torch.float64)
    spread_weights(model)
    lm, inputs = prepare_lm(model, fingerprint=architecture), torch.randn(2, 3, 16, dtype=torch.float64)
    before = inputs.clone()
    said = lm.greedy(inputs, 6, cached=True)
    assert said.shape == (2, 6)
    assert len(said.unique()) > 2
    assert torch.equal(said, lm.greedy(inputs, 6, cached=False))
    assert torch.equal(inputs, before)  # CTRL scales what it is given
    for place in range(6):
        context = torch.cat([inputs, lm.embed(said[:, :place])], dim=1)
        assert torch.equal(lm.logits(Inputs(context, torch.tensor([place + 2])))[:, 0].argmax(-1), said[:, place])


LLAMA = type(AutoModelForCausalLM.from_config(CONFIGS["llama"]))


class BrokenCache(LLAMA):
    """As some whose cache and code have drifted apart."""

    def forward(self, *arguments, use_cache, **options):
        if use_cache:
            raise IndexError("list index out of range")
        return super().forward(*arguments, use_cache=False, **options)


class NoDoubles(LLAMA):
    """As those with grouped matrix products of experts, which torch has in 32 bits or fewer."""

    def forward(self, *arguments, **options):
        if self.dtype == torch.float64:
            raise RuntimeError("Expected mat_a to be Float32")
        return super().forward(*arguments, **options)


@pytest.mark.parametrize(
    ("model", "dtype", "says"),
    [
        (BrokenCache, "float32", "in float32: IndexError: list index out of range; choose another model"),
        (BrokenCache, "bfloat16", "in bfloat16: IndexError: list index .*; choose dtype float32 or another model"),
        (NoDoubles, "float64", "in float64: RuntimeError: Expected mat_a .*; choose dtype float32 or another model"),
    ],
)
def test_a_model_that_cannot_be_run_or_decoded_is_refused_before_any_work(model, dtype, says):
    with pytest.raises(InputError, match=f"{model.__name__} cannot be run from input vectors {says}") as error:
        prepare_lm(model(CONFIGS["llama"]).to(getattr(torch, dtype)), fingerprint="x")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("device", ["abacus", "cuda:99", "meta", "mps"])
def test_a_device_that_is_not_there_is_told_in_one_line(folder, device):
    refuse(folder, f"cannot compute on device '{device}'; this torch has: cpu", device=device)


def test_a_mamba_on_a_cpu_leaves_installed_cuda_kernels_alone(folder, tmp_path):
    for package in ("mamba_ssm", "causal_conv1d"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(
            "def kernel(*_, **__): raise RuntimeError('not on a CPU')\n"
            "mamba_inner_fn = selective_scan_fn = selective_state_update = causal_conv1d_fn = kernel\n"
            "causal_conv1d_update = kernel\n"
        )
    AutoModelForCausalLM.from_config(CONFIGS["mamba"]).save_pretrained(tmp_path / "mamba")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "mamba")
    code = """
import sys, torch
from paper_lib.live.load import load_lm
lm = load_lm(sys.argv[1])
print(lm.greedy(torch.zeros(1, 2, lm.d_embed), 3, cached=True).shape, "mamba_ssm" in sys.modules)
import mamba_ssm
"""
    result = run_python(code, tmp_path / "mamba", PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert result.returncode == 0, result.stderr
    assert result.stdout.split("\n")[0] == "torch.Size([1, 3]) False"


def test_nothing_of_a_process_changes_but_the_precision_of_convolutions(folder):
    code = """
import sys, torch
from huggingface_hub.utils import are_progress_bars_disabled
from transformers.utils import logging
def state():
    return logging.is_progress_bar_enabled(), are_progress_bars_disabled(), logging.get_verbosity()
before, precision = state(), torch.backends.cudnn.conv.fp32_precision
from paper_lib.live.load import load_lm
assert (state(), torch.backends.cudnn.conv.fp32_precision) == (before, precision)
load_lm(sys.argv[1])
assert state() == before
print(before[:2], precision, torch.backends.cudnn.conv.fp32_precision)
"""
    result = run_python(code, folder)
    assert result.stderr == ""  # no bar for reading a file
    assert result.stdout.split() == ["(True,", "False)", "tf32", "ieee"]


# --- the same weights again ----------------------------------------------------------------------------------------


def test_other_weights_have_another_fingerprint(folder, tmp_path):
    other = save_tiny_model(tmp_path / "other", intermediate_size=32)
    same = shutil.copytree(folder, tmp_path / "same")
    fingerprints = [load_lm(str(name)).fingerprint for name in (folder, same, other)]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_a_stored_vector_is_not_decoded_with_other_weights(folder, sweep, tmp_path):
    (tmp_path / "sweep.yml").write_text(yaml.safe_dump(sweep))
    assert run("run", tmp_path / "sweep.yml").returncode == 0
    store = Store("load-test")
    key = next(iter(store))
    assert load_same(store.get(key)[0]).fingerprint == store.get(key)[0]["weights"]
    assert run("decode", "load-test", key).returncode == 0
    change_tensors(folder, lambda tensors: tensors[Q_PROJ].mul_(2) is None)
    result = run("decode", "load-test", key)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"error: {folder} has other weights than when {key[:12]} was run; restore them\n"


# --- the hub -------------------------------------------------------------------------------------------------------


COMMITS = {"main": "0123456789abcdef" * 2 + "01234567", "refs/pr/3": "fedcba9876543210" * 2 + "fedcba98"}


@pytest.fixture
def hub(tmp_path, folder):
    """The hub's own cache, filled by hand: someone/tiny its weights in a pull request, pickles at main."""
    cache = tmp_path / "hub" / "models--someone--tiny"
    for revision, commit in COMMITS.items():
        shutil.copytree(folder, cache / "snapshots" / commit)
        (cache / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
        (cache / "refs" / revision).write_text(commit)
    (cache / "snapshots" / COMMITS["main"] / WEIGHTS).rename(
        cache / "snapshots" / COMMITS["main"] / "pytorch_model.bin"
    )
    return cache


def run_from_hub(hub, sweep, tmp_path, **model):
    """Run a sweep of a model in the cache; return the model that its first record names, and the record."""
    store = Store("load-test", tmp_path / "runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub.parent))
        run_sweep(Sweep(**sweep | {"model": {"name": "someone/tiny"} | model, "lengths": [1]}), store)
        record, _ = store.get(next(iter(store)))
        return load_same(record), record


@pytest.mark.parametrize("revision", ["refs/pr/3", COMMITS["refs/pr/3"]])
def test_a_pull_request_on_the_hub_is_known_by_its_commit(hub, sweep, tmp_path, revision):
    lm, record = run_from_hub(hub, sweep, tmp_path, revision=revision)
    assert record["revision"] == lm.commit == COMMITS["refs/pr/3"]
    assert record["weights"] == f"someone/tiny@{lm.commit}"


def test_a_model_on_the_hub_is_known_by_the_commit_of_its_main_branch(hub, sweep, tmp_path):
    (hub / "refs" / "main").write_text(COMMITS["refs/pr/3"])
    _, record = run_from_hub(hub, sweep, tmp_path)
    assert record["revision"] == COMMITS["refs/pr/3"]


def test_a_hub_model_without_safetensors_is_sent_to_its_pull_requests(hub, sweep, tmp_path):
    with pytest.raises(InputError, match=r"cannot load someone/tiny: .*") as error:
        run_from_hub(hub, sweep, tmp_path)
    listed = "https://huggingface.co/someone/tiny/discussions"
    assert f"if a pull request listed at {listed} has safetensors" in str(error.value)
    assert "set `revision: refs/pr/NUMBER`" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_adapter_on_the_hub_is_sent_to_its_base_model(hub, sweep, tmp_path):
    adapter = hub / "snapshots" / COMMITS["refs/pr/3"] / "adapter_config.json"
    adapter.write_text('{"base_model_name_or_path": "someone/base"}')
    with pytest.raises(InputError, match="someone/tiny is a PEFT adapter of someone/base; merge it"):
        run_from_hub(hub, sweep, tmp_path, revision="refs/pr/3")


SETTINGS_OF_THE_NETWORK = {
    "socks without its package": ({"ALL_PROXY": "socks5://127.0.0.1:9"}, "pip install socksio`, or unset ALL_PROXY"),
    "a proxy of no kind": (
        {"ALL_PROXY": "gopher://127.0.0.1:9"},
        "check the environment variables ALL_PROXY, HTTPS",
    ),
    "a host without scheme": ({"HF_ENDPOINT": "hub.local:9"}, "HF_ENDPOINT is 'hub.local:9'; begin it with https://"),
}


@pytest.mark.parametrize(("setting", "says"), SETTINGS_OF_THE_NETWORK.values(), ids=SETTINGS_OF_THE_NETWORK)
def test_a_network_that_is_set_up_wrongly_is_told_in_one_line(tmp_path, setting, says):
    code = """
import sys
sys.modules["socksio"] = None
from paper_lib.errors import InputError
from paper_lib.live.load import load_lm
try:
    load_lm("someone/tiny")
except InputError as error:
    print(error)
"""
    unset = dict.fromkeys((name for name in os.environ if name.lower().endswith("_proxy")), "")
    result = run_python(code, HF_HUB_CACHE=str(tmp_path), HF_HUB_OFFLINE="0", **unset | setting)
    assert says in result.stdout, result.stderr
    assert result.stdout.count("\n") == 1
