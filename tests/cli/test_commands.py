"""The command line: exit codes, one-line errors, what is printed, and a whole run with the models.

The run uses the real built-in target and diffusion model on a few rows of the shipped example.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from fakes import ROOT
from fakes.command import complaint, remask
from fakes.finished_run import play
from remask.api.job import open_job
from remask.api.show_progress import ProgressPanel
from remask.cli import main
from remask.cli.interrupt import SIGNALS, Interrupted, InterruptHandler
from remask.cli.live import describe_event
from remask.cli.show import print_result
from remask.config import make_config
from remask.events import Event, RoundRejected, State, advance, encode
from remask.runs.budget import Limits, Spend
from remask.runs.progress import Follower
from remask.runs.report.read_run import REPORT, view_run
from remask.runs.result import RESULT
from remask.runs.store import Store

EXAMPLE = ROOT / "examples" / "support" / "messages.jsonl"
DOCS = ROOT / "docs" / "reference" / "command-line.md"
SIZES = {"train": 8, "validation": 6, "test": 10}
COLUMNS = ("--input", "{message}", "--expected", "topic", "--split-column", "split")
LIMIT = 80  # target calls: the sealed test takes 20, the baseline 6
SMALL = (*COLUMNS, "--answer", "This message is about {label}.", "--max-calls", str(LIMIT))
TOML = """
prompt = "prompt.md"
run_dir = "run"
data = {path = "rows.jsonl", input = "{message}", expected = "topic", split = "split"}
metric = {answer = "This message is about {label}."}
search = {candidates = 4, maskers = ["span", "insert"], context_tokens = 120}
denoiser = {steps = 2}
budget = {calls = 80}
"""


@pytest.fixture
def here(here: Path) -> Path:
    """A folder to work in, with a prompt and a few rows of the example."""
    fill(here)
    return here


def fill(folder: Path) -> None:
    (folder / "prompt.md").write_text("Classify the message.\n", encoding="utf-8")
    left = dict(SIZES)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as out:
        for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
            split = json.loads(line)["split"]
            if left[split]:
                left[split] -= 1
                out.write(line + "\n")


# --- help


def test_help_imports_no_slow_package() -> None:
    heavy = "{'torch', 'transformers', 'scipy', 'openai', 'jinja2', 'numpy', 'pydantic', 'rich'}"
    code = (
        "import sys\nfrom remask.cli import main\n"
        "try:\n    main(['optimize', '--help'])\nexcept SystemExit: pass\n"
        f"sys.exit(str({heavy} & set(sys.modules) or '') or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("command", ["", *main.commands])
def test_documentation_contains_the_current_help(command: str) -> None:
    words = [command, "--help"] if command else ["--help"]
    result = CliRunner().invoke(main, words, prog_name="remask", terminal_width=100)
    assert result.exit_code == 0
    assert f"```text\n{result.stdout}```" in DOCS.read_text(encoding="utf-8")


def test_documentation_names_every_exit_code() -> None:
    text = DOCS.read_text(encoding="utf-8")
    codes = re.findall(r"^ +(\d+) +", remask("--help").stdout, re.MULTILINE)
    assert codes == ["0", "1", "2", "3", "4", "5", "6", "130"]
    for code in codes:
        assert f"| {code} " in text


# --- wrong input: exit code 2, one line, nothing written

MANY = "\n".join(
    json.dumps({"message": f"message {i}", "topic": "billing", "split": split})
    for i, split in enumerate(["train", "validation", "test"] * 4)
)
BAD: dict[str, tuple[dict[str, str], tuple[str, ...], str]] = {
    "no prompt": ({}, ("nope.md", "--data", "rows.jsonl"), r"nope\.md.*no such prompt file"),
    "a folder": ({}, (".", "--data", "rows.jsonl"), r"folder"),
    "rows as the prompt": ({}, ("rows.jsonl", "--data", "rows.jsonl"), r"rows\.jsonl: .*rows, not a prompt"),
    "a table as the prompt": (
        {"r.CSV": "input,label\na,b\n"},
        ("r.CSV", "--data", "rows.jsonl"),
        r"r\.CSV: .*rows, not a prompt",
    ),
    "the split column under its old name": (
        {},
        ("prompt.md", "--data", "rows.jsonl", "--split", "split"),
        r"'--split'.*'--split-column'",
    ),
    "no source": ({}, (), r"name a prompt file"),
    "no toml": ({}, ("other.toml",), r"other\.toml.*no such file"),
    "no data": ({}, ("prompt.md",), r"--data FILE"),
    "missing data": ({}, ("prompt.md", "--data", "no.jsonl"), r"no\.jsonl"),
    "empty data": ({"e.jsonl": ""}, ("prompt.md", "--data", "e.jsonl"), r"e\.jsonl.*no rows"),
    "malformed row": (
        {"m.jsonl": '{"input": "a", "label": "b"}\n{"input": \n'},
        ("prompt.md", "--data", "m.jsonl"),
        r"m\.jsonl:2",
    ),
    "unknown column": (
        {},
        ("prompt.md", "--data", "rows.jsonl", "--input", "{body}", "--expected", "topic"),
        r"'body'.*message",
    ),
    "unknown answer column": (
        {},
        ("prompt.md", "--data", "rows.jsonl", "--input", "{message}", "--expected", "nope"),
        r"'nope'.*topic",
    ),
    "unknown key": (
        {"r.toml": 'prompt = "prompt.md"\n[search]\ncandidate = 3\n'},
        ("r.toml",),
        r"unknown key 'search\.candidate'.*candidates",
    ),
    "not a section": (
        {"r.toml": 'prompt = "prompt.md"\ndata = 3\n'},
        ("r.toml", "--input", "{message}"),
        r"data = 3.*\[data\]",
    ),
    "broken toml": ({"r.toml": "prompt = \n"}, ("r.toml",), r"r\.toml.*TOML"),
    "one class": (
        {"one.jsonl": MANY},
        ("prompt.md", "--data", "one.jsonl", *COLUMNS, "--max-calls", "500"),
        r"same right answer 'billing'",
    ),
    "nothing editable": (
        {"f.md": "[[keep]]All of it.[[/keep]]\n`{x}`"},
        ("f.md", "--data", "rows.jsonl", *COLUMNS),
        r"no editable text",
    ),
    "metric file": (
        {"score.py": "x = 1"},
        ("prompt.md", "--data", "rows.jsonl", *COLUMNS, "--metric", "score.py:grade"),
        r"score\.py has no function grade",
    ),
    "judge scale": (
        {},
        ("prompt.md", "--data", "rows.jsonl", *COLUMNS, "--judge-scale", "ten"),
        r"--judge-scale 'ten': write LOW\.\.HIGH",
    ),
    "open keep": (
        {"f.md": "Do it.\n[[keep]]All of it."},
        ("f.md", "--data", "rows.jsonl", *COLUMNS),
        r"line 2.*never closed",
    ),
    "too small a budget": (
        {},
        ("prompt.md", "--data", "rows.jsonl", *COLUMNS, "--max-calls", "26"),
        r"--max-calls\) is 26, but a run needs 55 calls or more: 20 for .* set it to 55 or more",
    ),
    "negative budget": (
        {},
        ("prompt.md", "--data", "rows.jsonl", *COLUMNS, "--max-calls", "-3"),
        r"error: --max-calls \(budget\.calls\) is -3, but must be at least 1$",
    ),
    "dollars without a price": (
        {},
        ("prompt.md", "--data", "rows.jsonl", *COLUMNS, "--max-usd", "1"),
        r"input_price",
    ),
    "unknown target": (
        {},
        ("prompt.md", "--data", "rows.jsonl", *COLUMNS, "--target", "gpt"),
        r"'gpt' is unknown",
    ),
    "unknown metric": (
        {},
        ("prompt.md", "--data", "rows.jsonl", *COLUMNS, "--metric", "bleu"),
        r"'bleu' is unknown",
    ),
    "too long a prompt": (
        {"l.md": "Be kind to every customer. " * 1500},
        ("l.md", "--data", "rows.jsonl", *COLUMNS),
        r"tokens.*target builtin reads",
    ),
}


@pytest.mark.parametrize("command", ["optimize", "check", "refine"])
@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--max-calls", "0", "--max-calls (budget.calls) is 0, but must be at least 1"),
        ("--max-total-tokens", "-1", "--max-total-tokens (budget.tokens) is -1, but must be at least 1"),
        ("--max-minutes", "0", "--max-minutes (budget.minutes) is 0.0, but must be more than 0"),
        ("--max-minutes", "nan", "--max-minutes (budget.minutes) is nan, but must be a finite number"),
        ("--max-usd", "-0.5", "--max-usd (budget.usd) is -0.5, but must be more than 0"),
    ],
)
def test_a_wrong_limit_names_option_key_and_what_it_must_be(
    here: Path, command: str, option: str, value: str, said: str
) -> None:
    files = ("--traces", "rows.jsonl") if command == "refine" else ("--data", "rows.jsonl")
    assert complaint(remask(command, "prompt.md", *files, option, value)) == f"error: {said}"


def test_a_wrong_key_of_a_file_names_the_file(here: Path) -> None:
    (here / "r.toml").write_text('prompt = "prompt.md"\n[budget]\ncalls = 0\n')
    assert complaint(remask("check", "r.toml")) == "error: r.toml: budget.calls is 0, but must be at least 1"


@pytest.mark.parametrize("name", BAD)
def test_optimize_with_wrong_input_prints_one_sentence_and_writes_nothing(here: Path, name: str) -> None:
    files, args, expected = BAD[name]
    for file, text in files.items():
        (here / file).write_text(text, encoding="utf-8")
    before = sorted(here.rglob("*"))
    result = remask("optimize", *args, "--run-dir", "run")
    assert re.search(expected, complaint(result)), result.stderr
    assert sorted(here.rglob("*")) == before


def test_optimize_uses_no_run_directory_twice(here: Path) -> None:
    play(here / "run")
    before = (here / "run" / "run.db").read_bytes()
    args = ("prompt.md", "--data", "rows.jsonl", *SMALL, "--run-dir", "run")
    assert "already holds a run" in complaint(remask("optimize", *args))
    assert (here / "run" / "run.db").read_bytes() == before
    checked = remask("check", *args)
    assert checked.exit_code == 2
    assert re.search(r"^run +PROBLEM +run already holds a run", checked.stdout, re.MULTILINE)


@pytest.mark.parametrize("command", ["resume", "show", "report"])
def test_commands_on_a_folder_without_a_run_name_the_folder(here: Path, command: str) -> None:
    assert re.search(r"nowhere is not the folder of a run", complaint(remask(command, "nowhere")))


def test_errors_contain_no_control_characters(here: Path) -> None:
    result = remask("optimize", "prompt.md", "--data", "a\x1b[31m\nb.jsonl")
    assert "\x1b" not in complaint(result)


def test_debug_raises_the_error_itself(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REMASK_DEBUG", "1")
    assert remask("show", "nowhere").exception is not None


def test_resume_exits_with_4_for_a_busy_run_and_2_for_changed_data(here: Path) -> None:
    data = {"path": str(here / "rows.jsonl"), "input": "{message}", "expected": "topic"}
    config = make_config({"prompt": "Classify the message.", "data": data}, "test")
    with open_job(config) as job, Store.create(here / "run", job.record):
        busy = remask("resume", "run")
    assert busy.exit_code == 4
    assert re.fullmatch(r"error: run is in use by process \d+ .*\n", busy.stderr)
    lines = (here / "rows.jsonl").read_text().splitlines()
    (here / "rows.jsonl").write_text("\n".join(lines[:-1]))
    assert "data_id" in complaint(remask("resume", "run"))


def test_resume_exits_with_2_where_the_file_of_the_metric_has_changed(here: Path) -> None:
    data = {"path": str(here / "rows.jsonl"), "input": "{message}", "expected": "topic"}
    (here / "score.py").write_text("WRONG = 0.0\n\ndef score(example, response):\n    return WRONG\n")
    metric = {"name": f"{here / 'score.py'}:score"}
    config = make_config({"prompt": "Classify.", "data": data, "metric": metric}, "test")
    with open_job(config) as job:
        Store.create(here / "run", job.record).close()
    (here / "score.py").write_text("WRONG = 0.1\n\ndef score(example, response):\n    return WRONG\n")
    assert "metric_code" in complaint(remask("resume", "run"))


def test_an_empty_scale_of_a_judge_is_refused(here: Path) -> None:
    (here / "remask.toml").write_text('prompt = "prompt.md"\n[metric]\nname = "judge"\nscale = [5, 5]\n')
    said = complaint(remask("check", "remask.toml"))
    assert "metric.scale" in said and "must be below the best score 5" in said


# --- signals


@pytest.fixture
def own_signals() -> Iterator[None]:
    """The signal handlers are as before after the test."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
def test_interrupt_handler_stops_at_a_checkpoint_and_then_at_once() -> None:
    with InterruptHandler() as handler:
        handler.checkpoint()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted) as stopped:
            handler.checkpoint()
        assert stopped.value.exit_code == 130
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            handler.checkpoint()
    os.kill(os.getpid(), signal.SIGTERM)  # the process ends already, so it changes nothing


def test_interrupt_handler_restores_the_handlers() -> None:
    before = signal.getsignal(signal.SIGINT)
    with InterruptHandler():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_with_a_handler_of_its_own_is_no_wish_to_stop() -> None:
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    wakeup = signal.set_wakeup_fd(-1)
    try:
        with InterruptHandler() as handler:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert not handler.is_pending()
            handler.checkpoint()
        assert signal.set_wakeup_fd(wakeup) == -1
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("own_signals")
def test_interrupt_handler_treats_sigterm_like_ctrl_c() -> None:
    with InterruptHandler() as handler:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted) as stopped:
            handler.checkpoint()
    assert stopped.value.exit_code == 143


# --- showing a run, without models


def test_show_prints_diff_verdict_and_candidates(finished_run: Path) -> None:
    result = remask("show", finished_run)
    assert result.exit_code == 0, result.output
    assert "Work at level [-5-]{+10" in result.stdout
    assert re.search(r"^improved: 0\.\d+ → 1\.000 on 40 sealed test rows", result.stdout, re.M)
    assert "used for selection" in result.stdout
    assert "evidence: question train-" in result.stdout
    assert "warning: a <b>warning</b>" in result.stdout
    assert len(re.findall(r"accepted$", result.stdout, re.M)) == len(view_run(finished_run).state.accepted)
    assert "\x1b" not in result.stdout


def test_show_json_is_one_object(finished_run: Path) -> None:
    value = json.loads(remask("show", finished_run, "--json").stdout)
    assert value["finished"] is True
    assert value["result"] == json.loads((finished_run / RESULT).read_text())
    assert len(value["candidates"]) == len(view_run(finished_run).state.proposals)
    assert value["spend"]["calls"] > 0


def test_show_of_an_unfinished_run_says_how_to_continue(tmp_path: Path) -> None:
    play(tmp_path / "run", finish=False)
    result = remask("show", tmp_path / "run")
    assert result.exit_code == 0
    assert f"remask resume {tmp_path / 'run'}" in result.stdout
    assert "no verdict yet" in result.stdout
    assert json.loads(remask("show", tmp_path / "run", "--json").stdout)["finished"] is False
    assert "not finished" in complaint(remask("report", tmp_path / "run"))


def test_export_and_report_write_the_files_of_a_run(finished_run: Path, tmp_path: Path) -> None:
    file = tmp_path / "best.md"
    assert remask("export", finished_run, "-o", file).exit_code == 0
    assert file.read_text() == view_run(finished_run).result.prompt + "\n"  # type: ignore[union-attr]
    assert "--force" in complaint(remask("export", finished_run, "-o", file))
    assert remask("export", finished_run, "-o", file, "--force").exit_code == 0
    assert remask("report", finished_run).exit_code == 0
    assert (finished_run / REPORT).read_text().startswith("<!doctype html>")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("variable", ["NO_COLOR", ""])
def test_show_prints_colours_on_a_terminal_without_no_color(finished_run: Path, variable: str) -> None:
    import pty

    ours, theirs = pty.openpty()
    quiet = ("NO_COLOR", "TERM", "FORCE_COLOR")
    kept = {k: v for k, v in os.environ.items() if k not in quiet}
    subprocess.run(
        [sys.executable, "-c", "from remask.cli import main; main()", "show", str(finished_run)],
        stdout=theirs,
        stderr=theirs,
        env={**kept, "TERM": "xterm", **({variable: "1"} if variable else {})},
        check=True,
    )
    os.close(theirs)
    shown = b""
    while part := _read(ours):
        shown += part
    os.close(ours)
    assert b"improved" in shown
    assert (b"\x1b" in shown) is not bool(variable)


def _read(terminal: int) -> bytes:
    """What is left to read; a pseudo-terminal ends with an error where nobody writes any more."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def test_end_of_a_run_has_verdict_diff_facts_and_next_commands(tmp_path: Path) -> None:
    hostile = tmp_path / "a\x1b]8;;http:x\x07 b\nc; rm"
    hostile.mkdir()
    play(hostile / "run")
    for mode in ("plain", "rich"):
        with CliRunner().isolation(color=True) as (out, *_):
            print_result(view_run(hostile / "run").result, mode)
            shown = out.getvalue().decode()
        lines = shown.splitlines()
        assert "improved: 0.500 → 1.000" in lines[0]
        assert "[-5-]" in shown and "{+10" in shown
        facts = [n for n, line in enumerate(lines) if re.match("validation|Search stopped|spent", line)]
        assert len(facts) == 3 and facts[-1] - facts[0] == 2
        assert [line.split()[:2] for line in lines[-3:]] == [
            ["remask", w] for w in ("export", "show", "view")
        ]
        assert "http:x" not in re.findall(r"\x1b\]8;;(.*?)\x1b", shown)
        links = re.findall(r"\x1b\]8;;(file:[!-~]*)\x1b\\", shown)
        assert len(links) == (3 if mode == "rich" else 0)
        assert shown.count("\x1b]8") == 2 * len(links)


# --- following a run


def test_live_output_handles_every_event_of_a_run(finished_run: Path) -> None:
    follower = Follower(Limits(calls=2000), clock=lambda: 61.0)
    state, lines = State(), []
    for calls, event in view_run(finished_run).history:
        state = advance(state, event)
        lines.append(describe_event(event, state))
        follower.event(event, state, Spend(calls=calls))
    said = [line for line in lines if line]
    assert said[0].startswith("start: ")
    assert any(line.startswith("baseline: validation 0.500 (used for selection)") for line in said)
    written = [line for line in said if re.search(r"round \d+: \d+ candidates written; scoring", line)]
    rounds = {number for number, _ in view_run(finished_run).state.proposals}
    assert len(written) == len(rounds)
    assert sum("accepted +" in line for line in said) == len(state.accepted)
    assert any(line.startswith("search stopped: ") for line in said)
    out = StringIO()
    panel = ProgressPanel(follower, str(finished_run))
    Console(file=out, width=140, color_system=None).print(panel)
    assert re.search(r"best 1\.000 \(.*\), baseline 0\.500 \(.*\), used for selection", out.getvalue())
    assert "of 2,000 calls" in out.getvalue()


def test_live_panel_prints_markup_as_text(finished_run: Path) -> None:
    follower = Follower(clock=lambda: 0.0)
    follower.event(RoundRejected(0, "[bold]"), State(), Spend())
    follower.step("[blue]\x1b[2J", 0, 0)
    out = StringIO()
    panel = ProgressPanel(follower, "[red]x[/red]\x1b")
    Console(file=out, width=100, color_system=None).print(panel)
    assert "[red]x[/red]" in out.getvalue()
    assert "[blue]" in out.getvalue()
    assert "\x1b" not in out.getvalue()


# --- check against a server


class Models(BaseHTTPRequestHandler):
    """Lists models and counts what else it is asked."""

    answer = (200, b'{"data": [{"id": "tiny"}]}')
    location = "http://192.0.2.1/elsewhere"
    paths: list[str]
    keys: list[str | None]

    def do_GET(self) -> None:
        self.paths.append(self.path)
        self.keys.append(self.headers["Authorization"])
        status, body = self.answer
        self.send_response(status)
        self.send_header("Location", self.location)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.paths.append(self.path)
        self.send_error(401)

    def log_message(self, format: str, *args: object) -> None:
        pass


@dataclass
class Endpoint:
    url: str
    handler: type[Models]


@pytest.fixture
def server() -> Iterator[Endpoint]:
    handler = type("Counting", (Models,), {"paths": [], "keys": []})
    with HTTPServer(("127.0.0.1", 0), handler) as http:
        thread = Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        yield Endpoint(f"http://127.0.0.1:{http.server_address[1]}/v1", handler)
        http.shutdown()
        thread.join()


def checked(url: str, *more: str) -> Result:
    target = ("--target", "openai:tiny", "--base-url", url)
    return remask("check", "prompt.md", "--data", "rows.jsonl", *SMALL, *target, *more)


def test_check_without_problems_makes_no_billed_call(here: Path, server: Endpoint) -> None:
    (here / "prompt.md").write_text("Classify {x}. [[keep]]Never guess.[[/keep]]")
    result = checked(server.url)
    assert result.exit_code == 0, result.output
    assert server.handler.paths == ["/v1/models"]
    assert "lists the model" in result.stdout
    assert "frozen: 'Never guess.'" in result.stdout
    assert "24 rows: train 8, validation 6, test 10" in result.stdout
    assert re.search(rf"^calls +\d+ +\d+ +{LIMIT}$", result.stdout, re.M)
    assert re.search(r"^USD +unknown", result.stdout, re.M)
    assert result.stdout.endswith("Ready.\n")
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, 2, "refuses the key"),
        (404, 0, "gives no model list"),
        (302, 0, "gives no model list"),
        (500, 0, "gives no model list"),
        (200, 0, "the server does not list 'tiny'; it has other"),
    ],
)
def test_check_reports_the_answer_of_the_server(
    here: Path, server: Endpoint, status: int, code: int, said: str
) -> None:
    server.handler.answer = (status, b'{"data": [{"id": "other"}]}')
    result = checked(server.url, "--json")
    assert result.exit_code == code, result.output
    value = json.loads(result.stdout)
    assert value["ok"] is (code == 0)
    assert any(said in f["text"] for f in value["findings"] if f["about"] == "target")
    assert server.handler.paths == ["/v1/models"]  # asked once, and no redirect was followed
    assert all(cost["low"] is None or cost["low"] <= cost["high"] for cost in value["costs"])


@pytest.mark.parametrize("elsewhere", ["localhost", "127.0.0.1"])
def test_check_follows_no_redirect_with_the_key(
    here: Path, server: Endpoint, monkeypatch: pytest.MonkeyPatch, elsewhere: str
) -> None:
    """Neither to another host nor to another port."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    other = type("Other", (Models,), {"paths": [], "keys": []})
    with HTTPServer(("127.0.0.1", 0), other) as http:
        thread = Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        server.handler.answer = (307, b"")
        server.handler.location = f"http://{elsewhere}:{http.server_address[1]}/v1/models"
        result = checked(server.url)
        http.shutdown()
        thread.join()
    assert result.exit_code == 0 and "gives no model list (307)" in result.stdout
    assert server.handler.keys == ["Bearer sk-secret"] and other.paths == []


def test_check_reports_a_server_that_does_not_answer(here: Path) -> None:
    result = checked("http://127.0.0.1:9/v1")
    assert result.exit_code == 2
    said = r"^target +PROBLEM +openai:tiny at 127\.0\.0\.1:9: no connection to 127\.0\.0\.1 \("
    assert re.search(said, result.stdout, re.M)


def test_eval_exits_with_3_where_the_target_refuses(here: Path, server: Endpoint) -> None:
    target = ("--target", "openai:tiny", "--base-url", server.url)
    result = remask("eval", "prompt.md", "--data", "rows.jsonl", *COLUMNS, *target)
    assert result.exit_code == 3, result.output
    assert result.stdout == ""
    assert re.fullmatch(r"error: .*401.*\n", result.stderr)


def test_check_reports_all_problems(here: Path) -> None:
    (here / "prompt.md").write_text("{x}")
    result = remask(
        "check", "prompt.md", "--data", "no.jsonl", "--target", "openai:tiny",
        "--base-url", "http://127.0.0.1:9/v1",
    )  # fmt: skip
    assert result.exit_code == 2
    problems = re.findall(r"^(\w+) +PROBLEM", result.stdout, re.M)
    assert problems == ["prompt", "data", "target"]


# --- a whole run with the built-in models


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.removesuffix("\n").split("\n")]


@pytest.mark.slow
def test_optimize_can_be_interrupted_resumed_shown_and_exported(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def interrupt(event: Event) -> dict[str, Any]:
            if event.__class__.__name__ == "Proposed":
                os.kill(os.getpid(), signal.SIGINT)
            return encode(event)

        patch.setattr("remask.cli.live.encode", interrupt)
        (here / "remask.toml").write_text(TOML)
        cut = remask("optimize", "--json")
    assert cut.exit_code == 130, cut.output
    assert f"continue with: remask resume {here / 'run'}" in cut.stderr
    assert [line["kind"] for line in lines(cut) if line["kind"] != "Progress"][-1] == "Proposed"
    assert not (here / "run" / RESULT).exists()

    whole = remask("resume", "run", "--json")
    assert whole.exit_code == 0, whole.output
    events, result = [e for e in lines(whole)[:-1] if e["kind"] != "Progress"], lines(whole)[-1]
    assert [e["kind"] for e in events][-2:] == ["SearchEnded", "Tested"]
    assert all(e["spend"]["calls"] <= LIMIT for e in events)
    assert result["kind"] == "Result"
    assert result["test"]["n"] == 10
    assert result["spend"]["calls"] <= LIMIT
    assert json.loads((here / "run" / RESULT).read_text())["verdict"] == result["verdict"]
    assert Path(result["report"]).read_text().count(result["verdict"]) >= 1

    again = remask("resume", "run", "--plain")
    assert again.exit_code == 0
    assert result["verdict"] in again.stdout
    assert "\x1b" not in again.stdout + again.stderr
    assert remask("export", "run", "-o", "best.json").exit_code == 0
    messages = json.loads((here / "best.json").read_text())
    assert messages == [{"role": "system", "content": result["prompt"]}]


def test_eval_scores_a_prompt(here: Path) -> None:
    args = ("eval", "prompt.md", "--data", "rows.jsonl", *COLUMNS, "--split", "train")
    value = json.loads(remask(*args, "--json").stdout)
    assert value["kind"] == "Evaluation"
    assert value["score"]["n"] == 8
    assert value["spend"]["calls"] == 8
    plain = remask(*args)
    assert plain.exit_code == 0
    assert plain.stdout.startswith(f"train: {value['score']['mean']:.3f} on 8 rows")
    assert sorted(p.name for p in here.iterdir()) == ["prompt.md", "rows.jsonl"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signals", "said"), [(1, "stopped; continue"), (2, "stopped at once; continue")], ids=["once", "twice"]
)
def test_optimize_process_can_be_interrupted_and_its_run_completed(
    here: Path, signals: int, said: str
) -> None:
    command = [sys.executable, "-c", "from remask.cli import main; main()"]
    (here / "remask.toml").write_text(TOML)
    child = subprocess.Popen(
        [*command, "optimize"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    for line in child.stdout:
        if "baseline" in line:
            break
    for _ in range(signals):
        child.send_signal(signal.SIGINT)
        if signals > 1:
            assert child.stderr is not None
            child.stderr.readline()
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert said in errors
    done = subprocess.run([*command, "resume", "run"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert (here / "run" / REPORT).exists()


def test_main_is_the_entry_point() -> None:
    assert isinstance(main, click.Group)
    assert 'remask = "remask.cli:main"' in (ROOT / "pyproject.toml").read_text()
