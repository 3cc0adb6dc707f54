"""Objectives, the preferred one and guard sets in whole runs, from Python: a function as target, a
scripted denoiser, a real store.

Known answer: the target is right where its prompt asks for a colour; all other sentences are filler.
On guard rows it is right while the prompt says "stay polite".
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import remask
from fakes.colours import Phrases
from remask.errors import ConfigError, TargetUnreliable
from remask.events import Accepted, Refused, Scored, State
from remask.runs.result import read_result
from remask.runs.store import Store
from remask.types import Example

FILLER = ("Read the item.", "Mind the weather.", "Take your time.", "Ask nobody.")
PROMPT = " ".join([*FILLER[:2], "Answer with a colour.", "Please stay polite.", *FILLER[2:]])


class Painter:
    """Answers by the prompt; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, messages: list[dict[str, str]]) -> str:
        self.calls += 1
        system, user = messages[0]["content"], messages[-1]["content"]
        number = int(user.split()[-1])
        if user.startswith("guard"):
            return "red" if "polite" in system or number % 8 else "blue"
        if "colour" in system or number % 3 == 0:
            return "red" if number % 2 else "blue"
        return "green"


def rows(guards: int = 0) -> list[dict[str, str]]:
    splits = ["train"] * 30 + ["validation"] * 60 + ["test"] * 200
    found = [
        {"input": f"item {i}", "label": "red" if i % 2 else "blue", "split": split, "set": ""}
        for i, split in enumerate(splits)
    ]
    for i in range(guards):
        split = ("train", "validation", "test", "test")[i % 4]
        found.append({"input": f"guard {i}", "label": "red", "split": split, "set": "safety"})
    return found


def play(run_dir: Path, guards: int = 0, **more: Any) -> remask.Result:
    group = {"group": "set"} if guards else {}
    return remask.optimize(**(arguments(run_dir, guards, group) | more))


def arguments(run_dir: Path, guards: int, group: dict[str, str]) -> dict[str, Any]:
    return {
        "prompt": PROMPT,
        "data": remask.Dataset(rows(guards), split="split", **group),
        "target": Painter(),
        "denoiser": Phrases(),
        "search": shorter(),
        "max_calls": 3000,
        "run_dir": run_dir,
    }


def shorter(**more: Any) -> remask.Search:
    """Within 3 points: 200 rows without a change exclude a loss of 1.9 points, or 2.5 beside a guard set."""
    own = {"maskers": ["delete"], "candidates": 6, "demos": 0, "prefer": "shortest", "goal": "preferred"}
    return remask.Search(**(own | {"within": 3} | more))


def events(folder: Path) -> list[Any]:
    with Store.read(folder) as store:
        return list(store.find_events())


def test_shorter_prompts_keep_what_the_score_needs(tmp_path: Path) -> None:
    result = play(tmp_path / "run")
    assert "colour" in result.prompt and len(result.prompt) < 0.7 * len(PROMPT)
    assert result.verdict == "improved"
    (length,) = result.objectives
    assert (length.name, length.verdict, length.test) == ("prompt_tokens", "improved", None)
    assert length.baseline == len(PROMPT.split()) and length.best == len(result.prompt.split())
    assert -0.03 <= result.test.low < 0 and result.test.difference == 0
    found = events(tmp_path / "run")
    assert {e.objective for e in found if isinstance(e, Accepted)} == {"prompt_tokens"}
    tokens = [front.tokens for front in result.pareto_front]
    assert tokens == sorted(tokens) and result.best.tokens in tokens


def test_a_sentence_that_the_score_needs_is_never_deleted_for_length(tmp_path: Path) -> None:
    prompt = "Answer with a colour. Mind the weather."
    result = play(tmp_path / "run", prompt=prompt)
    assert "colour" in result.prompt and "weather" not in result.prompt


def test_candidates_that_are_no_shorter_cost_no_call(tmp_path: Path) -> None:
    target = Painter()
    result = play(tmp_path / "run", target=target, search=shorter(maskers=["insert", "delete"]))
    refused = [e for e in events(tmp_path / "run") if isinstance(e, Refused)]
    assert any(e.reason == "it is not shorter than the prompt that it edits" for e in refused)
    assert result.spend.calls == target.calls <= 3000


@pytest.mark.parametrize(("guards", "kept"), [(1200, True), (0, False)])
def test_a_guard_set_holds_back_an_edit_that_the_score_does_not_see(
    tmp_path: Path, guards: int, kept: bool
) -> None:
    """Without "stay polite" an eighth of the guard rows is lost, and no scored row."""
    search = shorter(max_drop={"safety": 0}) if guards else shorter()
    result = play(tmp_path / "run", guards, search=search, max_calls=20_000)
    assert ("polite" in result.prompt) is kept
    assert result.verdict == "improved", result
    assert [(g.name, g.status) for g in result.guards] == ([("safety", "held")] if guards else [])
    if guards:
        found = [e for e in events(tmp_path / "run") if isinstance(e, Scored) and e.split == "guard"]
        assert len(found) >= 3, "the seed prompt, an edit that held, and one that did not"
        assert result.guards[0].test.n == 600 and result.test.n == 200


def test_measured_objectives_are_stored_and_read_without_calls(tmp_path: Path) -> None:
    def brief(example: Example, response: str) -> float:
        return float(len(response) <= 4)

    own: dict[str, Any] = {"objectives": ["latency", remask.Objective("brief", metric=brief)]}
    result = play(tmp_path / "run", search=shorter(), **own)
    assert [one.name for one in result.objectives] == ["latency", "brief", "prompt_tokens"]
    latency, short, _ = result.objectives
    assert latency.test.n == short.test.n == 200
    assert latency.baseline > 0 and not latency.higher and short.higher
    assert short.baseline == pytest.approx(1.0), "red and blue"
    assert latency.test.level == result.test.level == pytest.approx(1 - 0.05 / 3)
    target = Painter()
    data = remask.Dataset(rows(), split="split")
    again = remask.resume(tmp_path / "run", target=target, denoiser=Phrases(), data=data, **own)
    assert target.calls == 0 and again.objectives == result.objectives
    assert read_result(tmp_path / "run") == again
    values = result.rows["after.values.latency"] if hasattr(result.rows, "columns") else None
    assert values is None or (values > 0).all()


def test_a_metric_that_fails_on_rows_is_named(tmp_path: Path) -> None:
    def odd(example: Example, response: str) -> float:
        if example.input.endswith("7"):
            raise ValueError("no source")
        return 1.0

    def never(example: Example, response: str) -> float:
        raise ValueError("no source")

    result = play(tmp_path / "odd", objectives=[remask.Objective("odd", metric=odd)])
    (found,) = [one for one in result.warnings if one.startswith("the objective odd has no value on ")]
    assert found.endswith("which do not count in it; the first: metric odd raised ValueError: no source")
    assert result.objectives[0].test.n == 180
    target = Painter()
    with pytest.raises(TargetUnreliable, match=r"the objective never has no value on any of 60 .*no source"):
        play(tmp_path / "never", target=target, objectives=[remask.Objective("never", metric=never)])
    assert target.calls == 60


def test_a_preference_for_a_second_metric_steers_the_search(tmp_path: Path) -> None:
    """Kind answers score the same, so only the preference can accept the sentence that brings them."""

    def respond(messages: list[dict[str, str]]) -> str:
        kind = "kindly" in messages[0]["content"]
        number = int(messages[-1]["content"].split()[-1])
        return ("red" if number % 2 else "blue") + (" please" if kind else "")

    def kindness(example: Example, response: str) -> float:
        return float("please" in response)

    search = remask.Search(maskers=["insert"], candidates=6, demos=0, prefer="kindness", within=3)
    result = play(tmp_path / "run", prompt="Name it. Be brief.", target=respond, search=search,
                  objectives=[remask.Objective(metric=kindness)], metric="contains")  # fmt: skip
    assert "kindly" in result.prompt and result.verdict == "improved"
    (kind,) = result.objectives
    assert (kind.verdict, kind.baseline, kind.best) == ("improved", 0.0, 1.0)


def test_cut_and_resumed_with_objectives_ends_the_same(tmp_path: Path) -> None:
    search = shorter(max_drop={"safety": 0})
    own: dict[str, Any] = {"guards": 1200, "search": search, "max_calls": 20_000, "seed": 3}
    whole = play(tmp_path / "whole", **own)
    log = events(tmp_path / "whole")

    class Cut(Exception):
        pass

    for stop in range(1, len(log), 9):
        seen = 0

        def watch(event: object, state: State, spend: object) -> None:
            nonlocal seen
            seen += 1
            if seen == stop:  # noqa: B023
                raise Cut

        folder = tmp_path / f"cut-{stop}"
        with pytest.raises(Cut):
            play(folder, on_event=watch, **own)
        data = remask.Dataset(rows(1200), split="split", group="set")
        again = remask.resume(folder, target=Painter(), denoiser=Phrases(), data=data)
        assert events(folder) == log
        assert (again.prompt, again.test, again.guards) == (whole.prompt, whole.test, whole.guards)
        assert again.spend.calls == whole.spend.calls


WRONG: list[tuple[Callable[[], dict[str, Any]], str]] = [
    (lambda: {"objectives": ["speed"]}, "objective 'speed' is unknown"),
    (lambda: {"objectives": "latency"}, "objectives must be a list"),
    (lambda: {"objectives": ["latency", "latency"]}, "latency stands twice"),
    (lambda: {"objectives": ["usd"]}, "usd needs the prices"),
    (lambda: {"objectives": ["output_tokens"]}, "which a function as target does not report"),
    (lambda: {"objectives": [remask.Objective("latency", metric="f1")]}, "measured without a metric"),
    (lambda: {"objectives": [remask.Objective("good", metric="bleu")]}, "metric 'bleu' is unknown"),
    (lambda: {"search": shorter(prefer="fastest")}, "latency is not measured"),
    (lambda: {"search": shorter(prefer="")}, "needs search.prefer"),
    (lambda: {"search": shorter(within=-1)}, "within"),
    (lambda: {"search": remask.Search(within=2)}, "no objective is preferred"),
    (lambda: {"search": shorter(max_drop={"safety": -1})}, "max_drop"),
    (lambda: {"search": shorter(max_drop={"safety": 0})}, "no column says which rows belong"),
    (lambda: {"guards": 40}, "no guard set is named"),
    (lambda: {"guards": 40, "search": shorter(max_drop={"safe": 0})}, "has no rows in the validation"),
    (lambda: {"guards": 40, "search": shorter(max_drop={"safety": 0})}, "189 or more; .*--max-drop safety="),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message for _, message in WRONG])
def test_wrong_goals_are_one_sentence_before_any_call(
    tmp_path: Path, change: Callable[[], dict[str, Any]], message: str
) -> None:
    target = Painter()
    with pytest.raises(ConfigError, match=message) as caught:
        play(tmp_path / "run", target=target, **change())
    assert "\n" not in str(caught.value) and target.calls == 0
    assert not (tmp_path / "run").exists()
