"""The programs in examples/: they use public names only, and they run."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import remask
from fakes import ENV, ROOT
from remask.cli import main

EXAMPLES = ROOT / "examples"
SUPPORT = EXAMPLES / "support"
REFERENCE = (ROOT / "docs" / "reference" / "python.md").read_text("utf-8")
DOCUMENTED = set(re.findall(r"^::: (remask[\w.]+)", REFERENCE, re.MULTILINE))
# Each with calls for the baseline and at least one round of candidates.
PROGRAMS = {"gepa_mail.py": 150, "dspy_mail.py": 120, "mlflow_mail.py": 120}


def imported_names(path: Path) -> Iterator[str]:
    """Every name of remask that a program imports, with its module."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("remask."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("remask"):
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.py")), ids=lambda path: path.name)
def test_examples_use_only_public_names(path: Path) -> None:
    """Public are the names of the package, of its reference, and of the integrations."""
    public = DOCUMENTED | {f"remask.{name}" for name in remask.__all__}
    private = [
        name
        for name in imported_names(path)
        if name not in public and not re.fullmatch(r"remask\.integrations\.\w+\.[A-Za-z]\w*", name)
    ]
    assert not private


def test_public_names_of_the_reference_are_found() -> None:
    assert {"remask.optimize", "remask.stats.compare"} <= DOCUMENTED


def test_model_of_the_examples_names_a_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import mail

    rows = mail.load_rows("validation", 100)
    assert sorted({row["topic"] for row in rows}) == mail.TOPICS
    chat = [
        {"role": "system", "content": "Classify the message."},
        {"role": "user", "content": rows[0]["message"]},
    ]
    assert mail.respond(chat) in [mail.ANSWER.format(label=topic) for topic in mail.TOPICS]


def test_shipped_example_passes_check() -> None:
    done = CliRunner().invoke(main, ["check", str(SUPPORT / "remask.toml")])
    assert done.exit_code == 0, done.output
    assert "2,600" in done.output and "PROBLEM" not in done.output


@pytest.mark.slow
def test_shipped_example_runs_with_few_calls(tmp_path: Path) -> None:
    """`make demo` on a part of the rows, with few calls, candidates and denoising steps."""
    for name in ("prompt.md", "messages.jsonl"):
        (tmp_path / name).write_text((SUPPORT / name).read_text("utf-8"), "utf-8")
    lines = (tmp_path / "messages.jsonl").read_text("utf-8").splitlines(keepends=True)
    kept: list[str] = []
    for split in ("train", "validation", "test"):
        kept += [line for line in lines if f'"split": "{split}"' in line][:8]
    (tmp_path / "messages.jsonl").write_text("".join(kept), "utf-8")
    settings = (SUPPORT / "remask.toml").read_text("utf-8").replace("calls = 2600", "calls = 100")
    settings += "\n[denoiser]\nsteps = 2\n\n[search]\ncandidates = 2\ntraces = 3\n"
    (tmp_path / "remask.toml").write_text(settings, "utf-8")
    command = ["optimize", str(tmp_path / "remask.toml"), "--run-dir", str(tmp_path / "run")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_examples_run_to_their_comparison(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name.removesuffix("_mail.py"))
    calls = str(PROGRAMS[name])
    command = [sys.executable, str(EXAMPLES / name), "--calls", calls, "--test", "12"]
    done = subprocess.run(command, cwd=tmp_path, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"test: [\d.]+ to [\d.]+, difference .*: (\w+|no evidence)", last), last
