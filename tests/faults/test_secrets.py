"""Secrets in rows and answers of `optimize`: the target gets them, and nobody else (row S2)."""

import json
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.http_run import ENVIRONMENT, REMASK, World, finish, read_result, respond, start, write_job
from fakes.plantings import pieces, planted
from fakes.server import Body, Handler, Server, completion

SEED = 7
FEWEST_CHARACTERS = 8


def find_left(data: bytes, secrets: list[str]) -> list[str]:
    """The secrets of which a part is in `data`, plain or with JSON escapes."""
    text = data.decode("utf-8", "replace")
    texts = text + re.sub(r"\\u([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), text)
    # The domain "example" also stands in texts that are no secrets.
    parts = {secret: [secret] if "example" in secret else pieces(secret) for secret in secrets}
    return [secret for secret in secrets if any(part in texts for part in parts[secret])]


class Echo(World):
    """The target repeats the message before its answer, secrets included."""

    def __call__(self, handler: Handler, body: Body) -> None:
        if body["model"] == "denoiser":
            super().__call__(handler, body)
            return
        said = f"{body['messages'][-1]['content']}\nThe answer is {respond(body)}."
        handler.send(200, json.dumps(completion(said)).encode())


@pytest.fixture
def job(tmp_path: Path) -> Iterator[tuple[Path, Server, list[str]]]:
    """A small job whose rows hold secrets of every kind, at an address with a password."""
    cases = [case for case in planted() if len(case[2]) >= FEWEST_CHARACTERS]
    rng = random.Random(SEED)
    by_kind = [rng.choice([c for c in cases if c[0] == kind]) for kind in sorted({c[0] for c in cases})]
    with Server(default=Echo()) as server:
        write_job(tmp_path, server, calls=400, rows=(len(by_kind), 12, 20))
        file = tmp_path / "remask.toml"
        file.write_text(file.read_text().replace("127.0.0.1", "user:hunter2pass@127.0.0.1"))
        rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
        for row, (_, text, _) in zip(rows, by_kind, strict=False):
            row["message"] = f"{text} {row['message']}"
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        secrets = [secret for _, _, secret in by_kind]
        yield tmp_path, server, [*secrets, ENVIRONMENT["OPENAI_API_KEY"], "hunter2pass"]


def test_optimize_writes_shows_and_sends_the_denoiser_no_secret(
    job: tuple[Path, Server, list[str]], record_property: Any
) -> None:
    folder, server, secrets = job
    status, errors = finish(folder)
    assert status == 0, errors
    sent: dict[str, bytes] = {}
    for body in server.bodies:
        sent[body["model"]] = sent.get(body["model"], b"") + json.dumps(body).encode()
    assert len(find_left(sent["target"], secrets)) > 50, "the target gets its rows as they are"
    assert find_left(sent["denoiser"], secrets) == []
    assert re.search(rb"<[A-Z]+_\d+>", sent["denoiser"]), "placeholders are sent in place of secrets"
    written = {path.name: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}
    assert len(written) >= 3 and not any(find_left(data, secrets) for data in written.values())
    for words in (["show", "run"], ["show", "run", "--json"], ["check"], ["report", "run"]):
        shown = subprocess.run([*REMASK, *words], cwd=folder, env=ENVIRONMENT, capture_output=True)
        assert shown.returncode == 0 or words == ["check"], shown.stderr  # the server lists no models
        assert find_left(shown.stdout + shown.stderr, secrets) == [], words
    record_property("runs", len(secrets))


@pytest.mark.slow
def test_a_run_with_secrets_that_is_cut_ends_like_the_whole_run(job: tuple[Path, Server, list[str]]) -> None:
    """A score is computed on the answer as it was; a resumed run takes it from the store."""
    folder, server, _ = job
    assert finish(folder)[0] == 0
    whole, asked = read_result(folder), server.requests
    (folder / "run").rename(folder / "whole")
    server.bodies.clear()
    process = start(folder)
    while process.poll() is None and server.requests < asked * 2 // 3:
        pass
    process.kill()
    process.communicate()
    status, errors = finish(folder)
    assert status == 0, errors
    cut = read_result(folder)
    assert (cut["prompt"], cut["test"]) == (whole["prompt"], whole["test"])
    # Answers with secrets are stored when they are graded: at most one request of them is lost.
    assert server.requests - asked <= 8 + 60
