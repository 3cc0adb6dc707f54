"""Text that attacks its reader, as prompt, row, label and folder name (row S5).

The report is opened in a real browser, where there is one: no script may run and nothing may be
loaded. No command may write a control character to the terminal.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import remask
from fakes.colours import Phrases
from fakes.command import remask as command
from fakes.server import Server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
RAW = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\u2060]")
SCRIPTS = (
    "<script>document.title='PWN';new Image().src='URL'</script>",
    "<img src=URL onerror=document.title='PWN'>",
    "\"><svg onload=document.title='PWN'><image href=URL>",
    "</style><script src=URL></script>",
    "<iframe srcdoc=\"<script>parent.document.title='PWN'</script>\" src=URL></iframe>",
    "<meta http-equiv=refresh content='0;url=URL'>",
    "<link rel=stylesheet href=URL>",
    "<style>@import 'URL';*{background:url(URL)}</style>",
    "</title><script>document.title='PWN'</script>",
    "<details open ontoggle=document.title='PWN'>",
    "<video src=URL autoplay onloadstart=document.title='PWN'>",
    "<a href=\"javascript:document.title='PWN'\">x</a>",
)
CONTROLS = (
    "\x1b[31mred\x1b[0m",
    "\x1b]0;PWN\x07",
    "\x1b]8;;http://example.com\x1b\\link\x1b]8;;\x1b\\",
    "\x9b31m",
    "\x1b[2J\x1b[H",
    "\u202eevil\u202c",
    "\r\x1b[Koverwritten",
    "[bold red]markup[/bold red]",
)


class Answers:
    """Names the label of a number, right where the prompt speaks of colours."""

    def __init__(self, labels: tuple[str, str]) -> None:
        self.labels = labels

    def __call__(self, messages: list[dict[str, str]]) -> str:
        number = int(re.findall(r"\d+", messages[-1]["content"])[-1])
        return self.labels[number % 2] if "colours" in messages[0]["content"] else self.labels[0]


def play(folder: Path, payloads: list[str]) -> Path:
    """A whole run in which everything that a user or a model writes is hostile."""
    labels = (f"{payloads[0][:30]} A", f"{payloads[-1][:30]} B")
    splits = ["train"] * 12 + ["validation"] * 12 + ["test"] * 24
    rows = [
        {"input": f"{payloads[i % len(payloads)]} item {i}", "label": labels[i % 2], "split": split}
        for i, split in enumerate(splits)
    ]
    name = "run " + "".join(c for c in "".join(payloads[:2]) if c not in "/\0")[:60]
    remask.optimize(
        f"Name it. Be brief. {' '.join(payloads)}",
        remask.Dataset(rows, split="split"),
        target=Answers(labels),
        metric=lambda example, response: remask.Score(float(response == example.expected), payloads[1]),
        denoiser=Phrases(),
        search=remask.Search(maskers=["insert"], candidates=4),
        max_calls=260,
        run_dir=folder / name,
    )
    return folder / name


def open_in_browser(page: Path, profile: Path) -> tuple[str, str, str]:
    """The title of the page after its scripts ran, what the browser said of its policy, and the page."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={profile}", "--no-first-run", "--virtual-time-budget=3000"),
            *("--enable-logging=stderr", "--dump-dom", page.as_uri()),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None, done.stderr[-2000:]
    refused = "\n".join(re.findall(r"Content Security Policy[^\n]*", done.stderr))
    return title[1], refused, done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_no_script_of_a_run_runs_in_the_report(tmp_path: Path, record_property: Any) -> None:
    with Server() as server:
        payloads = [payload.replace("URL", server.url) for payload in SCRIPTS]
        run = play(tmp_path, payloads)
        page = tmp_path / "page.html"
        shutil.copy(run / "report.html", page)
        title, refused, _ = open_in_browser(page, tmp_path / "profile")
        assert title.endswith("– remask") and refused == ""  # a script would set it to PWN
        assert server.requests == 0 and server.paths == []
    record_property("runs", len(payloads))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_the_report_runs_its_own_script_and_no_other(tmp_path: Path) -> None:
    """A script that somebody adds to the file is refused by the hash in the page's policy."""
    page = (play(tmp_path, list(SCRIPTS)) / "report.html").read_text()
    for name, text, ours in (
        ("ours.html", page, True),
        ("added.html", page.replace("</main>", "</main><script>document.title='PWN'</script>"), True),
        ("changed.html", page.replace('"use strict";', "document.title='PWN';"), False),
    ):
        (tmp_path / name).write_text(text)
        title, refused, dom = open_in_browser(tmp_path / name, tmp_path / f"profile {name}")
        assert title.endswith("– remask")
        assert ("scripted" in dom.partition("<head>")[0]) is ours
        assert (refused == "") is (name == "ours.html")


def test_no_control_character_reaches_the_terminal(tmp_path: Path, record_property: Any) -> None:
    run = play(tmp_path, list(CONTROLS))
    assert not RAW.search((run / "report.html").read_text())
    for words in (
        ["show", run],
        ["show", run, "--plain"],
        ["report", run],
        ["export", run, "-o", tmp_path / f"{CONTROLS[1]} out.md"],
    ):
        done = command(*words)
        assert done.exit_code == 0, done.output
        assert not RAW.search(done.output), (words[0], RAW.findall(done.output)[:5])
    record_property("runs", len(CONTROLS))
