"""The exported comparison, run by the real promptfoo against a server on the loopback."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fakes.server import Server
from remask.integrations.promptfoo import CONFIG, PromptfooModel, compare
from remask.prompt import Prompt
from remask.tasks.promptfoo import Assertions
from remask.types import Example

QUIET = {
    "PROMPTFOO_DISABLE_TELEMETRY": "1",
    "PROMPTFOO_DISABLE_UPDATE": "1",
    "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
    "PROMPTFOO_CACHE_ENABLED": "false",
}


def promptfoo(folder: Path) -> list[str]:
    """The command: $PROMPTFOO, or a fresh installation by npm."""
    if said := os.environ.get("PROMPTFOO"):
        return [said]
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are needed to run promptfoo")
    install = ["npm", "install", "promptfoo", "--no-audit", "--no-fund", "--prefix", str(folder)]
    subprocess.run(install, check=True, capture_output=True, timeout=900)
    return [str(folder / "node_modules" / ".bin" / "promptfoo")]


@pytest.mark.slow
def test_promptfoo_runs_the_comparison(tmp_path: Path) -> None:
    # The first is met by every answer, the second by none.
    asserted = {"rose": ("regex", r"^(?!\{\{7)"), "brick {%": ("equals", "file://{{7*7}}")}
    rows = {
        thing: Example(
            str(i),
            "test",
            f"Is a {thing} red?",
            json.dumps([{"type": kind, "value": value}]),
            {"thing": thing},
        )
        for i, (thing, (kind, value)) in enumerate(asserted.items())
    }
    before = Prompt("Say yes or no about {thing}. Never say {{7*7}}.")
    command = promptfoo(tmp_path / "npm")
    with Server() as server:  # repeats the message in capitals
        model = PromptfooModel("openai:tiny", server.url, "TINY_KEY", max_tokens=4)
        made = compare(before, Prompt("Say yes."), [*rows.values()], model, "promptfoo")
        for name, text in made.files.items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        out = tmp_path / "out.json"
        ran = subprocess.run(
            [*command, "eval", "-c", CONFIG, "-o", str(out), "--no-cache"],
            cwd=tmp_path,
            env={
                **os.environ,
                **QUIET,
                "TINY_KEY": "a-key",
                "PROMPTFOO_CONFIG_DIR": str(tmp_path / "config"),
            },
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert ran.returncode in (0, 100), ran.stderr  # 100: some assertions failed
    assert set(server.keys) == {"Bearer a-key"}
    results = json.loads(out.read_text())["results"]
    assert results["stats"]["errors"] == 0
    assert len(results["results"]) == 4
    rendered = [r["prompt"]["raw"] for r in results["results"]]
    assert any("Never say {{7*7}}." in text and "rose" in text for text in rendered)
    for result in results["results"]:
        row, said = rows[result["vars"]["thing"]], result["response"]["output"]
        (grade,) = Assertions().grade([row], [said])
        assert result["success"] == bool(grade.score)
    assert {result["success"] for result in results["results"]} == {True, False}
