"""Files to rows: what is read, and every error with its line."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.data.messages import as_text
from remask.data.rows import read_rows, rows_from_records
from remask.errors import DataError


def write(folder: Path, name: str, data: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


GOOD = [
    ("a.jsonl", '{"x": "1", "y": "b"}\n', [(1, {"x": "1", "y": "b"})]),
    ("bom.jsonl", b'\xef\xbb\xbf{"x": "1"}\n', [(1, {"x": "1"})]),
    ("utf16.jsonl", '{"x": "é"}\n'.encode("utf-16"), [(1, {"x": "é"})]),
    ("packed.jsonl.gz", gzip.compress(b'\n{"x": "1"}\n'), [(2, {"x": "1"})]),
    ("crlf.jsonl", '{"x": "1"}\r\n{"x": "2"}\r\n', [(1, {"x": "1"}), (2, {"x": "2"})]),
    ("blank.jsonl", '\n{"x": "1"}\n \n\n{"x": "2"}', [(2, {"x": "1"}), (5, {"x": "2"})]),
    ("line_separator.jsonl", '{"x": "a\u2028b"}', [(1, {"x": "a\u2028b"})]),
    ("null.ndjson", '{"x": null}', [(1, {"x": ""})]),
    ("bool.jsonl", '{"x": true, "y": false}', [(1, {"x": "true", "y": "false"})]),
    (
        "number.jsonl",
        '{"a": 3, "b": 3.0, "c": 0.5, "d": -2, "e": 123456789012345678901}',
        [(1, {"a": "3", "b": "3", "c": "0.5", "d": "-2", "e": "123456789012345678901"})],
    ),
    ("nested.jsonl", '{"x": ["é", 1], "y": {"k": 2}}', [(1, {"x": '["é", 1]', "y": '{"k": 2}'})]),
    ("spaces.jsonl", '{" x ": " 1 "}', [(1, {"x": " 1 "})]),
    ("a.json", '[\n {"x": "1"},\n\n {"x":\n "2"}, {"x": "3"}]\n',
     [(2, {"x": "1"}), (4, {"x": "2"}), (5, {"x": "3"})]),
    ("a.csv", "x,y\n1,b\n", [(2, {"x": "1", "y": "b"})]),
    ("bom.csv", b"\xef\xbb\xbfx,y\r\n1,b\r\n", [(2, {"x": "1", "y": "b"})]),
    ("quoted.csv", 'x,y\n"a, ""b""\nc",d\n\ne,f\n',
     [(2, {"x": 'a, "b"\nc', "y": "d"}), (5, {"x": "e", "y": "f"})]),
    ("blank.csv", "\n x , y \n\n1,\n", [(4, {"x": "1", "y": ""})]),
    ("one.csv", "x\na\n\nb\n", [(2, {"x": "a"}), (4, {"x": "b"})]),
    ("a.tsv", "x\ty\n1,5\tb\n", [(2, {"x": "1,5", "y": "b"})]),
    ("UPPER.CSV", "x\n1\n", [(2, {"x": "1"})]),
    ("mac.csv", "x,y\r1,2\r3,4\r", [(2, {"x": "1", "y": "2"}), (3, {"x": "3", "y": "4"})]),
    ("utf16.csv", "x\né\n".encode("utf-16"), [(2, {"x": "é"})]),
    ("packed.CSV.GZ", gzip.compress(b"x\n1\n"), [(2, {"x": "1"})]),
    ("long.csv", "x\n" + "a" * 200_000, [(2, {"x": "a" * 200_000})]),
    ("inside.csv", b'x\n"a\r\nb\rc"\n', [(2, {"x": "a\r\nb\rc"})]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "expected"), GOOD, ids=[g[0] for g in GOOD])
def test_read_rows(tmp_path: Path, name: str, data: str | bytes, expected: list) -> None:
    rows = read_rows(write(tmp_path, name, data))
    assert [(row.line, dict(row.values)) for row in rows] == expected


TOO_DEEP = "[" * 200_000
BAD = [  # name, content, line in the error (None: the whole file), words of the message
    ("empty.jsonl", "", None, "no rows"),
    ("blank.jsonl", " \n\r\n", None, "no rows"),
    ("header.csv", "x,y\n", None, "no rows"),
    ("none.json", "[]", None, "no rows"),
    ("kind.parquet", "PAR1", None, "unknown file type '.parquet'"),
    ("noend", "{}", None, "unknown file type ''"),
    ("cut.jsonl", '{"x": "1"}\n{"x": "2', 2, "string starting at column 7)"),
    ("comma.jsonl", '{"x": "1",}', 1, "malformed JSON"),
    ("quote.jsonl", "{'x': 1}", 1, "malformed JSON"),
    ("two.jsonl", '{"x": 1} {"x": 2}', 1, "extra data at column 10); write one value per line"),
    ("pretty.jsonl", '{\n"x": 1\n}', 1, "malformed JSON"),
    ("text.jsonl", 'hello\n{"x": 1}', 1, "malformed JSON"),
    ("list.jsonl", '{"x": 1}\n["x"]', 2, "found an array"),
    ("string.jsonl", '"x"', 1, "found a string"),
    ("null.jsonl", "null", 1, "found null"),
    ("number.jsonl", "12", 1, "found the value 12"),
    ("nan.jsonl", '{"x": NaN}', 1, "NaN is not a JSON number"),
    ("inf.jsonl", '{"x": 1e999}', 1, "the number 1e999 is too large"),
    ("deep_inf.jsonl", '{"x": [1e999]}', 1, "the number 1e999 is too large"),
    ("huge.jsonl", '{"x": ' + "9" * 5000 + "}", 1, "malformed JSON"),
    ("deep.jsonl", '{"x": ' + TOO_DEEP + "}", 1, "nested too deeply"),
    ("twice.jsonl", '{"x": 1, "x": 2}', 1, "'x' appears twice"),
    ("strip.jsonl", '{"x": 1, " x": 2}', 1, "'x' appears twice"),
    ("surrogate.jsonl", '{"x": "\\ud800"}', 1, "surrogate"),
    ("nul.jsonl", '{"x": "1"}\n{"x": "\0"}', 2, "NUL"),
    ("escaped_nul.jsonl", '{"x": "\\u0000"}', 1, "NUL"),
    ("latin.jsonl", b'{"x": "1"}\n{"x": "caf\xe9"}', 2, "0xe9 is not UTF-8"),
    ("cut.csv", b"x\ncaf\xc3", 2, "0xc3 is not UTF-8"),
    ("inside.json", b'[\n{"x": 1},\n{"x":\n"\xff"}]', 4, "0xff is not UTF-8"),
    ("nul.json", b'[\n{"x": 1},\n{"x":\n"\0"}]', 4, "NUL"),
    ("cut.jsonl.gz", gzip.compress(b'{"x": "1"}')[:-9], None, "gzip data ends too early"),
    ("sheet.csv", b"PK\x03\x04", None, "is a zip archive, which cannot be read; save it as"),
    ("utf16le.jsonl", '{"x": 1}'.encode("utf-16-le"), 1, "NUL"),
    ("control.jsonl", '{"x": "a\tb"}', 1, "control character"),
    ("object.json", '\n{"x": 1}', 2, "array of objects"),
    ("lines.json", '{"x": 1}\n{"x": 2}', 1, "array of objects"),
    ("open.json", '[{"x": 1}', 1, "the array has no end"),
    ("opened.json", '[{"x": 1},\n', 2, "the array has no end"),
    ("missing.json", '[{"x": 1}\n{"x": 2}]', 2, "missing comma"),
    ("more.json", '[{"x": 1}]\n\n]', 3, "text after the array"),
    ("trailing.json", '[{"x": 1},\n]', 2, "comma before the end"),
    ("inner.json", '[{"x": 1},\n {"x":\n oops}]', 3, "malformed JSON"),
    ("element.json", '[{"x": 1},\n 5]', 2, "found the value 5"),
    ("more.csv", "x,y\n1,2\na,b,c\n", 3, "3 fields where the header has 2"),
    ("less.csv", "x,y\n1\n", 2, "1 fields where the header has 2"),
    ("after_quoted.csv", 'x,y\n"a\nb",c\n1\n', 4, "1 fields"),
    ("twice.csv", "x,y, x\n1,2,3\n", 1, "'x' appears twice"),
    ("open.csv", 'x,y\n1,2\n"a,b\nc,d\n', 3, "malformed CSV"),
    ("after.csv", 'x,y\n"a"b,c\n', 2, "malformed CSV"),
    ("nul.csv", "x,y\n1,\0\n", 2, "NUL"),
    ("latin.csv", b"x\n\xff\n", 2, "not UTF-8"),
    ("line.csv", "x\n" + "a" * (33 << 20), 2, "is larger than 32 MiB"),
    ("field.csv", 'x\n"' + "a\n" * (17 << 20) + '"', 2, "malformed CSV (field larger"),
]


@pytest.mark.parametrize(("name", "data", "line", "words"), BAD, ids=[b[0] for b in BAD])
def test_read_rows_refuses_with_file_and_line(
    tmp_path: Path, name: str, data: str | bytes, line: int | None, words: str
) -> None:
    path = write(tmp_path, name, data)
    with pytest.raises(DataError) as caught:
        read_rows(path)
    assert caught.value.line == line
    assert words in str(caught.value)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_read_rows_refuses_what_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_rows(tmp_path / "missing.jsonl")
    with pytest.raises(DataError, match="not a regular file"):
        read_rows(tmp_path)


def test_rows_from_records_gives_the_same_text_as_traces() -> None:
    texts: list[tuple[object, str]] = [
        *(("a", "a"), (None, ""), (True, "true"), (3, "3"), (3.0, "3"), (0.5, "0.5")),
        *((1e16, "1e+16"), (["é", 1], '["é", 1]'), ({"k": 2}, '{"k": 2}')),
    ]
    for value, text in texts:
        assert as_text(value) == rows_from_records([{"x": value}], "data")[0].values["x"] == text


def test_rows_from_records_names_the_position() -> None:
    assert dict(rows_from_records([{"x": 1, "y": None}], "data")[0].values) == {"x": "1", "y": ""}
    numbers = {"a": True, "b": np.int64(3), "c": np.float32(0.5), "d": 2.0, "e": 10**30}
    texts = {"a": "true", "b": "3", "c": "0.5", "d": "2", "e": "1" + "0" * 30}
    assert dict(rows_from_records([numbers], "data")[0].values) == texts
    with pytest.raises(DataError, match="data:1: column 'x': nan is not a finite number"):
        rows_from_records([{"x": float("nan")}], "data")
    with pytest.raises(DataError, match="data:2: column 'x': the type set is not supported"):
        rows_from_records([{"x": 1}, {"x": {1}}], "data")
    loop: list = []
    loop.append(loop)
    with pytest.raises(DataError, match="data:1"):
        rows_from_records([{"x": loop}], "data")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(st.text(min_size=1), st.text()), min_size=1, max_size=5))
def test_read_rows_keeps_text(tmp_path_factory: pytest.TempPathFactory, records: list) -> None:
    """Any JSON objects of strings are read unchanged or refused."""
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in records), encoding="utf-8", newline="")
    try:
        rows = read_rows(path)
    except DataError as error:
        text = json.dumps(records)
        assert error.line and ("\\u0000" in text or "twice" in str(error) or "\\ud" in text)
        return
    assert [dict(r.values) for r in rows] == [
        {key.strip(): value for key, value in r.items()} for r in records
    ]


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=80), st.sampled_from([".jsonl", ".json", ".csv", ".tsv"]))
def test_read_rows_never_crashes_on_random_bytes(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str
) -> None:
    path = write(tmp_path_factory.mktemp("rows"), "a" + suffix, data)
    try:
        assert read_rows(path)
    except DataError as error:
        assert str(path) in str(error)
