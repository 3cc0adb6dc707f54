"""Files to rows: what is read, and every error with its line."""

import gzip
import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.data.messages import as_text
from remask.data.rows import read_rows, rows_from_records
from remask.data.trace_record import UnreadableRecord
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
    ("pretty.jsonl", '{\n"x": 1\n}\n{\n"x": 2\n}', [(1, {"x": "1"}), (4, {"x": "2"})]),
    ("array.jsonl", '[\n{"x": 1},\n{"x": 2}]', [(2, {"x": "1"}), (3, {"x": "2"})]),
    ("object.json", '\n{"x": 1}', [(2, {"x": "1"})]),
    ("lines.json", '{"x": 1}\n{"x": 2}', [(1, {"x": "1"}), (2, {"x": "2"})]),
    ("wrapped.json", '{"version": 1, "data": [{"x": 1}, {"x": 2}]}', [(1, {"x": "1"}), (2, {"x": "2"})]),
    ("viewer.json", '{"rows": [{"row_idx": 0, "row": {"x": 1}}]}', [(1, {"x": "1"})]),
    ("pandas.json", '{"x": {"0": 1, "1": 2}, "y": {"0": "a", "1": "b"}}',
     [(1, {"x": "1", "y": "a"}), (2, {"x": "2", "y": "b"})]),
    ("pandas_split.json", '{"columns": ["x", "y"], "index": [0], "data": [[1, "a"]]}',
     [(1, {"x": "1", "y": "a"})]),
    ("lists.json", '{"x": [1, 2], "y": ["a", "b"]}', [(1, {"x": "1", "y": "a"}), (2, {"x": "2", "y": "b"})]),
    ("utf16le.jsonl", '{"x": "é"}'.encode("utf-16-le"), [(1, {"x": "é"})]),
    ("utf16be.csv", "x,y\n1,é\n".encode("utf-16-be"), [(2, {"x": "1", "y": "é"})]),
    ("semicolon.csv", "x;y\n1,5;b\n2,5;c\n", [(2, {"x": "1,5", "y": "b"}), (3, {"x": "2,5", "y": "c"})]),
    ("semicolon_bom.csv", b"\xef\xbb\xbfx;y\r\n1;b\r\n", [(2, {"x": "1", "y": "b"})]),
    ("tabs.csv", "x\ty\n1,5\tb\n", [(2, {"x": "1,5", "y": "b"})]),
    ("commas.tsv", "x,y\n1,b\n", [(2, {"x": "1", "y": "b"})]),
    ("pipes.csv", "x|y\n1|b\n", [(2, {"x": "1", "y": "b"})]),
    ("quoted_semicolon.csv", 'x;y\n"a;b\nc";d\n', [(2, {"x": "a;b\nc", "y": "d"})]),
    ("semicolons_in_text.csv", 'x,y\n"a;b",c\n"d;e",f\n',
     [(2, {"x": "a;b", "y": "c"}), (3, {"x": "d;e", "y": "f"})]),
    ("sep.csv", "sep=;\nx;y\n1;b\n", [(3, {"x": "1", "y": "b"})]),
    ("excel.txt", "x\ty\r\n1\té\r\n".encode("utf-16"), [(2, {"x": "1", "y": "é"})]),
    ("empty_columns.csv", "x,y,,\n1,b,,\n,c,,\n", [(2, {"x": "1", "y": "b"}), (3, {"x": "", "y": "c"})]),
    ("empty_rows.csv", "x,y\n1,b\n,\n , \n", [(2, {"x": "1", "y": "b"})]),
    ("longer_row.csv", "x,y\n1,b,,\n", [(2, {"x": "1", "y": "b"})]),
    ("index.csv", ",x\n0,a\n1,b\n", [(2, {"column 1": "0", "x": "a"}), (3, {"column 1": "1", "x": "b"})]),
    ("twice.csv", "x,y, x\n1,2,3\n", [(2, {"x (1)": "1", "y": "2", "x (2)": "3"})]),
    ("unused.jsonl", '{"x": NaN, "y": 1e999, "z": "\\ud800", "n": [1e999], "v": "a"}', [(1, {"v": "a"})]),
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
    ("text.jsonl", 'hello\n{"x": 1}', 1, "malformed JSON"),
    ("list.jsonl", '{"x": 1}\n["x"]', 2, "found an array"),
    ("string.jsonl", '"x"', 1, "found a string"),
    ("null.jsonl", "null", 1, "found null"),
    ("number.jsonl", "12", 1, "found the value 12"),
    ("huge.jsonl", '{"x": ' + "9" * 5000 + "}", 1, "malformed JSON"),
    ("deep.jsonl", '{"x": ' + TOO_DEEP + "}", 1, "nested too deeply"),
    ("twice.jsonl", '{"x": 1, "x": 2}', 1, "'x' appears twice"),
    ("strip.jsonl", '{"x": 1, " x": 2}', 1, "'x' appears twice"),
    ("nul.jsonl", '{"x": "1"}\n{"x": "\0"}', 2, "NUL"),
    ("latin.jsonl", b'{"x": "1"}\n{"x": "caf\xe9"}', 2, "0xe9 is not UTF-8"),
    ("cut.csv", b"x\ncaf\xc3", 2, "0xc3 is not UTF-8"),
    ("inside.json", b'[\n{"x": 1},\n{"x":\n"\xff"}]', 4, "0xff is not UTF-8"),
    ("nul.json", b'[\n{"x": 1},\n{"x":\n"\0"}]', 4, "NUL"),
    ("cut.jsonl.gz", gzip.compress(b'{"x": "1"}')[:-9], None, "gzip data ends too early"),
    ("sheet.csv", b"PK\x03\x04", None, "is a zip archive, which cannot be read; save it as"),
    ("control.jsonl", '{"x": "a\tb"}', 1, "control character"),
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
    with pytest.raises(DataError, match="data:2: expected an object"):
        rows_from_records([{"x": 1}, "y"], "data")


LOOP: list = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "nan is not a finite number; write a number or leave it empty"),
        (np.float64("inf"), "inf is not a finite number"),
        ([1.0, float("nan")], "holds a number that is not finite"),
        ({1}, "the type set is not supported"),
        (LOOP, "holds itself"),
        ("\ud800", "holds half of a surrogate pair"),
        ("\0", "holds a NUL character"),
    ],
)
def test_a_value_that_cannot_be_text_is_a_problem_only_where_it_is_used(value: object, words: str) -> None:
    (row,) = rows_from_records([{"x": value, "y": "a"}], "data")
    assert row.read("y") == "a" and dict(row.values) == {"y": "a"}
    with pytest.raises(UnreadableRecord, match=f"column 'x': {words}"):
        row.read("x")


def test_values_of_numpy_and_of_dates_are_text() -> None:
    values = {"a": np.bool_(True), "b": np.array([1, 2]), "c": np.str_("é"), "d": datetime(2025, 1, 2, 3),
              "e": date(2025, 1, 2), "f": Decimal("1.50"), "g": {"h": np.int64(3)}}  # fmt: skip
    (row,) = rows_from_records([values], "data")
    assert dict(row.values) == {"a": "true", "b": "[1, 2]", "c": "é", "d": "2025-01-02T03:00:00",
                                "e": "2025-01-02", "f": "1.50", "g": '{"h": "3"}'}  # fmt: skip


def test_a_part_of_a_column_is_named_by_its_path() -> None:
    cells = {"inputs": {"question": "q", "n": [{"x": 1}]}, "outputs": '{"answer": "a"}', "a.b": "dotted"}
    (row,) = rows_from_records([cells], "data")
    assert [row.read(name) for name in ("inputs.question", "inputs.n.0.x", "outputs.answer", "a.b")] == [
        "q", "1", "a", "dotted"
    ]  # fmt: skip
    assert not row.has("inputs.answer") and not row.has("inputs.question.x") and not row.has("more.question")
    assert list(row.list_columns()) == ["inputs.question", "inputs.n", "outputs.answer", "a.b"]


ASKED = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]


@pytest.mark.parametrize(
    ("record", "columns"),
    [
        ({"messages": [*ASKED, {"role": "assistant", "content": "a"}]}, ("input", "label")),
        ([*ASKED, {"role": "assistant", "content": "a"}], ("input", "label")),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            ("input", "label"),
        ),
        ({"prompt": ASKED, "label": "a"}, ("prompt", "label")),
        ({"prompt": ASKED, "completion": [{"role": "assistant", "content": "a"}]}, ("prompt", "completion")),
        ({"prompt": ASKED, "reward_model": {"ground_truth": "a"}}, ("prompt", "reward_model.ground_truth")),
    ],
)
def test_a_row_of_chat_messages_has_a_message_and_an_answer(record: object, columns: tuple[str, str]) -> None:
    (row,) = rows_from_records([record], "data")
    assert (row.read(columns[0]), row.read(columns[1], "assistant")) == ("q", "a")


def test_a_longer_chat_is_no_row() -> None:
    answer = {"role": "assistant", "content": "a"}
    (row,) = rows_from_records([{"messages": [*ASKED, answer, *ASKED[1:], answer]}], "data")
    with pytest.raises(
        UnreadableRecord, match="the chat has 4 messages; a row must be one message of a user"
    ):
        row.read("input")


def test_rows_of_data_frames_are_read_without_their_empty_rows() -> None:
    frame = pytest.importorskip("pandas").DataFrame({"x": ["a", None, "b"], "n": [1.0, None, None]})
    assert [(row.line, dict(row.values)) for row in rows_from_records(frame, "data")] == [
        (1, {"x": "a", "n": "1"}), (3, {"x": "b", "n": ""})
    ]  # fmt: skip


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
    clean = "\\u0000" not in json.dumps(records) and "\\ud" not in json.dumps(records)
    assert not clean or [dict(r.values) for r in rows] == [
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
