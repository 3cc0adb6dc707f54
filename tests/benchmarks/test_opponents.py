"""Optimisers with environments of their own, and the scripted strong writer."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks.optimisers.gepa import gepa_strong
from benchmarks.optimisers.guests import SCRIPTS, mipro_strong, play_guest
from benchmarks.optimisers.remask import remask_strong
from benchmarks.optimisers.scripted import SENTENCE, Script, ScriptedTarget
from benchmarks.search.lab import Lab, Protocol, load_search_rows, open_lab
from benchmarks.tasks import NAMES, load_task
from remask.dlm.chat_denoiser import ChatDenoiser
from remask.errors import BudgetSpent
from remask.ports import Hole, Reply, TargetModel
from remask.prompt import Prompt
from remask.types import Chat

NOWHERE = Path("there-is-no-data")  # the task letters reads no file
TINY = Protocol(60, (20, 60), train=12, validation=40, withheld=20, test=20)


class Clerk(TargetModel):
    """Greets by name where the prompt says "name" or shows a letter, else only by "Dear"."""

    identity = "clerk"

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        return [Reply(self._open(*(m.content for m in chat))) for chat in chats]

    def _open(self, prompt: str, message: str = "") -> str:
        knows = "name" in prompt or "Examples:" in prompt
        return f"Dear {message.split()[-1]}," if knows else "Dear customer,"


def open_tiny_lab(cap: int, task: str = "letters") -> Lab:
    bench = load_task(task)
    return open_lab(bench, load_search_rows(bench, NOWHERE, 0, TINY), Clerk(), cap, 0)


def run_until_spent(optimise: Callable[[Lab], None], cap: int) -> Lab:
    lab = open_tiny_lab(cap)
    with contextlib.suppress(BudgetSpent):
        optimise(lab)
    assert 0 < lab.counted.spent <= cap
    return lab


def write_guest(folder: Path, body: str) -> Path:
    script = folder / "guest.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(SCRIPTS)!r})\nfrom channel import Channel\n{body}"
    )
    return script


def needs_guest(*modules: str) -> pytest.MarkDecorator:
    found = "GUEST_PYTHON" in os.environ or all(map(importlib.util.find_spec, modules))
    return pytest.mark.skipif(not found, reason=f"needs GUEST_PYTHON, or {' and '.join(modules)}")


@pytest.fixture
def this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GUEST_PYTHON", raising=False)


# -- the channel ----------------------------------------------------------------------------------

ASKS = """
channel = Channel()
print("a library prints")
rows = channel.start["validation"][:3]
text = channel.write("Say it.", "So: ", "!")
outcomes = channel.evaluate([(text, row["id"]) for row in rows])
assert all(score == 1 for score, _ in outcomes), outcomes
assert outcomes[0][1].endswith(rows[0]["input"].split()[-1] + ","), outcomes
assert channel.start["train"][0]["answer"].startswith("Dear ") and not rows[0]["answer"]
channel.report(text)
"""


@pytest.mark.usefixtures("this_python")
def test_a_guest_measures_what_the_lab_scores(tmp_path: Path) -> None:
    lab = open_tiny_lab(60)
    play_guest(lab, write_guest(tmp_path, ASKS), lambda *asked: "Use the name! And more")
    assert lab.incumbents == [(3, "Use the name")]
    assert lab.task.evaluate(Prompt("Use the name"), lab.task.ids("validation")[:1])[0].score == 1
    assert lab.counted.spent == 3  # an equal chat costs nothing


@pytest.mark.usefixtures("this_python")
def test_the_cap_ends_a_guest_that_catches_everything(tmp_path: Path) -> None:
    body = """
channel = Channel()
while True:
    try:
        for n in range(100):
            channel.evaluate([(str(n), row["id"]) for row in channel.start["validation"]])
            channel.report(str(n))
    except BaseException:
        pass
"""
    lab = open_tiny_lab(100)
    with pytest.raises(BudgetSpent):
        play_guest(lab, write_guest(tmp_path, body), lambda *asked: "")
    assert lab.incumbents == [(40, "0"), (80, "1")] and lab.counted.spent == 80


@pytest.mark.usefixtures("this_python")
def test_a_guest_that_fails_is_named_with_its_reason_and_the_remedy(tmp_path: Path) -> None:
    for body, reason in (
        ("import no_such_library", "No module named 'no_such_library' .*requirements.txt"),
        ("Channel()\nsys.exit(3)", "it said nothing"),
        ("channel = Channel()\nchannel.write('', '', '!')\nraise KeyError('late')", "KeyError: 'late'"),
    ):
        with pytest.raises(RuntimeError, match=f"guest.py failed .*{reason}"):
            play_guest(open_tiny_lab(60), write_guest(tmp_path, body), lambda *asked: "")
    lab = open_tiny_lab(60)
    lab.inputs = {id: 10_000 * text for id, text in lab.inputs.items()}  # more than a pipe holds
    with pytest.raises(RuntimeError, match="no_such_library"):
        play_guest(lab, write_guest(tmp_path, "import no_such_library"), lambda *asked: "")


def test_a_guest_ends_with_the_benchmark(tmp_path: Path) -> None:
    body = """
channel = Channel()
while True:
    try:
        channel.report("")
    except Exception:
        pass
"""
    script = write_guest(tmp_path, body)
    ended = subprocess.run(
        [sys.executable, script], input="{}\nnull\n", text=True, timeout=60, capture_output=True
    )
    assert ended.returncode == 1 and ended.stdout.count("report") == 2


# -- guests ---------------------------------------------------------------------------------------


@needs_guest("dspy", "optuna")
def test_mipro_finds_demonstrations_and_keeps_below_the_cap() -> None:
    lab = run_until_spent(mipro_strong, 160)
    first, *_, best = [prompt for _, prompt in lab.incumbents]
    assert first == lab.bench.seed_prompt
    assert "name" in best or "Examples:" in best
    assert open_tiny_lab(40).validate(best) == 1


@needs_guest("promptolution")
def test_capo_mixes_the_writers_prompts_and_keeps_below_the_cap() -> None:
    texts = iter(["Write politely.", *(f"Use the name {i}." for i in range(100))])
    lab = run_until_spent(lambda lab: play_guest(lab, SCRIPTS / "capo.py", lambda *asked: next(texts)), 200)
    best = lab.find_incumbent(200)
    assert "name" in best or "\n\nExamples:\n\n" in best
    assert not best.endswith("Input:")  # the form of few_shot


# -- the script -----------------------------------------------------------------------------------


def test_the_script_says_all_human_prompts_in_an_order_of_the_seed() -> None:
    lab = open_tiny_lab(60)
    script = Script(lab)
    said = [script.say_next() for _ in range(2 * len(lab.bench.templates))]
    assert sorted(said) == sorted(2 * lab.bench.templates) and said[0] == said[len(lab.bench.templates)]
    assert said[: len(lab.bench.templates)] != list(lab.bench.templates)
    lab.seed = 1
    assert Script(lab).instructions != script.instructions
    assert sorted(Script(lab).instructions) == sorted(script.instructions)


@pytest.mark.parametrize("task", NAMES)
def test_the_script_fills_blanks_of_every_length(task: str) -> None:
    class Known:
        bench, seed = load_task(task), 0

    denoiser = ChatDenoiser(ScriptedTarget(Script(Known())))  # type: ignore[arg-type]
    sentences = {s for text in Known.bench.templates for s in SENTENCE.split(text)}
    canvases = [("Say it. ", Hole("", n), " And ", Hole("old words", n + 1), ".") for n in range(1, 40)]
    fills = denoiser.infill((), canvases, 0)
    assert all(text in sentences for fill in fills for text in fill.texts)


def test_remask_takes_sentences_of_the_script() -> None:
    lab = run_until_spent(remask_strong, 300)
    assert lab.incumbents and open_tiny_lab(40).validate(lab.find_incumbent(300)) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_gepa_takes_instructions_of_the_script() -> None:
    pytest.importorskip("gepa")
    lab = run_until_spent(gepa_strong, 200)
    assert lab.find_incumbent(200) in lab.bench.templates


def test_requirements_pin_every_version() -> None:
    lines = (SCRIPTS / "requirements.txt").read_text().splitlines()
    names = [line for line in lines if line and not line.startswith("#")]
    assert names and all("==" in line for line in names)
    assert json.dumps(names).count("promptolution") == 1
