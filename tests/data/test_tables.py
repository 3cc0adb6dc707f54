"""Rows of tables, with default columns and with a column map."""

import json
from pathlib import Path
from typing import Any

import pytest

from remask.data.tables import parse_column_map
from remask.data.trace_reader import read_records
from remask.data.trace_record import Record, RejectedRecord, Turn
from remask.errors import ConfigError


def records(path: Path, text: str, *maps: str) -> list[Record]:
    path.write_text(text)
    found = list(read_records([path], parse_column_map(maps)))
    assert all(isinstance(item, Record) for item in found), found
    return [item for item in found if isinstance(item, Record)]


def test_table_with_default_columns(tmp_path: Path) -> None:
    (found,) = records(
        tmp_path / "a.csv", "id,question,answer,system_prompt,rating,comment,expected\n7,q,a,s,4,too long,b\n"
    )
    assert (found.id, found.system, found.desired) == ("7", "s", "b")
    assert found.turns == (Turn("user", "q"), Turn("assistant", "a"))
    assert [(r.name, r.value, r.comment) for r in found.ratings] == [
        ("rating", "4", ""),
        ("comment", None, "too long"),
    ]


def test_column_map_names_the_columns(tmp_path: Path) -> None:
    (found,) = records(
        tmp_path / "a.csv",
        "frage,antwort,daumen,notiz,besser\nq,a,-1,zu lang,b\n",
        "input=frage,output=antwort",
        "score=daumen, comment=notiz,correction=besser",
    )
    assert found.turns == (Turn("user", "q"), Turn("assistant", "a"))
    assert [(r.name, r.value, r.comment) for r in found.ratings] == [
        ("daumen", "-1", ""),
        ("notiz", None, "zu lang"),
    ]
    assert found.desired == "b"


def test_column_map_accepts_a_path_with_dots(tmp_path: Path) -> None:
    row = {
        "call": {"in": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]},
        "out": {"choices": [{"text": "a"}]},
        "meta.score": 1,
    }
    maps = "input=call.in,output=out.choices.0.text,score=meta.score"
    (found,) = records(tmp_path / "a.jsonl", json.dumps(row), maps)
    assert (found.system, found.ratings[0].value) == ("s", 1)
    assert found.turns == (Turn("user", "q"), Turn("assistant", "a"))


def test_column_map_reads_messages_as_json_in_a_cell(tmp_path: Path) -> None:
    cell = json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])
    quoted = cell.replace('"', '""')
    (found,) = records(tmp_path / "a.csv", f'chat\n"{quoted}"\n', "messages=chat")
    assert found.turns == (Turn("user", "q"), Turn("assistant", "a"))


def test_table_rows_with_a_right_answer_need_no_response(tmp_path: Path) -> None:
    (found,) = records(tmp_path / "a.jsonl", '{"input": "q", "expected": "b"}')
    assert (found.turns, found.desired) == ((Turn("user", "q"),), "b")


def test_column_map_rejects_rows_without_the_column(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": "q", "y": "a"}\n{"y": "a"}\n{"x": "", "y": "a"}\n{"x": "q", "y": ""}\n')
    found = list(read_records([path], {"input": "x", "output": "y"}))
    assert [(r.line, r.reason) for r in found if isinstance(r, RejectedRecord)] == [
        (2, "the column 'x' is empty or missing"),
        (3, "the column 'x' is empty or missing"),
        (4, "holds no response of the model and no right answer"),
    ]


@pytest.mark.parametrize("text", ["input", "input=", "colour=x", "=x", "score=x", "input=a,b"])
def test_parse_column_map_refuses_bad_maps(text: str) -> None:
    with pytest.raises(ConfigError, match="--map"):
        parse_column_map([text])


def test_column_map_overrides_other_formats(tmp_path: Path) -> None:
    chat: dict[str, Any] = {
        "messages": [{"role": "user", "content": "no"}, {"role": "assistant", "content": "no"}]
    }
    row = {**chat, "q": "q", "a": "a"}
    (found,) = records(tmp_path / "a.jsonl", json.dumps(row), "input=q,output=a")
    assert found.turns == (Turn("user", "q"), Turn("assistant", "a"))
