"""Files are cut into parts that can be read apart: the items are those of the whole files."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fakes import write_lines
from remask.data import json_stream
from remask.data.overview import build_overview
from remask.data.parts import Download, Piece, cut_files
from remask.data.tables import ColumnUse
from remask.data.trace_reader import make_parts, read_part
from remask.data.trace_record import Rating, Record, RejectedRecord, Source
from remask.errors import ConfigError

CHAT = json.dumps({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})
Items = list[Record | RejectedRecord]


def read_cut(files: list[Path | Download], part_bytes: int) -> Items:
    return [item for part in cut_files(files, part_bytes) for item in read_part(part)]


def read_whole(path: Path) -> Items:
    """Read a file as the reader of values does, which knows no parts."""
    (part,) = cut_files([path], 1 << 20)
    whole = replace(part, pieces=tuple(replace(p, line=0) for p in part.pieces if isinstance(p, Piece)))
    return list(read_part(whole))


LINES = st.one_of(
    st.just(CHAT.encode()),
    st.sampled_from([b"", b" \t", b"{", b"[1]", b"null", b'{"a": 1, "a": 2}', b"\xff", b'{"id": "1"}']),
    st.integers(1, 90).map(lambda n: CHAT.replace('"q"', f'"{"q" * n}"').encode()),
)


@settings(deadline=None, max_examples=400)
@given(
    st.lists(LINES, max_size=9), st.sampled_from([b"\n", b"\r\n"]), st.booleans(), st.booleans(),
    st.integers(1, 200), st.sampled_from([40, 200, json_stream.BLOCK_BYTES]),
)  # fmt: skip
@example([CHAT.encode(), b"q" * 400, CHAT.encode()], b"\n", False, True, 50, 7)
def test_any_cut_gives_the_items_of_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[bytes], ending: bytes, ends: bool, mark: bool, part_bytes: int, block: int,
) -> None:  # fmt: skip
    """Also with blank and broken lines, a line larger than a part, and one that is too large."""
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" * mark + ending.join([CHAT.encode(), *lines]) + ending * ends)
    before, json_stream.BLOCK_BYTES = json_stream.BLOCK_BYTES, block
    try:
        expected, found = read_whole(path), read_cut([path], part_bytes)
    finally:
        json_stream.BLOCK_BYTES = before
    assert found == expected and expected
    size = path.stat().st_size
    assert len(list(cut_files([path], part_bytes))) <= max(1, size // part_bytes + 1)


def test_a_line_that_is_too_large_is_rejected_in_its_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_stream, "MAX_VALUE_BYTES", 400)
    monkeypatch.setattr(json_stream, "BLOCK_BYTES", 100)
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([CHAT, CHAT, "q" * 2000, CHAT]))
    found = read_cut([path], 150)
    assert [getattr(item, "line", None) for item in found if isinstance(item, RejectedRecord)] == [3]
    assert [item.source.line for item in found if isinstance(item, Record)] == [1, 2, 4]
    assert found == read_whole(path)


def test_only_plain_lines_are_cut(tmp_path: Path) -> None:
    text = f"{CHAT}\n" * 40
    files = {
        "a.jsonl.gz": gzip.compress(text.encode()),
        "a.json": f"[{','.join([CHAT] * 40)}]".encode(),
        "b.json": "".join(json.dumps(json.loads(CHAT), indent=1) for _ in range(40)).encode(),
        "a.csv": b"input,output\n" + b"q,a\n" * 200,
        "wide.jsonl": text.encode("utf-16"),
        "binary": b"\0" * 500,
        "blank.jsonl": b"\n" * 500,
    }
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        (part,) = cut_files([path], 20)
        assert part.pieces == (Piece(path, path.stat().st_ino, len(content)),), name
    path = write_lines(tmp_path / "lines.jsonl", *[json.loads(CHAT)] * 40)
    assert len(list(cut_files([path], 20))) == 40


def test_small_files_are_read_together(tmp_path: Path) -> None:
    files: list[Path | Download] = [
        write_lines(tmp_path / f"{n}.jsonl", *[json.loads(CHAT)] * count)
        for n, count in enumerate((1, 1, 5, 1))
    ]
    files.append(Download("server", [json.loads(CHAT)]))
    line = len(CHAT) + 1
    assert [len(part.pieces) for part in cut_files(files, 2 * line)] == [2, 1, 1, 2]
    assert len(read_cut(files, 2 * line)) == 9


def test_a_file_that_grows_is_read_to_the_planned_end(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", *[json.loads(CHAT)] * 3)
    parts = list(make_parts([path]))
    with path.open("a") as file:
        file.write(f"{CHAT}\n")
    assert len([item for part in parts for item in read_part(part)]) == 3
    assert parts[0].is_here
    path.write_text(CHAT)
    assert not parts[0].is_here, "a file that has shrunk is another one"
    path.unlink()
    assert not parts[0].is_here


def test_formats_of_several_parts_are_one_part(tmp_path: Path) -> None:
    body = {"messages": [{"role": "user", "content": "q"}]}
    request = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    files = [write_lines(tmp_path / f"{n}.jsonl", request) for n in range(2)]
    (part,) = make_parts(files)
    assert part.joined and len(part.pieces) == 2


def test_columns_are_missed_only_if_no_part_has_them() -> None:
    def use(*rows: dict[str, Any]) -> ColumnUse:
        found = ColumnUse({"x", "y"})
        for row in rows:
            found.add(row)
        return found

    found = use({"x": 1})
    found.merge(use({"y": 1}))
    found.require_all()
    assert found.first_keys == ("x",)
    found = use()
    found.merge(use({"x": 1, "z": 1}))
    with pytest.raises(ConfigError, match="names 'y', a column that no record has; the columns are x, z"):
        found.require_all()


RATINGS = st.builds(
    Rating, st.sampled_from(["stars", "tone"]), st.sampled_from([1, 0.5, -3, True, "good", "rude", "", None]),
    st.sampled_from(["human", "code"]), st.sampled_from(["", "why"]), st.sampled_from(["", "right"]),
    st.sampled_from([None, (0.0, 5.0)]),
)  # fmt: skip
RECORDS = st.builds(
    lambda format, system, ratings, desired, template, unused: Record(
        "1", system, (), tuple(ratings), desired, Source(format, "a.jsonl", 1), template=template,
        unused=unused,
    ),
    st.sampled_from(["chat", "table"]), st.sampled_from([None, "", "Be brief.", "Be kind."]),
    st.lists(RATINGS, max_size=3), st.sampled_from([None, "right"]), st.sampled_from(["", "Hi {name}"]),
    st.sampled_from([(), ("a",), ("b", "a")]),
)  # fmt: skip
REJECTS = st.sampled_from([RejectedRecord("a.jsonl", 1, "broken"), RejectedRecord("b.jsonl", 2, "empty")])


@settings(deadline=None)
@given(st.lists(RECORDS | REJECTS, max_size=12), st.lists(st.integers(0, 12), max_size=4))
def test_merged_overviews_are_that_of_one_pass(items: Items, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(items)]
    found = build_overview([])
    for start, end in pairwise(edges):
        found.merge(build_overview(items[start:end]))
    whole = build_overview(items)
    assert found == whole
    lists: list[Callable[[Any], Any]] = [
        lambda one: list(one.ratings),
        lambda one: list(one.prompts),
        lambda one: list(one.formats),
    ]
    for names in lists:  # the order is printed
        assert names(found) == names(whole)
