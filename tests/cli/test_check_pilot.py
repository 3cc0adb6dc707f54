"""`remask check --pilot`: the cost is said before it is spent, in text and in JSON."""

import json
from pathlib import Path

import pytest

from fakes.command import complaint, remask

LABELS = ("positive", "negative")
SPLITS = ("train", "validation", "test")
TARGET = """
from pathlib import Path

def respond(messages):
    with Path(__file__).with_name("asked.txt").open("a") as file:
        file.write(messages[-1]["content"] + "\\n")
    if "negative, positive" not in messages[0]["content"]:
        return "I have no opinion."
    return ("positive", "negative")[int(messages[-1]["content"].split()[1]) % 2]
"""
FLAGS = ("--data", "rows.jsonl", "--split-column", "split", "--target", "t.py:respond", "--max-calls", 400)


@pytest.fixture
def here(here: Path) -> Path:
    rows = [{"input": f"row {i}", "label": LABELS[i % 2], "split": SPLITS[i // 2 % 3]} for i in range(120)]
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (here / "p.md").write_text("Sort it.")
    (here / "t.py").write_text(TARGET)
    return here


def count_asked(here: Path) -> int:
    file = here / "asked.txt"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_pilot_prints_its_cost_first_and_then_what_it_found(here: Path) -> None:
    result = remask("check", "p.md", *FLAGS, "--pilot", 20)
    assert result.exit_code == 0, result.output
    said = result.stdout
    assert (
        said.index("pilot             120 calls") < said.index("Prompts matter here") < said.index("Ready.")
    )
    assert "20 train rows, 20 of them twice" in said
    assert "Asked again under your prompt, 0 of 20 rows got another score" in said
    assert "The sealed test of 40 rows shows a true gain with a probability of" in said
    assert count_asked(here) == 120 and "The pilot spent 120 target calls" in said
    assert not (here / "runs").exists()


def test_pilot_without_a_number_and_from_a_file_of_settings_with_json(here: Path) -> None:
    (here / "r.toml").write_text(
        'prompt = "p.md"\n[data]\npath = "rows.jsonl"\nsplit = "split"\n'
        '[target]\nmodel = "t.py:respond"\n[budget]\ncalls = 400\n'
    )
    result = remask("check", "r.toml", "--json", "--pilot")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["ok"] and report["pilot"]["matters"] is True
    assert report["pilot"]["spread"]["n"] == 40 and report["pilot"]["spend"]["calls"] == 220
    assert [power["gain"] for power in report["pilot"]["power"]] == [0.02, 0.05, 0.1]
    plans = [json.loads(line) for line in result.stderr.splitlines() if "PilotPlan" in line]
    assert [plan["calls"] for plan in plans] == [220]


def test_check_without_pilot_asks_nothing(here: Path) -> None:
    result = remask("check", "p.md", *FLAGS, "--json")
    assert result.exit_code == 0 and "pilot" not in json.loads(result.stdout)
    assert not count_asked(here)


def test_a_problem_leaves_the_pilot_out(here: Path) -> None:
    result = remask("check", "p.md", *FLAGS[:-1], 60, "--pilot", 20)
    assert result.exit_code == 2 and "PROBLEM" in result.stdout and not count_asked(here)
    (here / "few.jsonl").write_text("".join((here / "rows.jsonl").read_text().splitlines(True)[:15]))
    few = remask("check", "p.md", *FLAGS, "--data", "few.jsonl", "--pilot", 20)
    assert few.exit_code == 2 and "pilot    PROBLEM  a pilot needs 12 train rows" in few.stdout
    assert not count_asked(here)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--pilot", "3", "p.md"), "a pilot needs 12 rows or more, not 3"),
        (("--pilot", "p.md"), "'p.md' is not a number of rows; write --pilot 40"),
        (("p.md", "--pilot=4.5"), "'4.5' is not a number of rows"),
    ],
)
def test_a_wrong_number_of_rows_is_one_sentence(here: Path, words: tuple[str, ...], said: str) -> None:
    assert said in complaint(remask("check", *words, *FLAGS))


def test_pilot_of_a_run_without_data_is_refused(here: Path) -> None:
    words = ("--judge", "openai:m", "--base-url", "http://127.0.0.1:9/v1", "--rubric", "kind")
    assert "which a run without data does not have" in complaint(
        remask("check", "p.md", *words, "--pilot", 20)
    )


@pytest.mark.parametrize("place", ["p.md", "p.md/below"])
def test_check_says_that_a_run_directory_cannot_be_made(here: Path, place: str) -> None:
    result = remask("check", "p.md", *FLAGS, "--run-dir", place)
    assert result.exit_code == 2
    assert f"run      PROBLEM  {place} cannot be made: " in result.stdout
