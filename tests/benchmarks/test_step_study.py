"""benchmarks/denoiser/steps.py: the same draws, sealed test rows, tables and picture."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks.denoiser import steps
from benchmarks.denoiser.step_report import HEAD, draw_picture, format_report, list_remarks
from benchmarks.denoiser.step_study import Candidate, Cell, Design, Study, compare_steps, run_study
from benchmarks.tasks import BenchTask, letters
from benchmarks.tasks.letters import read
from fakes.colours import WORDS, Phrases
from remask.dlm.adapter import SHIPPED_ADAPTER
from remask.ports import Canvas, Context, Fill, Hole, Reply, TargetModel
from remask.stats import estimate
from remask.types import Chat

Asked = list[tuple[int, Context, tuple[Canvas, ...], int]]
DESIGN = Design((1, 2, 4), candidates=3, rounds=2, train=16, validation=10)


@dataclass
class Paced(Phrases):
    """Writes what helps in four or more steps, something else in fewer. A word costs 2 nats."""

    steps: int
    asked: Asked = field(default_factory=list)

    def infill(self, context: Context, canvases: Sequence[Canvas], seed: int) -> list[Fill]:
        self.asked.append((self.steps, context, tuple(canvases), seed))
        word = WORDS[1] if self.steps >= 4 else WORDS[0]
        return [
            Fill(tuple(word if hole.tokens else "" for hole in c if isinstance(hole, Hole)), -1.0)
            for c in canvases
        ]

    def score(self, context: Context, text: str, spans: Sequence[tuple[int, int]]) -> list[float]:
        return [-2.0 * self.count(text[a:b]) for a, b in spans]


class Clerk(TargetModel):
    """Greets by name only where the prompt speaks of colours, and never by a name of a test row."""

    identity = "clerk"

    def __init__(self) -> None:
        self.sealed = {row["input"] for row in read(Path(), "test")}

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        assert not self.sealed & {chat[-1].content for chat in chats}, "a test row was asked"
        return [
            Reply(f"Dear {chat[-1].content.split()[-1]}," if "colours" in chat[0].content else "Hi")
            for chat in chats
        ]


def paced(asked: Asked | None = None) -> dict[int, Paced]:
    asked = [] if asked is None else asked
    return {n: Paced(n, asked) for n in DESIGN.steps}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    def target(task: BenchTask) -> Clerk:
        return Clerk()

    def denoisers(adapter: Path, wanted: Sequence[int]) -> dict[int, Paced]:
        return {n: Paced(n) for n in wanted}

    monkeypatch.setattr(steps, "load_target", target)
    monkeypatch.setattr(steps, "make_denoisers", denoisers)


def test_every_number_of_steps_fills_the_same_draws(fake: None) -> None:
    asked: Asked = []
    run_study(steps.make_lab("letters", Path(), 0), paced(asked), DESIGN)
    assert [steps for steps, *_ in asked] == [1, 2, 4] * 2
    drawn = [rest for _, *rest in asked]
    assert drawn[:3] == [drawn[0]] * 3
    assert drawn[3:] == [drawn[3]] * 3
    assert drawn[0] != drawn[3], "another round is another draw"
    assert all(context for context, _, _ in drawn)


def test_says_which_number_of_steps_helps(fake: None) -> None:
    study = run_study(steps.make_lab("letters", Path(), 0), paced(), DESIGN)
    few, _, many = study.rows
    assert study.baseline.mean == few.best.mean == 0.0
    assert study.baseline.n == 10
    assert many.best.mean == 1.0
    assert many.train is not None and many.train.mean > 0.9
    assert many.nats is not None and many.nats.mean == pytest.approx(2.0)
    assert many.taken > few.taken == 1.0
    assert "best score at 4 steps; the interval of no other" in "\n".join(list_remarks(study))


def test_one_command_writes_results_page_and_picture(
    fake: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, picture, results = (tmp_path / name for name in ("page.md", "steps.svg", "steps.json"))
    for name, path in (("PAGE", page), ("PICTURE", picture), ("FIGURES", results)):
        monkeypatch.setattr(steps, name, path)
    begin, end = "<!-- steps:begin -->", "<!-- steps:end -->"
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n", "utf-8")
    words = ["--data", str(tmp_path), "--steps", "4", "1", "--rounds", "2", "--rows", "8"]
    steps.main([*words, "--candidates", "3", "--tasks", "letters"])
    text = page.read_text("utf-8")
    assert text.startswith(f"before\n{begin}\n### letters: “{letters.TASK.seed_prompt}”")
    assert text.endswith(f"![The same as curves](steps.svg)\n{end}\nafter\n") and "| 4 | 3." in text
    found = json.loads(results.read_text("utf-8"))["letters"]
    assert found["study"]["design"]["steps"] == [1, 4]
    assert "FOLDER" in found["command"] and str(tmp_path) not in found["command"]
    assert len(found["study"]["cells"]) == 4 and found["calls"] > 0
    drawn = picture.read_text("utf-8")
    steps.main(["--page"])
    assert page.read_text("utf-8") == text and picture.read_text("utf-8") == drawn
    with pytest.raises(SystemExit, match="not those of letters"):
        steps.main(["--data", str(tmp_path), "--steps", "2", "--tasks", "reviews"])


@pytest.mark.parametrize("word", ["--steps", "--rounds", "--rows", "--candidates"])
def test_nothing_of_a_study_can_be_zero(word: str) -> None:
    with pytest.raises(SystemExit):
        steps.main(["--data", ".", word, "0"])


@pytest.mark.slow
def test_the_real_models_in_steps() -> None:
    lab = steps.make_lab("letters", Path(), 0)
    design = Design((1, 2), candidates=2, rounds=1, train=3, validation=3)
    study = run_study(lab, steps.make_denoisers(SHIPPED_ADAPTER, design.steps), design)
    assert [row.taken for row in study.rows] == [1.0, 2.0]
    assert all(row.nats is not None and row.nats.mean > 0 for row in study.rows)
    assert all(row.seconds > 0 for row in study.rows)


# --- table and picture


def cell(number: int, steps: int, score: float) -> Cell:
    return Cell(number, steps, 1.0, (), "p", score)


def study_of(scores: dict[int, list[float]]) -> Study:
    design = Design(tuple(scores), 1, len(scores[1]), 4, 4)
    found = [cell(i, s, v) for s, values in scores.items() for i, v in enumerate(values)]
    return Study("p", design, estimate([0.0, 1.0]), tuple(found))


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({1: [0.1, 0.11], 8: [0.8, 0.81]}, "8 steps; the interval of no other"),
        ({1: [0.1, 0.9], 8: [0.8, 0.81]}, "8 steps, but the interval of 1 reaches it"),
        ({1: [0.5, 0.52], 8: [0.5, 0.52]}, "1 steps, but the interval of 8 reaches it"),
        ({1: [0.5], 8: [0.6]}, "one round says nothing"),
    ],
)
def test_remarks_call_no_equal_number_of_steps_better(scores: dict[int, list[float]], said: str) -> None:
    assert said in "\n".join(list_remarks(study_of(scores)))


def test_nats_are_compared_on_the_same_canvas() -> None:
    def filled(number: int, steps: int, *nats: float | None) -> Cell:
        some = tuple(Candidate("q", 4, n, n, "", None) for n in nats)
        return Cell(number, steps, 1.0, some, "p", 0.5)

    found = (filled(0, 1, 5.0, None), filled(0, 8, 3.0, 9.0), filled(1, 1, 4.0, 3.0))
    found = (*found, filled(1, 8, 3.0, 3.0))
    study = Study("p", Design((1, 8), 2, 2, 4, 4), estimate([0.0, 1.0]), found)
    ((few, gap),) = compare_steps(study).items()
    assert (few, gap.n, gap.mean) == (1, 3, 1.0)
    assert "on the same 3 canvases (95 % interval): 1: +1.00" in "\n".join(list_remarks(study))


def test_table_and_picture_show_every_number_of_steps() -> None:
    study = study_of({1: [0.1, 0.2], 8: [0.8, 0.9]})
    table = [line for line in format_report({"a": study}).splitlines() if line.startswith("|")]
    assert [line.split()[1] for line in table] == ["steps", "---:", "1", "8"]
    assert all(line.count("|") == len(HEAD) + 1 for line in table)
    tree = ET.fromstring(draw_picture({"<a&b>": study, "c": study}))
    words: Any = [text.text for text in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert {"<a&b>", "c", "1", "8", "denoising steps"} <= set(words)
    assert len(list(tree.iter("{http://www.w3.org/2000/svg}circle"))) == 2 * 2 * 3  # no nats here
