"""Read Inspect logs: the `.eval` archive, and a log or one sample as JSON.

An archive is a zip file with one JSON file per sample. Entries are selected by name and unpacked in
memory with a size limit; nothing is written to disk. Newer versions of Inspect compress with zstd,
which needs Python 3.14 or the extra `inspect`. Samples that are stored in chunks are rejected.
Sources: inspect_ai 0.3.2xx, src/inspect_ai/log/_log.py (EvalSample), _recorders/eval.py,
_recorders/chunked/format.py, scorer/_metric.py (Score).
"""

import importlib.util
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from remask.data.dialects import Message, as_list, as_object, extract_messages
from remask.data.formats.call_tree import Assessment, Operation, build_records
from remask.data.json_stream import read_raw_blocks
from remask.data.messages import as_text, join_text
from remask.data.strict_json import parse
from remask.data.trace_record import (
    Container,
    Item,
    Kind,
    Rating,
    RejectedRecord,
    Source,
    TraceFormat,
    UnreadableRecord,
    Value,
)

MAX_ENTRY_BYTES: Final = 128 << 20  # bytes of one unpacked sample
MAX_ZIP_RATIO: Final = 200  # unpacked bytes per packed byte
MAX_ENTRIES: Final = 1_000_000
_SAMPLE = re.compile(r"samples/[^/]+_epoch_\d+\.json")
_CHUNKED = re.compile(r"samples/([^/]+)/sample\.json")
_ATTACHMENT_PREFIX: Final = "attachment://"
_ZSTD: Final = 93
_START: Final = "_journal/start.json"
_UNFINISHED: Final = (
    "is an Inspect log that is still being written, or whose run was cut off; read it again when the run "
    "has ended"
)
_DAMAGE_ERRORS: Final[tuple[type[Exception], ...]] = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError, OSError,
)  # fmt: skip
_CONVERT: Final = "inspect log convert --to json --output-dir DIR LOG"


def matches(value: Any) -> bool:
    """Whether `value` is a log with its samples, or one sample."""
    if not isinstance(value, dict):
        return False
    if isinstance(value.get("eval"), dict) and "samples" in value:
        return True
    return all(key in value for key in ("epoch", "input", "target")) and (
        "messages" in value or "output" in value
    )


def read(value: Any, source: Source) -> Iterator[Item]:
    """Yield one record per sample."""
    if not matches(value):
        yield source.reject("is neither an Inspect log with samples nor a sample")
    elif "eval" not in value:
        yield from build_records([_build_operation(value, "")], source)
    else:
        model = as_text(value["eval"].get("model"))
        samples = as_list(value["samples"])
        for number, sample in enumerate(samples):
            place = replace(source, entry=f"samples[{number}]")
            yield from build_records([_build_operation(sample, model)], place)
        if not samples:
            yield source.reject("the log holds no samples")


def read_archive(path: Path) -> Iterator[Value | RejectedRecord]:
    """Yield the samples of an `.eval` archive in order."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield from _read_samples(archive, path)
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        begun = _START.encode() in next(read_raw_blocks(path), b"")
        reason = _UNFINISHED if begun else f"the zip archive is damaged ({error}); copy it again"
        yield RejectedRecord(str(path), None, reason)


def _read_samples(archive: zipfile.ZipFile, path: Path) -> Iterator[Value | RejectedRecord]:
    entries = archive.infolist()
    samples = [entry for entry in entries if _SAMPLE.fullmatch(entry.filename)]
    chunked = [match[1] for entry in entries if (match := _CHUNKED.fullmatch(entry.filename))]
    if len(entries) > MAX_ENTRIES:
        yield RejectedRecord(str(path), None, f"holds more than {MAX_ENTRIES:,} files; split it")
        return
    names = {entry.filename for entry in entries}
    if _START in names and "header.json" not in names:  # the header is written when the run has ended
        yield RejectedRecord(str(path), None, _UNFINISHED)
    elif not samples and not chunked:
        reason = "is a zip archive but not an Inspect log; unpack it first"
        yield RejectedRecord(str(path), None, reason)
    for name in chunked:
        yield RejectedRecord(str(path), None, f"{name}: is stored in chunks; run: {_CONVERT}")
    for entry in samples:
        try:
            yield Value(parse(_unpack(archive, entry)), None, entry.filename)
        except UnreadableRecord as reason:
            place = f"{entry.filename}:{reason.line}" if reason.line else entry.filename
            yield RejectedRecord(str(path), None, f"{place}: {reason}")


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Return the bytes of an entry. Its declared size is not trusted. Raises UnreadableRecord."""
    zstd = _load_zstd_errors() if entry.compress_type == _ZSTD else ()
    damage: tuple[type[Exception], ...] = (*_DAMAGE_ERRORS, *zstd)
    limit = min(MAX_ENTRY_BYTES, max(1 << 20, MAX_ZIP_RATIO * entry.compress_size))
    try:
        with archive.open(entry) as file:
            raw = file.read(limit + 1)
    except NotImplementedError as error:
        reason = "is compressed in a way that this Python cannot read; install remask[inspect], or "
        raise UnreadableRecord(f"{reason}run: {_CONVERT}") from error
    except damage as error:
        raise UnreadableRecord(f"is damaged or encrypted ({error})") from error
    if len(raw) > limit:
        raise UnreadableRecord(
            f"unpacks to more than {MAX_ZIP_RATIO} times its size or {MAX_ENTRY_BYTES >> 20} MiB"
        )
    return raw


def _load_zstd_errors() -> tuple[type[Exception], ...]:
    """Return the errors of reading zstd. Enables zstd in `zipfile` if the extra is installed."""
    if importlib.util.find_spec("zipfile_zstd"):  # importing it patches zipfile
        importlib.import_module("zipfile_zstd")
        return (importlib.import_module("zstandard").ZstdError,)
    if importlib.util.find_spec("compression"):  # Python 3.14
        return (importlib.import_module("compression.zstd").ZstdError,)
    return ()


def _build_operation(sample: Mapping[str, Any], model: str) -> Operation:
    output = as_object(sample.get("output"))
    attachments = as_object(sample.get("attachments"))
    choices = as_list(output.get("choices"))
    answer = _extract_messages(choices[0].get("message"), "assistant", attachments) if choices else []
    history = _extract_messages(sample.get("messages"), "user", attachments)
    while history and history[-1].get("role") != "assistant":  # messages after the last answer
        history.pop()
    asked = history or _extract_messages(sample.get("input"), "user", attachments)
    failed = sample.get("error")
    number = as_text(sample.get("epoch"))
    return Operation(
        "",
        as_text(sample.get("uuid")) or f"{as_text(sample.get('id'))}_epoch_{number}",
        "",
        True,
        () if history else tuple(asked),
        tuple(history or answer),
        error=(as_text(as_object(failed).get("message")) or "no reason given") if failed else "",
        assessment=_assess(sample, join_text(answer[-1].get("content")) if answer else ""),
        model=as_text(output.get("model")) or model,
    )


def _extract_messages(value: object, role: str, attachments: Mapping[str, Any]) -> list[Message]:
    """Return the messages with `attachment://…` replaced by its text (log/_condense.py)."""
    return [_resolve_attachments(message, attachments) for message in extract_messages(value, role)]


def _resolve_attachments(value: Any, attachments: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _resolve_attachments(inner, attachments) for key, inner in value.items()}
    if isinstance(value, list):
        return [_resolve_attachments(inner, attachments) for inner in value]
    if isinstance(value, str) and value.startswith(_ATTACHMENT_PREFIX):
        return attachments.get(value.removeprefix(_ATTACHMENT_PREFIX), value)
    return value


def _assess(sample: Mapping[str, Any], answer: str) -> Assessment:
    """Return the scores and the right response, which is the target of the sample.

    If only models judged, the target is an instruction for them and not a response.
    """
    scores = as_object(sample.get("scores"))
    if "score" in sample:  # logs of early versions
        scores = {"score": sample["score"]}
    ratings: list[Rating] = []
    for scorer, score in scores.items():
        kind: Kind = "llm" if scorer.startswith("model_graded") else "code"
        value = as_object(score).get("value")
        words = as_text(as_object(score).get("explanation"))
        if words.strip() == answer.strip():  # many scorers repeat the answer
            words = ""
        parts = value if isinstance(value, dict) else {"": value}
        for part, held in parts.items():
            if isinstance(held, bool | int | float | str):
                ratings.append(Rating(f"{scorer}/{part}" if part else scorer, held, kind, words))
    target = sample.get("target")
    targets = target if isinstance(target, list) else [target]
    first = next((text for text in targets if isinstance(text, str) and text), None)
    judged = bool(ratings) and all(rating.kind == "llm" for rating in ratings)
    return Assessment(tuple(ratings), None if judged else first)


INSPECT = TraceFormat("inspect", matches, read)
ARCHIVE = Container("inspect", b"PK\x03\x04", read_archive)
