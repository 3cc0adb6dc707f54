"""Hostile model folders and adapters: one sentence each, soon and in little memory; no code runs."""

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fakes import ROOT, write_lines
from fakes.http_run import ENVIRONMENT
from remask.dlm.adapter import SHIPPED_ADAPTER

pytestmark = pytest.mark.slow  # CI runs the samples (.ci/slow)

SECONDS, MIB = 40, 1500  # a refusal takes a second and a few MiB; the machine may be busy
Attack = Callable[[Path], None]  # changes a good folder
MODEL = "Qwen3-0.6B-diffusion-mdlm-v0.1"  # the denoiser's family is known by this name
INDEX = "model.safetensors.index.json"


class Commands:
    """Plays commands in children of one process that has loaded torch."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "fakes" / "limited_command.py")],
            env={**ENVIRONMENT, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def play(self, folder: Path, *words: str) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        order = {"folder": str(folder), "words": words, "seconds": SECONDS, "mib": MIB}
        self._process.stdin.write(f"{json.dumps(order)}\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    if sys.platform != "linux":
        pytest.skip("needs the limits of Linux")
    opened = Commands()
    yield opened
    opened.close()


@pytest.fixture
def work(tmp_path: Path, checkpoint: Callable[[str], Path]) -> Path:
    """A folder with a prompt, rows and a good model folder."""
    shutil.copytree(checkpoint("tiny-a2d-mdlm"), tmp_path / MODEL)
    (tmp_path / "prompt.md").write_text("Name it. Be brief.\n")
    write_lines(
        tmp_path / "rows.jsonl", *({"input": f"item {i}", "label": ("blue", "red")[i % 2]} for i in range(60))
    )
    return tmp_path


class Evil:
    """Unpickled, it writes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch executed",))


def shard(model: Path) -> Path:
    return sorted(model.glob("*.safetensors"))[0]


def edit(name: str = "config.json", **values: Any) -> Attack:
    def attack(model: Path) -> None:
        path = model / name
        old = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**old, **values}))

    return attack


def write(name: str, content: str | bytes) -> Attack:
    data = content.encode() if isinstance(content, str) else content
    return lambda model: (model / name).write_bytes(data) and None


def special(name: str, what: str) -> Attack:
    """Replace a file by a directory, a pipe or a link."""

    def attack(model: Path) -> None:
        path = shard(model) if name == "weights" else model / name
        path.unlink(missing_ok=True)
        if what == "directory":
            path.mkdir()
        elif what == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(what)

    return attack


def move_out(name: str) -> Attack:
    """Put a link to a good file outside of the folder in the place of a file."""

    def attack(model: Path) -> None:
        path = shard(model) if name == "weights" else model / name
        outside = model.parent / f"outside{path.suffix}"
        path.rename(outside)
        path.symlink_to(outside)

    return attack


def pack(header: Any, data: bytes = b"") -> bytes:
    """A safetensors file with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(shape: list[int], start: int, stop: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def weights(content: bytes) -> Attack:
    return lambda model: shard(model).write_bytes(content) and None


def without_weights(name: str, content: bytes) -> Attack:
    def attack(model: Path) -> None:
        for path in (*model.glob("*.safetensors"), model / INDEX):
            path.unlink()
        (model / name).write_bytes(content)

    return attack


def point_index_at(file: str) -> Attack:
    def attack(model: Path) -> None:
        listed = json.loads((model / INDEX).read_text())
        listed["weight_map"] = dict.fromkeys(listed["weight_map"], file)
        (model / INDEX).write_text(json.dumps(listed))

    return attack


def retype_weights(model: Path) -> None:
    state = load_file(shard(model))
    save_file({name: value.to(torch.int8) for name, value in state.items()}, shard(model))


def torch_pickle(model: Path) -> None:
    torch.save({"a": Evil()}, shard(model))


REFUSED: dict[str, Attack] = {
    "config is a device": special("config.json", "/dev/zero"),
    "config is a pipe": special("config.json", "pipe"),
    "config is a directory": special("config.json", "directory"),
    "config is a broken link": special("config.json", "nowhere"),
    "config is a link to itself": special("config.json", "config.json"),
    "config is a link out": move_out("config.json"),
    "config of another file": special("config.json", "/etc/passwd"),
    "config is empty": write("config.json", ""),
    "config is nested deeply": write("config.json", "[" * 300_000),
    "config has nested objects": write("config.json", '{"a":' * 300_000),
    "config is large": edit(pad="x" * 200_000_000),
    "config has a long number": write("config.json", '{"vocab_size": ' + "9" * 5000 + "}"),
    "config is not UTF-8": write("config.json", b"\xff\xfe{\x00}\x00"),
    "a billion layers": edit(num_hidden_layers=10**9),
    "a million layers": edit(num_hidden_layers=10**6),
    "negative layers": edit(num_hidden_layers=-2),
    "a huge vocabulary": edit(vocab_size=10**12, hidden_size=10**9),
    "a huge model": edit(vocab_size=2**23, hidden_size=2**23, intermediate_size=2**23),
    "a huge head": edit(head_dim=10**12),
    "an odd head": edit(head_dim=7),
    "a width of one": edit(hidden_size=1, num_attention_heads=1, num_key_value_heads=1, head_dim=None),
    "layers that are infinite": edit(num_hidden_layers=float("inf")),
    "layers that are true": edit(num_hidden_layers=True),
    "layers that are text": edit(num_hidden_layers="2"),
    "layer types that are objects": edit(layer_types=[{"a": 1}]),
    "layer types that are a number": edit(layer_types=7),
    "an architecture that is an object": edit(architectures=[{"a": 1}]),
    "an infinite epsilon": edit(rms_norm_eps=float("inf")),
    "rope that is a list": edit(rope_scaling=[1]),
    "rope of an odd type": edit(rope_scaling={"rope_type": ["yarn"]}),
    "code for another architecture": edit(
        architectures=["Evil"], auto_map={"AutoModel": "modeling_x.X"}, trust_remote_code=True
    ),
    "weights are a device": special("weights", "/dev/zero"),
    "weights are a pipe": special("weights", "pipe"),
    "weights are a directory": special("weights", "directory"),
    "weights are a link out": move_out("weights"),
    "weights are another file": special("weights", "/etc/passwd"),
    "weights are empty": weights(b""),
    "weights are a zip": weights(b"PK\x03\x04" + bytes(3000)),
    "weights are pickled under their name": weights(pickle.dumps(Evil())),
    "weights are pickled by torch under their name": torch_pickle,
    "weights are pickled": without_weights("pytorch_model.bin", pickle.dumps(Evil())),
    "weights are GGUF junk": without_weights("model.gguf", b"GGUF" + bytes(range(256)) * 20),
    "weights are GGUF under their name": weights(b"GGUF" + bytes(range(256)) * 20),
    "weights are of another type": retype_weights,
    "header of 1 GB": weights(struct.pack("<Q", 1 << 30) + b"{}" + b" " * 1000),
    "header of 2^64": weights(struct.pack("<Q", (1 << 64) - 1) + b"{}"),
    "header nested deeply": weights(pack(b'{"a":' + b"[" * 9_000_000)),
    "offsets that overlap": weights(pack({"a": tensor([8], 0, 32), "b": tensor([8], 16, 48)}, bytes(64))),
    "offsets beyond the file": weights(pack({"a": tensor([1 << 40], 0, 1 << 42)}, bytes(8))),
    "a negative shape": weights(pack({"a": tensor([-1], 0, 8)}, bytes(8))),
    "a shape that overflows": weights(pack({"a": tensor([1 << 33, 1 << 33], 0, 0)})),
    "a shape of another size": weights(pack({"a": tensor([4], 0, 4)}, bytes(4))),
    "an unknown number type": weights(pack({"a": tensor([1], 0, 4, "X99")}, bytes(4))),
    "a rare number type": weights(pack({"a": tensor([4], 0, 4, "F8_E8M0")}, bytes(4))),
    "index to the folder above": point_index_at("../outside.safetensors"),
    "index to another file": point_index_at("/etc/passwd"),
    "index nested deeply": write(INDEX, "[" * 300_000),
    "index of numbers": write(INDEX, '{"weight_map": {"a": 5}}'),
    "index is a pipe": special(INDEX, "pipe"),
    "tokenizer is pickled": write("tokenizer.json", pickle.dumps(Evil())),
    "tokenizer is nested deeply": write("tokenizer.json", '{"a":' * 100_000),
    "tokenizer is a device": special("tokenizer.json", "/dev/zero"),
    "tokenizer is a pipe": special("tokenizer.json", "pipe"),
    "tokenizer is a link out": move_out("tokenizer.json"),
    "tokenizer is large": edit("tokenizer.json", pad="x" * 200_000_000),
    "added tokens are a list": write("added_tokens.json", "[1]"),
    "added tokens are nested deeply": write("added_tokens.json", "[" * 300_000),
    "settings of the tokenizer are nested deeply": write("tokenizer_config.json", "[" * 300_000),
    "ids of added tokens are huge": write("added_tokens.json", json.dumps({"<x>": 10**30})),
    "sums are noise": write("SHA256SUMS", b"\xff" * 100),
    "sums are a device": special("SHA256SUMS", "/dev/zero"),
}
HARMLESS: dict[str, Attack] = {  # the folder is read, but not what is hostile in it
    "code of the model": edit(auto_map={"AutoModel": "modeling_tiny-a2d-mdlm.X"}, trust_remote_code=True),
    "code of the tokenizer": edit(
        "tokenizer_config.json", auto_map={"AutoTokenizer": ["tok_x.T", None]}, tokenizer_class="T"
    ),
    "a chat template": edit(
        "tokenizer_config.json", chat_template="{{ cycler.__init__.__globals__.os.popen('touch executed') }}"
    ),
    "another attention": edit(
        _attn_implementation_internal="evil/kernel", _attn_implementation="evil/kernel:x"
    ),
    "a pickle beside the weights": write("training_args.bin", pickle.dumps(Evil())),
}
FEW = (
    "config is a device", "config is a pipe", "config is nested deeply", "a billion layers", "a huge model",
    "config is a link out", "header of 1 GB", "offsets that overlap", "weights are pickled",
    "weights are GGUF junk", "tokenizer is nested deeply",
)  # fmt: skip


def check(commands: Commands, work: Path, model: str) -> dict[str, Any]:
    found = commands.play(work, "check", "prompt.md", "--data", "rows.jsonl", "--denoiser", model)
    assert found["code"] != -1, f"not ended after {SECONDS} s"
    assert "Traceback" not in found["stderr"] + found["stdout"], found
    assert not found["ran"], found["ran"]
    assert not (work / "executed").exists()
    return found


def require_problem(found: dict[str, Any]) -> None:
    """The command ends with exit code 2 and one line about the denoiser."""
    assert found["code"] == 2, found
    lines = [line for line in found["stdout"].splitlines() if " PROBLEM " in line]
    text = found["stderr"] or "\n".join(lines)
    assert text.strip() and len(text.strip().splitlines()) == 1, found
    assert len(text) < 1000, text


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in FEW else pytest.mark.slow) for n in REFUSED]
)
def test_hostile_folder_is_refused(commands: Commands, work: Path, name: str, record_property: Any) -> None:
    REFUSED[name](work / MODEL)
    require_problem(check(commands, work, f"local:{MODEL}"))
    record_property("row", "S6")
    record_property("runs", 1)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "code of the model" else pytest.mark.slow) for n in HARMLESS]
)
def test_what_is_not_read_does_no_harm(
    commands: Commands, work: Path, name: str, record_property: Any
) -> None:
    HARMLESS[name](work / MODEL)
    found = check(commands, work, f"local:{MODEL}")
    # The tiny model reads only a few hundred tokens; else nothing is wrong with it.
    assert found["code"] == 0 or "search.context_tokens" in found["stdout"], found
    assert found["stdout"].count(" PROBLEM ") <= 1, found
    record_property("row", "S6")
    record_property("runs", 1)


# -- adapters --------------------------------------------------------------------------------------


def edit_adapter(**header: str | None) -> Attack:
    """The shipped adapter with other words in its header; None removes one."""

    def attack(path: Path) -> None:
        raw = SHIPPED_ADAPTER.read_bytes()
        size = int.from_bytes(raw[:8], "little")
        old = json.loads(raw[8 : 8 + size])
        words = {**old["__metadata__"], **header}
        old["__metadata__"] = {k: v for k, v in words.items() if v is not None}
        path.write_bytes(pack(old, raw[8 + size :]))

    return attack


def edit_tensors(**tensors: torch.Tensor | None) -> Attack:
    """The shipped adapter with other tensors; None removes one."""

    def attack(path: Path) -> None:
        with safe_open(SHIPPED_ADAPTER, framework="pt") as file:
            header = file.metadata()
        state = {**load_file(SHIPPED_ADAPTER), **{k.replace("__", "."): v for k, v in tensors.items()}}
        save_file({k: v for k, v in state.items() if v is not None}, path, header)

    return attack


def drop_factor(path: Path) -> None:
    """The shipped adapter without one of the two factors of a layer."""
    name = next(name for name in load_file(SHIPPED_ADAPTER) if name.endswith(".b"))
    edit_tensors(**{name: None})(path)


def as_file(content: bytes) -> Attack:
    return lambda path: path.write_bytes(content) and None


ADAPTERS: dict[str, Attack] = {
    "a pipe": lambda path: os.mkfifo(path),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a directory": lambda path: path.mkdir(),
    "nothing": lambda path: None,
    "a pickle": as_file(pickle.dumps(Evil())),
    "GGUF junk": as_file(b"GGUF" + bytes(range(256)) * 16),
    "empty": as_file(b""),
    "header of 1 GB": as_file(struct.pack("<Q", 1 << 30) + b"{}"),
    "header nested deeply": as_file(pack(b'{"a":' + b"[" * 90_000)),
    "another file": as_file(pack({"a": tensor([1], 0, 4)}, bytes(4))),
    "another header": as_file(pack({"__metadata__": {"kind": "../x"}, "a": tensor([1], 0, 4)}, bytes(4))),
    "alpha that is text": edit_adapter(alpha="many"),
    "alpha that is no number": edit_adapter(alpha="nan"),
    "rank of zero": edit_adapter(rank="0"),
    "no rank": edit_adapter(rank=None),
    "another base": edit_adapter(base_content="other"),
    "no gates": edit_tensors(gates__right=None),
    "gates of another shape": edit_tensors(gates__right=torch.zeros(3)),
    "no mask": edit_tensors(mask_embedding=None),
    "mask of another size": edit_tensors(mask_embedding=torch.zeros(7)),
    "half of the factors": drop_factor,
    "another layer": edit_tensors(evil__a=torch.zeros(2, 2), evil__b=torch.zeros(2, 2)),
}
FEW_ADAPTERS = ("a pipe", "a pickle", "rank of zero", "no gates")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in FEW_ADAPTERS else pytest.mark.slow) for n in ADAPTERS]
)
def test_hostile_adapter_is_refused(commands: Commands, work: Path, name: str, record_property: Any) -> None:
    ADAPTERS[name](work / "adapter.safetensors")
    require_problem(check(commands, work, "builtin:adapter.safetensors"))
    record_property("row", "S6")
    record_property("runs", 1)
