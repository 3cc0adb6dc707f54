"""Logs as they are found at night: rotated, emptied, named twice, and talks that go on without an id."""

import gzip
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes import nights
from fakes.langfuse_server import KEYS, LangfuseServer
from fakes.nights import settle, watch_night, write_night, write_rows
from remask.data.servers import read_server
from remask.errors import ConfigError, DataError
from remask.runs.database import connect

Chat = dict[str, Any]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return settle(tmp_path)


def chat(*texts: str, **more: Any) -> Chat:
    """A conversation of these texts, the user's first."""
    turns = [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)]
    return {**more, "messages": turns}


# --- conversations that go on


@pytest.mark.parametrize("more", [{}, {"session_id": "s"}, {"user_id": "ann"}])
def test_conversation_without_an_id_that_goes_on_counts_once(config: Path, more: Chat) -> None:
    path = config.parent / "log-a.jsonl"
    talks = [("hello", "hi", "my bill", "sorry", "thanks", "bye"), ("hello", "hi")]
    write_rows(path, [chat(*talks[0][:2], **more), chat(*talks[1], **more)])
    assert watch_night(config).new == 2
    for turns in (4, 6):
        write_rows(path, [chat(*talks[0][:turns], **more), chat(*talks[1], **more)])
        found = watch_night(config)
        assert (found.new, found.grown) == (0, 1), turns
    write_rows(path, [chat(*talks[0][:2], **more)])  # an old copy
    found = watch_night(config)
    assert (found.new, found.grown, found.counted) == (0, 0, 2)


def test_conversations_that_begin_alike_and_go_on_differently_count_each(config: Path) -> None:
    for night, said in enumerate(("my bill", "my parcel", "the app")):
        write_rows(config.parent / f"log-{night}.jsonl", [chat("hello", "hi", said, "sorry")])
        assert watch_night(config, night).new == 1


TALKS = st.lists(st.lists(st.sampled_from(["a", "b"]), min_size=2, max_size=6), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TALKS, st.data())
def test_appended_and_growing_file_counts_its_conversations(
    tmp_path: Path, talks: list[list[str]], data: st.DataObject
) -> None:
    """However the nights cut it: conversations come in order, and each goes on where it was."""
    folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    config = settle(folder)
    shown = [0] * len(talks)
    for night in range(4):
        for at, talk in enumerate(talks):
            if at and not shown[at - 1]:
                break
            least = len(talk) if night == 3 else shown[at]
            shown[at] = data.draw(st.integers(least, len(talk))) // 2 * 2
        rows = [chat(*talk[:turns]) for talk, turns in zip(talks, shown, strict=True) if turns]
        write_rows(folder / "log-a.jsonl", rows)
        counted = watch_night(config, night).counted
        assert counted <= len(rows)
        assert watch_night(config, night).new == 0
    assert counted == len(rows) == len(talks)


@pytest.mark.parametrize("key", ["conversation_id", "conversationId", "chat_id"])
def test_calls_of_one_conversation_are_one_piece_of_evidence(key: str, tmp_path: Path) -> None:
    from remask.data.trace_reader import read_records
    from remask.data.trace_record import Record

    rows = [chat(f"item {i}", "grey", request_id=f"r{i}", **{key: "c"}) for i in range(2)]
    path = write_rows(tmp_path / "log.jsonl", rows)
    found = [record for record in read_records([path]) if isinstance(record, Record)]
    assert [(record.id, record.session) for record in found] == [("r0", "c"), ("r1", "c")]


# --- a state whose values make no sense


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE meta SET value = 'x' WHERE key = 'start'", "it has no reference"),
        ("UPDATE conversations SET body = '{}'", "a conversation has no messages"),
        ("UPDATE looks SET body = '{}'", "a comparison has no 'name'"),
        ("UPDATE looks SET body = '7'", "a record is no JSON object"),
    ],
)
def test_state_with_wrong_values_is_called_damaged(config: Path, change: str, said: str) -> None:
    for night in range(2):
        write_night(config.parent, night)
        watch_night(config, night)
    with closing(connect(config.parent / "watch.db")) as db:
        db.execute(change)
    with pytest.raises(ConfigError, match=rf"watch\.db is damaged: {said}; put a copy back"):
        watch_night(config, 2)


def test_state_of_another_prompt_is_refused(config: Path) -> None:
    write_night(config.parent, 0)
    assert watch_night(config).new == 60
    other = config.with_name("other.toml")
    (config.parent / "other.md").write_text("Translate it.")
    other.write_text(config.read_text().replace("prompt.md", "other.md"))
    with pytest.raises(ConfigError, match=r"is the state of the prompt prompt\.md, not of other\.md; give"):
        watch_night(other)
    other.write_text(other.read_text() + 'state = "other.db"\n')
    assert watch_night(other).new == 60 and watch_night(config).new == 0


# --- files that come and go


def test_file_that_is_named_several_times_is_read_once(config: Path) -> None:
    folder = config.parent
    (folder / "logs").mkdir()
    write_rows(folder / "logs/log.jsonl", [chat("hello", "hi"), chat("hello", "hi")])
    places = '["logs", "logs/*", "logs/log.jsonl", "./logs/../logs/log.jsonl"]'
    config.write_text(config.read_text().replace('["log-*.jsonl"]', places))
    assert watch_night(config).new == 2


def test_night_without_a_file_is_an_empty_one_after_the_first(config: Path) -> None:
    path = config.parent / "log-a.jsonl"
    with pytest.raises(DataError, match="there is no file in this folder or of this pattern"):
        watch_night(config)
    write_rows(path, [chat("hello", "hi")])
    assert watch_night(config).new == 1
    path.unlink()
    found = watch_night(config)
    assert (found.new, found.counted, found.exit_code) == (0, 1, 0)
    assert "there is no file in this folder or of this pattern" in found.notes[0]


@pytest.mark.parametrize("content", [b"", b"\n", gzip.compress(b"", mtime=0)])
def test_empty_file_is_no_rejected_value(config: Path, content: bytes) -> None:
    (config.parent / "log-a.jsonl").write_bytes(content)
    found = watch_night(config)
    assert (found.rejected, found.notes) == (0, ())


def test_rejected_value_is_named_with_its_file_and_line(config: Path) -> None:
    path = write_rows(config.parent / "log-a.jsonl", [chat("hello", "hi"), chat("bye", "bye")])
    path.write_bytes(path.read_bytes()[:-10])
    found = watch_night(config)
    assert (found.new, found.rejected) == (1, 1)
    assert f"{path}:2: malformed JSON" in found.notes[0]


def test_night_whose_rows_lack_a_mapped_column_is_counted(config: Path) -> None:
    path = config.parent / "log-a.jsonl"
    columns = 'columns = ["input=q", "output=a", "comment=why"]\niterations'
    config.write_text(config.read_text().replace("iterations", columns))
    rows = [{"q": f"item {i}", "a": "grey"} for i in range(3)]
    write_rows(path, rows[:1])
    with pytest.raises(ConfigError, match="'why', a column that no record has"):
        watch_night(config)
    write_rows(path, [{**rows[0], "why": "Colours!"}])
    assert watch_night(config).new == 1
    write_rows(path, rows[1:])
    found = watch_night(config)
    assert found.new == 2 and "'why', a column that no record has" in found.notes[0]


# --- a clock that goes wrong


@pytest.mark.parametrize("wrong", [-20_000, -5, 4000])
def test_clock_that_was_wrong_for_a_night_costs_no_trace_and_no_years_of_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: int
) -> None:
    pytest.importorskip("langfuse")
    monkeypatch.setenv("LANGFUSE_PUBLIC_KEY", KEYS[0])
    monkeypatch.setenv("LANGFUSE_SECRET_KEY", KEYS[1])
    monkeypatch.setattr("remask.api.watch.FIRST_DAYS", 2)
    with LangfuseServer() as server:
        settings = f'prompt = "prompt.md"\n[watch]\ntraces = "langfuse:{server.url}"\n'
        config = settle(tmp_path, settings=settings)
        server.breaks = lambda _: len(server.asked) > 100
        for night, day in enumerate((0, wrong, 1, 2)):
            server.tell(night, nights.FIRST + timedelta(days=night - 1, hours=1))
            if abs(day) < 1000:
                server.asked.clear()
                found = watch_night(config, day)
                assert len(server.asked) < 40
            else:
                monkeypatch.setattr("remask.api.watch.read_server", lambda *_: iter(()))
                watch_night(config, day)
                monkeypatch.setattr("remask.api.watch.read_server", read_server)
        assert found.counted == 3  # the fourth comes in the night after
