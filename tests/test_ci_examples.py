"""The examples for CI run the commands that they show, with the built-in models."""

import os
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes import ROOT
from fakes.command import remask

FOLDER = ROOT / "examples" / "ci"
HOW_TO = ROOT / "docs" / "how-to" / "ci.md"


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text("utf-8"))  # type: ignore[no-any-return]


def steps(job: str) -> list[str]:
    """The commands of a job, without those that install remask."""
    found = [step["run"] for step in read("workflow.yml")["jobs"][job]["steps"] if "run" in step]
    return [text for text in found if not text.startswith("pip ")]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A new project, and a command `remask` that runs this checkout."""
    assert remask("init", tmp_path / "project", "--yes").exit_code == 0
    script = tmp_path / "bin" / "remask"
    script.parent.mkdir()
    code = "from remask.cli import main; main()"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c "{code}" "$@"\n')
    script.chmod(0o755)
    return tmp_path / "project"


def shell(project: Path, text: str, **more: str) -> int:
    path = f"{project.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    source = f"{ROOT / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    page = str(project / "summary.md")
    env = {**os.environ, "PATH": path, "PYTHONPATH": source, "GITHUB_STEP_SUMMARY": page, **more}
    # GitHub runs a step with these options.
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", text], cwd=project, env=env, check=False
    ).returncode


def test_the_page_shows_both_files() -> None:
    text = HOW_TO.read_text("utf-8")
    for name in ("workflow.yml", "pre-commit-config.yaml"):
        assert (FOLDER / name).read_text("utf-8").strip() in text, f"examples/ci/{name} is not in the page"


def test_every_job_installs_remask_and_runs_it() -> None:
    jobs = read("workflow.yml")["jobs"]
    assert {name: len(steps(name)) for name in jobs} == {"score": 2, "search": 2}
    assert all("remask " in text for name in jobs for text in steps(name))


@pytest.mark.slow
def test_the_steps_of_the_pull_request_pass_and_fail_by_the_score(project: Path) -> None:
    check, score = steps("score")
    assert shell(project, check) == 0
    assert shell(project, score, **read("workflow.yml")["jobs"]["score"]["env"]) == 0
    assert ET.parse(project / "junit.xml").getroot().get("failures") == "0"
    assert shell(project, score, MIN_SCORE="0.99") == 5
    assert ET.parse(project / "junit.xml").getroot().get("failures") == "1"
    page = (project / "summary.md").read_text("utf-8")
    assert page.count("## remask eval") == 2 and "failed: the score is" in page
    (project / "remask.toml").write_text("prompt = 1\n")
    assert shell(project, check) == 2


@pytest.mark.slow
def test_the_steps_of_the_night_run_search_and_export(project: Path) -> None:
    search, export = steps("search")
    assert shell(project, search) == 0
    assert shell(project, export) == 0
    assert (project / "prompt.better.md").is_file()
    assert ET.parse(project / "junit.xml").getroot().get("tests") == "1"


@pytest.mark.slow
def test_the_hooks_of_pre_commit_run(project: Path) -> None:
    hooks = {hook["id"]: hook for hook in read("pre-commit-config.yaml")["repos"][0]["hooks"]}
    # pre-commit splits the entry like a shell and starts no shell.
    entries = {id: shlex.join(shlex.split(hook["entry"])) for id, hook in hooks.items()}
    assert [shell(project, entries[id]) for id in ("remask-check", "remask-eval")] == [0, 0]
    assert shell(project, entries["remask-eval"].replace("0.4", "1.1")) == 5
