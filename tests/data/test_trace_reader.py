"""Files to records: parts of a record are joined, and memory stays limited."""

import gzip
import json
import subprocess
import sys
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import write_lines
from remask.data import json_stream as stream
from remask.data import trace_reader as reading
from remask.data.json_stream import read_line_batches, read_values
from remask.data.trace_reader import read_records
from remask.data.trace_record import Annotation, Rating, Record, RejectedRecord, Source, TraceFormat, Turn

ANSWER = {"role": "assistant", "content": "a"}
CHAT = {"messages": [{"role": "user", "content": "q"}, ANSWER]}


def request(id: str) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": f"q{id}"}]}
    return {"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def result(id: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": f"a{id}"}
    return {"custom_id": id, "response": {"status_code": 200, "body": {"choices": [
        {"message": message}]}}, "error": None}  # fmt: skip


@pytest.mark.parametrize("results_first", [False, True])
def test_read_records_joins_a_batch_of_two_files(tmp_path: Path, results_first: bool) -> None:
    asked = write_lines(tmp_path / "requests.jsonl", *(request(str(i)) for i in range(4)))
    answered = write_lines(tmp_path / "results.jsonl", result("2"), result("0"), result("9"))
    files = [answered, asked] if results_first else [asked, answered]
    items = list(read_records(files))
    records = [item for item in items if isinstance(item, Record)]
    assert [[turn.text for turn in r.turns] for r in records] == [["q0", "a0"], ["q2", "a2"]]
    rejects = [(item.path, item.line, item.reason) for item in items if isinstance(item, RejectedRecord)]
    assert sorted(rejects) == [
        (str(asked), 2, "holds no response of the model and no right answer"),
        (str(asked), 4, "holds no response of the model and no right answer"),
        (str(answered), 3, "belongs to '9', which is not in these files"),
    ]


def test_read_records_rejects_results_without_requests(tmp_path: Path) -> None:
    (item,) = read_records([write_lines(tmp_path / "a.jsonl", result("1"))])
    assert isinstance(item, RejectedRecord) and "belongs to '1', which is not in" in item.reason


def test_read_records_rejects_a_late_annotation(tmp_path: Path) -> None:
    rows = [CHAT] * reading.MAX_SAMPLED_VALUES + [result("1")]
    *_, item = read_records([write_lines(tmp_path / "a.jsonl", *rows)])
    assert isinstance(item, RejectedRecord) and "move such rows to the start" in item.reason


def growing(value: Any, source: Source) -> Any:
    """A reader of a chat that repeats its history, with ratings in separate rows."""
    if "rates" in value:
        yield Annotation(value["rates"], source, ratings=(Rating("r", 1),), desired="right")
        return
    turns = tuple(Turn("user" if i % 2 == 0 else "assistant", str(i)) for i in range(value["n"]))
    id = value.get("id", "")
    yield Record(id, None, turns, (), None, source, keys=(id,), thread=value["thread"])


def test_read_records_keeps_the_longest_and_rated_of_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    format = TraceFormat("growing", lambda value: "n" in value or "rates" in value, growing, multi_part=True)
    monkeypatch.setattr(reading, "FORMATS", (format,))
    rows = [
        {"n": 2, "thread": "x", "id": "1"},
        {"n": 4, "thread": "x", "id": "2"},
        {"n": 2, "thread": "y", "id": "3"},
        {"n": 6, "thread": "x", "id": "4"},
        {"n": 2, "thread": "", "id": "5"},
        {"rates": "2"},
    ]
    items: list[Record | RejectedRecord] = list(read_records([write_lines(tmp_path / "a.jsonl", *rows)]))
    records = [item for item in items if isinstance(item, Record)]
    assert [record.id for record in records] == ["2", "3", "4", "5"] and len(items) == 4
    assert [record.desired for record in records] == ["right", None, None, None]


def test_read_records_rejects_what_recurses_too_deeply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(value: Any, source: Source) -> Any:
        yield from endless(value, source)

    monkeypatch.setattr(reading, "FORMATS", (TraceFormat("deep", lambda value: True, endless),))
    first, second = read_records([write_lines(tmp_path / "a.jsonl", CHAT, CHAT)])
    assert isinstance(first, RejectedRecord) and "nested too deeply" in first.reason and first.line == 1
    assert isinstance(second, RejectedRecord) and second.line == 2


def test_format_names_are_unique() -> None:
    names = [format.name for format in reading.FORMATS]
    assert len(set(names)) == len(names)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6), st.integers(3, 40))
def test_line_batches_do_not_depend_on_blocks(data: bytes, cuts: list[int], limit: int) -> None:
    """However a file is split into blocks, the lines and their numbers are the same."""
    data = data.replace(b"\0", b"\n")
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    blocks = [data[a:b] for a, b in pairwise(edges)]
    found: dict[int, bytes] = {}
    for number, whole, lines in read_line_batches(iter(blocks)):
        assert lines is not None and b"\n".join(lines) == whole
        found.update(enumerate(lines, number))
    assert {n: line for n, line in found.items() if line} == {
        n: line for n, line in enumerate(data.split(b"\n"), 1) if line
    }


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=6),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
            max_leaves=8,
        ),
        max_size=5,
    ),
    st.sampled_from([None, 1]),
    st.sampled_from([(",", ":"), (", ", " : "), (",\n", ":\t")]),
)
def test_read_values_reads_arrays_as_json_does(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], indent: int | None, marks: Any
) -> None:
    """Any array of any values, in any layout, in blocks of a few bytes."""
    text = json.dumps(rows, indent=indent, separators=marks)
    path = tmp_path_factory.mktemp("array") / "a.json"
    path.write_text("[" + text + ", 0]")  # two elements: the list of rows, and 0
    before, stream.BLOCK_BYTES = stream.BLOCK_BYTES, 7
    try:
        found = list(read_values(path))
    finally:
        stream.BLOCK_BYTES = before
    assert [getattr(value, "data", value) for value in found] == [rows, 0]


@pytest.mark.parametrize("layout", ["lines", "array", "gzip"])
def test_read_records_needs_less_than_10_mib(tmp_path: Path, layout: str) -> None:
    """A file of 30 MB is read in less than 10 MiB."""
    line = json.dumps({"messages": [{"role": "user", "content": "q" * 8000}, ANSWER]})
    path = tmp_path / "a.jsonl"
    n = 3_700
    with gzip.open(path, "wb", 1) if layout == "gzip" else path.open("wb") as file:
        for i in range(n):
            # Different numbers keep the ratio of gzip below the limit.
            row = line.replace("q" * 20, f"{i:020x}").encode()
            file.write((b"," if i else b"[") + row if layout == "array" else row + b"\n")
        file.write(b"]" if layout == "array" else b"")
    tracemalloc.start()
    try:
        found = sum(isinstance(item, Record) for item in read_records([path]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == n and peak < 10 << 20


# getrusage is not used, because the peak of a child process includes the memory of its parent.
MEMORY = """
import sys
from remask.data.trace_reader import read_records
n = sum(1 for _ in read_records([sys.argv[1]]))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(n, int(status["VmHWM"].split()[0]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_read_records_reads_2_gb_in_less_than_300_mib(tmp_path: Path) -> None:
    """Measured by the operating system, in a process that only reads."""
    path = tmp_path / "large.jsonl"
    row = json.dumps({"messages": [{"role": "user", "content": "q" * 2000}, ANSWER]})
    block = f"{row}\n" * 1000
    with path.open("w") as file:
        for _ in range(960):
            file.write(block)
    assert path.stat().st_size > 1_990_000_000
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True
    )
    path.unlink()
    found, peak = map(int, done.stdout.split())
    assert found == 960_000 and peak < 300
