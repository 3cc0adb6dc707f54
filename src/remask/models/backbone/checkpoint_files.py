"""Find the files of a checkpoint and check their hashes.

A place is a local folder, a GGUF file, or a hub id with a pinned revision (HUB_ID@REVISION, or the
revision beside it). A GGUF file is converted to a folder in the cache first. Only JSON, tokenizer files and
safetensors are downloaded or read. Every file that is read is hashed. The hash is compared with a
file SHA256SUMS in the folder (the format of sha256sum) and, in the hub's cache, with the name of
the blob, which is the hash that the hub announced.
"""

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remask.errors import BackendError
from remask.models.backbone.cache_folder import hash_file
from remask.models.backbone.tokenizer import TOKENIZER_FILES

CONFIG_FILE = "config.json"
INDEX_FILE = "model.safetensors.index.json"
SUMS_FILE = "SHA256SUMS"
GENERATION_FILE = "generation_config.json"
TEMPLATE_FILE = "chat_template.jinja"
DOWNLOADED_FILES = (
    *(CONFIG_FILE, GENERATION_FILE, TEMPLATE_FILE, *TOKENIZER_FILES),
    *("*.safetensors", INDEX_FILE, SUMS_FILE),
)
GGUF_SUFFIX = ".gguf"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
REVISION = re.compile(r"[0-9a-f]{40}")
BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # the name of a file in the hub's cache: its hash
MAX_JSON_BYTES = 64 << 20  # of each file but the weights; the largest tokenizers have half of it
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class Shard:
    """A safetensors file and the names of its weights in the index (None: all of the file)."""

    path: Path
    names: frozenset[str] | None


def find_folder(place: str, revision: str | None, files: Collection[str] = DOWNLOADED_FILES) -> Path:
    """Return the folder of a place; for a hub id, `files` are downloaded or found in the cache.

    `revision` is the 40 digits of a commit for a hub id, None for a folder or a file. Raises
    BackendError.
    """
    folder = Path(place).expanduser()
    if folder.exists():
        if revision is not None:
            what = "folder" if folder.is_dir() else "file"
            raise BackendError(
                f"{place} is a {what}, which has no revision {revision}; leave the revision out"
            )
        return folder if folder.is_dir() else _unpack(folder)
    if place.endswith(GGUF_SUFFIX):
        raise BackendError(f"{place}: no such file")
    hub_id, at, pinned = place.partition("@")
    if at and revision is None and HUB_ID.fullmatch(hub_id):
        place, revision = hub_id, pinned
    if not HUB_ID.fullmatch(place):
        raise BackendError(f"{place}: no such folder or file, and no hub id such as GSAI-ML/LLaDA-8B-Base")
    if revision is None or not REVISION.fullmatch(revision):
        given = "no revision is given" if revision is None else f"the revision {revision!r} can move"
        raise BackendError(
            f"{place}: there is no such folder, and for a model of the Hugging Face hub {given}; give the "
            "40 hexadecimal digits of a commit as local:HUB_ID@REVISION, with --revision, or as revision in "
            "remask.toml; the hub shows them under Files and versions, History"
        )
    return _download(place, revision, files)


def _unpack(path: Path) -> Path:
    if path.suffix.lower() != GGUF_SUFFIX:
        raise BackendError(f"{path}: is neither a folder nor a GGUF file")
    # Imported here because the conversion is seldom needed.
    from remask.models.backbone.gguf_checkpoint import unpack_gguf

    return unpack_gguf(path)


def _download(hub_id: str, revision: str, files: Collection[str]) -> Path:
    import huggingface_hub  # imported here because it is slow and only hub ids need it
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx's own

    try:
        path = huggingface_hub.snapshot_download(hub_id, revision=revision, allow_patterns=list(files))
    except (OSError, ValueError, HTTPError) as error:
        first = str(error).strip().partition("\n")[0]
        raise BackendError(
            f"{hub_id} at {revision} cannot be fetched ({first}); check the id, the revision and "
            "the network, or name a local folder"
        ) from error
    return Path(path)


def require_plain(path: Path, max_bytes: int | None = None) -> None:
    """Raise BackendError unless `path` is a file of its folder, and of at most `max_bytes`.

    Reading a pipe or a device might never end. A link may lead to a blob of the hub's cache, but
    to no other place outside of the folder.
    """
    try:
        target = path.resolve(strict=True)
        size = target.stat().st_size
    except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself, before Python 3.13
        raise BackendError(f"{path}: cannot be read ({error})") from error
    if not target.is_file():
        raise BackendError(f"{path}: is not a file")
    blob = target.parent.name == "blobs" and BLOB.fullmatch(target.name)
    if not blob and not target.is_relative_to(path.parent.resolve()):
        raise BackendError(
            f"{path}: is a link to a file outside of its folder; copy the file into the folder"
        )
    if max_bytes is not None and size > max_bytes:
        raise BackendError(f"{path}: has {size} bytes, more than the {max_bytes} that are read")


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file. Raises BackendError."""
    if not os.path.lexists(path):
        others = sorted(other.name for other in path.parent.glob(f"*{GGUF_SUFFIX}"))
        hint = f"; for a GGUF file name the file, such as {others[0]}" if others else ""
        raise BackendError(f"{path.parent}: there is no {path.name}{hint}")
    require_plain(path, MAX_JSON_BYTES)
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BackendError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(found, dict):
        raise BackendError(f"{path}: does not contain a JSON object")
    return found


def find_shards(folder: Path) -> list[Shard]:
    """Return the safetensors files of a checkpoint, sorted by name. Raises BackendError."""
    if os.path.lexists(folder / INDEX_FILE):
        return _read_index(folder)
    single = sorted(folder.glob("*.safetensors"))
    if len(single) == 1:
        return [Shard(single[0], None)]
    if single:
        raise BackendError(f"{folder}: {len(single)} safetensors files, but no {INDEX_FILE}")
    if pickled := sorted(p.name for p in folder.iterdir() if p.suffix in PICKLE_SUFFIXES):
        raise BackendError(
            f"{folder}: the weights are pickled ({pickled[0]}), which runs code when it is read; "
            "convert them to safetensors"
        )
    raise BackendError(f"{folder}: no safetensors weights, and no other kind is read")


def _read_index(folder: Path) -> list[Shard]:
    wanted = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(wanted, dict) or not wanted:
        raise BackendError(f"{folder / INDEX_FILE}: there is no weight_map")
    shards = []
    for name in sorted({str(file) for file in wanted.values()}):
        path = folder / name
        if Path(name).name != name or path.suffix != ".safetensors":
            raise BackendError(f"{folder / INDEX_FILE}: {name!r} is not a safetensors file of this folder")
        if not os.path.lexists(path):
            raise BackendError(f"{folder}: {name}, which {INDEX_FILE} names, is missing")
        shards.append(Shard(path, frozenset(w for w, file in wanted.items() if file == name)))
    return shards


def hash_files(folder: Path, paths: Iterable[Path]) -> str:
    """Return a 16-digit hexadecimal hash of the names and contents of the files that exist.

    Raises BackendError if the hash of a file differs from that in SHA256SUMS or the hub's cache.
    """
    files = sorted(path for path in paths if os.path.lexists(path))
    for path in files:
        require_plain(path, None if path.suffix == ".safetensors" else MAX_JSON_BYTES)
    announced = _read_sums(folder / SUMS_FILE)
    try:
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(hash_file, files))
    except OSError as error:
        raise BackendError(f"{folder}: a file cannot be read ({error})") from error
    for path, sha256 in zip(files, found, strict=True):
        if announced is not None and announced.get(path.name) != sha256:
            expected = announced.get(path.name, "no hash for it")
            raise BackendError(f"{path}: its SHA-256 is {sha256}, but {SUMS_FILE} has {expected}")
        _check_blob(path, sha256)
    together = "".join(f"{p.name} {sha256}\n" for p, sha256 in zip(files, found, strict=True))
    return hashlib.sha256(together.encode()).hexdigest()[:16]


def _read_sums(path: Path) -> dict[str, str] | None:
    """Read file names and hashes from a file written by sha256sum; None if it does not exist."""
    if not os.path.lexists(path):
        return None
    require_plain(path, MAX_JSON_BYTES)
    listed = {}
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        match = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)", line)
        if match is None:
            raise BackendError(f"{path}:{number}: {line[:40]!r} is not a line of sha256sum")
        listed[match[2]] = match[1].lower()
    return listed


def _check_blob(path: Path, sha256: str) -> None:
    """Compare a file in the hub's cache with the hash that the hub announced.

    Such a file links to a blob that is named by its ETag: the SHA-256 of a large file, or git's
    SHA-1 of a blob for a small one. Raises BackendError.
    """
    blob = path.resolve()
    if blob.parent.name != "blobs" or not BLOB.fullmatch(blob.name):
        return
    found = sha256
    if len(blob.name) == 40:
        content = blob.read_bytes()
        found = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if found != blob.name:
        raise BackendError(
            f"{path}: its hash is {found}, but the hub announced {blob.name}; delete the file and "
            "fetch it again"
        )
