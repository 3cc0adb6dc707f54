"""Inspect logs. Shapes: UKGovernmentBEIS/inspect_ai src/inspect_ai/log/_log.py (020dd018:
EvalSample), _recorders/eval.py and chunked/format.py (026af30c), log/_condense.py (018b3644),
scorer/_metric.py (03ed3dda)."""

import importlib.util
import json
import struct
import sys
import zipfile
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.records import items_of, record_of
from remask.data.formats.inspect_log import ARCHIVE, INSPECT
from remask.data.trace_record import Rating, Record, RejectedRecord, Source, Value

HERE = Source("inspect", "log.json", 1)


def sample(**more: Any) -> dict[str, Any]:
    answer = {"role": "assistant", "content": "It is 4.", "source": "generate"}
    call = {"id": "c1", "function": "add", "arguments": {"a": 2, "b": 2}, "type": "function"}
    return {
        "id": 1,
        "epoch": 1,
        "uuid": "u1",
        "input": "2+2?",
        "target": "4",
        "messages": [
            {"role": "system", "content": "Count."},
            {"role": "user", "content": "attachment://h1"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "4", "tool_call_id": "c1", "function": "add"},
            answer,
        ],
        "output": {"model": "openai/gpt-4o", "choices": [{"message": answer}]},
        "scores": {"match": {"value": "C", "answer": "4", "explanation": "It is 4."}},
        "attachments": {"h1": "2+2?"},
        "metadata": {},
        "events": [],
    } | more


def log(*samples: dict[str, Any]) -> dict[str, Any]:
    head = {"version": 2, "status": "success", "eval": {"task": "sums", "model": "mockllm/m"}}
    return head | {"samples": list(samples)}


read = partial(items_of, INSPECT, HERE)


def one(**more: Any) -> Record:
    return record_of(INSPECT, HERE, log(sample(**more)))


def test_sample_of_a_log() -> None:
    record = one()
    assert (record.id, record.system, record.model) == ("u1", "Count.", "openai/gpt-4o")
    texts = [turn.text for turn in record.turns]
    assert texts == ["2+2?", "add(a=2, b=2)", "4", "It is 4."]
    assert record.desired == "4" and record.source.entry == "samples[0]"
    assert record.ratings == (Rating("match", "C", "code"),), "no words that repeat the answer"


@pytest.mark.parametrize(
    ("scores", "ratings", "desired"),
    [
        ({"m": {"value": None, "explanation": "unscored"}}, (), "4"),
        ({"m": {"value": {"a": 1, "b": "I"}}}, (Rating("m/a", 1, "code"),
                                                Rating("m/b", "I", "code")), "4"),
        ({"model_graded_qa": {"value": "P", "explanation": "half"}},
         (Rating("model_graded_qa", "P", "llm", "half"),), None),
        (None, (), "4"),
    ],
)  # fmt: skip
def test_scores(scores: object, ratings: tuple[Rating, ...], desired: str | None) -> None:
    record = one(scores=scores)
    assert (record.ratings, record.desired) == (ratings, desired)


def test_sample_without_messages_uses_input_and_output() -> None:
    record = one(messages=[], target=["4", "four"])
    assert [turn.text for turn in record.turns] == ["2+2?", "It is 4."] and record.desired == "4"


def test_sample_with_an_error_is_rejected() -> None:
    good, bad = read(log(sample(), sample(error={"message": "sandbox died", "traceback": "…"})))
    assert isinstance(good, Record) and isinstance(bad, RejectedRecord)
    assert bad.reason == "samples[1]: the call failed: sandbox died"


def archive(path: Path, entries: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in entries.items():
            file.writestr(name, text)
    return path


def values(path: Path) -> list[Value | RejectedRecord]:
    assert path.read_bytes().startswith(ARCHIVE.magic)
    return list(ARCHIVE.values(path))


def test_archive_with_nan_and_a_damaged_sample(tmp_path: Path) -> None:
    nan = sample(scores={"m": {"value": float("nan")}})
    path = archive(
        tmp_path / "a.eval",
        {
            "header.json": "{}",
            "_journal/start.json": "{}",
            "samples/1_epoch_1.json": json.dumps(nan),
            "samples/2_epoch_1.json": "{",
            "samples/../../3_epoch_1.json": json.dumps(sample()),
            "summaries.json": "[]",
        },
    )
    good, bad = values(path)
    assert isinstance(good, Value) and good.entry == "samples/1_epoch_1.json"
    (record,) = INSPECT.read(good.data, HERE)
    assert isinstance(record, Record) and not record.ratings
    assert isinstance(bad, RejectedRecord) and bad.reason.startswith("samples/2_epoch_1.json:1: malformed")
    assert list(tmp_path.iterdir()) == [path], "nothing was written"


def test_archive_with_a_zip_bomb_is_rejected(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.eval", {"samples/1_epoch_1.json": " " * (4 << 20)})
    (item,) = values(path)
    assert isinstance(item, RejectedRecord) and "unpacks to more than 200 times" in item.reason


def test_archive_with_zstd_needs_the_extra(tmp_path: Path) -> None:
    """Only the method in the headers is zstd (93); without support no data is read."""
    path = archive(tmp_path / "a.eval", {"samples/1_epoch_1.json": json.dumps(sample())})
    data = bytearray(path.read_bytes())
    for magic, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        struct.pack_into("<H", data, data.index(magic) + at, 93)
    path.write_bytes(data)
    (item,) = values(path)
    assert isinstance(item, RejectedRecord)
    can = sys.version_info >= (3, 14) or importlib.util.find_spec("zipfile_zstd")
    assert ("damaged" if can else "remask[inspect]") in item.reason


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"notes.txt": "hello"}, "not an Inspect log"),
        ({"samples/1_epoch_1/sample.json": "{}"}, "1_epoch_1: is stored in chunks"),
    ],
)
def test_other_archives_are_rejected(tmp_path: Path, entries: dict[str, str], reason: str) -> None:
    (item,) = values(archive(tmp_path / "a.zip", entries))
    assert isinstance(item, RejectedRecord) and reason in item.reason


def test_archive_that_is_truncated_is_rejected(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.eval", {"samples/1_epoch_1.json": json.dumps(sample())})
    path.write_bytes(path.read_bytes()[:-30])
    (item,) = values(path)
    assert isinstance(item, RejectedRecord) and "damaged" in item.reason


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_archive_with_damaged_bytes_never_raises(hits: list[tuple[int, int]]) -> None:
    with TemporaryDirectory() as folder:
        path = archive(Path(folder) / "a.eval", {"samples/1_epoch_1.json": json.dumps(sample())})
        data = bytearray(path.read_bytes())
        for at, byte in hits:
            data[at % len(data)] = byte
        path.write_bytes(data)
        assert all(isinstance(item, Value | RejectedRecord) for item in ARCHIVE.values(path))


def test_archive_that_is_still_being_written_says_so(tmp_path: Path) -> None:
    """The header is written last. Until then the samples that are complete can be read."""
    entries = {"_journal/start.json": "{}", "samples/1_epoch_1.json": json.dumps(sample())}
    path = archive(tmp_path / "a.eval", entries)
    found = values(path)
    assert [type(item) for item in found] == [RejectedRecord, Value]
    assert isinstance(found[0], RejectedRecord) and "still being written" in found[0].reason
    path.write_bytes(path.read_bytes()[:-40])  # without the directory at its end
    (reject,) = values(path)
    assert isinstance(reject, RejectedRecord) and "still being written" in reject.reason
