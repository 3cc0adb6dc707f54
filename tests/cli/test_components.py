"""Prompts of several components on the command line: read from places, checked, written back."""

import json
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from fakes.scripted_denoiser import ScriptedDenoiser
from remask.cli import main

TOOLS = """[
  {"type": "function", "function": {"name": "find",   "description": "Gives the place of a parcel.",
    "parameters": {"type": "object", "properties": {}}}}
]
"""
AGENT = """
import remask

def answer(texts, message):
    return "found" if "mail" in texts["tool:find"] else "unknown"

def grade(example, answer):
    right = answer == "found"
    return remask.Score(right, "" if right else "The place of the parcel was not given by mail.")
"""
CONFIG = """
[components]
system = "agent.md#/Agent"
"tool:*" = "tools.json"

[components.reply]
place = "prompts.yaml#/reply"
max_tokens = 40

[data]
path = "rows.jsonl"
expected = ""

[target]
model = "agent.py:answer"

[metric]
name = "agent.py:grade"

[budget]
calls = 300
"""
FILES = {
    "agent.md": "# Agent\n\nYou work for a shop.\n\n# Notes\n\nKeep this.\n",
    "tools.json": TOOLS,
    "prompts.yaml": "# texts of the agent\nreply: Write one sentence.  # short\n",
    "agent.py": AGENT,
    "remask.toml": CONFIG,
    "rows.jsonl": "".join(json.dumps({"input": f"Where is parcel {n}?"}) + "\n" for n in range(60)),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "remask.api.job.make_denoiser", lambda *_: ScriptedDenoiser(("or use the mail", "be kind"))
    )
    return tmp_path


def run(*words: str, code: int = 0) -> str:
    ran = CliRunner().invoke(main, list(words))
    assert ran.exit_code == code, ran.output
    return ran.output


def test_check_says_what_is_editable_in_each_component(folder: Path) -> None:
    report = orjson.loads(run("check", "--json").splitlines()[-1])
    assert report["ok"], report["findings"]
    texts = [finding["text"] for finding in report["findings"] if finding["about"] == "prompt"]
    for name in ("system", "tool:find", "reply"):
        assert any(text.startswith(f"{name}: ") and "editable parts: 1" in text for text in texts)


def test_a_run_is_written_back_in_place(folder: Path) -> None:
    said = run("optimize", "--run-dir", "run", "--masker", "insert", "--masker", "span", "--plain")
    assert "remask export run -o texts.json  " in said and "--in-place" in said
    assert "tool:find" in run("show", "run")
    said = run("export", "run", "--in-place")
    assert "tools.json" in said
    new = json.loads((folder / "tools.json").read_text())[0]["function"]["description"]
    assert "mail" in new
    old = FILES["tools.json"].replace("Gives the place of a parcel.", new)
    assert (folder / "tools.json").read_text() == old
    assert "nothing" in run("export", "run", "--in-place")
    run("export", "run", "-o", "texts.json")
    assert json.loads((folder / "texts.json").read_text())["tool:find"] == new
    run("export", "run", "-o", "prompt.md", "--marked")
    assert run("check", "prompt.md", "--data", "rows.jsonl", "--target", "agent.py:answer", code=2)
    for kind in ("messages", "langfuse", "jinja"):
        assert "several components" in run("export", "run", "-o", "x", "--format", kind, code=2)
    (folder / "tools.json").write_text(old.replace(new, "Something else."))
    assert "tools.json:2" in run("export", "run", "--in-place", code=2)
    assert "Something else." in (folder / "tools.json").read_text()


def test_the_marks_of_a_text_are_written_back(folder: Path) -> None:
    kept = "Gives the place of a [[keep]][[/keep]]parcel. [[keep]]Ask for the number.[[/keep]]"
    (folder / "tools.json").write_text(TOOLS.replace("Gives the place of a parcel.", kept))
    agent = FILES["agent.md"].replace("shop.", "shop[[keep]][[/keep]].")
    (folder / "agent.md").write_text(agent)
    run("optimize", "--run-dir", "run", "--plain")
    assert "tools.json" in run("export", "run", "--in-place")
    (tool,) = json.loads((folder / "tools.json").read_text())
    found = tool["function"]["description"]
    assert "mail" in found and "[[keep]]Ask for the number.[[/keep]]" in found
    assert (folder / "agent.md").read_text() == agent


def test_options_name_components_without_a_configuration(folder: Path) -> None:
    (folder / "remask.toml").unlink()
    given = ["--component", "system=agent.md#/Agent", "--component", "tool:*=tools.json"]
    words = ["--data", "rows.jsonl", "--target", "agent.py:answer", "--metric", "agent.py:grade"]
    found = orjson.loads(run("eval", *given, *words, "--json").splitlines()[-1])
    assert found["score"]["mean"] == 0


def test_an_option_names_a_component_once(folder: Path) -> None:
    twice = ("--component", "a=agent.md#/Notes", "--component", "a=agent.py")
    assert "--component has two values of a: 'a=agent.md#/Notes' and 'a=agent.py'" in run(
        "check", *twice, code=2
    )
    assert "--component 'a=': write NAME=PLACE" in run("check", "--component", "a=", code=2)


def test_an_endpoint_gets_the_tools_of_the_file(folder: Path) -> None:
    config = CONFIG.replace('"agent.py:answer"', '"openai:m"\nbase_url = "http://localhost:1/v1"')
    (folder / "remask.toml").write_text(config.replace("[components.reply]", "[components.'system/2']"))
    out = run("check", "--offline") if "--offline" in run("check", "--help") else run("check", code=2)
    assert "target.extra.tools" not in out
    assert "no message and no tool" not in out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"tools.json"', '"missing.json"', "missing.json"),
        ('"agent.md#/Agent"', '"agent.md#/Nothing"', "agent.md"),
        ('place = "prompts.yaml#/reply"', "place = 3", "components.reply.place"),
        ('place = "prompts.yaml#/reply"', 'place = "agent.md"', "share a text"),
        ("max_tokens = 40", "max_tokens = 2", "max_tokens"),
        ("max_tokens = 40", "tokens = 40", "tokens"),
        ("[components]", 'prompt = "agent.md"\n[components]', "both a prompt and components"),
    ],
)
def test_a_wrong_place_is_one_sentence(folder: Path, old: str, new: str, said: str) -> None:
    (folder / "remask.toml").write_text(CONFIG.replace(old, new))
    ran = CliRunner().invoke(main, ["optimize", "--run-dir", "run"])
    assert ran.exit_code == 2, ran.output
    assert said in ran.stderr
    assert ran.stderr.strip().count("\n") == 0
    assert not (folder / "run").exists()
