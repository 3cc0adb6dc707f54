"""benchmarks/acceptance/guards: the world is what it says, and the committed results support the page;
benchmarks/shorten: which prompts and rows it takes."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.acceptance.guards import CHURN, GUARD_ACCURACY, LOSS, ROWS, GuardedWorld, Place, play
from benchmarks.acceptance.page import FIGURES
from benchmarks.acceptance.world import START
from benchmarks.record import read_json
from benchmarks.shorten import PROMPTS, TRAIN, VALIDATION, read_arguments, read_prompt, read_rows

KNOWN = read_json(FIGURES)["guards"]


@pytest.mark.parametrize(("churn", "kept"), CHURN.items())
def test_guard_rows_change_as_often_as_the_table_says(churn: str, kept: float) -> None:
    """100,000 rows: standard error below 0.0007."""
    world = GuardedWorld(Place(0.0, kept, 100_000), 10**6, 3)
    edit = world.propose(START, (), 1, 0)[0].prompt
    before, after = (np.array([o.score for o in world.evaluate(p, world.guard_ids)]) for p in (START, edit))
    assert before.mean() == pytest.approx(GUARD_ACCURACY, abs=0.004)
    changes = 0.0 if churn == "none" else float(churn.split()[0]) / 100
    assert np.mean(before != after) == pytest.approx(changes, abs=0.004)


def test_an_edit_loses_what_the_place_says() -> None:
    world = GuardedWorld(Place(LOSS, 0.97, 10), 1000, 0)
    edit = world.propose(START, (), 1, 0)[0].prompt
    assert world.true_guard(edit) == pytest.approx(GUARD_ACCURACY - LOSS)


def test_a_run_is_repeated_exactly_and_loses_nothing() -> None:
    for place in (Place(0.0, 1.0, 300), Place(LOSS, 0.97, 300)):
        ends = [play(place, seed) for seed in range(3)]
        assert ends == [play(place, seed) for seed in range(3)]
        assert all(accepted is not bool(place.loss) for accepted, _, _ in ends)


def test_the_committed_runs_are_complete_and_losing_ones_accept_at_most_five_per_cent() -> None:
    assert {(r["churn"], r["rows"], r["loss"]) for r in KNOWN} == {
        (churn, rows, loss) for churn in CHURN for rows in ROWS for loss in (0.0, LOSS)
    }
    assert all(row["runs"] >= 200 for row in KNOWN)
    assert all(row["accepted"] <= 0.05 for row in KNOWN if row["loss"])
    harmless = {(r["churn"], r["rows"]): r["accepted"] for r in KNOWN if not r["loss"]}
    assert harmless["none", 200] > 0.9


def test_prompts_of_other_licences_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    file, end = PROMPTS["analyze_comments"]
    row = {"prompt": "Read.", "source": f"owner/repo:{end}", "license": "CC0-1.0"}
    path = tmp_path / "corpus" / f"{file}.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(SystemExit, match=r"is under CC0-1\.0"):
        read_prompt(tmp_path, "analyze_comments")
    path.write_text(json.dumps(row | {"license": "MIT"}) + "\n")
    assert read_prompt(tmp_path, "analyze_comments")["text"] == "Read."
    with pytest.raises(SystemExit, match="has no prompt"):
        read_prompt(tmp_path, "analyze_product_feedback")


def test_the_sealed_rows_come_from_files_that_the_search_never_reads(tmp_path: Path) -> None:
    (tmp_path / "sst2").mkdir()
    for name, n in (("train", 900), ("validation", 7), ("test", 5)):
        rows = [json.dumps({"input": f"{name} {i}", "label": "x"}) + "\n" for i in range(n)]
        (tmp_path / "sst2" / f"{name}.jsonl").write_text("".join(rows))
    found = read_rows(tmp_path, None)
    assert [len(found[split]) for split in ("train", "validation", "test")] == [TRAIN, VALIDATION, 12]
    assert all(row["input"].startswith("train") for split in ("train", "validation") for row in found[split])
    assert not any(row["input"].startswith("train") for row in found["test"])
    assert len(read_rows(tmp_path, 3)["test"]) == 3
    assert read_arguments(["--data", str(tmp_path)]).size == "full"
