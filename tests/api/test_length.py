"""Score and length: the front, the shortest prompt that is good enough, and a cap on tokens."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.colours import Phrases, optimize, search
from fakes.command import remask as command
from remask.errors import ConfigError
from remask.events import Proposed, Refused, State, decode
from remask.prompt import Prompt
from remask.runs.result import find_pareto_front, find_shortest_within, read_result
from remask.runs.store import Store


def state(prompts: Mapping[str, tuple[int, list[float | None]]]) -> State:
    """Prompts by id: (tokens, validation scores); the first is the baseline, the best is best."""
    first = next(iter(prompts))
    means = {k: sum(s or 0 for s in scores) for k, (_, scores) in prompts.items()}
    return State(
        baseline=first,
        incumbent=max(means, key=means.__getitem__),
        prompts={id: f"prompt {id}" for id in prompts},
        tokens={id: tokens for id, (tokens, _) in prompts.items()},
        scores={
            (id, "validation"): {str(i): s for i, s in enumerate(scores)}
            for id, (_, scores) in prompts.items()
        },
    )


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.lists(st.sampled_from([0.0, 1.0]), min_size=4, max_size=4)),
        min_size=1,
        max_size=8,
    ),
    st.floats(0, 100),
)
def test_nothing_beats_what_is_on_the_front(
    prompts: list[tuple[int, list[float | None]]], points: float
) -> None:
    given = state({str(i): prompt for i, prompt in enumerate(prompts)})
    means = {str(i): sum(s or 0 for s in scores) / 4 for i, (_, scores) in enumerate(prompts)}
    found = find_pareto_front(given)
    for id in found:
        for other in means:
            shorter = given.tokens[other] - given.tokens[id]
            better = means[other] - means[id]
            assert not (shorter <= 0 <= better and (shorter or better)), "it is beaten"
    assert max(means.values()) == means[found[-1]]
    assert min(given.tokens.values()) == given.tokens[found[0]]
    chosen = find_shortest_within(given, points)
    able = [id for id in means if means[id] >= max(means.values()) - points / 100 - 1e-9]
    assert given.tokens[chosen] == min(given.tokens[id] for id in able)


def test_prompts_that_were_not_asked_everything_do_not_count() -> None:
    given = state({"base": (5, [1.0, 0.0, 1.0]), "half": (1, [1.0, 1.0]), "best": (9, [1.0] * 3)})
    assert find_pareto_front(given) == ("base", "best")
    assert find_shortest_within(given, 100) == "base"
    assert find_shortest_within(given, 1) == "best"


export = partial(command, "export")


def test_show_report_and_export_of_the_front(tmp_path: Path) -> None:
    result = optimize(tmp_path / "run")
    assert read_result(tmp_path / "run") == result
    assert len(result.pareto_front) > 1
    assert result.pareto_front[-1].validation == result.best.validation
    shown = command("show", tmp_path / "run").stdout
    assert "score and length (validation, used for selection):" in shown
    short = tmp_path / "short.md"
    said = export(tmp_path / "run", "-o", short, "--shortest-within", "100").stdout
    assert "used for selection" in said and "not tested" in said
    assert short.read_text().strip() == result.pareto_front[0].prompt
    export(tmp_path / "run", "-o", short, "--force")
    assert short.read_text().strip() == result.best.prompt
    refused = export(short, "-o", tmp_path / "x.md", "--shortest-within", "1")
    assert refused.exit_code == 2 and "is a file; name the folder of a run" in refused.stderr
    built = command("report", tmp_path / "run")
    assert built.exit_code == 0
    assert "<h3>Score and length</h3>" in (tmp_path / "run" / "report.html").read_text()


def test_no_candidate_above_the_cap_is_asked(tmp_path: Path) -> None:
    optimize(tmp_path / "run", search=search(max_tokens=6))
    with Store.read(tmp_path / "run") as store:
        events = [decode(event) for event in store.events()]
    tried = [e.tokens for e in events if isinstance(e, Proposed)]
    assert tried and max(tried) <= 6
    refused = [e for e in events if isinstance(e, Refused) and "6 allowed" in e.reason]
    assert refused and all(Phrases().count(Prompt.parse(e.prompt).text) > 6 for e in refused)


def test_a_start_above_the_cap_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has 4 tokens and search\.max_tokens"):
        optimize(tmp_path / "run", search=search(max_tokens=2))
    assert not (tmp_path / "run").exists()
