"""benchmarks/search/budgets.py and page.py: the second grid, whole and in part."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.optimisers import NAMES
from benchmarks.search import endpoint, page, report
from benchmarks.search.bootstrap import compare_tables
from benchmarks.search.budgets import BEHIND, NOT_RUN, format_grid, read_runs, summarize_grid
from benchmarks.search.cells import SYMBOLS
from benchmarks.search.lab import Protocol
from benchmarks.search.report import choose_style

ABOUT = {"commit": "c0ffee", "machine": "m", "command": "python -m benchmarks.search --data FOLDER"}
GRID = {"remask": 0.7, "remask_again": 0.7, "remask_plain": 0.6, "few_shot": 0.5, "capo": 0.4, "nothing": 0.3}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (endpoint, report):
        monkeypatch.setattr(module, "compare_tables", partial(compare_tables, draws=50))


def play(budget: int, accuracy: Mapping[str, float], seeds: Sequence[int] = (0, 1)) -> list[dict[str, Any]]:
    """The rows of a results file for two tasks; the seed prompt has 0.3 on test rows."""
    rng = np.random.default_rng(budget)
    found: list[dict[str, Any]] = []

    def draw(share: float) -> str:
        return "".join(SYMBOLS[-1] if x < share else SYMBOLS[0] for x in rng.random(40))

    for task in ("letters", "reviews"):
        for seed in seeds:
            for optimiser, share in accuracy.items():
                for calls in Protocol(budget).upto:
                    row = {"task": task, "optimiser": optimiser, "seed": seed, "calls": calls}
                    found.append({**row, "withheld_rows": draw(share * calls / budget)})
                test = {"test": share, "seed_test": 0.3, "n_test": 40, "test_rows": draw(share)}
                found[-1] |= test
    return found


def data_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {**ABOUT, "rows": rows}


def both() -> dict[int, dict[str, Any]]:
    return {budget: data_of(play(budget, GRID)) for budget in (200, 800)}


def find_line(text: str, optimiser: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {NAMES[optimiser]} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_curves_are_read_at_the_calls_and_at_half_of_them() -> None:
    assert Protocol(200).upto == (100, 200)
    assert Protocol(800).upto == (400, 800)


def test_each_column_is_of_the_runs_of_its_budget() -> None:
    text, curves = format_grid(read_runs(both()))
    assert set(curves) == set(GRID) and all(list(c) == [100, 200, 400, 800] for c in curves.values())
    # The runs of 200 calls end at 200, those of 800 calls have a quarter of their score there.
    assert curves["remask"][200] == pytest.approx(70, abs=15) and curves["remask"][400] < 50
    assert "| optimiser | 100 calls | 200 calls | 400 calls | 800 calls | test, 200 calls |" in text
    assert "Pairs of task and seed that remask has: 4 at 200 calls, 4 at 800 calls." in text
    assert "By task, test rows at 800 calls:" in text and "By task, test rows at 200 calls:" in text
    assert text.count(f"remask minus {NAMES['few_shot']} (best of 3 other rows)") == 2
    assert "- remask: 0 of 8 (0.0 %; upper bound 31.2 %)" in text
    assert "- remask and its A/A runs: 0 of 16" in text
    assert "two runs on the same rows differ by" in text and BEHIND not in text
    assert "not been" not in text and "cannot be compared" not in text


def test_one_budget_alone_is_shown() -> None:
    text, curves = format_grid(read_runs({200: both()[200]}))
    assert "The runs of 800 calls have not been made yet." in text
    assert set(curves["remask"]) == {100, 200} and "800 calls: no other row has all" in text


def test_an_optimiser_that_is_behind_is_compared_on_the_pairs_that_it_has() -> None:
    rows = play(200, GRID)
    kept = [r for r in rows if r["optimiser"] != "few_shot" or (r["task"], r["seed"]) == ("letters", 1)]
    text, curves = format_grid(read_runs({200: data_of(kept), 800: both()[800]}))
    behind = text.split(BEHIND)[1]
    assert find_line(behind, "few_shot")[1:3] == ["200", "1 of 4"]
    assert find_line(text.split(BEHIND)[0], "few_shot")[1:3] == ["–", "–"]
    assert set(curves["few_shot"]) == {400, 800}
    *_, gaps = text.split("remask minus every other row")
    assert find_line(gaps, "few_shot")[2] == "1" and find_line(gaps, "few_shot")[4] == "4"


def test_remask_alone_is_shown_without_an_endpoint() -> None:
    text, curves = format_grid(read_runs({200: data_of(play(200, {"remask": 0.5}))}))
    assert "200 calls: no other row has all tasks and seeds of remask yet" in text
    assert set(curves) == {"remask"}


def test_a_grid_without_a_finished_run_of_remask_is_not_run() -> None:
    untested = [{k: v for k, v in row.items() if "test" not in k} for row in play(200, GRID)]
    for results in (
        {},
        {200: data_of([])},
        {200: data_of(play(200, {"few_shot": 1}))},
        {200: data_of(untested)},
    ):
        assert format_grid(read_runs(results)) == (NOT_RUN, {})
        assert summarize_grid(read_runs(results)) is None


def test_budgets_with_other_pairs_say_so() -> None:
    results = {200: data_of(play(200, GRID)), 800: data_of(play(800, GRID, seeds=[0]))}
    text, _ = format_grid(read_runs(results))
    assert "4 at 200 calls, 2 at 800 calls" in text and "cannot be compared" in text


def test_the_readme_shows_five_rows() -> None:
    assert summarize_grid(read_runs(both())) is None, "the other tasks are missing"
    summary = summarize_grid(read_runs(both()), ("letters", "reviews"))
    assert summary is not None
    *_, table = summary.split("\n\n")
    shown = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert shown == [NAMES[name] for name in ("remask", "remask_plain", "few_shot", "capo", "nothing")]
    assert find_line(table, "remask")[2] == "–" and find_line(table, "nothing")[4].startswith("+")


def test_every_optimiser_has_a_line_of_its_own_look() -> None:
    assert len({choose_style(name) for name in NAMES}) == len(NAMES)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results, with a page and a README to write to."""
    for name, blocks in (
        ("page.md", ["search_free", "search_local", "transfer", "search"]),
        ("README.md", ["results"]),
    ):
        marks = [f"<!-- {block}:begin -->\nold\n<!-- {block}:end -->" for block in blocks]
        (tmp_path / name).write_text("\n".join(marks))
    for key, name in (
        ("RESULTS", ""), ("FIGURES", "search.json"), ("TRANSFER", "transfer.json"),
        ("PAGE", "page.md"), ("README", "README.md"),
        ("PICTURE", "search.svg"), ("FREE_PICTURE", "search_free.svg"), ("LOCAL_PICTURE", "search_local.svg"),
    ):  # fmt: skip
        monkeypatch.setattr(page, key, tmp_path / name)
    return tmp_path


def test_a_page_without_results_says_so(folder: Path) -> None:
    page.write_page()
    assert (folder / "page.md").read_text().count(NOT_RUN) == 3
    assert NOT_RUN in (folder / "README.md").read_text()
    assert not list(folder.glob("*.svg"))


def test_a_page_of_one_budget_has_its_picture(folder: Path) -> None:
    (folder / "search_200.json").write_text(json.dumps(both()[200]))
    page.write_page()
    assert "![Score on withheld rows by target calls](search_free.svg)" in (folder / "page.md").read_text()
    assert "</svg>" in (folder / "search_free.svg").read_text()
    assert NOT_RUN in (folder / "README.md").read_text(), "a part of the grid is not for the README"
