"""A run of the command line in a process of its own, against a server that counts what it is asked.

The server plays two models. "target" answers the colour of a number, right more often under some
words of the prompt; "denoiser" fills blanks with phrases by the hash of the request. So the whole
run is known to be the same whatever happens on the way, and everything sent is counted where it is
billed: at the server.
"""

import hashlib
import json
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from fakes import ENV
from fakes.server import Behaviour, Body, Handler, Server, completion

REMASK = [sys.executable, "-c", "from remask.cli import main; main()"]
# Without a file of compiled code for each version, and without keys of the developer.
ENVIRONMENT = {
    **ENV,
    "OPENAI_API_KEY": "sk-test-0123456789",
    "DESK_API_KEY": "sk-test-0123456789",  # of inspect:openai-api/desk/MODEL
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}
PHRASES = (
    "Answer kindly.",
    "Think of colours.",
    "Say what fits best.",
    "Ignore the weather.",
    "Read it twice.",
    "Be exact about numbers.",
    "Choose the plain word.",
    "Keep calm.",
)
GAINS = {"colours": 0.2, "exact": 0.15, "twice": 0.1, "kindly": -0.05}  # of words of the prompt


def number_of(*parts: object) -> int:
    """A number that depends on nothing but the parts."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8])


def respond(body: Body) -> str:
    """The answer of the model that the request names."""
    said = body["messages"][-1]["content"]
    if body["model"] == "denoiser":
        blanks = re.findall(r"^\[\[(\d+)\]\] about", said, re.MULTILINE)
        seed = body.get("seed", 0)
        return json.dumps({b: PHRASES[number_of(said, seed, b) % len(PHRASES)] for b in blanks})
    system = body["messages"][0]["content"].lower()
    level = 0.4 + sum(gain for word, gain in GAINS.items() if word in system)
    number = int(re.findall(r"\d+", said)[-1])
    right = number_of("row", number) % 1000 < 1000 * level
    return ("blue", "red")[(number % 2) ^ (not right)]


@dataclass
class World:
    """The default behaviour of a Server. `fault` says which request fails, and how."""

    fault: Behaviour | None = None
    fails: Any = None  # (number of the request from 1, body) -> whether it fails
    delay: float = 0.0  # seconds before an answer
    usage: tuple[int, int] | None = (20, 5)  # tokens of each answer; None: the server does not say
    dress: Callable[[Body], Body] = dict  # gives an answer the fields of another server
    asked: Counter[str] = field(default_factory=Counter)  # requests by content
    answered: int = 0
    failed: int = 0  # requests that the fault answered
    lock: Any = field(default_factory=Lock)

    @property
    def requests(self) -> int:
        return sum(self.asked.values())

    @property
    def repeated(self) -> int:
        """Requests that were sent before with the same content."""
        return sum(count - 1 for count in self.asked.values())

    def __call__(self, handler: Handler, body: Body) -> None:
        with self.lock:
            self.asked[json.dumps(body, sort_keys=True)] += 1
            number = self.requests
        if self.delay:
            handler.server.owner.closing.wait(self.delay)
        if self.fault is not None and self.fails(number, body):
            with self.lock:
                self.failed += 1
            self.fault(handler, body)
            return
        content = completion(respond(body))
        if self.usage is None:
            del content["usage"]
        else:
            read, written = self.usage
            counts = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
            content["usage"] = counts
        handler.send(200, json.dumps(self.dress(content)).encode())
        with self.lock:
            self.answered += 1


def write_job(
    folder: Path,
    server: Server,
    *,
    calls: int | None = 600,
    concurrency: int = 8,
    rows: tuple[int, int, int] = (12, 12, 20),
    target: str = "",
    denoiser: str = "",
    budget: str = "",
    candidates: int = 4,
    models: tuple[str, str] = ("openai:target", "chat:denoiser"),
) -> None:
    """Write prompt, rows and remask.toml of a small run. `target`, …: more lines of these sections."""
    folder.mkdir(parents=True, exist_ok=True)
    splits = [s for s, n in zip(("train", "validation", "test"), rows, strict=True) for _ in range(n)]
    (folder / "rows.jsonl").write_text(
        "".join(
            json.dumps({"message": f"item {i}", "label": ("blue", "red")[i % 2], "split": split}) + "\n"
            for i, split in enumerate(splits)
        )
    )
    (folder / "prompt.md").write_text("Name it. Be brief.\n")
    limit = "" if calls is None else f"calls = {calls}\n"
    (folder / "remask.toml").write_text(
        f"""prompt = "prompt.md"
run_dir = "run"
[data]
path = "rows.jsonl"
input = "{{message}}"
expected = "label"
split = "split"
[target]
model = "{models[0]}"
base_url = "{server.url}"
concurrency = {concurrency}
{target}
[denoiser]
model = "{models[1]}"
base_url = "{server.url}"
concurrency = {concurrency}
{denoiser}
[search]
maskers = ["insert"]
candidates = {candidates}
[budget]
{limit}{budget}
"""
    )


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    """Start the command line in `folder`: `optimize`, or `resume run` where there is a run."""
    words = words or (("resume", "run") if (folder / "run" / "run.db").exists() else ("optimize",))
    return subprocess.Popen(
        [*REMASK, *words, "--plain"], cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(folder: Path, *words: str, timeout: float = 120) -> tuple[int, str]:
    """Run the command line to its end. Returns exit status and what stands on stderr."""
    process = start(folder, *words)
    _, errors = process.communicate(timeout=timeout)
    return process.returncode, errors


def read_result(folder: Path) -> dict[str, Any]:
    """What a run found, without the time and the place."""
    result = json.loads((folder / "run" / "result.json").read_text())
    del result["run_dir"], result["spend"]["seconds"]
    return dict(result)


def read_ledger(folder: Path) -> dict[str, int]:
    """The calls in the database by state, and "sound" where SQLite finds no damage."""
    db = sqlite3.connect(f"file:{folder / 'run' / 'run.db'}?mode=ro", uri=True)
    try:
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return dict(db.execute("SELECT state, sum(calls) FROM ledger GROUP BY state").fetchall())
    finally:
        db.close()
