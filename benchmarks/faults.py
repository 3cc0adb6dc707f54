"""Play the fault matrix, every fault of every row, and count what passes.

    python -m benchmarks.faults [ROW ...]       (make faults: all rows; about two hours on two cores)
    python -m benchmarks.faults --page

Each row is played by tests of the suite, the quick and the slow ones. A test says how many runs or
cases it has played (`record_property("runs", n)`); one that does not counts as one. The figures go
to benchmarks/results/faults.json, with command, commit, machine and date; rows that are played
alone replace their own figures only. The page is docs/background/faults.md.
"""

import argparse
import datetime
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.record import (
    DOCS,
    RESULTS,
    ROOT,
    add_page_option,
    describe_run,
    make_parser,
    read_json,
    write_json,
)
from remask.files import write

FIGURES = RESULTS / "faults.json"
PAGE = DOCS / "background" / "faults.md"
# Row -> (what goes wrong, what must hold, the tests that play it, below tests/).
ROWS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "R1": (
        "`kill -9` at random moments, resumed until done; the server counts what is billed",
        "where the limit does not bind: the same prompt, scores and test as the uncut run, and at most "
        "kills × calls in flight more; where it binds: a verdict on the whole test, and no call over "
        "the limit",
        ("faults/test_kill.py", "runs/test_kill.py", "runs/test_meter.py"),
    ),
    "R2": (
        "the n-th write, fsync or rename fails, for every n",
        "one sentence, the state can be read, and a resumed run ends the same",
        ("faults/test_disk.py", "test_files.py"),
    ),
    "R3": (
        "the n-th call of a run fails, in more than twenty ways, for every n",
        "retried, skipped or ended as the failure asks; a failed call is never a score",
        (
            "faults/test_calls.py",
            "models/test_openai.py",
            "models/test_reply_body.py",
            "api/test_endpoint.py",
        ),
    ),
    "R4": (
        "the power is cut: what no fsync covers is torn, missing or in another order",
        "the run can be read; a resumed run ends the same",
        ("faults/test_power_loss.py",),
    ),
    "R5": (
        "Ctrl-C once and twice, SIGTERM, SIGHUP, in a real process under a terminal, in every phase",
        "stops within two seconds, the terminal is as it was, a resumed run ends the same",
        ("faults/test_signals.py",),
    ),
    "R6": (
        "two processes on one run",
        "one goes on, the other says who has it",
        ("faults/test_lock.py", "runs/test_store.py"),
    ),
    "R7": (
        "a damaged database: flipped bytes, swapped pages, odd but well-formed content",
        "found and said in one sentence, or harmless; never another result",
        ("faults/test_damage.py",),
    ),
    "R8": (
        "limits on calls, tokens and dollars, counted at the server, under refusals, timeouts and "
        "absurd usage",
        "never over the limit",
        ("faults/test_limits.py", "runs/test_ledger.py"),
    ),
    "R9": (
        "the wall clock jumps by hours; the machine sleeps past the time limit",
        "the same result, no negative duration; the run can be finished",
        ("faults/test_clock.py",),
    ),
    "R10": (
        "other hash seeds and numbers of calls in flight",
        "the same bytes of results",
        ("faults/test_determinism.py",),
    ),
    "R11": (
        "NaN and infinite logits, no finite choice, empty spans, spans over the context, odd vocabularies",
        "finite numbers or a typed error, never a mask in a prompt, always an end",
        ("dlm/test_sampler.py", "dlm/test_canvas.py", "dlm/test_schedule.py", "dlm/test_denoiser.py"),
    ),
    "R12": (
        "metrics that hang, raise, or return no number from 0 to 1",
        "the row has no score, with a reason; the run goes on",
        ("tasks/test_metrics.py",),
    ),
    "R13": (
        "a million records; one line of a hundred megabytes",
        "read in at most 300 MB, the line left out with its number",
        ("faults/test_scale.py",),
    ),
    "W1": (
        "workers (processes, and actors of a local Ray cluster of three raylets) are killed at random; "
        "a raylet, the server of the head and the driver are killed",
        "the work of the dead is done once more, calls in flight are at most uncertain, the same results",
        ("runs/test_executors.py", "runs/test_ray_actors.py", "api/test_workers.py"),
    ),
    "I1": (
        "malformed files of traces and rows",
        "each entry is read, or rejected with its line and a reason",
        ("data/test_malformed.py", "data/test_rows.py"),
    ),
    "I2": ("random files for every reader", "no exception but our own", ("data/test_fuzz.py",)),
    "I3": (
        "exports of generated prompts to every format, read back",
        "the same text and the same variables",
        ("integrations/test_export.py", "cli/test_export.py", "integrations/test_place.py"),
    ),
    "U1": (
        "right-to-left text, joined emoji, combining marks, hidden characters",
        "no letter is cut in two, hidden characters are shown",
        ("test_prompt.py", "runs/test_word_diff.py", "propose/test_maskers.py", "propose/test_structure.py"),
    ),
    "S1": (
        "injections in traces, and disguised copies of a user's words",
        "no payload in a prompt",
        ("propose/test_injection.py", "propose/test_guard.py"),
    ),
    "S2": (
        "planted secrets in rows, answers and traces",
        "none in a written byte or in a request to the denoiser's API",
        ("faults/test_secrets.py", "data/redact"),
    ),
    "S3": (
        "template code in prompts and rows: Jinja, Python, JavaScript, shell, ERB",
        "never evaluated, kept byte for byte",
        ("data/test_placeholders.py", "data/test_prompt_templates.py"),
    ),
    "S4": (
        "requests to `remask view` under foreign names, from foreign pages, without the key, slow or many",
        "refused before any page is made; no file outside, no change of a run",
        ("view/test_door.py",),
    ),
    "S5": (
        "hostile text as prompt, row, model and folder name",
        "no script runs in a browser, no control character reaches the terminal",
        ("faults/test_hostile_text.py", "runs/test_report.py"),
    ),
    "S6": (
        "hostile folders of models",
        "one sentence within seconds, nothing executed",
        ("faults/test_model_folders.py", "models/backbone"),
    ),
    "S7": (
        "everything that the commands open, delete, start and connect to is noted",
        "only the run directory and the named server",
        ("faults/test_reach.py",),
    ),
    "P1": (
        "a run of 10,000 calls is resumed with nothing left to do; `--help`; two prompts of 20,000 words",
        "one second, and a report of at most 1 MB in one second; 250 ms; one second",
        ("faults/test_speed.py",),
    ),
    "Q": (
        "runs in which no prompt is better, scores of known laws, other implementations of the statistics",
        "at most 5 % false *improved*; intervals that cover; the same numbers",
        ("test_stats.py", "benchmarks/test_acceptance.py"),
    ),
}


def play_row(row: str) -> dict[str, Any]:
    """Run the tests of a row; returns how many runs and cases they played, and how many failed."""
    paths = [ROOT / "tests" / name for name in ROWS[row][2]]
    present = [str(path) for path in paths if path.exists()]
    if not present:
        return {"tests": 0, "runs": 0, "failed": 0, "skipped": 0, "seconds": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = ["-m", "pytest", "-n", "0", "-m", "slow or not slow", "-o", "junit_family=xunit1"]
        words += [f"--junitxml={report}", *present]
        subprocess.run([sys.executable, *words], cwd=ROOT)
        return count(ElementTree.parse(report).getroot())


def count(report: ElementTree.Element) -> dict[str, Any]:
    """Add up the tests of a JUnit report."""
    cases = list(report.iter("testcase"))
    skipped = sum(case.find("skipped") is not None for case in cases)
    failed = sum(case.find("failure") is not None or case.find("error") is not None for case in cases)
    runs = 0
    for case in cases:
        if case.find("skipped") is None:
            named = [p.get("value") for p in case.iter("property") if p.get("name") == "runs"]
            runs += int(named[0] or 1) if named else 1
    seconds = sum(float(case.get("time", 0)) for case in cases)
    return {
        "tests": len(cases) - skipped,
        "runs": runs,
        "failed": failed,
        "skipped": skipped,
        "seconds": round(seconds, 1),
    }


def write_page() -> None:
    """Write docs/background/faults.md from the committed figures."""
    known = read_json(FIGURES)
    lines = [
        "# What can go wrong, and what happens then",
        "",
        "<!-- Made by `python -m benchmarks.faults --page`. -->",
        "",
        "A run costs money and time, so remask is tried with everything that can go wrong on the way.",
        "Each row below is a kind of fault. The tests of a row play it with real processes, files and",
        "servers; a sample of them runs with `pytest`, all of them with `make faults`. A row passes when",
        "none of its tests fails.",
        "",
        "| row | what goes wrong | what must hold | tests | runs or cases | failed | played |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, (what, must, _) in ROWS.items():
        found = known["rows"].get(row)
        if not found or not found["tests"]:
            lines.append(f"| {row} | {what} | {must} | – | – | – | not yet |")
            continue
        figures = f"{found['tests']:,} | {found['runs']:,} | {found['failed']:,}"
        lines.append(f"| {row} | {what} | {must} | {figures} | {found['date']}, {found['commit']} |")
    lines += [
        "",
        "*Runs or cases*: runs of the command line that were killed or disturbed, or inputs that were",
        "tried; a test that does not count them is one. The figures are of the day and the commit in the",
        f"last column, so they say nothing of later changes. Machine: {known['machine']}.",
        "",
    ]
    write(PAGE, "\n".join(lines).encode(), force=True)


def read_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], help="Rows to play. Default: all.")
    add_page_option(parser)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    args = read_arguments(words)
    if args.page:
        write_page()
        return
    about = describe_run(__file__, words)
    known: dict[str, Any] = read_json(FIGURES) if FIGURES.exists() else {"rows": {}}
    for row in args.rows or ROWS:
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        known["rows"][row] = {**play_row(row), "date": date, "commit": about["commit"]}
        known["machine"] = about["machine"]
        write_json(FIGURES, known)  # after each row, so that a cut loses one row at most


if __name__ == "__main__":
    main()
