"""Checkpoints that are refused: with one sentence each, and without running their code."""

import hashlib
import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from fakes import checkpoints
from fakes.checkpoints import ALL, BASES
from remask.errors import BackendError
from remask.models.backbone.checkpoint import load_checkpoint, read_config
from remask.models.backbone.checkpoint_formats import FORMATS, REFUSED, find_format, map_weight_name

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = "GSAI-ML/LLaDA-8B-Instruct"
FIRST = "model-00001-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


def refused(place: Path | str, words: str, revision: str | None = None) -> str:
    with pytest.raises(BackendError) as caught:
        load_checkpoint(str(place), revision, device="cpu")
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    return message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return checkpoints.write(ALL["tiny-a2d-mdlm"], tmp_path)


def edit(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def repack(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Write the weights as one file after `change`."""
    state: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        state |= load_file(path)
        path.unlink()
    (folder / INDEX).unlink()
    change(state)
    save_file(state, folder / "model.safetensors")


# -- places -------------------------------------------------------------------------------------


def test_place_is_a_folder_or_a_hub_id(folder: Path) -> None:
    refused(folder.parent / "nowhere", "no such folder")
    refused("SmolLM", "no such folder or file, and no hub id such as")
    refused(folder, f"which has no revision {COMMIT}; leave the revision out", COMMIT)


@pytest.mark.parametrize("revision", [None, "main", COMMIT[:12], COMMIT.upper(), f"{COMMIT}\n"])
def test_revision_that_can_move_is_refused(revision: str | None) -> None:
    words = "give the 40 hexadecimal digits of a commit"
    message = refused(HUB, words, revision)
    assert ("no revision is given" if revision is None else f"{revision!r} can move") in message


def cached(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the checkpoint into the cache of the hub's library, and set the library offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return checkpoints.in_hub_cache(folder, cache, HUB, COMMIT)


def test_hub_cache_is_read_and_its_hashes_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = checkpoints.write(ALL["llada"], tmp_path)
    snapshot = cached(local, tmp_path / "cache", monkeypatch)
    found = load_checkpoint(HUB, COMMIT, device="cpu")
    assert (found.name, found.format) == ("LLaDA-8B-Instruct", "llada")
    assert found.backbone.identity == load_checkpoint(str(local), device="cpu").backbone.identity
    for name in (FIRST, "tokenizer.json"):
        blob = (snapshot / name).resolve()
        content = blob.read_bytes()
        blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        refused(HUB, f"but the hub announced {blob.name}; delete the file", COMMIT)
        blob.write_bytes(content)


def test_failed_download_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refused(HUB, "cannot be fetched", COMMIT)
    assert message.startswith(f"{HUB} at {COMMIT}") and "name a local folder" in message


def test_download_asks_for_json_tokenizers_and_safetensors(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = inspect.signature(huggingface_hub.snapshot_download)
    asked = []

    def fake(*args: Any, **kwargs: Any) -> str:
        asked.append(signature.bind(*args, **kwargs).arguments)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    load_checkpoint("dllm-collection/Qwen3-0.6B-diffusion-mdlm-v0.1", COMMIT, device="cpu")
    read_config("dllm-collection/Qwen3-0.6B-diffusion-mdlm-v0.1", COMMIT)
    assert [call["revision"] for call in asked] == [COMMIT, COMMIT]
    kinds = {pattern.rpartition(".")[2] for pattern in asked[0]["allow_patterns"]}
    assert kinds == {"json", "jinja", "safetensors", "txt", "SHA256SUMS"}
    assert asked[1]["allow_patterns"] == ["config.json"]


# -- architectures and settings -----------------------------------------------------------------


def test_code_of_a_known_architecture_is_ignored(folder: Path) -> None:
    assert list(folder.glob("modeling_*.py"))  # it would raise SystemExit if it ran
    assert "auto_map" in json.loads((folder / "config.json").read_text())
    load_checkpoint(str(folder), device="cpu")


@pytest.mark.parametrize("architectures", [["BertModel"], ["QwenX", "DreamModel"], [], None])
def test_unknown_architectures_are_refused(folder: Path, architectures: list[str] | None) -> None:
    edit(folder, architectures=architectures, model_type="odd")
    message = refused(folder, "is not one of LLaDAModelLM, DreamModel")
    assert "the code in the folder (auto_map) is never run" in message
    assert f"architecture {architectures[0] if architectures else 'odd'} is" in message


@pytest.mark.parametrize("architecture", REFUSED)
def test_known_diffusion_models_are_refused_with_name_and_reason(folder: Path, architecture: str) -> None:
    edit(folder, architectures=[architecture])
    name, reason = REFUSED[architecture]
    refused(folder, f"{name} ({architecture}) is not supported: {reason}")


def test_without_an_architecture_the_model_type_decides() -> None:
    for row in FORMATS.values():
        if row.model_type:
            assert find_format({"model_type": row.model_type}, "here") is row
        assert find_format({"architectures": [row.architecture]}, "here") is row


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "gelu"),
        ("use_sliding_window", True),
        ("rope_scaling", {"type": "yarn"}),
        ("quantization_config", {"bits": 4}),
        ("use_mrope", True),
    ],
)
def test_unsupported_settings_are_refused(folder: Path, key: str, value: object) -> None:
    edit(folder, **{key: value})
    refused(folder, f"config.json sets {key} to {value!r}")


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("llama3", {"pretraining_tp": 2}, "sets pretraining_tp to 2"),
        ("llama3", {"mlp_bias": True}, "sets mlp_bias to True"),
        ("llama3", {"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "low_freq_factor = None"),
        ("llama3", {"rope_scaling": {"type": "linear", "factor": 2}}, "sets rope_scaling to {'type'"),
        ("llama3", {"rope_scaling": "llama3"}, "sets rope_scaling to 'llama3'"),
        ("qwen2", {"rope_scaling": {"rope_type": "llama3"}}, "does not read for Qwen2ForCausalLM"),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "'sliding_attention'"),
    ],
)
def test_unsupported_settings_of_bases_are_refused(
    tmp_path: Path, name: str, settings: dict[str, object], words: str
) -> None:
    folder = checkpoints.write(BASES[name], tmp_path)
    edit(folder, **settings)
    refused(folder, words)


def test_llama_without_a_known_frame_is_refused(tmp_path: Path) -> None:
    tiny = replace(BASES["smollm2"], added=("<s>", "</s>"))
    folder = checkpoints.write(tiny, tmp_path)
    refused(folder, "no token <|im_start|> nor <|begin_of_text|>, which chats of llama need")


@pytest.mark.parametrize("key", FORMATS["llada"].assumed)
def test_llada_with_other_blocks_is_refused(tmp_path: Path, key: str) -> None:
    folder = checkpoints.write(ALL["llada"], tmp_path)
    edit(folder, **{key: "other"})
    refused(folder, f"config.json sets {key} to 'other'")


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("illada", {"layer_norm_eps": 1e-5}, "sets layer_norm_eps to 1e-05"),
        ("stable-diffcoder", {"mlp_bias": True}, "sets mlp_bias to True"),
        ("nemotron-labs-diffusion", {"dlm_paradigm": "autoregressive"}, "sets dlm_paradigm to 'autoreg"),
        ("nemotron-labs-diffusion", {"sliding_window": 64}, "sets sliding_window to 64"),
        ("llada-moe", {"moe_layer_freq": [0, 1]}, "sets moe_layer_freq to [0, 1]"),
        ("llada-moe", {"shared_expert_intermediate_size": 16}, "sets shared_expert_intermediate_size to 16"),
        ("llada-moe", {"clip_qkv": 8.0}, "sets clip_qkv to 8.0"),
        ("llada-moe", {"num_experts": None}, "num_experts = None; it must be a positive whole number"),
        ("llada2", {"use_qkv_bias": True}, "sets use_qkv_bias to True"),
        ("llada2", {"score_function": "softmax"}, "sets score_function to 'softmax'"),
        ("llada2", {"num_experts": 9}, "weights are missing, first model.layers.1.mlp.experts.8.gate_proj"),
        (
            "llada2",
            {"num_experts": 4},
            "weights are unexpected, first model.layers.1.mlp.experts.4.down_proj",
        ),
        ("llada2", {"moe_intermediate_size": 8}, "is (16, 32), but config.json asks for (8, 32)"),
        ("llada2", {"head_dim": 4, "rotary_dim": 2}, "is (64, 32), but config.json asks for (32, 32)"),
        ("llada2", {"rotary_dim": 8}, "partial_rotary_factor = 0.5 and rotary_dim = 8, for heads of 8"),
        ("llada2", {"partial_rotary_factor": None}, "partial_rotary_factor = None"),
    ],
)
def test_settings_of_newer_families_are_refused_where_they_do_not_fit(
    tmp_path: Path, name: str, settings: dict[str, object], words: str
) -> None:
    folder = checkpoints.write(ALL[name], tmp_path)
    edit(folder, **settings)
    refused(folder, words)


@pytest.mark.parametrize("value", [None, 0, -1, 2.0, "32", True])
def test_sizes_must_be_positive_whole_numbers(folder: Path, value: object) -> None:
    edit(folder, hidden_size=value)
    refused(folder, f"hidden_size = {value!r}; it must be a positive whole number")


def test_size_errors_use_the_names_of_the_folder(tmp_path: Path) -> None:
    folder = checkpoints.write(ALL["llada"], tmp_path)
    edit(folder, d_model=None)
    refused(folder, "config.json has d_model = None")


@pytest.mark.parametrize("key", ["rope_theta", "rms_norm_eps"])
@pytest.mark.parametrize("value", [None, 0, "1e6", True, float("nan"), float("inf")])
def test_numbers_must_be_positive(folder: Path, key: str, value: object) -> None:
    edit(folder, **{key: value})
    refused(folder, f"config.json has {key} = {value!r}; it must be a positive number")


def test_rope_parameters_of_the_default_type_are_read(folder: Path) -> None:
    before = load_checkpoint(str(folder), device="cpu").backbone
    kind = {"rope_type": "default", "rope_theta": 1e6}
    edit(folder, rope_theta=None, rope_parameters=kind)
    after = load_checkpoint(str(folder), device="cpu").backbone
    speeds = [b.model.model.rotary_emb.inv_freq for b in (before, after)]
    assert torch.equal(*speeds)
    edit(folder, rope_parameters={**kind, "rope_type": "yarn"})
    refused(folder, "sets rope_parameters to {'rope_type': 'yarn'")


def test_heads_must_be_shared_evenly(folder: Path) -> None:
    edit(folder, num_key_value_heads=3)
    refused(folder, "4 attention heads, which 3 key-value heads cannot share")


@pytest.mark.parametrize("text", ["{", "[]", "\ufeff"])
def test_damaged_config_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    refused(folder, "config.json: ")
    (folder / "config.json").unlink()
    refused(folder, "there is no config.json")


# -- weights ------------------------------------------------------------------------------------


def test_pickled_weights_are_never_read(folder: Path) -> None:
    for path in (*folder.glob("*.safetensors"), folder / INDEX):
        path.unlink()
    refused(folder, "no safetensors weights, and no other kind is read")
    torch.save({}, folder / "pytorch_model.bin")
    refused(folder, "the weights are pickled (pytorch_model.bin), which runs code")


def test_shards_need_their_index(folder: Path) -> None:
    (folder / INDEX).unlink()
    refused(folder, f"2 safetensors files, but no {INDEX}")


def test_missing_shard_is_refused(folder: Path) -> None:
    (folder / FIRST).unlink()
    refused(folder, f"{FIRST}, which {INDEX} names, is missing")


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "x.bin", "..", ""])
def test_index_with_a_path_outside_the_folder_is_refused(folder: Path, name: str) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    refused(folder, f"{name!r} is not a safetensors file of this folder")


@pytest.mark.parametrize("content", ["{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_index_without_a_weight_map_is_refused(folder: Path, content: str) -> None:
    (folder / INDEX).write_text(content)
    refused(folder, "there is no weight_map")


def test_index_with_a_missing_weight_is_refused(folder: Path) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["model.extra"] = FIRST
    (folder / INDEX).write_text(json.dumps(index))
    refused(folder, f"{INDEX} promises model.extra, which is not in this file")


def test_damaged_shard_is_refused(folder: Path) -> None:
    (folder / FIRST).write_bytes((folder / FIRST).read_bytes()[:-7])
    refused(folder, "the weights cannot be read")


def test_missing_unexpected_and_misshaped_weights_are_refused(folder: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    repack(folder, lambda state: None)
    whole = load_file(folder / "model.safetensors")

    def with_weights(state: dict[str, torch.Tensor], words: str) -> None:
        save_file(state, folder / "model.safetensors")
        refused(folder, words)

    with_weights({n: t for n, t in whole.items() if n != name}, f"1 weights are missing, first {name}")
    odd = {"model.layers.2.mlp.up_proj.weight": whole[name].clone()}
    with_weights({**whole, **odd}, f"1 weights are unexpected, first {next(iter(odd))}")
    turned = {name: whole[name].T.contiguous()}
    with_weights({**whole, **turned}, f"{name} is (32, 48), but config.json asks for (48, 32)")
    with_weights({**whole, name: whole[name].to(torch.int8)}, f"{name} is int8; quantised weights")


def test_unknown_weights_of_llada_are_refused(tmp_path: Path) -> None:
    folder = checkpoints.write(ALL["llada"], tmp_path)
    extra = "model.transformer.blocks.0.q_norm.weight"
    repack(folder, lambda state: state.update({extra: torch.ones(8)}))
    refused(folder, f"unexpected weight {extra} for llada")


def test_weight_names_of_llada_are_mapped() -> None:
    row = FORMATS["llada"]
    assert map_weight_name(row, "model.transformer.ff_out.weight") == "lm_head.weight"
    name = "model.transformer.blocks.31.ff_out.weight"
    assert map_weight_name(row, name) == "model.layers.31.mlp.down_proj.weight"
    assert map_weight_name(row, "model.layers.0.mlp.down_proj.weight") is None
    assert map_weight_name(row, "model.transformer.blocks.0.1.ff_out.weight") is None


def test_tied_head_may_be_in_the_file_but_not_differ(folder: Path) -> None:
    head, embedding = "lm_head.weight", "model.embed_tokens.weight"
    repack(folder, lambda state: state.update({head: state[embedding].clone()}))
    load_checkpoint(str(folder), device="cpu")
    state = load_file(folder / "model.safetensors")
    save_file({**state, head: state[head] + 1}, folder / "model.safetensors")
    refused(folder, "ties the head to the embedding, but their weights differ")
    edit(folder, tie_word_embeddings=False)
    load_checkpoint(str(folder), device="cpu")
    del state[head]
    save_file(state, folder / "model.safetensors")
    refused(folder, f"1 weights are missing, first {head}")


# -- hashes -------------------------------------------------------------------------------------


def test_hashes_of_a_sums_file_are_checked(folder: Path) -> None:
    load_checkpoint(str(folder), device="cpu")
    sums = folder / "SHA256SUMS"
    lines = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.suffix != ".py"
    }

    def announce() -> None:
        sums.write_text("".join(f"{sha}  {name}\n" for name, sha in lines.items()))

    announce()
    load_checkpoint(str(folder), device="cpu")
    right = lines[FIRST]
    lines[FIRST] = "0" * 64
    announce()
    refused(folder, f"{FIRST}: its SHA-256 is {right}, but SHA256SUMS has {'0' * 64}")
    del lines[FIRST]
    announce()
    refused(folder, f"{FIRST}: its SHA-256 is {right}, but SHA256SUMS has no hash for it")
    sums.write_text("deadbeef  config.json\n")
    refused(folder, "SHA256SUMS:1: 'deadbeef  config.json' is not a line of sha256sum")


# -- tokenizers ---------------------------------------------------------------------------------


def test_missing_or_damaged_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    refused(folder, "its tokenizer cannot be read")
    (folder / "tokenizer.json").unlink()
    refused(folder, "no tokenizer.json, nor vocab.json with merges.txt")


def test_added_tokens_must_get_their_ids(folder: Path) -> None:
    (folder / "added_tokens.json").write_text(json.dumps({"<|extra|>": 300}))
    refused(folder, "the token <|extra|> should have the id 300 but gets 296")
    (folder / "added_tokens.json").write_text(json.dumps({"<|extra|>": 296}))
    backbone = load_checkpoint(str(folder), device="cpu").backbone
    assert backbone.token_id("<|extra|>") == 296
    assert max(backbone.encode("<|extra|>")) < checkpoints.ORDINARY


@pytest.mark.parametrize("tiny", [checkpoints.SDAR, checkpoints.DREAM], ids=["tokenizer.json", "merges.txt"])
def test_a_stale_name_in_added_tokens_is_ignored(tiny: checkpoints.Tiny, tmp_path: Path) -> None:
    """SDAR's own folder has an added_tokens.json with an older name for the id of its mask token."""
    folder = checkpoints.write(tiny, tmp_path)
    mask = tiny.added[-1]
    id = checkpoints.ORDINARY + len(tiny.added) - 1
    (folder / "added_tokens.json").write_text(json.dumps({"<older>": id}))
    backbone = load_checkpoint(str(folder), device="cpu").backbone
    assert backbone.token_id(mask) == id
    assert "<older>" not in backbone.list_added_tokens()


def test_tokenizer_must_fit_the_model_and_its_chats(folder: Path) -> None:
    texts = {}
    for file in ("tokenizer.json", "tokenizer_config.json"):
        path = folder / file
        texts[path] = path.read_text()
        path.write_text(texts[path].replace("<|im_end|>", "<|over|>"))
    refused(folder, "the tokenizer has no token <|im_end|>, which chats of a2d-qwen3 need")
    for path, text in texts.items():
        path.write_text(text)
    edit(folder, vocab_size=295)
    refused(folder, "the tokenizer has the id 295, but config.json says vocab_size 295")
