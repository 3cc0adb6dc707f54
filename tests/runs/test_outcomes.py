"""The rows of a run: what both prompts got on them, as files and as values."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.command import remask
from fakes.finished_run import play, record
from remask.cli.options import ROW_NAMES
from remask.data.redact.redact import Redactor
from remask.errors import ConfigError
from remask.prompt import Prompt
from remask.runs.outcomes import (
    FORMULA_STARTS,
    MAX_TEXT_CHARS,
    ROW_FILTERS,
    RecordingTask,
    RowAnswer,
    RowResult,
    pair_outcomes,
    write_row_files,
)
from remask.runs.report.read_run import view_run, write_report
from remask.runs.result import Result
from remask.runs.store import Store
from remask.types import Example, Outcome, Trace


@pytest.fixture
def run(tmp_path: Path) -> Path:
    play(tmp_path / "run")
    write_report(tmp_path / "run")
    return tmp_path / "run"


def answer(score: float | None, text: str = "yes") -> RowAnswer:
    return RowAnswer(score, text, "", "" if score is not None else "timeout", False, False)


def row(before: float | None, after: float | None, message: str = "hello") -> RowResult:
    return RowResult("id", "test", "rows.csv:2", message, "yes", answer(before), answer(after))


def test_rows_hold_both_answers_and_agree_with_the_test(run: Path) -> None:
    seen = view_run(run)
    assert seen.result is not None and seen.result.test is not None
    tested = [r for r in seen.rows if r.split == "test"]
    assert len(tested) == seen.result.test.n == 40 and len(seen.rows) == 80
    scores = [(r.before.score, r.after.score) for r in tested]
    assert sum(a or 0 for a, _ in scores) / 40 == seen.result.test.baseline
    assert sum(b or 0 for _, b in scores) / 40 == seen.result.test.best
    assert sum(r.change in ("won", "lost") for r in tested) == seen.result.test.differing
    assert tested[0].place == "rows.csv:2" and tested[1].place == "rows.csv:3"
    assert (tested[0].message, tested[0].expected) == ("question test-0", "right")


def test_row_files_hold_the_same_rows(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    with open(run / "rows.csv", encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    assert (
        [r["change"] for r in lines] == [r["change"] for r in table] == [r.change for r in view_run(run).rows]
    )
    assert [str(r["after"]["score"]) for r in lines] == [r["score_after"] for r in table]
    result = view_run(run).result
    assert isinstance(result, Result) and len(result.rows) == len(lines)


def test_result_without_row_file_says_what_to_do(run: Path) -> None:
    result = view_run(run).result
    assert result is not None
    (run / "rows.jsonl").unlink()
    with pytest.raises(ConfigError, match="remask report"):
        _ = result.rows


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [(0.0, 1.0, "won"), (1.0, 0.5, "lost"), (0.5, 0.5, "same"), (None, 1.0, "failed"), (1.0, None, "failed")],
)
def test_change_of_a_row(before: float | None, after: float | None, change: str) -> None:
    assert row(before, after).change == change


@given(st.text(max_size=20))
def test_no_cell_is_a_formula(message: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write_row_files([row(0.0, 1.0, message)], Path(folder))
        with open(Path(folder, "rows.csv"), encoding="utf-8-sig", newline="") as file:
            cell = list(csv.reader(file))[1][3]
    assert not cell.startswith(FORMULA_STARTS)
    assert cell in (message, f"'{message}")


def test_show_prints_the_rows_of_a_filter(run: Path) -> None:
    assert set(ROW_NAMES) == set(ROW_FILTERS)
    won = sum(r.change == "won" for r in view_run(run).rows)
    said = remask("show", run, "--rows", "won").stdout
    assert said.count("expected  right") == won and f"rows, won: {won}" in said
    assert "rows.csv:" in said and "question test-" in said
    listed = remask("show", run, "--rows", "all", "--json").stdout.splitlines()
    assert [json.loads(line)["id"] for line in listed] == [r.id for r in view_run(run).rows]
    assert "rows, failed: 0" in remask("show", run, "--rows", "failed").stdout


def test_outcomes_are_those_of_the_last_answer_and_damage_is_found(run: Path) -> None:
    before = view_run(run).state.baseline
    with Store.open(run) as store:
        stored = store.find_outcomes(before)
        id, body = next(iter(stored.items()))
        store.keep_outcomes(before, {id: {**body, "text": "another answer"}})
        assert store.find_outcomes(before)[id]["text"] == "another answer"
        store.keep_outcomes(before, {id: {**body, "score": "1"}})
    with pytest.raises(ConfigError, match="damaged"):
        view_run(run)


def test_a_secret_at_the_cut_of_a_long_text_is_redacted(tmp_path: Path) -> None:
    """The text is redacted before it is cut, since half of a key is no key to a rule."""
    secret = "sk-proj-Ab3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hJ6kL9n"
    text = "word " * ((MAX_TEXT_CHARS - 20) // 5) + secret
    example = Example("a", "test", text, "yes")
    trace = Trace("a", text, text)

    class Task:
        def evaluate(self, prompt: Prompt, ids: Sequence[str]) -> list[Outcome]:
            return [Outcome("a", "scored", 1.0, trace=trace)]

    with Store.create(tmp_path / "run", record()) as store:
        redact = Redactor((), True).redact
        RecordingTask(Task(), store, lambda: [example], redact).evaluate(Prompt("p"), ["a"])  # type: ignore[arg-type]
        stored = store.find_outcomes(Prompt("p").id)["a"]
    assert "sk-proj" not in json.dumps(stored) and len(stored["text"]) <= MAX_TEXT_CHARS


def test_pairs_are_in_the_order_of_the_data() -> None:
    base = {"message": "", "expected": "", "score": 1.0, "text": "", "feedback": "", "error": ""}
    base |= {"unparsed": False, "cut": False}
    places = {"a": ("validation", "r:9"), "b": ("test", "r:10"), "c": ("test", "r:9"), "d": ("test", "")}
    stored = {id: {**base, "split": split, "place": place} for id, (split, place) in places.items()}
    assert [r.id for r in pair_outcomes(stored, stored)] == ["d", "c", "b", "a"]
    assert pair_outcomes({}, stored) == ()
