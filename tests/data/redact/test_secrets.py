"""No secret of a thousand in conversations gets into a file, a request or a traceback."""

import json
import re
import traceback
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fakes import write_lines
from fakes.conversations import START, Listener
from fakes.plantings import pieces, planted
from fakes.server import Behaviour, Body, Handler, Server, completion
from remask.cli import main

PLACES = ("query", "answer", "comment", "correction", "user")
# Shorter secrets are not looked for, because their characters may occur by chance.
LONGEST = 8


def conversation(i: int, text: str, place: str) -> dict[str, Any]:
    """One chat with `text` at one place, rated badly, some of them corrected."""
    said = {p: text if p == place else "" for p in PLACES}
    value: dict[str, Any] = {
        "id": f"call {i}",
        "user_id": f"{i} {said['user']}",
        "messages": [
            {"role": "user", "content": f"item {i} {said['query']}"},
            {"role": "assistant", "content": f"grey {said['answer']}"},
        ],
        "feedback": [
            {"name": "u", "value": False, "comment": f"Colours! {said['comment']}", "kind": "human"}
        ],
    }
    if place == "correction" or i % 2:
        value["expected"] = f"red {said['correction']}".strip()
    return value


def left(data: bytes, secrets: list[str]) -> list[str]:
    """The secrets of which a part is in `data`, plain or with JSON escapes."""
    text = data.decode("utf-8", "replace")
    texts = text + re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), text)
    return [it for it in secrets if any(piece in texts for piece in pieces(it))]


@pytest.fixture
def secrets(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A folder with prompt and log; the builtin denoiser is a Listener."""
    cases = planted()
    assert len(cases) > 1000
    rows = [conversation(i, text, PLACES[i % 5]) for i, (_, text, _) in enumerate(cases)]
    (here / "prompt.md").write_text(START + "\n")
    write_lines(here / "log.jsonl", *rows)
    monkeypatch.setattr("remask.api.job.make_denoiser", lambda _, own, *rest: own or Listener())
    return [it for _, _, it in cases if len(it) >= LONGEST]


def reply(handler: Handler, body: Body) -> None:
    handler.send(200, json.dumps(completion("red")).encode())


def refuse(handler: Handler, body: Body) -> None:
    """An error of a server that quotes what it was sent."""
    quoted = {"error": {"message": json.dumps(body), "type": "invalid_request_error"}}
    handler.send(401, json.dumps(quoted).encode())


def play(server: Server, *more: str) -> tuple[Result, bytes, bytes]:
    """The output of the command, the bytes it sent, and the bytes it wrote."""
    flags = [
        *("refine", "prompt.md", "--traces", "log.jsonl", "--run-dir", "run", "--plain"),
        *("--masker", "insert", "--iterations", "2", "--target", "openai:tiny"),
        *("--base-url", server.url, "--max-calls", "40", "-o", "out.md", *more),
    ]
    done = CliRunner().invoke(main, flags, env={"OPENAI_API_KEY": "none", "REMASK_DEBUG": "1"})
    files = [path for path in Path().rglob("*") if path.is_file() and path.name != "log.jsonl"]
    written = b"".join(path.read_bytes() for path in files)
    return done, json.dumps(server.bodies, ensure_ascii=False).encode(), written


@pytest.mark.parametrize("behave", [reply, refuse])
def test_refine_writes_sends_and_shows_no_secret(secrets: list[str], behave: Behaviour) -> None:
    with Server(default=behave) as server:
        done, sent, written = play(server)
    assert (done.exit_code == 0) is (behave is reply), done.output
    assert sent != b"[]", "the target was asked"
    if behave is reply:
        assert re.search(rb"<[A-Z]+_\d+>", sent), "placeholders are sent in place of secrets"
    shown = done.output + "".join(traceback.format_exception(done.exception))
    assert not left(sent, secrets)
    assert not left(shown.encode(), secrets)
    assert len(written) > 10_000 and not left(written, secrets)


def test_refine_without_redaction_keeps_secrets(secrets: list[str]) -> None:
    """The control of the test above. The report says that redaction was off."""
    with Server(default=reply) as server:
        _, sent, written = play(server, "--redact", "off")
    assert left(sent, secrets) and left(written, secrets)
    assert b"redaction: OFF" in written
