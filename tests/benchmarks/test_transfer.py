"""benchmarks/search/transfer.py: prompts found for one target, scored on the other."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.optimisers import NAMES
from benchmarks.search import __main__ as command
from benchmarks.search.transfer import NOT_RUN, Found, format_transfer, list_found, score_found
from benchmarks.tasks import BenchTask, load_task
from remask.ports import Reply, TargetModel
from remask.types import Chat

NOWHERE = Path("there-is-no-data")  # the task letters reads no file
PLACE = "local:/models/qwen.gguf"
ROWS = 10


class Greeter(TargetModel):
    """A scripted target that greets by name under a prompt with its own word."""

    def __init__(self, identity: str, word: str) -> None:
        self.identity, self.word, self.calls = identity, word, 0

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        self.calls += len(chats)
        said = [(chat[0].content, chat[-1].content.split()[-1]) for chat in chats]
        return [Reply(f"Dear {name}," if self.word in prompt else "no") for prompt, name in said]


def row_of(calls: int, prompt: str, seed: int = 0) -> dict[str, Any]:
    return {
        "task": "letters", "optimiser": "remask", "seed": seed, "calls": calls,
        "withheld": 1.0, "withheld_rows": "Y" * ROWS, "prompt": prompt,
    }  # fmt: skip


def test_the_prompt_at_the_end_of_each_run_is_taken() -> None:
    results = {
        200: {"rows": [row_of(100, "early"), row_of(200, "late")]},
        800: {"rows": [row_of(400, "early"), row_of(800, "last", seed=1)]},
    }
    assert list_found(results) == [
        Found("letters", "remask", 0, 200, "late", 1.0, ROWS),
        Found("letters", "remask", 1, 800, "last", 1.0, ROWS),
    ]


def test_prompts_are_scored_once_on_the_other_target(tmp_path: Path) -> None:
    targets = {"builtin": Greeter("builtin", "kindly"), PLACE: Greeter("qwen", "politely")}

    def load(bench: BenchTask, place: str) -> TargetModel:
        return targets[place]

    found = [
        Found("letters", "remask", seed, 200, prompt, 1.0, ROWS)
        for seed, prompt in enumerate(["Greet kindly.", "Greet kindly and politely.", "Greet kindly."])
    ]
    first = score_found(found, "builtin", PLACE, NOWHERE, tmp_path, load)
    assert [(one.found_own, one.found_other) for one in first] == [(1, 0), (1, 1), (1, 0)]
    assert {(one.found_for, one.seed_own, one.seed_other) for one in first} == {("builtin", 0, 0)}
    assert (targets["builtin"].calls, targets[PLACE].calls) == (ROWS, 3 * ROWS)
    assert score_found(found, "builtin", PLACE, NOWHERE, tmp_path, load) == first
    assert targets[PLACE].calls == 3 * ROWS, "the scores are kept in the runs folder"
    (back, *_) = score_found(found, PLACE, "builtin", NOWHERE, tmp_path, load)
    assert back.found_for == "local:qwen.gguf"


def test_the_page_shows_gains_and_every_prompt(tmp_path: Path) -> None:
    targets = {"builtin": Greeter("builtin", "kindly"), PLACE: Greeter("qwen", "politely")}
    found = [Found("letters", "remask", 0, 200, "Greet kindly and politely.", 0.9, ROWS)]
    scored = score_found(found, "builtin", PLACE, NOWHERE, tmp_path, lambda bench, place: targets[place])
    text = format_transfer(map(asdict, scored))
    assert f"| `builtin` | {NAMES['remask']} | 200 | 1 | +90.0 | +100.0 |" in text
    assert f"| `builtin` | letters | {NAMES['remask']} | 0 | 200 | 0.0 | 90.0 | 0.0 | 100.0 |" in text
    assert format_transfer([]) == NOT_RUN


def test_transfer_needs_a_second_target(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.read_arguments(["--data", "x", "--runs", "y", "--transfer"])
    assert "--transfer needs --target local:PLACE" in capsys.readouterr().err


def test_results_of_another_local_target_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "check_target", lambda target: None)
    monkeypatch.setattr(
        command, "load_results",
        lambda place: {} if place == "builtin" else {200: {"target": "local:other.gguf", "rows": []}},
    )  # fmt: skip
    with pytest.raises(SystemExit, match=r"are of local:other\.gguf; give that target"):
        command.main(["--data", "x", "--runs", "y", "--transfer", "--target", PLACE])


def test_the_task_of_these_tests_has_a_seed_prompt_without_the_words() -> None:
    assert not {"kindly", "politely"} & set(load_task("letters").seed_prompt.split())
