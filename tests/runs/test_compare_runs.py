"""Two runs side by side."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.command import complaint, remask
from fakes.finished_run import play
from remask.runs.report.compare_runs import compare_runs
from remask.runs.report.read_run import RunView, view_run
from remask.runs.word_diff import Change


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two finished runs on the same test rows: the first ends at 1.0, the second at 0.3."""
    folder = tmp_path_factory.mktemp("runs")
    play(folder / "a")
    play(folder / "b", prompt="Work at level 3.")
    return folder / "a", folder / "b"


@pytest.fixture
def views(pair: tuple[Path, Path]) -> tuple[RunView, RunView]:
    return view_run(pair[0]), view_run(pair[1])


def configured(run: RunView, section: str, **values: object) -> RunView:
    return replace(run, config={**run.config, section: {**run.config[section], **values}})


def test_shared_test_rows_are_compared_in_pairs(views: tuple[RunView, RunView]) -> None:
    found = compare_runs(*views)
    assert found.reason == "" and found.test is not None
    assert (found.shared_rows, found.test.n, found.test.baseline, found.test.best) == (40, 40, 1.0, 0.3)
    assert found.test.differing == len(found.flipped) == 28
    assert {row.change for row in found.flipped} == {"lost"}
    assert found.test.level == pytest.approx(1 - 0.05 / 3), "two tests came before this comparison"
    back = compare_runs(*reversed(views))
    assert back.test is not None and back.test.difference == -found.test.difference
    assert {row.change for row in back.flipped} == {"won"}


def test_a_run_does_not_differ_from_itself(views: tuple[RunView, RunView]) -> None:
    found = compare_runs(views[0], views[0])
    assert found.settings == () and found.same_start and found.flipped == ()
    assert found.prompt_diff == (Change("same", found.prompts[0]),)


def test_settings_that_differ_are_named_without_passwords(views: tuple[RunView, RunView]) -> None:
    other = configured(views[1], "target", model="openai:n", base_url="http://u:secret@host/v1")
    found = compare_runs(views[0], other)
    assert {one.key: (one.first, one.second) for one in found.settings} == {
        "target.model": ("openai:m", "openai:n"),
        "target.base_url": ("http://localhost:1/v1", "http://host/v1"),
    }
    assert not found.same_start
    assert any("targets differ" in note for note in found.notes)


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("metric", {"name": "exact"}, "the metrics differ: label and exact"),
        ("metric", {"answer": "It is {label}."}, "the metrics differ in their settings"),
        ("metric", {"timeout": 5.0}, ""),
    ],
)
def test_other_scores_are_not_compared(
    views: tuple[RunView, RunView], section: str, values: dict[str, object], words: str
) -> None:
    found = compare_runs(views[0], configured(views[1], section, **values))
    assert found.reason == words
    assert (found.test is None) == bool(words) == (found.rows == ())


def test_runs_without_shared_rows_or_without_a_test_say_so(
    views: tuple[RunView, RunView], tmp_path: Path
) -> None:
    tested = views[1].state.tested
    assert tested is not None
    renamed = replace(
        tested,
        baseline=tuple((f"x{id}", a, b) for id, a, b in tested.baseline),
        best=tuple((f"x{id}", a, b) for id, a, b in tested.best),
    )
    other = replace(views[1], state=replace(views[1].state, tested=renamed))
    assert compare_runs(views[0], other).reason == "the runs share no test rows"
    play(tmp_path / "cut", finish=False)
    found = compare_runs(views[0], view_run(tmp_path / "cut"))
    assert found.reason == "the second run has no sealed test yet"
    assert found.verdicts[1] == "no verdict yet"


def test_rows_that_only_one_run_has_scored_are_left_out(views: tuple[RunView, RunView]) -> None:
    tested = views[1].state.tested
    assert tested is not None
    (id, _, _), *rest = tested.best
    holed = replace(tested, best=((id, None, None), *rest))
    found = compare_runs(views[0], replace(views[1], state=replace(views[1].state, tested=holed)))
    assert found.test is not None and (found.shared_rows, found.test.n) == (40, 39)
    assert any(note.startswith("1 shared test rows have no score") for note in found.notes)


def test_the_command_says_it_in_words_and_in_json(pair: tuple[Path, Path]) -> None:
    text = remask("compare", *pair).output
    assert "shared test rows: 40; second against first: 1.000 → 0.300, difference -0.700 (98.33 %" in text
    assert "28 rows flipped" in text and "  lost  rows.csv:5  question test-3" in text
    assert "Work at level [-10-]{+3+}." in text
    found = json.loads(remask("compare", *pair, "--json").output)
    assert (found["kind"], found["shared_rows"], len(found["flipped"])) == ("RunsComparison", 40, 28)
    assert found["flipped"][0]["change"] == "lost"


def test_a_folder_that_is_no_run_is_one_sentence(pair: tuple[Path, Path]) -> None:
    assert "is not the folder of a run" in complaint(remask("compare", pair[0], pair[0].parent / "none"))


def test_a_run_is_not_compared_with_itself(pair: tuple[Path, Path]) -> None:
    again = pair[0].parent / "other" / ".." / pair[0].name
    assert "are the same run" in complaint(remask("compare", pair[0], pair[0]))
    (pair[0].parent / "other").mkdir()
    assert "are the same run" in complaint(remask("compare", pair[0], again))
