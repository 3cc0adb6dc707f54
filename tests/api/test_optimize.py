"""The public API end to end, quickly: a function as target, a scripted denoiser, a real store."""

import html
import json
from pathlib import Path

import pytest

import remask
from fakes.colours import Oracle, Phrases, dataset, optimize, rows, search
from remask.errors import ConfigError
from remask.events import State
from remask.runs.report.summary import format_verdict, list_facts
from remask.runs.store import Store


def play(run_dir: Path, oracle: Oracle | None = None, **more: object) -> remask.Result:
    arguments = {"target": oracle or Oracle(), "search": search(maskers=["insert", "sentence", "rewrite"])}
    return optimize(run_dir, **(arguments | more))


def test_finds_what_helps_and_says_so(tmp_path: Path) -> None:
    oracle = Oracle()
    result = play(tmp_path / "run", oracle)
    assert result.verdict == "improved"
    assert "colours" in result.prompt
    assert result.test.n == 180
    assert result.test.baseline == 0.5
    assert result.test.best == 1.0
    assert 0 < result.test.low <= 0.5 <= result.test.high
    assert result.spend.calls == oracle.calls <= 2000
    assert result.edits[-1].validation_gain > 0
    added = "".join(c.text for c in result.diff() if c.kind == "added")
    assert "colours" in added
    page = result._repr_html_()
    assert "<ins>" in page
    assert all(html.escape(line) in page for line in (format_verdict(result), *list_facts(result)))


def test_result_file_holds_the_promised_keys(tmp_path: Path) -> None:
    result = play(tmp_path / "run")
    data = json.loads((tmp_path / "run" / "result.json").read_text())
    assert {"verdict", "prompt", "baseline", "best", "test", "spend"} <= set(data)
    assert {"n", "baseline", "best", "difference", "low", "high"} <= set(data["test"])
    assert data["prompt"] == result.prompt


def test_same_seed_same_result_other_seed_other_events(tmp_path: Path) -> None:
    logs = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        play(tmp_path / name, seed=seed)
        with Store.read(tmp_path / name) as store:
            logs.append(list(store.events()))
    assert logs[0] == logs[1] != logs[2]


@pytest.mark.parametrize("max_calls", [470, 500, 777])
def test_ledger_equals_the_calls_counted_by_the_target(tmp_path: Path, max_calls: int) -> None:
    oracle = Oracle()
    result = play(tmp_path / "run", oracle, max_calls=max_calls)
    assert result.spend.calls == oracle.calls <= max_calls
    assert result.test.n == 180, "the sealed test was set aside"


def test_interrupted_and_resumed_ends_the_same(tmp_path: Path) -> None:
    whole = play(tmp_path / "whole", seed=3)

    class Cut(Exception):
        pass

    with Store.read(tmp_path / "whole") as store:
        events = len(list(store.events()))
    for stop in range(1, events, 7):
        seen = 0

        def watch(event: object, state: State, spend: object) -> None:
            nonlocal seen
            seen += 1
            if seen == stop:  # noqa: B023
                raise Cut

        run_dir = tmp_path / f"cut-{stop}"
        with pytest.raises(Cut):
            play(run_dir, seed=3, on_event=watch)
        again = remask.resume(run_dir, target=Oracle(), denoiser=Phrases(), data=rows())
        assert again.prompt == whole.prompt
        assert again.test == whole.test
        assert again.spend.calls == whole.spend.calls
        with Store.read(run_dir) as a, Store.read(tmp_path / "whole") as b:
            assert list(a.events()) == list(b.events())


def test_resume_refuses_changed_rows_and_names_them(tmp_path: Path) -> None:
    play(tmp_path / "run")
    with pytest.raises(ConfigError, match="data_id"):
        remask.resume(tmp_path / "run", target=Oracle(), denoiser=Phrases(), data=rows(200))


def test_a_finished_run_resumes_to_the_same_result_at_no_cost(tmp_path: Path) -> None:
    result = play(tmp_path / "run")
    oracle = Oracle()
    again = remask.resume(tmp_path / "run", target=oracle, denoiser=Phrases(), data=rows())
    assert oracle.calls == 0
    assert again.test == result.test


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_calls": 200}, "is 200, but a run needs 470 calls or more: 360 for the sealed test"),
        ({"target": "gpt"}, "target 'gpt' is unknown"),
        ({"metric": "bleu"}, "metric 'bleu' is unknown"),
        ({"data": remask.Dataset(rows(), input="{question}")}, "question"),
        ({"budget": remask.Budget(usd=1.0)}, "input_price"),
    ],
)
def test_wrong_settings_are_one_sentence_before_any_call(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        play(tmp_path / "run", **change)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "result.json").exists()


def test_evaluate_compares_two_prompts_on_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "old.md").write_text("Name it.\n")
    found = remask.evaluate(
        "Name it. Think of colours.", dataset(), target=Oracle(), split="test", against=tmp_path / "old.md"
    )
    test = found.comparison
    assert test is not None and test.verdict == "improved"
    assert (test.baseline, test.best, test.n) == (0.5, 1.0, 180)
    with pytest.raises(ConfigError, match="a Path or a dict of texts, not int"):
        remask.evaluate("Name it.", dataset(), target=Oracle(), against=3)  # type: ignore[arg-type]


def test_evaluate_scores_one_split(tmp_path: Path) -> None:
    oracle = Oracle()
    found = remask.evaluate("Name it.", dataset(), target=oracle)
    assert found.score.mean == 0.5
    assert found.score.n == 30
    assert found.spend.calls == oracle.calls == 30
    assert found.never_predicted == ("blue",)


def test_a_label_that_is_never_given_is_a_warning(tmp_path: Path) -> None:
    result = optimize(tmp_path / "run", target=lambda messages: "red")
    assert result.verdict == "no evidence"
    assert any("never answered 'blue'" in warning for warning in result.warnings)
