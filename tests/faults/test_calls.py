"""The n-th call of a whole run fails, in each way in which servers fail."""

import json
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from fakes.command import remask as command
from fakes.http_run import World, read_result, respond, write_job
from fakes.server import Behaviour, Body, Handler, Server, completion, raw, reset, shaped, silent, status

pytestmark = pytest.mark.slow  # CI runs the samples (.ci/slow)

SEED = 20261130
CONCURRENCY = 4
RETRIES = 2
ATTEMPTS = f"retries = {RETRIES}\ntimeout = 2"


def vary(**values: Any) -> Behaviour:
    """The right answer with other values in its choice, its message or the reply itself."""

    def behave(handler: Handler, body: Body) -> None:
        reply = completion(respond(body))
        choice = reply["choices"][0]
        for name, value in values.items():
            place = reply if name in reply else choice if name in choice else choice["message"]
            place[name] = value
        handler.send(200, json.dumps(reply).encode())

    return behave


def drip(pause: float) -> Behaviour:
    """The right answer, a few bytes at a time."""

    def behave(handler: Handler, body: Body) -> None:
        content = json.dumps(completion(respond(body))).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        for at in range(0, len(content), 32):
            handler.wfile.write(content[at : at + 32])
            handler.wfile.flush()
            if handler.server.owner.closing.wait(pause):
                return

    return behave


def cut_off(handler: Handler, body: Body) -> None:
    """Half of the right answer, under the length of that half."""
    content = json.dumps(completion(respond(body))).encode()
    handler.send(200, content[: len(content) // 2])


def hang_up(handler: Handler, body: Body) -> None:
    """No answer but the end of the connection."""
    handler.close_connection = True


RETRIED: dict[str, Behaviour] = {  # the same call again, and the run ends as if nothing had been
    "408": status(408),
    "409": status(409),
    "429": status(429),
    "429 with a wait": status(429, headers={"Retry-After": "0.1"}),
    "429 with a wait of no number": status(429, headers={"Retry-After": "soon"}),
    "500": status(500),
    "502": raw(b"<html>bad gateway</html>", "text/html", 502),
    "503": status(503, headers={"Retry-After": "0"}),
    "504": raw(b"", code=504),
    "529": status(529, "overloaded"),
    "error 503 in a body": shaped({"error": {"message": "overloaded", "code": 503}}),
    "no answer": silent(4),
    "one byte after the other": drip(0.4),
    "reset in the body": reset,
    "connection closed": hang_up,
}
LATE = ("no answer", "one byte after the other")  # on a busy machine, other calls are late, too
REFUSED: dict[str, Behaviour] = {
    "401": status(401),
    "402": status(402),
    "404 model": status(404, "no", "model_not_found"),
}
FAILED: dict[str, Behaviour] = {  # this row has no score; never 0
    "400": status(400),
    "403": status(403),
    "404": status(404),
    "413": status(413),
    "422": status(422),
    "error in a body": shaped({"error": {"message": "no"}}),
    "truncated JSON": cut_off,
    "HTML": raw(b"<html><body>log in</body></html>", "text/html"),
    "an empty body": raw(b""),
    "a list": shaped([]),
    "a number": shaped(7),
    "no choices": shaped({"choices": []}),
    "choices that are null": shaped({"choices": None}),
    "a choice that is text": shaped({"choices": ["blue"]}),
    "no message": shaped({"choices": [{"finish_reason": "stop"}]}),
    "content that is null": vary(content=None),
    "content that is a number": vary(content=7),
    "content that is a list of numbers": vary(content=[1, 2]),
    "a refusal in place of content": vary(content=None, refusal="I cannot."),
    "no text at the limit": vary(content="", finish_reason="length"),
    "filtered": vary(content="", finish_reason="content_filter"),
    "deep JSON": raw(b"[" * 100_000 + b"]" * 100_000),
    "deep objects": raw(b'{"choices":' * 50_000),
    "noise": raw(bytes(range(256)) * 64),
    "a body of 40 MB": raw(b'{"a": "' + b"x" * (40 << 20) + b'"}'),
}  # fmt: skip
ANSWERED: dict[str, Behaviour] = {  # odd, but an answer
    "another model": vary(model="gpt-evil"),
    "no model": vary(model=None),
    "a refusal of null": vary(refusal=None),
    "cut at the limit": vary(finish_reason="length"),
    "an unknown end": vary(finish_reason="because"),
    "no end": vary(finish_reason=None),
    "usage of null": vary(usage=None),
    "usage that is text": vary(usage={"prompt_tokens": "7", "completion_tokens": "x"}),
    "negative usage": vary(usage={"prompt_tokens": -7, "completion_tokens": -1}),
    "usage above 64 bits": vary(usage={"prompt_tokens": 10**30, "completion_tokens": 1}),
    "usage that is true": vary(usage={"prompt_tokens": True, "completion_tokens": [1]}),
    "a body of 10 MB": vary(usage={"pad": "x" * (10 << 20)}),
    "slow": drip(0.01),
}
KINDS = RETRIED | REFUSED | FAILED | ANSWERED
Scores = dict[tuple[str, str], float | None]  # (prompt id, row id) -> score


def read_scores(folder: Path) -> Scores:
    """The scores in the events; of the sealed test, those of the baseline."""
    found: Scores = {}
    db = sqlite3.connect(f"file:{folder}/run/run.db?mode=ro", uri=True)
    for (body,) in db.execute("SELECT body FROM events ORDER BY n"):
        event = json.loads(body)
        if event["kind"] == "Scored":
            found |= {(event["id"], row): score for row, score, _ in event["rows"]}
        if event["kind"] == "Tested":
            found |= {("test", row): score for row, score, _ in event["baseline"]}
    db.close()
    return found


def play(folder: Path, *words: str) -> tuple[int, str]:
    with chdir(folder):
        said = command(*words, "--plain")
    assert said.exception is None or isinstance(said.exception, SystemExit), repr(said.exception)
    assert "Traceback" not in said.output
    return said.exit_code, said.stderr


def job(folder: Path, server: Server) -> None:
    write_job(
        folder,
        server,
        calls=1000,
        rows=(2, 2, 4),
        candidates=1,
        concurrency=CONCURRENCY,
        target=ATTEMPTS,
        denoiser=ATTEMPTS,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """The folder of a run in which nothing fails, and the number of its requests."""
    folder, world = tmp_path_factory.mktemp("whole"), World()
    with pytest.MonkeyPatch.context() as patch, Server(default=world) as server:
        patch.setenv("NO_PROXY", "127.0.0.1")
        job(folder, server)
        assert play(folder, "optimize") == (0, "")
    yield folder, world.requests


def try_failure(folder: Path, kind: str, at: int, whole: Path, requests: int) -> None:
    """Play a run whose call number `at` fails; then continue it, where it did not end well."""
    world = World(fault=KINDS[kind], fails=lambda number, _: number == at)
    with Server(default=world) as server:
        job(folder, server)
        code, errors = play(folder, "optimize")
        sent = world.requests
        assert code in (0, 3), errors
        assert errors.count("\n") == (code != 0), errors
        truth = read_scores(whole)
        for key, score in read_scores(folder).items():
            assert score is None or score == truth.get(key, score), (kind, key)
        result = read_result(folder) if code == 0 else None
        if kind in RETRIED or kind in ANSWERED:
            assert code == 0, errors
            assert sent == requests + (kind in RETRIED) or (kind in LATE and sent > requests)
        if kind in REFUSED:
            assert code == 3
            assert sent < at + CONCURRENCY
        if code:
            assert play(folder, "resume", "run")[0] == 0
            result = read_result(folder)
        assert world.requests <= result["spend"]["calls"] + (kind in RETRIED or kind in REFUSED)
    if kind not in FAILED:  # otherwise the search may have gone another way
        expected = read_result(whole)
        assert [result[k] for k in ("prompt", "best", "test")] == [
            expected[k] for k in ("prompt", "best", "test")
        ]
    assert result["test"]["n"] + sum(score is None for score in read_scores(folder).values()) >= 4


@pytest.mark.parametrize("slow", [False, pytest.param(True, id="all", marks=pytest.mark.slow)])
def test_failed_call_ends_no_run_and_is_no_score(
    tmp_path: Path, whole: tuple[Path, int], slow: bool, record_property: Any
) -> None:
    folder, requests = whole
    cases = [(kind, at) for kind in KINDS for at in range(1, requests + 1)]
    if not slow:
        rng = random.Random(SEED)
        slowest = {*LATE, "a body of 40 MB"}
        cases = [
            (kind, rng.randrange(requests) + 1) for kind in rng.sample(sorted(KINDS.keys() - slowest), 9)
        ]
    record_property("row", "R3")
    record_property("runs", len(cases))
    problems = {}
    for kind, at in cases:
        cut = tmp_path / "cut"
        try:
            try_failure(cut, kind, at, folder, requests)
        except AssertionError as error:
            problems.setdefault(kind, (at, str(error)[:400]))
        shutil.rmtree(cut)
    assert not problems, f"{len(cases)} cases; of each kind the first problem: {problems}"
