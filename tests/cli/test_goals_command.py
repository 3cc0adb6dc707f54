"""`remask shorten`, objectives and guard sets on the command line: whole runs against a server on the
loopback that counts its requests, and one sentence for each wrong setting."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from fakes.command import complaint, remask
from fakes.http_run import World, finish, read_result, start, write_job
from fakes.scripted_denoiser import ScriptedDenoiser
from fakes.server import Server

TARGET = """
def answer(messages):
    system, number = messages[0]["content"], int(messages[-1]["content"].split()[-1])
    if messages[-1]["content"].startswith("guard"):
        return "red" if "polite" in system else "blue"
    return ("red" if number % 2 else "blue") if "colour" in system else "green"


def brief(example, response):
    return float(len(response) < 5)
"""
PROMPT = "Read the item. Mind the weather. Answer with a colour. Please stay polite. Ask nobody.\n"
OBJECTIVES = """
[[objectives]]
name = "usd"
[[objectives]]
name = "output_tokens"
[[objectives]]
name = "latency"
[[objectives]]
metric = "exact"
"""


@pytest.fixture
def here(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a prompt, rows and a target; the denoiser is scripted."""
    phrases = ("Answer kindly.", "Think twice.")
    monkeypatch.setattr("remask.api.job.make_denoiser", lambda *_: ScriptedDenoiser(phrases))
    (here / "target.py").write_text(TARGET)
    (here / "prompt.md").write_text(PROMPT)
    write_rows(here, guards=1200)
    return here


def write_rows(folder: Path, guards: int) -> None:
    splits = ["train"] * 20 + ["validation"] * 50 + ["test"] * 250
    rows = [{"input": f"item {i}", "label": ("blue", "red")[i % 2], "split": s} for i, s in enumerate(splits)]
    for i in range(guards):
        split = ("train", "validation", "test", "test")[i % 4]
        rows.append({"input": f"guard {i}", "label": "red", "split": split, "set": "safety"})
    (folder / "rows.jsonl").write_text("".join(json.dumps({"set": ""} | row) + "\n" for row in rows))


JOB = ("prompt.md", "--data", "rows.jsonl", "--target", "target.py:answer", "--split-column", "split",
       "--max-calls", "9000", "--run-dir", "run")  # fmt: skip
SAFE = ("--group", "set", "--max-drop", "safety=0")


def test_shorten_with_a_guard_set_and_objectives(here: Path) -> None:
    result = remask("shorten", *JOB, *SAFE, "--within", "3", "--masker", "delete", "--objective", "latency",
                    "--objective", "target.py:brief", "--fail-unless", "improved", "--plain")  # fmt: skip
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    (verdict,) = [line for line in lines if line.startswith("improved: ")]
    assert "1.000 → 1.000 on 250 sealed test rows" in verdict and "; prompt_tokens 15 → " in verdict
    preferred = "prompt_tokens (preferred, where the score may lose 3 points): "
    assert any(line.startswith(preferred) for line in lines)
    assert any(line.startswith("latency: ") and "seconds" in line for line in lines)
    assert any(line.startswith("brief: 1.000 → 1.000") for line in lines)
    assert any(line.startswith("guard set safety: held; ") and "on 600 sealed rows" in line for line in lines)
    assert any("(Bonferroni)" in line and "98.75 %" in line for line in lines)
    assert any("accepted for prompt_tokens" in line for line in lines)
    assert any("scored on 600 guard rows" in line for line in lines)
    (found,) = [json.loads((here / "run" / "result.json").read_text())]
    assert "polite" in found["prompt"] and "colour" in found["prompt"]
    assert len(found["prompt"]) < len(PROMPT.strip())
    assert found["pareto_front"][-1]["values"].keys() == {"latency", "brief", "prompt_tokens"}
    shown, page = remask("show", "run", "--plain").stdout, (here / "run" / "report.html").read_text()
    several = len(found["pareto_front"]) > 1  # the measured latency decides
    assert ("score and latency, brief, prompt_tokens (validation, used for selection):" in shown) == several
    assert ("Score and objectives" in page) == several
    assert "guard set safety: held" in page
    rows = [json.loads(line) for line in (here / "run" / "rows.jsonl").read_text().splitlines()]
    assert all(row["after"]["values"]["latency"] > 0 for row in rows)
    assert sum(row["message"].startswith("guard") and row["split"] == "test" for row in rows) == 600
    assert remask("resume", "run", "--plain").exit_code == 0


def test_a_loss_that_the_rows_cannot_exclude_fails_the_gate(here: Path) -> None:
    """250 rows exclude a loss of 1.5 points, where no answer changes."""
    write_rows(here, guards=0)
    words = ("shorten", *JOB, "--masker", "delete", "--within", "1", "--fail-unless", "improved", "--plain")
    result = remask(*words)
    assert result.exit_code == 5, result.output
    assert "the gate failed: improved: the verdict is no evidence" in result.stderr
    assert "prompt_tokens 15 → " in result.stdout


WRONG = [
    (("--objective", "speed"), "the objective 'speed' is unknown"),
    (("--objective", "usd"), "usd needs the prices of the target"),
    (("--objective", "output_tokens"), "a function as target does not report"),
    (("--prefer", "cheapest"), "--prefer) is cheapest, and usd is not measured"),
    (("--prefer", "shortest", "--within", "-1"), "--within (search.within) is -1.0, but must be at least 0"),
    (("--max-drop", "safety=-1", "--group", "set"), "search.max_drop"),
    (("--max-drop", "safety", "--group", "set"), "--max-drop 'safety': write NAME=POINTS"),
    (("--max-drop", "safety=x", "--group", "set"), "search.max_drop"),
    (("--max-drop", "safety=", "--group", "set"), "--max-drop 'safety=': write NAME=POINTS"),
    (
        ("--max-drop", "safety=true", "--group", "set"),
        "(search.max_drop.safety) is True, but must be a number",
    ),
    (
        ("--max-drop", "safety=100", "--group", "set"),
        "(search.max_drop.safety) is 100, but must be less than 100",
    ),
    (
        ("--max-drop", "a=0", "--max-drop", "a=5", "--group", "set"),
        "--max-drop has two values of a: 'a=0' and",
    ),
    (
        ("--prefer", "quickest"),
        "'quickest', which is unknown; known: shortest, cheapest, fastest, prompt_tokens",
    ),
    (("--prefer", "f1"), "f1 is not measured; add [[objectives]]"),
    (("--max-drop", "safety=0"), "no column says which rows belong to it"),
    (("--max-drop", "safety=0", "--group", "kind"), "no row has the column 'kind'"),
    (("--max-drop", "privacy=0", "--group", "set"), "privacy has no rows in the validation and the test"),
    (("--group", "set"), "no guard set is named"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_wrong_goals_are_one_sentence_and_spend_nothing(
    here: Path, words: tuple[str, ...], message: str
) -> None:
    said = complaint(remask("optimize", *JOB, *words))
    assert message in said, said
    assert not (here / "run").exists()


def test_rows_of_a_set_that_is_no_guard_set_are_named(here: Path) -> None:
    with (here / "rows.jsonl").open("a") as file:
        file.write(json.dumps({"input": "item 900", "label": "red", "split": "test", "set": "Safety"}) + "\n")
    said = remask("check", *JOB, *SAFE).output
    assert "1 row has another 'set' ('Safety') than a guard set, so the score counts" in said


@pytest.mark.parametrize("words", [("--demos", "4"), ("--prefer", "fastest")])
def test_shorten_refuses_what_makes_prompts_longer(here: Path, words: tuple[str, ...]) -> None:
    assert "remask shorten makes prompts shorter, and" in complaint(remask("shorten", *JOB, *words))


@pytest.mark.parametrize(("guards", "ready"), [(1200, True), (400, False)])
def test_check_says_how_many_guard_rows_are_needed(here: Path, guards: int, ready: bool) -> None:
    write_rows(here, guards)
    result = remask("check", *JOB, *SAFE, "--prefer", "shortest")
    assert (result.exit_code == 0) is ready, result.output
    assert f"guard set safety: {guards // 2} validation rows, 189 needed" in result.stdout
    assert f"guard set safety: {guards // 2} test rows, 247 needed" in result.stdout
    assert "preferred: prompt_tokens, where the score is within 1 points" in result.stdout
    problem = "a loss of 0 + 2 points can only be excluded with 247 or more; add rows, or allow more"
    assert (problem in result.stdout) is not ready
    if not ready:
        assert problem in complaint(remask("optimize", *JOB, *SAFE))
        margin = result.stdout.partition("--max-drop safety=")[2].split()[0]
        assert remask("check", *JOB, "--group", "set", "--max-drop", f"safety={margin}").exit_code == 0


def test_usage_comes_from_the_endpoint_and_survives_a_kill(tmp_path: Path) -> None:
    """Known answer: 20 + 5 tokens an answer, at 2 and 8 dollars a million."""
    own: dict[str, Any] = {"target": "input_price = 2\noutput_price = 8", "budget": OBJECTIVES}
    world = World()
    with Server(default=world) as server:
        write_job(tmp_path / "whole", server, **own)
        assert finish(tmp_path / "whole") == (0, "")
    whole = read_result(tmp_path / "whole")
    found = {one["name"]: one for one in whole["objectives"]}
    assert list(found) == ["usd", "output_tokens", "latency", "exact"]
    assert found["output_tokens"]["baseline"] == found["output_tokens"]["best"] == 5
    assert found["usd"]["best"] == pytest.approx((20 * 2 + 5 * 8) / 1e6)
    assert found["latency"]["baseline"] > 0
    assert found["exact"]["test"]["best"] == whole["test"]["best"], "the score of the label"
    world, folder = World(), tmp_path / "killed"
    with Server(default=world) as server:
        write_job(folder, server, **own)
        process = start(folder)
        while process.poll() is None and world.requests < 70:
            time.sleep(0.001)
        process.kill()
        process.communicate()
        assert finish(folder) == (0, "")
    again = read_result(folder)
    assert (again["prompt"], again["test"]) == (whole["prompt"], whole["test"])
    for one, other in zip(again["objectives"], whole["objectives"], strict=True):
        assert one["name"] == "latency" or one == other


def test_a_function_is_preferred_by_its_file(here: Path) -> None:
    words = ("--objective", "target.py:brief", "--prefer", "target.py:brief", "--json")
    assert remask("check", *JOB, *words).exit_code == 0
    words = ("--objective", "target.py:brief", "--prefer", "other.py:brief")
    assert "other.py:brief is not measured" in remask("optimize", *JOB, *words).stderr
