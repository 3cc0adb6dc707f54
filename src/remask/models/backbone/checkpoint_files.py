"""Where the files of a checkpoint lie, and that they are the right ones.

A place is a local folder or a hub id with a pinned revision. Only JSON, tokenizer files and
safetensors are ever fetched or read. Every file that is read is hashed, and the hash is held
against what a file SHA256SUMS in the folder says (the format of sha256sum) and, in the hub's
cache, against the name of the blob, which is the hash that the hub announced. Knows nothing of
what stands in the files but the index of shards.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remask.errors import BackendError
from remask.models.backbone.tokenizer import FILES as TOKENIZER_FILES

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SUMS = "SHA256SUMS"
FETCHED = (CONFIG, *TOKENIZER_FILES, "*.safetensors", INDEX, SUMS)
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
REVISION = re.compile(r"[0-9a-f]{40}")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class Shard:
    """A safetensors file, and the weights that the index wants from it (None: all it has)."""

    path: Path
    names: frozenset[str] | None


def find_folder(place: str, revision: str | None, files: Collection[str] = FETCHED) -> Path:
    """The folder of a place; from the hub, the wanted `files` are fetched or found in its cache.

    revision: the 40 digits of a commit for a hub id, None for a folder. Raises BackendError.
    """
    folder = Path(place).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise BackendError(
                f"{place} is a folder, which has no revision {revision}; leave the revision out"
            )
        return folder
    if not HUB_ID.fullmatch(place):
        raise BackendError(f"{place}: no such folder, and no hub id such as GSAI-ML/LLaDA-8B-Base")
    if revision is None or not REVISION.fullmatch(revision):
        given = (
            "no revision is given" if revision is None else f"the revision {revision!r} can move"
        )
        raise BackendError(
            f"{place}: {given}; give the 40 hexadecimal digits of a commit, which the hub shows "
            "under Files and versions, History"
        )
    return _fetch(place, revision, files)


def _fetch(hub_id: str, revision: str, files: Collection[str]) -> Path:
    import huggingface_hub  # slow to import, and needed for hub ids alone
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx's own

    try:
        path = huggingface_hub.snapshot_download(
            hub_id, revision=revision, allow_patterns=list(files)
        )
    except (OSError, ValueError, HTTPError) as error:
        first = str(error).strip().partition("\n")[0]
        raise BackendError(
            f"{hub_id} at {revision} cannot be fetched ({first}); check the id, the revision and "
            "the network, or name a local folder"
        ) from error
    return Path(path)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises BackendError."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise BackendError(f"{path.parent}: there is no {path.name}") from error
    except (OSError, ValueError) as error:
        raise BackendError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(found, dict):
        raise BackendError(f"{path}: holds no JSON object")
    return found


def find_shards(folder: Path) -> list[Shard]:
    """The safetensors files of a checkpoint, in the order of their names. Raises BackendError."""
    if (folder / INDEX).is_file():
        return _indexed(folder)
    single = sorted(folder.glob("*.safetensors"))
    if len(single) == 1:
        return [Shard(single[0], None)]
    if single:
        raise BackendError(f"{folder}: {len(single)} safetensors files, but no {INDEX}")
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLED)
    if pickled:
        raise BackendError(
            f"{folder}: the weights are pickled ({pickled[0]}), which runs code when it is read; "
            "convert them to safetensors"
        )
    raise BackendError(f"{folder}: no safetensors weights, and no other kind is read")


def _indexed(folder: Path) -> list[Shard]:
    wanted = read_json(folder / INDEX).get("weight_map")
    if not isinstance(wanted, dict) or not wanted:
        raise BackendError(f"{folder / INDEX}: there is no weight_map")
    shards = []
    for name in sorted({str(file) for file in wanted.values()}):
        path = folder / name
        if Path(name).name != name or path.suffix != ".safetensors":
            raise BackendError(f"{folder / INDEX}: {name!r} is no safetensors file of this folder")
        if not path.is_file():
            raise BackendError(f"{folder}: {name}, which {INDEX} names, is missing")
        shards.append(Shard(path, frozenset(w for w, file in wanted.items() if file == name)))
    return shards


def digest(folder: Path, paths: Iterable[Path]) -> str:
    """A 16-digit hexadecimal name of the files' content; every file is read once.

    Raises BackendError where a hash is not what SHA256SUMS or the hub's cache says.
    """
    files = sorted(path for path in paths if path.is_file())
    announced = _announced(folder / SUMS)
    try:
        with ThreadPoolExecutor() as pool:
            found = list(pool.map(_sha256, files))
    except OSError as error:
        raise BackendError(f"{folder}: a file cannot be read ({error})") from error
    for path, sha256 in zip(files, found, strict=True):
        if announced is not None and announced.get(path.name) != sha256:
            says = announced.get(path.name, "nothing of it")
            raise BackendError(f"{path}: its SHA-256 is {sha256}, but {SUMS} says {says}")
        _check_blob(path, sha256)
    together = "".join(f"{p.name} {sha256}\n" for p, sha256 in zip(files, found, strict=True))
    return hashlib.sha256(together.encode()).hexdigest()[:16]


def _announced(path: Path) -> dict[str, str] | None:
    """File names and hashes of a file written by sha256sum; None where there is none."""
    if not path.is_file():
        return None
    listed = {}
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        match = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](?:\./)?(.+)", line)
        if match is None:
            raise BackendError(f"{path}:{number}: {line[:40]!r} is not a line of sha256sum")
        listed[match[2]] = match[1].lower()
    return listed


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_blob(path: Path, sha256: str) -> None:
    """In the hub's cache a file links to a blob named by its ETag, the hash the hub announced.

    That is SHA-256 for large files and git's SHA-1 of a blob for small ones.
    """
    blob = path.resolve()
    if blob.parent.name != "blobs" or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
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
