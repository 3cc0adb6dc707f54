"""Watching: what is counted, what counts as drift, what is proposed, and what is said."""

import json
import os
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fakes import ENV, ROOT, nights
from fakes.conversations import Painter
from fakes.langfuse_server import KEYS, LangfuseServer
from fakes.nights import settle, tell, watch_night, write_night, write_rows
from remask.errors import BackendError, ConfigError, RunBusy, TargetRefused
from remask.runs.database import connect
from remask.runs.watch_state import WatchState


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return settle(tmp_path)


def dump(config: Path) -> dict[str, list[Any]]:
    """Everything in the state."""
    with closing(connect(config.parent / "watch.db")) as db:
        tables = ("meta", "conversations", "sources", "looks")
        return {table: db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in tables}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- a drift, from the reading to the proposal


def test_failures_that_rise_lead_to_a_proposal_that_changes_nothing_else(config: Path) -> None:
    folder = config.parent
    write_night(folder, 0)
    first = watch_night(config, 0)
    assert (first.new, first.counted, first.exit_code, first.tests) == (60, 60, 0, ())
    assert first.missing == 50, "the reference is full, and 50 new ones are missing"
    write_night(folder, 1)
    quiet = watch_night(config, 1)
    assert (quiet.new, quiet.counted, quiet.drifted, quiet.exit_code) == (60, 120, False, 0)
    assert [test.name for test in quiet.tests] == ["failures", "mix of inputs"]
    write_night(folder, 2, bad=True)
    prompt = (folder / "prompt.md").read_bytes()
    night = watch_night(config, 2)
    assert night.exit_code == 6 and night.result is not None and night.result.verdict == "unverified"
    failures, mix = night.tests
    assert failures.drifted and failures.before == 0.1 and failures.after > 0.6
    assert not mix.drifted, "they ask for items as before"
    assert "Colours!" in night.kinds[0]
    proposal = Path(night.proposal)
    assert proposal == folder / "proposals" / "2026-03-03"
    assert "Think of colours." in (proposal / "prompt.md").read_text()
    assert (folder / "prompt.md").read_bytes() == prompt
    assert {"changes.diff", "pull-request.md", "report.html", "report.md", "run.db"} <= {
        path.name for path in proposal.iterdir()
    }
    body = (proposal / "pull-request.md").read_text()
    assert "has drifted" in body and "+" in body and "```diff" in body and "unverified" in body
    assert f"- ` {night.kinds[0]} `" in body, "what users wrote is code, so that no mark of it counts"


def test_diff_of_a_proposal_applies_with_git(config: Path) -> None:
    folder = config.parent
    drift(folder)
    night = watch_night(config, 2)
    subprocess.run(["git", "apply", f"{night.proposal}/changes.diff"], cwd=folder, check=True)
    assert (folder / "prompt.md").read_bytes() == (Path(night.proposal) / "prompt.md").read_bytes()


def drift(folder: Path, config: Path | None = None) -> None:
    """Two quiet nights, each watched, and the files of a bad one."""
    config = config or folder / "remask.toml"
    for night in range(2):
        write_night(folder, night)
        watch_night(config, night)
    write_night(folder, 2, bad=True)


def test_drift_is_proposed_once_and_the_new_state_is_the_reference(config: Path) -> None:
    folder = config.parent
    drift(folder)
    assert watch_night(config, 2).exit_code == 6
    for night in range(3, 6):
        write_night(folder, night, bad=True)
        found = watch_night(config, night)
        assert (found.exit_code, found.drifted) == (0, False), night
    assert found.tests, "the bad nights are compared with the first bad one"
    assert len(list((folder / "proposals").iterdir())) == 1


def test_new_prompt_begins_a_new_reference(config: Path) -> None:
    folder = config.parent
    write_night(folder, 0)
    watch_night(config, 0)
    (folder / "prompt.md").write_text("Name it. Be brief. Think.")
    write_night(folder, 1, bad=True)
    found = watch_night(config, 1)
    assert found.missing == 100 and "the prompt has changed" in found.notes[0]


def test_conversations_are_compared_once_a_day(config: Path) -> None:
    folder = config.parent
    write_night(folder, 0)
    watch_night(config, 0)
    write_night(folder, 1)
    assert watch_night(config, 1).tests
    write_night(folder, 2, bad=True)
    again = watch_night(config, 1)
    assert again.new == 60 and not again.tests and "once a day" in again.notes[-1]
    assert watch_night(config, 2).drifted


def test_dry_run_says_what_it_would_do_and_writes_nothing(config: Path) -> None:
    folder = config.parent
    write_night(folder, 0)
    before = snapshot(folder)
    assert watch_night(config, 0, dry_run=True).missing == 50
    assert snapshot(folder) == before
    drift(folder)
    before = snapshot(folder)
    found = watch_night(config, 2, dry_run=True)
    assert found.drifted and found.new == 60 and found.exit_code == 0
    assert found.proposal == str(folder / "proposals" / "2026-03-03")
    assert snapshot(folder) == before
    assert watch_night(config, 2).exit_code == 6


ROWS = """\
[data]
path = "rows.jsonl"
expected = "label"
[metric]
name = "contains"
[watch.budget]
calls = {calls}
"""


def test_configuration_with_rows_is_optimised_within_the_budget_of_a_night(config: Path) -> None:
    folder = config.parent
    rows = [
        {"input": f"item {i}", "label": "red" if i % 2 else "blue", "split": split}
        for split, ids in (("train", range(24)), ("validation", range(100, 124)), ("test", range(200, 248)))
        for i in ids
    ]
    write_rows(folder / "rows.jsonl", rows)
    text = config.read_text() + ROWS.format(calls=300).replace("[data]", '[data]\nsplit = "split"')
    config.write_text(text)
    drift(folder)
    painter = Painter()
    night = watch_night(config, 2, target=painter)
    assert night.result is not None and night.result.verdict == "improved" and night.exit_code == 6
    assert 0 < len(painter.asked) <= 300 and night.result.spend.calls <= 300
    assert "sealed test rows" in (Path(night.proposal) / "pull-request.md").read_text()


def test_drift_without_a_better_prompt_leaves_no_proposal(config: Path) -> None:
    folder = config.parent
    text = config.read_text().replace('maskers = ["insert"]', 'maskers = ["delete"]')
    config.write_text(text)
    drift(folder)
    night = watch_night(config, 2)
    assert (night.exit_code, night.proposal) == (7, "")
    assert night.result is not None and not list(folder.rglob("pull-request.md"))
    assert watch_night(config, 3).exit_code == 0, "it is not tried again"


# --- every conversation once


def test_files_that_are_read_again_copied_rotated_and_grown_count_once(config: Path) -> None:
    folder = config.parent
    rows = nights.tell_night(0, False)
    write_rows(folder / "log-a.jsonl", rows[:20])
    assert watch_night(config).new == 20
    assert watch_night(config).new == 0
    write_rows(folder / "log-a.jsonl", rows[:30])  # grown
    write_rows(folder / "log-copy.jsonl", rows[:30])  # read twice
    assert watch_night(config).new == 10
    (folder / "log-a.jsonl").rename(folder / "log-a.1.jsonl")  # rotated
    write_rows(folder / "log-a.jsonl", rows[30:])
    assert watch_night(config).new == 30
    (folder / "log-a.1.jsonl").unlink()
    found = watch_night(config)
    assert (found.new, found.grown, found.counted) == (0, 0, 60)


def test_line_that_is_half_written_counts_when_it_is_whole(config: Path) -> None:
    path = write_rows(config.parent / "log-a.jsonl", nights.tell_night(0, False)[:3])
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    found = watch_night(config)
    assert (found.new, found.rejected) == (2, 1)
    path.write_bytes(whole)
    found = watch_night(config)
    assert (found.new, found.rejected, found.counted) == (1, 0, 3)


def chats(*texts: str) -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "grey"}]}
        for text in texts
    ]


def test_equal_conversations_without_ids_count_as_often_as_a_file_has_them(config: Path) -> None:
    folder = config.parent
    write_rows(folder / "log-a.jsonl", chats("hello", "hello", "bye"))
    assert watch_night(config).new == 3
    write_rows(folder / "log-b.jsonl", chats("hello", "hello", "bye"))
    assert watch_night(config).new == 0
    write_rows(folder / "log-a.jsonl", chats("hello", "hello", "bye", "hello"))
    assert watch_night(config).new == 1


def test_ids_that_only_number_the_rows_of_a_file_do_not_merge_conversations(config: Path) -> None:
    for night in range(2):
        rows = [{"id": i, **chat} for i, chat in enumerate(chats(f"{night} a", f"{night} b"))]
        write_rows(config.parent / f"log-{night}.jsonl", rows)
    assert watch_night(config).new == 4


def test_rating_that_comes_late_changes_the_conversation_and_not_the_count(config: Path) -> None:
    folder = config.parent
    rows = nights.tell_night(0, False)
    unrated = [{key: value for key, value in row.items() if key != "feedback"} for row in rows]
    write_rows(folder / "log-a.jsonl", unrated)
    assert watch_night(config).new == 60
    write_rows(folder / "log-a.jsonl", rows)
    found = watch_night(config)
    assert (found.new, found.grown, found.counted) == (0, 60, 60)
    assert watch_night(config).grown == 0


def test_order_of_forms_of_a_conversation_does_not_matter(tmp_path: Path) -> None:
    """The longer form stays, with the ratings of both, whichever was read first."""
    short = tell(1, True)
    long = {**tell(1, False), "messages": [*short["messages"], *short["messages"]]}
    found = []
    for name, order in (("one", (short, long)), ("two", (long, short)), ("three", (short, long, short))):
        folder = tmp_path / name
        folder.mkdir()
        config = settle(folder)
        for row in order:
            write_rows(folder / "log-a.jsonl", [row])
            watch_night(config)
        found.append(dump(config)["conversations"])
        assert len(found[-1]) == 1
    assert found[0] == found[1] == found[2]
    ((_, _, turns, marks, body),) = found[0]
    assert turns == 4 and len(marks.split()) == 3 and body.count(b'"kind":"human"') == 2


def test_conversations_of_another_system_prompt_are_not_counted(config: Path) -> None:
    rows = [
        *nights.tell_night(0, False)[:5],
        tell(900, False, system="Translate into French, please, always."),
    ]
    rows.append(tell(901, False, system=nights.START))
    write_rows(config.parent / "log-a.jsonl", rows)
    found = watch_night(config)
    assert (found.new, found.elsewhere) == (6, 1)


def test_state_holds_no_secrets_and_forgets_texts_that_no_window_needs(config: Path) -> None:
    folder = config.parent
    for night in range(4):
        rows = [
            {
                **row,
                "messages": [{"role": "user", "content": f"item {i} of ann@example.com"}, row["messages"][1]],
            }
            for i, row in enumerate(nights.tell_night(night, False))
        ]
        write_rows(folder / f"log-{night}.jsonl", rows)
        watch_night(config, night)
    stored = dump(config)["conversations"]
    assert len(stored) == 240
    assert not any(b"ann@example.com" in (body or b"") for *_, body in stored)
    assert sum(body is not None for *_, body in stored) == 100, "the reference and the newest window"


# --- what goes wrong


def test_second_watcher_is_told_who_has_the_state(config: Path) -> None:
    write_night(config.parent, 0)
    with WatchState.open(config.parent / "watch.db"), pytest.raises(RunBusy, match=r"watch\.db is in use by"):
        watch_night(config)
    assert watch_night(config).new == 60


def test_damaged_state_is_refused_and_kept(config: Path) -> None:
    write_night(config.parent, 0)
    watch_night(config)
    state = config.parent / "watch.db"
    content = state.read_bytes()
    for damaged in (content[:5000], b"no database" * 100, content[:100] + b"\xff" * 400 + content[500:]):
        state.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"watch\.db is damaged: .*put a copy back"):
            watch_night(config)
        with pytest.raises(ConfigError, match=r"is damaged"):
            watch_night(config, dry_run=True)
        assert state.read_bytes() == damaged
    state.write_bytes(content)
    assert watch_night(config).new == 0


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ('state = "nowhere/watch.db"', "nowhere, the folder of the state, does not exist; make it"),
        ('state = "."', "is a folder; name a file"),
        ('proposals = "prompt.md"', "prompt.md is a file; name a folder"),
        ("window = 10", "watch.window is 10, but must be at least 50"),
        ("alarm_rate = 0.9", "watch.alarm_rate is 0.9, but must be at most 0.5"),
        ("windows = 100", "unknown key 'watch.windows'; known here: alarm_rate, budget"),
        ('traces = "nothing-*.jsonl"', "there is no file in this folder or of this pattern"),
        ('traces = [""]', "traces holds an empty text; name a file"),
        ('traces = "https://a.example"', "traces holds 'https://a.example', which is no file; servers are"),
        ('traces = "langfuse"', "'langfuse' names no server; write langfuse:http://HOST"),
    ],
)
def test_wrong_settings_are_said_in_a_sentence_before_anything_is_written(
    config: Path, key: str, said: str
) -> None:
    name = key.split()[0]
    kept = [
        one for one in config.read_text().splitlines() if not one.startswith(f"{name} ") or name == "traces"
    ]
    config.write_text("\n".join([*kept, key]))
    write_night(config.parent, 0)
    with pytest.raises(ConfigError) as error:
        watch_night(config)
    assert said in str(error.value) and "\n" not in str(error.value)
    state = config.parent / "watch.db"
    assert not state.exists() or not dump(config)["conversations"]


def test_configuration_without_conversations_or_prompt_file_is_refused(tmp_path: Path) -> None:
    config = settle(tmp_path, settings='prompt = "prompt.md"\n')
    with pytest.raises(ConfigError, match="no conversations are named"):
        watch_night(config)
    config.write_text('prompt_from = "system"\n[watch]\ntraces = "log.jsonl"\n')
    with pytest.raises(ConfigError, match="watch needs a prompt file"):
        watch_night(config)


def test_run_that_fails_is_continued_by_the_next_call(config: Path) -> None:
    folder = config.parent
    config.write_text(config.read_text().replace("[refine]", "[refine]\nverify = true"))
    drift(folder)
    with pytest.raises(TargetRefused):
        watch_night(config, 2, target=Painter(fails=3))
    night = watch_night(config, 3, target=(painter := Painter()))
    assert night.exit_code == 6 and night.result is not None and night.result.verdict == "improved"
    assert "is not finished yet" in night.notes[0]
    assert Path(night.proposal).name == "2026-03-03"
    assert len(painter.asked) + 3 + 1 == night.result.spend.calls, "the refused call counts, too"


def test_prompt_that_changes_before_the_proposal_is_finished_gives_it_up(config: Path) -> None:
    folder = config.parent
    config.write_text(config.read_text().replace("[refine]", "[refine]\nverify = true"))
    drift(folder)
    with pytest.raises(TargetRefused):
        watch_night(config, 2, target=Painter(fails=3))
    (folder / "prompt.md").write_text("Name it. Be very brief.")
    night = watch_night(config, 3)
    assert (night.exit_code, night.result) == (0, None) and night.missing == 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize("kills", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_watch_that_is_killed_counts_and_proposes_like_one_that_is_not(ram: Path, kills: int) -> None:
    words = [sys.executable, str(ROOT / "tests" / "fakes" / "killed_watch.py"), str(ram), str(kills)]
    found = json.loads(subprocess.run(words, env=ENV, capture_output=True, check=True).stdout)
    whole = found["whole"]
    assert len(whole["state"]["conversations"]) == 180
    assert whole["proposals"] == ["2026-03-03"] and whole["result"]["verdict"] == "unverified"
    assert "Think of colours." in whole["texts"]["prompt.md"]
    assert len(found["killed"]) == kills
    for one in found["killed"]:
        assert one["kills"] >= 1, one["at"]
        assert {key: one[key] for key in whole} == whole, one["at"]


# --- a server


LANGFUSE = """\
prompt = "prompt.md"
[search]
maskers = ["insert"]
[refine]
traces = "unused.jsonl"
iterations = 2
[watch]
traces = "langfuse:{url}"
window = 50
"""


def tell_server(server: LangfuseServer, night: int, bad: bool = False) -> None:
    """60 traces in the day before a night, with thumbs."""
    for i in range(nights.EACH):
        at = nights.FIRST + timedelta(days=night - 1, minutes=20 * i)
        fails = i % 10 < (7 if bad else 1)
        call = server.tell(night * nights.EACH + i, at, "grey" if fails else "red")
        server.score(call, not fails, "Colours!" if fails else "")


def test_traces_of_langfuse_count_once_whenever_the_server_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("langfuse")
    monkeypatch.setenv("LANGFUSE_PUBLIC_KEY", KEYS[0])
    monkeypatch.setenv("LANGFUSE_SECRET_KEY", KEYS[1])
    with LangfuseServer() as server:
        config = settle(tmp_path, settings=LANGFUSE.replace("{url}", server.url))
        tell_server(server, 0)
        assert watch_night(config, 0).new == 60
        tell_server(server, 1)
        server.tell(900, nights.FIRST - timedelta(days=2))  # comes late
        server.score(server.observations[5], False, "Colours!")
        before = dump(config)
        first = len(server.asked)
        assert watch_night(config, 1, dry_run=True).new == 61
        asked = len(server.asked) - first
        assert asked > 10
        assert server.asked[first][1]["fromStartTime"].startswith("2026-02-26T00:00"), "three days again"
        for at in range(1, asked + 1, asked // 3):
            first = len(server.asked)
            server.breaks = lambda number, cut=first + at: number == cut
            with pytest.raises(BackendError, match="nothing of this reading was kept"):
                watch_night(config, 1)
            assert dump(config) == before, at
        server.breaks = lambda _: False
        found = watch_night(config, 1)
        assert (found.new, found.grown, found.counted) == (61, 1, 121) and found.tests
        tell_server(server, 2, bad=True)
        assert watch_night(config, 2).exit_code == 6
        assert watch_night(config, 2).new == 0
