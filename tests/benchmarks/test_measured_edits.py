"""benchmarks/denoiser/measured_edits.py: which tasks it takes, and what its runs teach `remask adapt`."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.denoiser.measured_edits import cut_start, main, read_tasks
from remask.dlm.training.measured import read_edits

DEFINITION = "You get the name of a tool. Say in one word what it is for. Do not explain."


def make_task(name: str, **changes: Any) -> dict[str, Any]:
    examples = [{"input": f"tool number {i} of {name}", "output": "cutting"} for i in range(12)]
    return {"task": name, "prompt": DEFINITION, "examples": examples} | changes


@pytest.fixture
def data(tmp_path: Path) -> Path:
    shared = "a long sentence of a film review that also stands in the benchmark"
    tasks = [
        *(make_task(f"task{n}_tools") for n in range(10)),
        make_task("task50_imdb_classification"),
        make_task("task51_tools", prompt="Write a letter about the tool."),
        make_task("task52_tools", prompt="Say whether the premise entails it."),
        make_task("task53_tools", examples=[{"input": shared, "output": "yes"}] * 12),
        make_task("task54_tools", examples=make_task("x")["examples"][:5]),
        make_task("task55_tools", examples=[{"input": "long " * 60, "output": "yes"}] * 12),
    ]
    for name, rows in {
        "corpus/ni_instances": tasks,
        "sst2/train": [{"input": shared.upper(), "label": "x"}],
    }.items():
        path = tmp_path / f"{name}.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(json.dumps(row) for row in rows))
    return tmp_path


def test_families_and_texts_of_the_benchmark_are_left_out(data: Path) -> None:
    tasks = list(read_tasks(data, rows=4, shown=4))
    assert {task.name for task in tasks} == {f"task{n}_tools" for n in range(10)}
    assert len(tasks) == 20, "each comes twice, with another start prompt"
    for task in tasks:
        assert len(task.shown) == 4 and len(task.rows) == (8 if task.held_out else 4)
        assert not {row.id for row in task.rows} & {row.id for row in task.shown}
    assert [t.held_out for t in tasks[:10]] == [t.held_out for t in tasks[10:]]
    assert tasks == list(read_tasks(data, rows=4, shown=4))


def test_starts_are_terse_or_a_part_of_the_definition() -> None:
    starts = [cut_start(DEFINITION, kind) for kind in range(4)]
    assert starts[0] not in DEFINITION and starts[0].endswith(".")
    assert starts[1:] == ["You get the name of a tool.", "Do not explain.", "You get the name of a tool."]
    assert len(cut_start("word " * 100, 1).split()) == 24


def write_found(path: Path, held_out: bool, gain: float) -> None:
    candidates = [
        {
            "masker": "insert",
            "prompt": f"Do the task. {text}",
            "masks": [[12, 12, 4]],
            "edits": [[12, 12, f" {text}"]],
            "traces": ["r0"],
            "logp": -1.0,
            "scores": [-2.0 + sign * gain] * 4,
        }
        for text, sign in (("Be brief now.", 1), ("Be long.", -1))
    ]
    trace = {"id": "r0", "query": "saw", "response": "A saw.", "desired": "cutting", "score": 0.0}
    found = {"held_out": held_out, "start": "Do the task.", "traces": [trace], "scores": [-2.0] * 4}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found | {"candidates": candidates}))


def test_finished_tasks_become_runs_without_the_held_out_ones(tmp_path: Path) -> None:
    write_found(tmp_path / "out" / "a.0.json", False, 0.5)
    write_found(tmp_path / "out" / "b.0.json", True, 0.5)
    for _ in range(2):  # a second call adds what is new
        main(["--out", str(tmp_path / "out"), "--write-runs", str(tmp_path / "runs")])
    (group,) = read_edits([tmp_path / "runs"])
    assert group.parent == "Do the task."
    assert [edit.gain > 0 for edit in group.edits] == [True, False]
    assert [trace.desired for trace in group.edits[0].traces] == ["cutting"]


def test_the_report_compares_shared_held_out_tasks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, gain in (("before", 0.25), ("after", 0.5)):
        write_found(tmp_path / folder / "a.0.json", True, gain)
        write_found(tmp_path / folder / "b.0.json", False, gain)
    write_found(tmp_path / "after" / "c.0.json", True, 0.5)
    main(["--report", str(tmp_path / "before"), str(tmp_path / "after")])
    before, after = capsys.readouterr().out.splitlines()
    assert before.startswith("before: 1 tasks, 2 candidates: 0.500 better")
    assert "mean gain +0.000, best of a task +0.500" in after and "distinct-2" in after


@pytest.mark.slow
def test_a_task_is_measured_once(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--data", str(data), "--out", str(tmp_path / "out"), "--tasks", "1", "--candidates", "2"]
    flags += ["--rows", "2", "--shown", "2", "--answer-tokens", "2"]
    main(flags)
    (path,) = (tmp_path / "out").iterdir()
    found = json.loads(path.read_text())
    assert len(found["candidates"]) == 2 and len(found["candidates"][0]["scores"]) >= 2
    assert all(score < 0 for score in found["scores"])
    capsys.readouterr()
    main(flags)
    assert not capsys.readouterr().out, "a finished task is not measured again"
    with pytest.raises(SystemExit, match="other settings"):
        main([*flags[:6], "--candidates", "3", *flags[8:]])
