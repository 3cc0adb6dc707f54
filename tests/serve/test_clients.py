"""The lines of docs/serve.md: gepa (by litellm), DSPy and Inspect ask the served embedded model.

Each block of the page runs as it stands there, but for the port, in a process of its own: these
libraries leave sockets and loops to the garbage collector.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch import Tensor

from remask.backbone.weights import load_base
from remask.models.embedded import EmbeddedTarget
from remask.trace import Chat, Message
from serve.served import serving

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[2] / "docs" / "serve.md"
ADDRESS = "http://127.0.0.1:8000/v1"
CHAT: Chat = (
    Message("system", "Answer in one word."),
    Message("user", "What is the capital of France?"),
)


class Heard(EmbeddedTarget):
    """Remembers the chats that it was asked over HTTP."""

    def __init__(self) -> None:
        super().__init__(load_base(), max_tokens=16)
        self.chats: list[Chat] = []

    def write(self, chat: Chat, pick: Callable[[Tensor], int]) -> Iterator[tuple[int, Tensor]]:
        self.chats.append(chat)
        return super().write(chat, pick)


@pytest.fixture
def target() -> Heard:
    return Heard()


@pytest.fixture
def url(target: Heard) -> Iterator[str]:
    with serving(target) as port:
        yield f"http://127.0.0.1:{port}/v1"


def block(title: str, language: str, url: str = ADDRESS) -> str:
    """The first block in a language under a heading of the page, for this server."""
    page = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"^## {title}\n.*?^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert found, f"no {language} under {title}"
    return found[1].replace(ADDRESS, url)


def output(command: list[str], folder: Path) -> str:
    here = {"DSPY_CACHEDIR": str(folder), "INSPECT_LOG_FORMAT": "json"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **here, "PATH": path},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def needs(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def test_gepa_asks_it_for_answers_and_reflections(url: str, target: Heard, tmp_path: Path) -> None:
    needs("gepa", "litellm")
    said = output([sys.executable, "-c", block("gepa", "python", url)], tmp_path)
    scores = re.search(r"^\[([\d., ]+)\] \{'system_prompt': ", said, re.MULTILINE)
    assert scores, said
    assert "Paris" in target.respond([CHAT])[0].text
    assert float(scores[1].split(",")[0]) in (0.5, 1)
    assert target.chats.count(CHAT) >= 2  # validation, and a minibatch
    reflections = [chat for chat in target.chats if len(chat) == 1]
    assert reflections and CHAT[0].content in reflections[0][0].content


def test_dspy_predicts_with_it(url: str, target: Heard, tmp_path: Path) -> None:
    needs("dspy")
    said = output([sys.executable, "-c", block("DSPy", "python", url)], tmp_path)
    assert said.strip() == "Paris"
    (asked,) = target.chats  # in the format of the first adapter, so there was no second try
    assert "[[ ## question ## ]]" in asked[-1].content


@pytest.mark.parametrize("other", [False, True])
def test_inspect_evaluates_it(url: str, target: Heard, tmp_path: Path, other: bool) -> None:
    needs("inspect_ai")
    (tmp_path / "capitals.py").write_text(block("Inspect", "python"))
    command = block("Inspect", "sh", url)
    if other:  # as the page says below it
        command = command.replace(
            "--model openai-api/remask/embedded", "--model openai/embedded -M responses_api=false"
        ).replace("REMASK_API_KEY", "OPENAI_API_KEY")
    output(["sh", "-c", command], tmp_path)
    (file,) = (tmp_path / "logs").glob("*.json")
    log = json.loads(file.read_text())
    assert log["status"] == "success"
    answer = log["samples"][0]["output"]["choices"][0]["message"]["content"]
    assert answer == target.respond([CHAT])[0].text and "Paris" in answer
    assert log["results"]["scores"][0]["metrics"]["accuracy"]["value"] == 1
    assert target.chats == [CHAT]
