"""`remask traces`: what it says, in words and as JSON, and the copy without secrets."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fakes.command import complaint, remask
from remask.data.trace_reader import read_records
from remask.data.trace_record import Record

SYSTEM = "You help the customers of a shop. Today is {}. Be short and kind."


def chat(i: int, **more: Any) -> dict[str, Any]:
    messages = [
        {"role": "system", "content": SYSTEM.format(("Monday", "Friday")[i % 2])},
        {"role": "user", "content": f"Where is order {i}? Write to ann@example.com"},
        {"role": "assistant", "content": "On its way."},
    ]
    return {"messages": messages, **more}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    rows = [chat(0, stars=5), chat(1, stars=2, comment="Too short."), chat(2, thumbs="👍"), chat(3)]
    text = "\n".join(json.dumps(row) for row in rows)
    path.write_text(text + '\n{"messages": [\n{"foo": 1}\n')
    return path


run = partial(remask, "traces")


def test_traces_inspect_prints_json(log: Path) -> None:
    done = run("inspect", log, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["format"] == "openai-chat" and found["formats"] == {"openai-chat": 4}
    assert [found[key] for key in ("records", "with_system", "with_feedback")] == [4, 4, 3]
    assert found["rejected"] == 2
    assert [(reject["line"], reject["path"]) for reject in found["rejects"]] == [(5, str(log)), (6, str(log))]
    ratings = {rating["name"]: rating for rating in found["ratings"]}
    assert ratings["stars"]["scale"] is None and ratings["stars"]["range"] == [2.0, 5.0]
    assert "--scale 'stars=WORST..BEST'" in ratings["stars"]["note"]
    assert ratings["comment"]["note"] == "1 comments"
    (system,) = found["systems"]
    assert system["template"] == SYSTEM.format("{variable_1}")
    assert (system["count"], system["distinct"]) == (4, 2)
    assert sorted(system["variables"][0]) == ["Friday", "Monday"]


def test_traces_inspect_prints_an_overview(log: Path) -> None:
    done = run("inspect", log, "--scale", "stars=1..5")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0] == "format: openai-chat (4)"
    assert lines[1] == ("records: 4, 4 with a system prompt, 3 with feedback, 0 with a right response")
    assert "feedback 'stars': 2 (human); scale 1 (bad) to 5 (good), declared" in lines
    assert any("variable_1: 'Friday', 'Monday'" in line for line in lines)
    assert "rejected: 2" in lines
    assert f"  {log}:6: no known format (its keys: foo); name its columns with --map" in lines


def test_traces_inspect_maps_columns_and_names_values_outside_the_scale(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("frage,antwort,note\nq,a,7\nq,b,2\n")
    done = run("inspect", path, "--map", "input=frage,output=antwort,score=note",
               "--scale", "note=1..5")  # fmt: skip
    assert "format: table (mapped) (2)" in done.output
    assert "some values (2 to 7) are outside of it" in done.output
    assert run("inspect", path, "--map", "colour=x").exit_code == 2


def test_traces_inspect_without_records_prints_the_reasons(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("<html>")
    done = run("inspect", path)
    assert done.exit_code == 2
    assert "format: not recognised" in done.output and "holds no JSON" in done.output
    assert "no usable record was found" in done.output
    missing = run("inspect", tmp_path / "missing")
    assert missing.exit_code == 2 and "there is no such file" in missing.output


def test_traces_inspect_prints_invisible_characters_as_code_points(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    row = chat(0)
    row["messages"][0]["content"] = "safe\u202eevil\x1b[31m"
    path.write_text(json.dumps(row))
    done = run("inspect", path)
    assert "safe\\u202eevil\\u001b[31m" in done.output
    assert "\u202e" not in done.output and "\x1b" not in done.output


def test_traces_redact_keeps_records_and_replaces_secrets(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean.jsonl"
    done = run("redact", log, "-o", out)
    assert done.exit_code == 0, done.output
    assert done.output == f"wrote {out}: 4 records, 2 rejected (see traces inspect)\n"
    text = out.read_text()
    assert "ann@example.com" not in text and text.count("<EMAIL_1>") == 4
    before = [item for item in read_records([log]) if isinstance(item, Record)]
    after = [item for item in read_records([out]) if isinstance(item, Record)]
    assert [(r.source.location, r.system, r.turns[1]) for r in before] == [
        (r.id, r.system, r.turns[1]) for r in after
    ]
    assert [r.ratings for r in before] == [r.ratings for r in after]
    assert not list(tmp_path.glob("*.part"))


def test_traces_redact_replaces_no_file_without_force(log: Path, tmp_path: Path) -> None:
    before = log.read_text()
    out = tmp_path / "clean.jsonl"
    out.write_text("mine")
    assert run("redact", log, "-o", out).exit_code == 2 and out.read_text() == "mine"
    for path in (log, Path(log.parent, ".", log.name)):
        assert run("redact", log, "-o", path, "--force").exit_code == 2
    assert log.read_text() == before
    assert run("redact", log, "-o", out, "--force").exit_code == 0


def test_help_of_traces_prints_whole_sentences() -> None:
    words = " ".join(run("--help").stdout.split())
    assert "and why others were rejected." in words and "personal data replaced." in words


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of conversations, a hidden file and a folder."""
    path = tmp_path / "logs"
    (path / "old").mkdir(parents=True)
    (path / ".DS_Store").write_bytes(b"\0")
    for name in ("b.jsonl", "a.jsonl"):
        rows = [{"question": f"{name} {i}", "answer": "Yes.", "stars": 5 - i} for i in range(3)]
        (path / name).write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize("pattern", ["", "*.jsonl", "?.jsonl"])
def test_traces_inspect_reads_all_files_of_a_folder_or_a_pattern(folder: Path, pattern: str) -> None:
    done = run("inspect", folder / pattern if pattern else folder)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == f"files: 2, from {folder / 'a.jsonl'} to {folder / 'b.jsonl'}"
    assert lines[2].startswith("records: 6")
    assert json.loads(run("inspect", folder / pattern if pattern else folder, "--json").stdout)["files"] == 2


def test_rejects_of_a_folder_name_the_file(folder: Path) -> None:
    (folder / "c.jsonl").write_text('{"foo": 1}')
    assert f"{folder / 'c.jsonl'}:1: no known format" in run("inspect", folder).stdout


def test_traces_redact_reads_a_folder_but_not_its_own_output(folder: Path, tmp_path: Path) -> None:
    done = run("redact", folder, "-o", tmp_path / "out.jsonl")
    assert "6 records" in done.stdout
    said = complaint(run("redact", folder, "-o", folder / "a.jsonl", "--force"))
    assert said.endswith("is a file to read; name another output")


@pytest.mark.parametrize("place", ["empty", "*.nothing", "nowhere"])
def test_traces_inspect_of_a_place_without_files_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert complaint(run("inspect", place)).startswith(f"error: {place}: there is no ")


@pytest.mark.parametrize("command", ["inspect", "redact"])
def test_a_column_that_no_record_has_is_refused(folder: Path, tmp_path: Path, command: str) -> None:
    more = ("-o", tmp_path / "out.jsonl") if command == "redact" else ()
    said = complaint(run(command, folder, "--map", "input=question,output=anser", *more))
    assert said == (
        "error: the column map names 'anser', a column that no record has; "
        "the columns are question, answer, stars"
    )
    assert not (tmp_path / "out.jsonl").exists()


def test_a_scale_of_a_rating_that_no_record_has_is_refused(folder: Path, log: Path) -> None:
    said = complaint(run("inspect", folder, "--scale", "star=1..5"))
    assert said == "error: --scale names 'star', a rating that no record has; the ratings are 'stars'"
    prompt = log.parent / "prompt.md"
    prompt.write_text(SYSTEM)
    refined = complaint(remask("refine", prompt, "--traces", log, "--scale", "star=1..5"))
    assert refined.startswith("error: --scale names 'star', a rating that no record has")


def test_a_value_that_is_nearly_of_langfuse_says_what_is_expected(tmp_path: Path) -> None:
    file = tmp_path / "export.json"
    file.write_text('[{"traceId": "t", "name": "chat", "sessionId": "s", "body": {"text": "Hello"}}]')
    done = run("inspect", file)
    assert done.exit_code == 2 and "looks like Langfuse (its keys: traceId, name" in done.stdout
