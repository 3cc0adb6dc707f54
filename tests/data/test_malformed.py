"""Malformed files: what is read, and what is rejected on which line and why.

Each faulty line is tested alone, first, in the middle and last among good lines, and with CRLF.
Then follow faults of whole files.
"""

import codecs
import gzip
import os
import random
import zipfile
from pathlib import Path

import pytest

from remask.data import json_stream as stream
from remask.data.trace_reader import read_records
from remask.data.trace_record import Record
from remask.errors import DataError

GOOD = b'{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}]}'
NO = b'{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":'  # and an answer

# The content of a line, and words of the reason; None if the line is fine.
LINES: dict[str, tuple[bytes, str | None]] = {
    "good": (GOOD, None),
    "spaces_around": (b"  " + GOOD + b" \t", None),
    "escaped_nul": (NO + b'"a\\u0000b"}]}', None),
    "surrogate_pair": (NO + rb'"\ud83d\ude00"}]}', None),
    "line_separator": (NO + '"a\u2028b"}]}'.encode(), None),
    "coded_quote": (NO + rb'"\u0022a\u0022"}]}', None),
    "spaced_keys": (GOOD.replace(b'":', b'" :'), None),
    "huge_integer": (GOOD[:-1] + b',"n":' + b"9" * 30 + b"}", None),
    "truncated_string": (GOOD[:60], "malformed JSON (unterminated string"),
    "truncated_object": (GOOD[:-1], "malformed JSON"),
    "truncated_list": (GOOD[:-2], "malformed JSON"),
    "trailing_comma": (GOOD[:-1] + b",}", "malformed JSON"),
    "trailing_comma_list": (GOOD[:-2] + b",]}", "malformed JSON"),
    "single_quotes": (GOOD.replace(b'"', b"'"), "malformed JSON"),
    "bare_key": (b"{messages:[]}", "malformed JSON"),
    "two_values": (GOOD + GOOD, "malformed JSON (extra data"),
    "text_behind": (GOOD + b" // done", "malformed JSON (extra data"),
    "nan": (GOOD[:-1] + b',"score":NaN}', None),
    "infinity": (GOOD[:-1] + b',"score":-Infinity}', None),
    "huge_float": (GOOD[:-1] + b',"score":1e999}', "the number 1e999 is too large"),
    "digits": (GOOD[:-1] + b',"n":' + b"9" * 5000 + b"}", "a number is too large"),
    "half_surrogate": (NO + rb'"\ud800"}]}', "half of a surrogate pair"),
    "low_surrogate": (NO + rb'"\udc00 a"}]}', "half of a surrogate pair"),
    "raw_surrogate": (NO + b'"\xed\xa0\x80"}]}', "byte 0xed is not UTF-8"),
    "latin_1": (NO + b'"caf\xe9"}]}', "byte 0xe9 is not UTF-8"),
    "nul": (NO + b'"a\0b"}]}', "holds a NUL character"),
    "control": (NO + b'"a\x01b"}]}', "malformed JSON (invalid control character"),
    "bad_escape": (NO + rb'"\x41"}]}', "malformed JSON"),
    "python": (b"{'messages': None}", "malformed JSON"),
    "yaml": (b"messages: [a]", "malformed JSON"),
    "duplicate_key": (GOOD[:-1] + b',"id":1,"id":2}', "the key 'id' appears twice"),
    "duplicate_role": (NO + b'"a","role":"user"}]}', "the key 'role' appears twice"),
    "deep": (b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    "deep_open": (b"[" * 100_000, "nested too deeply"),
    "deep_300": (b'{"messages":' + b"[" * 300 + b"]" * 300 + b"}", "nested too deeply"),
    "number": (b"12", "expected an object, found a number"),
    "boolean": (b"true", "expected an object, found true or false"),
    "null": (b"null", "expected an object, found null"),
    "string": (b'"hello"', "expected an object, found a string"),
    "list": (b"[1, 2]", "expected an object, found a list"),
    "empty_list": (b"[]", "expected an object, found a list"),
    "empty_object": (b"{}", "no known format"),
    "unknown_keys": (b'{"foo":1,"bar":2}', "no known format (its keys: foo, bar)"),
    "no_messages": (b'{"messages":[]}', "holds no response"),
    "messages_text": (b'{"messages":"hello"}', "no known format"),
    "no_answer": (b'{"messages":[{"role":"user","content":"q"}]}', "holds no response"),
    "empty_answer": (NO + b'""}]}', "holds no response"),
    "null_answer": (NO + b"null}]}", "holds no response"),
    "no_role": (b'{"messages":[{"content":"q"}]}', "message 1 has no role"),
    "unknown_role": (b'{"messages":[{"role":"boss","content":"q"}]}', "unknown role 'boss'"),
    "role_number": (b'{"messages":[{"role":7,"content":"q"}]}', "unknown role '7'"),
    "message_text": (b'{"messages":["q"]}', "message 1 is a string, not an object"),
    "message_null": (b'{"messages":[null]}', "message 1 is null, not an object"),
}  # fmt: skip
# On the only line of a file, these are detected by the first bytes and not as a broken line.
SHAPE = {"number", "boolean", "null", "string", "yaml", "list", "empty_list", "deep_open"}

Expected = list[tuple[int | None, str | None]]  # line; reason, or None if it is a record


def placed() -> dict[str, tuple[bytes, Expected]]:
    """Each line alone, and at each position among good ones."""
    cases: dict[str, tuple[bytes, Expected]] = {}
    for name, (line, reason) in LINES.items():
        if name not in SHAPE:
            cases[f"{name}-alone"] = (line + b"\n", [(1, reason)])
            cases[f"{name}-first"] = (line + b"\n" + GOOD + b"\n" + GOOD, [(1, reason), (2, None), (3, None)])
        cases[f"{name}-middle"] = (
            GOOD + b"\n\n" + line + b"\n" + GOOD + b"\n",
            [(1, None), (3, reason), (4, None)],
        )
        cases[f"{name}-last-crlf"] = (GOOD + b"\r\n" + line, [(1, None), (2, reason)])
    return cases


LIST = b"[" + GOOD + b",\n" + GOOD + b"]"
PRETTY = b'{\n "messages": [\n  {"role": "user", "content": "q"},\n  {"role": "assistant", '
BOMB = gzip.compress(GOOD + b"\n" + b" " * 40_000_000)
FILES: dict[str, tuple[bytes, Expected]] = {
    "empty.jsonl": (b"", [(None, "holds no records")]),
    "blank.jsonl": (b"\n \r\n\t\n", [(None, "holds no records")]),
    "bom.jsonl": (codecs.BOM_UTF8 + GOOD, [(1, None)]),
    "bom_only.jsonl": (codecs.BOM_UTF8, [(None, "holds no records")]),
    "bom_inside.jsonl": (GOOD + b"\n" + codecs.BOM_UTF8 + GOOD, [(1, None), (2, "malformed JSON")]),
    "utf16.jsonl": ((GOOD + b"\n" + GOOD).decode().encode("utf-16"), [(1, None), (2, None)]),
    "utf16be.jsonl": (codecs.BOM_UTF16_BE + GOOD.decode().encode("utf-16-be"), [(1, None)]),
    "utf32.jsonl": (GOOD.decode().encode("utf-32"), [(1, None)]),
    "utf16_cut.jsonl": (GOOD.decode().encode("utf-16")[:-1], [(None, "is not UTF-16")]),
    "utf16_no_bom.jsonl": (GOOD.decode().encode("utf-16-le"), [(1, None)]),
    "cr_only.jsonl": (GOOD + b"\r" + GOOD, [(1, "malformed JSON (extra data")]),
    "array.json": (LIST, [(1, None), (2, None)]),
    "array_line.json": (b"[" + GOOD + b"," + GOOD + b"]\n", [(1, None), (1, None)]),
    "array_bom_crlf.json": (codecs.BOM_UTF8 + LIST.replace(b"\n", b"\r\n"), [(1, None), (2, None)]),
    "array_empty.json": (b"[]", [(None, "holds no records")]),
    "array_open.json": (LIST[:-1], [(1, None), (2, None), (2, "the array has no end")]),
    "array_cut.json": (LIST[:-9], [(1, None), (2, "malformed"), (2, "the array has no end")]),
    "array_comma.json": (LIST[:-1] + b",\n]", [(1, None), (2, None), (3, "comma before the end")]),
    "array_commas.json": (b"[" + GOOD + b",,\n" + GOOD + b"]", [(1, None), (1, "extra comma"), (2, None)]),
    "array_no_comma.json": (b"[" + GOOD + b"\n" + GOOD + b"]", [(1, None), (2, "missing comma"), (2, None)]),
    "array_more.json": (LIST + b"\n]", [(1, None), (2, None), (3, "text after the array")]),
    "array_bad.json": (
        b"[\n" + GOOD + b',\n{"messages": oops},\n' + GOOD + b"\n]",
        [(2, None), (3, "malformed JSON"), (4, None)],
    ),
    "array_mixed.json": (
        b"[\n" + GOOD + b',\n7,\n"a, ]",\nnull,\n' + GOOD + b"\n]",
        [(2, None), (3, "a number"), (4, "a string"), (5, "null"), (6, None)],
    ),
    "array_deep.json": (
        b"[\n" + GOOD + b",\n" + b"[" * 2000 + b"]" * 2000 + b"]",
        [(2, None), (3, "nested too deeply")],
    ),
    "conversation.json": (
        b'[\n {"role": "user", "content": "q"},\n {"role": "assistant", "content": "a"}\n]',
        [(1, None)],
    ),
    "pretty.json": (PRETTY + b'"content": "a"}\n ]\n}\n', [(1, None)]),
    "pretty_behind_blank.json": (b"\n\n" + PRETTY + b'"content": "a"}]}', [(3, None)]),
    "pretty_nan.json": (PRETTY + b'"content": "a"}],\n "score": NaN}', [(1, None)]),
    "pretty_cut.json": (PRETTY, [(4, "malformed JSON (expecting property name")]),
    "pretty_bad.json": (PRETTY + b"oops}]}", [(4, "malformed JSON (expecting property name")]),
    "pretty_twice.json": (PRETTY + b'"content": "a"}]}\n' + GOOD, [(1, None), (5, None)]),
    "pretty_among_text.json": (
        b"starting\n[INFO] done\n" + PRETTY + b'"content": "a"}]}\nready\n' + GOOD + b"\nend",
        [
            (1, "no JSON"),
            (2, "malformed JSON"),
            (2, "no JSON"),
            (3, None),
            (7, "no JSON"),
            (8, None),
            (9, "no JSON"),
        ],
    ),
    "mixed.jsonl": (
        GOOD + b'\n{"conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"a"}]}\n'
        b'{"prompt":"q","completion":"a"}\n{"question":"q","answer":"a"}',
        [(1, None), (2, None), (3, None), (4, None)],
    ),
    "page.html": (b"<!doctype html>\n<html>\n<p>Sign in</p>", [(None, "holds no JSON")]),
    "plain.txt": (b"hello\nworld\n", [(None, "holds no JSON")]),
    "number.json": (b"12\n", [(None, "holds no JSON")]),
    "log_before.jsonl": (b"INFO start\n" + GOOD, [(1, "malformed JSON"), (2, None)]),
    "binary.bin": (bytes(range(256)) * 8, [(None, "holds binary data")]),
    "random.bin": (b"\x01\0" + random.Random(1).randbytes(4000), [(None, "holds binary data")]),
    "picture.jsonl": (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, [(None, "is a picture")]),
    "a.parquet": (b"PAR1" + b"\0" * 50, [(None, "is Parquet")]),
    "a.zst": (b"\x28\xb5\x2f\xfd" + b"\0" * 50, [(None, "is zstd-compressed")]),
    "a.bz2": (b"BZh91AY", [(None, "is bzip2-compressed")]),
    "a.db": (b"SQLite format 3\0", [(None, "is a database")]),
    "a.pdf": (b"%PDF-1.7", [(None, "is a PDF")]),
    "a.jsonl.gz": (gzip.compress(GOOD + b"\n" + GOOD), [(1, None), (2, None)]),
    "two_members.gz": (gzip.compress(GOOD + b"\n") + gzip.compress(GOOD), [(1, None), (2, None)]),
    "padded.gz": (gzip.compress(GOOD) + b"\0" * 512, [(1, None)]),
    "utf16.gz": (gzip.compress(GOOD.decode().encode("utf-16")), [(1, None)]),
    "zip_inside.gz": (gzip.compress(b"PK\x03\x04aaaa"), [(None, "is a zip archive")]),
    "empty.gz": (gzip.compress(b""), [(None, "holds no records")]),
    "cut.gz": (gzip.compress(GOOD)[:-9], [(None, "the gzip data ends too early")]),
    "damaged.gz": (gzip.compress(GOOD)[:-8] + b"\1" * 8, [(None, "the gzip data is damaged")]),
    "garbage.gz": (b"\x1f\x8b" + b"x" * 40, [(None, "the gzip data is damaged")]),
    "behind.gz": (gzip.compress(GOOD) + b"xyz", [(None, "the gzip data is damaged")]),
    "bomb.gz": (BOMB, [(1, None), (None, "unpacks to more than 200 times its size")]),
    "rows.csv": (b"question,answer\nq,a\n", [(2, None)]),
    "bom.csv": (codecs.BOM_UTF8 + b"question,answer\r\nq,a\r\n", [(2, None)]),
    "utf16.csv": ("question,answer\nq,é\n".encode("utf-16"), [(2, None)]),
    "quoted.csv": (b'question,answer\n"a\nb","c, ""d"""\nq,a\n', [(2, None), (4, None)]),
    "rows.tsv": (b"question\tanswer\nq, q\ta\n", [(2, None)]),
    "rows.csv.gz": (gzip.compress(b"question,answer\nq,a\n"), [(2, None)]),
    "long_field.csv": (b"question,answer\nq," + b"a" * 200_000 + b"\n", [(2, None)]),
    "ragged.csv": (
        b"question,answer\nq\nq,a\nq,a,b\n",
        [(2, "found 1 fields where the header has 2"), (3, None), (4, "found 3 fields")],
    ),
    "open_quote.csv": (b'question,answer\nq,a\n"q,a\n', [(2, None), (3, "malformed CSV")]),
    "after_quote.csv": (b'question,answer\n"q"x,a\nq,a\n', [(2, "malformed CSV")]),
    "header_twice.csv": (b"question,question\nq,a\n", [(2, "its keys: question (1), question (2)")]),
    "latin.csv": (b"question,answer\nq,caf\xe9\n", [(2, "byte 0xe9 is not UTF-8")]),
    "nul.csv": (b"question,answer\nq,a\nq,\0\n", [(3, "holds a NUL")]),
    "unknown.csv": (b"foo,bar\n1,2\n", [(2, "no known format (its keys: foo, bar)")]),
    "header_only.csv": (b"question,answer\n", [(None, "holds no records")]),
    "empty.csv": (b"", [(None, "holds no records")]),
}
CASES = {**placed(), **FILES}


def found(path: Path) -> Expected:
    return [
        (item.source.line, None) if isinstance(item, Record) else (item.line, item.reason)
        for item in read_records([path])
    ]


def test_cases_are_at_least_120() -> None:
    assert len(CASES) >= 120


@pytest.mark.parametrize("name", CASES)
def test_read_records_reads_exactly_what_is_usable(tmp_path: Path, name: str) -> None:
    data, expected = CASES[name]
    path = tmp_path / (name if "." in name else "a.jsonl")
    path.write_bytes(data)
    got = found(path)
    assert [line for line, _ in got] == [line for line, _ in expected], got
    for (_, reason), (_, words) in zip(got, expected, strict=True):
        assert (reason is None) == (words is None), got
        assert words is None or words in (reason or "")
        assert reason is None or "\n" not in reason


def test_large_lines_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line or an element over the limit is skipped and reported with its line number."""
    monkeypatch.setattr(stream, "MAX_VALUE_BYTES", 1 << 20)
    large = GOOD[:-4] + b"a" * (3 << 20) + GOOD[-4:]
    path = tmp_path / "a.jsonl"
    for lines, expected in (
        ([GOOD, large, GOOD], [(1, None), (2, "larger"), (3, None)]),
        ([large, GOOD], [(1, "larger"), (2, None)]),
        ([GOOD, large], [(1, None), (2, "larger")]),
        ([large], [(1, "larger")]),
    ):
        path.write_bytes(b"\n".join(lines))
        got = found(path)
        assert [(line, reason and "larger") for line, reason in got] == expected
    path.write_bytes(b"[" + GOOD + b",\n" + large + b"]")
    assert found(path)[-1] == (2, "an element is larger than 1 MiB; split it or leave it out")
    monkeypatch.setattr(stream, "MAX_DOCUMENT_BYTES", 1 << 20)
    path.write_bytes(b'{\n"messages":' + b" " * (2 << 20) + b"[]}")
    assert found(path) == [(1, "an element is larger than 1 MiB; split it or leave it out")]


def test_read_records_refuses_what_is_not_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "a.jsonl")
    for name, words in {
        "missing.jsonl": "no such file",
        "broken": "no such file",
        "loop": "no such file",
        "fifo": "not a regular file",
    }.items():
        with pytest.raises(DataError, match=words):
            list(read_records([tmp_path / "a.jsonl", tmp_path / name]))
    assert found(tmp_path / "link.jsonl") == [(1, None)]


def test_read_records_limits_zip_archives(tmp_path: Path) -> None:
    path = tmp_path / "a.eval"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("samples/1_epoch_1.json", b" " * 300_000_000)
        archive.writestr("../outside.json", GOOD)
    before = set(tmp_path.parent.iterdir())
    assert all(reason for _, reason in found(path))
    assert set(tmp_path.parent.iterdir()) == before
    path.write_bytes(b"PK\x03\x04" + b"\0" * 100)
    assert all(reason for _, reason in found(path)) and found(path)


def test_read_records_reads_a_good_file_after_a_bad_one(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_bytes(b"<html>")
    (tmp_path / "good.jsonl").write_bytes(GOOD)
    items = list(read_records([tmp_path / "bad.jsonl", tmp_path / "good.jsonl"]))
    assert [type(item).__name__ for item in items] == ["RejectedRecord", "Record"]
