"""Test rows that earlier runs of the folder have used: the count, the interval, the warning."""

from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.colours import Oracle, Phrases, dataset, search
from fakes.command import remask
from remask import events, optimize, resume
from remask.events import decode, encode
from remask.runs.report.list_runs import list_runs
from remask.runs.report.read_run import view_run
from remask.runs.result import Result, read_result
from remask.stats import compare, correct_level, format_level


def play(run_dir: Path, prompt: str = "Name it. Be brief.", **more: object) -> Result:
    settings = search(maskers=["insert", "sentence", "rewrite"])
    arguments = {"data": dataset(), "target": Oracle(), "denoiser": Phrases(), "search": settings}
    return optimize(prompt, run_dir=run_dir, **(arguments | more))


def reuse_warnings(result: Result) -> list[str]:
    return [text for text in result.warnings if "scored" in text and "before in this folder" in text]


def test_each_further_test_of_the_same_rows_is_counted_and_widens_the_interval(tmp_path: Path) -> None:
    first = play(tmp_path / "a", seed=1)
    assert (first.earlier_tests, reuse_warnings(first)) == (0, [])
    assert first.test is not None and first.test.level == 0.95
    results = [play(tmp_path / name, prompt=f"Answer {name}.", seed=1) for name in ("b", "c")]
    for earlier, result in enumerate(results, 1):
        assert result.earlier_tests == earlier
        assert result.test is not None and result.test.level == pytest.approx(1 - 0.05 / (earlier + 1))
        (warning,) = reuse_warnings(result)
        assert f"interval has {format_level(result.test.level)} in place of 95 %" in warning
    assert "scored once before" in reuse_warnings(results[0])[0]
    assert "scored 2 times before" in reuse_warnings(results[1])[0]
    shown = remask("show", tmp_path / "b").output
    assert "97.5 % interval" in shown and "scored once before in this folder" in shown
    assert "97.5 % interval" in (tmp_path / "b" / "report.html").read_text()
    listed = remask("runs", tmp_path).output
    assert "b: these test rows were scored once before in this folder" in listed


def test_a_later_run_does_not_change_the_result_of_an_earlier_one(tmp_path: Path) -> None:
    first = play(tmp_path / "a", seed=1)
    play(tmp_path / "b", prompt="Answer, please.", seed=1)
    assert view_run(tmp_path / "a").result == first
    assert remask("report", tmp_path / "a").exit_code == 0
    assert {run.name: run.earlier_tests for run in list_runs(tmp_path)} == {"a": 0, "b": 1}


def test_a_repeat_of_the_same_test_and_a_resumed_run_are_no_new_test(tmp_path: Path) -> None:
    first = play(tmp_path / "a", seed=1)
    again = play(tmp_path / "b", seed=1)
    assert again.prompt == first.prompt and again.earlier_tests == 0
    other = play(tmp_path / "c", prompt="Answer now.", seed=1)
    assert other.earlier_tests == 1, "a and b made one and the same test"
    (tmp_path / "c" / "result.json").unlink()
    arguments = {"data": dataset(), "target": Oracle(), "denoiser": Phrases()}
    resumed = resume(tmp_path / "c", **arguments)
    assert (resumed.earlier_tests, resumed.test) == (1, other.test)


def test_other_rows_another_metric_and_another_folder_do_not_count(tmp_path: Path) -> None:
    play(tmp_path / "a", seed=1)
    others = [
        play(tmp_path / "b", prompt="Answer now.", seed=1, metric="exact"),
        play(tmp_path / "elsewhere" / "c", prompt="Answer now.", seed=1),
    ]
    assert [result.earlier_tests for result in others] == [0, 0]


def test_a_damaged_neighbour_is_left_out(tmp_path: Path) -> None:
    play(tmp_path / "a", seed=1)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.db").write_bytes(b"nothing")
    assert play(tmp_path / "b", prompt="Answer now.", seed=1).earlier_tests == 1


def test_results_and_events_of_older_versions_can_be_read(tmp_path: Path) -> None:
    result = play(tmp_path / "a", seed=1)
    values = orjson.loads((tmp_path / "a" / "result.json").read_bytes())
    del values["earlier_tests"], values["test"]["level"]
    (tmp_path / "a" / "result.json").write_bytes(orjson.dumps(values))
    assert read_result(tmp_path / "a") == result
    event = encode(events.Tested((("r", 1.0, 1.0),), (("r", 1.0, 1.0),)))
    del event["earlier_tests"]
    assert decode(event) == events.Tested((("r", 1.0, 1.0),), (("r", 1.0, 1.0),))


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1), st.integers(0, 50))
def test_an_interval_of_a_higher_level_contains_the_lower_one(
    pairs: list[tuple[int, int]], earlier: int
) -> None:
    before, after = [a for a, _ in pairs], [b for _, b in pairs]
    plain = compare(before, after)
    wide = compare(before, after, correct_level(earlier))
    assert wide.low <= plain.low + 1e-12 and plain.high <= wide.high + 1e-12
    if not earlier:
        assert wide == plain
    if wide.verdict != "no evidence":
        assert wide.verdict == plain.verdict


@pytest.mark.parametrize(
    ("earlier", "text"), [(0, "95 %"), (1, "97.5 %"), (2, "98.33 %"), (3, "98.75 %"), (999, "99.99 %")]
)
def test_a_level_is_not_rounded_up(earlier: int, text: str) -> None:
    assert format_level(correct_level(earlier)) == text


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, float("nan")])
def test_a_level_that_is_no_level_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        compare([0.0, 1.0], [1.0, 1.0], level)
