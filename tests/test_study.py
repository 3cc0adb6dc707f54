"""Studies of denoising steps: the same draws, hard costs, sealed test rows, table and picture."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from colours import WORDS, Oracle, Phrases, rows
from remask.api.job import settle_arguments
from remask.cli import main
from remask.errors import BudgetSpent, ConfigError
from remask.evidence import estimate
from remask.ports import Canvas, Context, Fill, Hole
from remask.report.steps import HEAD, cells, picture, remarks
from remask.study import Candidate, Cell, Design, Study, behind, tabulated, whole_rounds
from remask.studying import Order, Prepared, play, prepared

EXAMPLE = Path(__file__).parent.parent / "examples" / "support" / "messages.jsonl"
PROMPT = "Name it. Be brief."


@dataclass
class Paced(Phrases):
    """Writes what helps in four or more steps, something else in fewer. A word costs 2 nats."""

    steps: int = 0
    asked: list[tuple[int, Context, tuple[Canvas, ...], int]] = field(default_factory=list)

    def in_steps(self, steps: int) -> "Paced":
        return Paced(steps, self.asked)

    def infill(self, context: Context, canvases: Sequence[Canvas], seed: int) -> list[Fill]:
        self.asked.append((self.steps, context, tuple(canvases), seed))
        word = WORDS[1] if self.steps >= 4 else WORDS[0]
        return [
            Fill(tuple(word if hole.tokens else "" for hole in c if isinstance(hole, Hole)), -1.0)
            for c in canvases
        ]

    def score(self, context: Context, text: str, spans: Sequence[tuple[int, int]]) -> list[float]:
        return [-2.0 * self.count(text[a:b]) for a, b in spans]


def order(
    oracle: Oracle | None = None,
    denoiser: Any = None,
    limits: dict[str, float] | None = None,
    **more: Any,
) -> Order:
    config, parts = settle_arguments(
        PROMPT,
        rows(),
        oracle or Oracle(),
        "label",
        denoiser or Paced(),
        {
            "data": {"split": "split"},
            "target": {},
            "metric": {},
            "budget": limits or {"calls": 2000},
        },
        {"search": {"maskers": ["insert", "sentence", "whole"]}},
    )
    return Order(
        config, **{"steps": (4, 1, 2), "candidates": 3, "rows": 10, **more, "parts": parts}
    )


def test_every_number_of_steps_fills_the_same_draws() -> None:
    denoiser = Paced()
    study = play(prepared(order(denoiser=denoiser, rounds=2)))
    assert [row.steps for row in study.rows] == [1, 2, 4]
    drawn = [asked for steps, *asked in denoiser.asked]
    assert [steps for steps, *_ in denoiser.asked] == [1, 1, 2, 4] * 2  # the first reads the traces
    assert drawn[:4] == [drawn[0]] * 4
    assert drawn[4:] == [drawn[4]] * 4
    assert drawn[0] != drawn[4], "another round is another draw"
    assert all(context for context, _, _ in drawn)


def test_says_which_number_of_steps_helps() -> None:
    study = play(prepared(order(rounds=2, rows=30)))
    few, _, many = study.rows
    assert study.baseline.mean == few.best.mean == 0.5
    assert many.best.mean == 1.0
    assert many.train is not None
    assert many.train.mean > 0.9
    assert many.nats is not None
    assert many.nats.mean == pytest.approx(2.0)
    assert many.taken > few.taken == 1.0
    assert "best score at 4 steps; the interval of no other" in "\n".join(remarks(study))


@given(
    st.sets(st.integers(1, 9), min_size=1, max_size=3),
    st.integers(1, 4),
    st.integers(1, 2),
    st.integers(1, 40),
)
@settings(max_examples=8, deadline=None)
def test_never_costs_more_than_was_said(
    steps: set[int], candidates: int, rounds: int, n: int
) -> None:
    oracle = Oracle()
    ready = prepared(
        order(oracle, steps=tuple(steps), candidates=candidates, rounds=rounds, rows=n)
    )
    study = play(ready)
    assert study.calls == oracle.calls <= ready.calls == study.most_calls <= 2000
    assert f"at most {ready.calls:,} target calls" in ready.sentence


class Sealed(Oracle):
    """Fails the test where a row of the test split is asked."""

    def __call__(self, messages: list[dict[str, str]]) -> str:
        assert int(messages[-1]["content"].split()[-1]) < 60, "a test row was asked"
        return super().__call__(messages)


def test_test_rows_stay_sealed() -> None:
    oracle = Sealed()
    study = play(prepared(order(oracle, rows=1000, rounds=1)))
    assert study.design.validation == study.baseline.n == 30
    assert oracle.calls


def test_without_a_number_of_rounds_the_limit_decides() -> None:
    two = prepared(order(rounds=2)).calls
    assert prepared(order(limits={"calls": two})).design.rounds == 2
    assert prepared(order(limits={"calls": two - 1})).design.rounds == 1
    assert prepared(order()).design.rounds == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"limits": {"calls": 100}}, r"a study of 1 round takes \d+ .* limit is 100"),
        ({"rounds": 200}, "raise --max-calls"),
        ({"steps": ()}, "at least one"),
        ({"steps": (0, 2)}, "steps: 0 is not between 1 and 256"),
        ({"candidates": 0}, "candidates: 0"),
        ({"denoiser": Phrases()}, "steps of a denoiser"),
        ({"denoiser": "chat:m"}, "is an API"),
    ],
)
def test_what_cannot_be_studied_is_one_sentence_before_a_call(
    more: dict[str, Any], message: str
) -> None:
    oracle = Oracle()
    with pytest.raises(ConfigError, match=message) as caught:
        play(prepared(order(oracle, **more)))
    assert "\n" not in str(caught.value)
    assert oracle.calls == 0


def test_a_cut_study_goes_on_for_nothing(tmp_path: Path) -> None:
    def ready(oracle: Oracle) -> Prepared:
        return prepared(order(oracle, rounds=2))

    class Cut(Exception):
        pass

    first, second, seen = Oracle(), Oracle(), []

    def watch(cell: Cell) -> None:
        seen.append(cell)
        if len(seen) == 4:
            raise Cut

    whole = play(ready(Oracle()))
    with pytest.raises(Cut):
        play(ready(first), tmp_path, watch)
    again = play(ready(second), tmp_path)
    assert first.calls + second.calls == whole.calls == again.calls
    assert [row.best for row in again.rows] == [row.best for row in whole.rows]
    more = play(prepared(order(Oracle(), rounds=3)), tmp_path)
    assert more.cells[:6] == tuple(replace(c, seconds=ANY) for c in whole.cells)
    assert more.calls == play(prepared(order(rounds=3))).calls
    with pytest.raises(ConfigError, match=r"study\.candidates is 3 in the run and 2 now"):
        play(prepared(order(candidates=2)), tmp_path)


def test_another_limit_ends_it_with_the_rounds_that_are_whole() -> None:
    one, three = (play(prepared(order(rounds=n))).calls for n in (1, 3))
    assert three > 1.5 * one
    # A function reports no tokens, so each call is booked at its bound: 380 to 430.
    study = play(prepared(order(limits={"calls": 2000, "tokens": 430 * one}, rounds=3)))
    assert study.rounds == 1
    assert len(study.cells) == 3
    assert study.notes[0].startswith("ended early: ")
    with pytest.raises(BudgetSpent):
        play(prepared(order(limits={"calls": 2000, "tokens": 200 * one}, rounds=3)))


# --- table and picture


def cell(number: int, steps: int, score: float) -> Cell:
    return Cell(number, steps, 1.0, (), "p", score)


def study_of(scores: dict[int, list[float]]) -> Study:
    design = Design(tuple(scores), 1, len(scores[1]), 4, 4)
    found = [cell(i, s, v) for s, values in scores.items() for i, v in enumerate(values)]
    kept = tuple(whole_rounds(found, design))
    table = tabulated("p", kept, design)
    return Study("p", design, "t", "d", 2, estimate([0.0, 1.0]), table, kept, 9, 8)


def test_only_whole_rounds_count() -> None:
    design = Design((1, 2), 1, 2, 4, 4)
    found = [cell(0, 1, 0.1), cell(0, 2, 0.2), cell(1, 1, 0.3)]
    assert whole_rounds(found, design) == found[:2]


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({1: [0.1, 0.11], 8: [0.8, 0.81]}, "8 steps; the interval of no other"),
        ({1: [0.1, 0.9], 8: [0.8, 0.81]}, "8 steps, but the interval of 1 reaches it"),
        ({1: [0.5, 0.52], 8: [0.5, 0.52]}, "1 steps, but the interval of 8 reaches it"),
    ],
)
def test_equal_is_never_sold_as_better(scores: dict[int, list[float]], said: str) -> None:
    assert said in "\n".join(remarks(study_of(scores)))


def test_nats_are_compared_on_the_same_canvas() -> None:
    def filled(number: int, steps: int, *nats: float | None) -> Cell:
        some = tuple(Candidate("q", 4, n, n, "", None) for n in nats)
        return Cell(number, steps, 1.0, some, "p", 0.5)

    design = Design((1, 8), 2, 2, 4, 4)
    found = (filled(0, 1, 5.0, None), filled(0, 8, 3.0, 9.0), filled(1, 1, 4.0, 3.0))
    found = (*found, filled(1, 8, 3.0, 3.0))
    table = tabulated("p", found, design)
    study = Study("p", design, "t", "d", 2, estimate([0.0, 1.0]), table, found, 9, 8)
    ((steps, gap),) = behind(study)
    assert (steps, gap.n, gap.mean) == (1, 3, 1.0)
    assert "on the same 3 canvases (95 % interval): 1: +1.00" in "\n".join(remarks(study))


def test_table_and_picture_show_every_number_of_steps() -> None:
    study = study_of({1: [0.1, 0.2], 8: [0.8, 0.9]})
    table = cells(study)
    assert [row[0] for row in table] == ["1", "8"]
    assert all(len(row) == len(HEAD) for row in table)
    tree = ET.fromstring(picture({"<a&b>": study, "c": study}))
    words = [text.text for text in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert {"<a&b>", "c", "1", "8", "denoising steps"} <= set(words)
    assert len(list(tree.iter("{http://www.w3.org/2000/svg}circle"))) == 2 * 2 * 3  # no nats here


# --- the command


def remask(*args: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args], prog_name="remask")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a prompt and a few rows of the example, half of them sealed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompt.md").write_text("Classify the message.\n", encoding="utf-8")
    left = {"train": 6, "validation": 6, "test": 6}
    with (tmp_path / "rows.jsonl").open("w", encoding="utf-8") as out:
        for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
            split = json.loads(line)["split"]
            left[split] -= 1
            if left[split] >= 0:
                out.write(line + "\n")
    return tmp_path


COLUMNS = ("--input", "{message}", "--expected", "topic", "--split-column", "split")


def test_the_real_models_from_the_command_line(here: Path) -> None:
    words = ("study", "steps", "prompt.md", "--data", "rows.jsonl", *COLUMNS, "--rounds", 1)
    words = (*words, "--steps", "1, 2", "--candidates", 2, "--budget", 60, "-o", "out")
    result = remask(*words)
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("at most 48 target calls (limit 60): ")
    lines = result.stdout.splitlines()
    assert lines[0].split()[0] == "steps"
    assert [line.split()[0] for line in lines[1:3]] == ["1", "2"]
    found = json.loads((here / "out" / "steps.json").read_text(encoding="utf-8"))
    assert 0 < found["calls"] <= found["most_calls"] == 48
    assert [row["steps"] for row in found["rows"]] == [1, 2]
    assert all(row["nats"]["mean"] > 0 for row in found["rows"])
    assert [row["taken"] for row in found["rows"]] == [1.0, 2.0]
    ET.fromstring((here / "out" / "steps.svg").read_text(encoding="utf-8"))
    assert remask(*words).exit_code == 2, "an outcome is not replaced unasked"
    again = remask(*words, "--force", "--json")
    assert again.exit_code == 0, again.output
    value = json.loads(again.stdout)
    assert value["kind"] == "Study"
    assert value["calls"] == found["calls"], "nothing was paid twice"
    assert [row["best"] for row in value["rows"]] == [row["best"] for row in found["rows"]]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--steps", "1,x"), "--steps: 'x' is no number; write 1,2,4,8"),
        (("--steps", "-1"), "'-1' is no number"),
        (("--budget", "20"), "raise --max-calls"),
        (("--dlm", "mercury"), "is an API"),
        (("--split-column", "no"), "no column 'no'"),
    ],
)
def test_wrong_input_is_one_line(here: Path, more: tuple[str, ...], message: str) -> None:
    words = ("study", "steps", "prompt.md", "--data", "rows.jsonl", *COLUMNS, *more)
    result = remask(*words, "-o", "out")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert not (here / "out").exists()


def test_a_study_needs_rows(here: Path) -> None:
    result = remask("study", "steps", "prompt.md")
    assert result.exit_code == 2
    assert "give --data FILE" in result.stderr
