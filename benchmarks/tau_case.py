"""Refine tau-bench's airline policy with the built-in model; a case study, not a score.

    python -m benchmarks.tau_case --data FOLDER [--iterations 3] [--candidates 6]
                                  [--locks text none] [--runs FOLDER]
    python -m benchmarks.tau_case --page

The data folder holds airline-policy.md and airline_gpt-4o.jsonl: 200 trajectories of gpt-4o on
tau-bench with their rewards. The policy is refined with its text locked and, if asked for, with
nothing locked. The figures go to benchmarks/results/tau_case.json, the edits of the page's tables
to tau_case_edits.json beside it, and both to the page docs/results/case-tau-airline.md. A
conversation is quoted with a few words at most.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import remask
from benchmarks.record import (
    DOCS,
    RESULTS,
    add_page_option,
    describe_run,
    make_parser,
    read_json,
    write_blocks,
    write_json,
)
from remask.data.prompt_traces import read_traces
from remask.prompt import Prompt
from remask.propose.failure_modes import group_failures
from remask.runs.result import RefinedEdit, Refinement

FIGURES, EDITS = RESULTS / "tau_case.json", RESULTS / "tau_case_edits.json"
PAGE = DOCS / "results" / "case-tau-airline.md"
QUOTE = 9  # words of a customer that are quoted
TITLES = {"text": "The text locked", "none": "Nothing locked"}


# -- measuring ------------------------------------------------------------------------------------


def refine_policy(args: argparse.Namespace, about: dict[str, str]) -> None:
    """Refine the policy under each lock; write figures and edits after each."""
    policy = (args.data / "airline-policy.md").read_text(encoding="utf-8").strip()
    log = args.data / "airline_gpt-4o.jsonl"
    kept = args.runs or Path(tempfile.mkdtemp())
    data = describe_log(policy, log) | about
    figures, edits = [], []
    for lock in args.locks:
        since = time.monotonic()
        run = remask.refine(
            policy,
            log,
            lock=lock,
            iterations=args.iterations,
            search=remask.Search(candidates=args.candidates),
            run_dir=kept / lock,
        )
        seconds = round(time.monotonic() - since)
        assert run.refinement is not None
        figures.append(
            {"lock": lock, "seconds": seconds, "candidates": run.candidates}
            | describe_refinement(run, run.refinement)
        )
        edits.append(
            {
                "lock": lock,
                "iterations": run.refinement.iterations,
                "edits": list(describe_edits(policy, run, run.refinement)),
            }
        )
        write_json(FIGURES, {**data, "runs": figures})
        write_json(EDITS, {"commit": about["commit"], "runs": edits})
        print(f"{lock}: {run.candidates} measured, {len(run.edits)} accepted", file=sys.stderr)


def describe_log(policy: str, log: Path) -> dict[str, Any]:
    """Counts of the conversations, and the most frequent kinds of failures."""
    seen = read_traces(policy, [log])
    grouped = group_failures(seen.traces)
    firsts = {grouped.mode_of[t.id]: t for t in reversed(seen.traces) if t.failing}
    often = sorted(grouped.source_counts, key=lambda kind: (-grouped.source_counts[kind], kind))[:4]
    return {
        "words": len(Prompt.parse(policy).text.split()),
        "records": seen.records,
        "failed": len(grouped.mode_of),
        "kinds": len(grouped.source_counts),
        "frequent": [(grouped.source_counts[kind], quote(firsts[kind].query)) for kind in often],
        "secrets": ", ".join(f"{n} {label}" for label, n in seen.secrets.items()) or "nothing",
    }


def describe_refinement(run: remask.Result, found: Refinement) -> dict[str, Any]:
    """The counts of refusals, and the accepted and the best other edits with their gains."""

    def pair(edits: Sequence[Any]) -> list[Any]:
        return [[edit.changes, edit.fold_gains] for edit in edits]

    return {
        "refused": dict(Counter(r.reason.partition(":")[0] for r in found.refused)),
        "accepted": pair(run.edits),
        "best_of_other_iterations": pair(found.proposals),
    }


def describe_edits(policy: str, run: remask.Result, found: Refinement) -> Iterator[dict[str, Any]]:
    """The best edit of each iteration, in order, as the page shows it."""
    accepted = [edit for edit in run.edits if isinstance(edit, RefinedEdit)]
    for edit in sorted([*accepted, *found.proposals], key=lambda edit: edit.iteration):
        yield {
            "iteration": edit.iteration,
            "accepted": edit in accepted,
            "where": [describe_place(policy, start) for start in edit.places],
            "changes": edit.changes,
            "gains": edit.fold_gains,
            "conversations": [[e.trace, round(e.drop, 1), quote(e.query)] for e in
                              edit.attributions],
        }  # fmt: skip


def describe_place(policy: str, start: int) -> str:
    """The heading above an edit, and the words before it."""
    above = policy[:start]
    heads = [line.lstrip("# ") for line in above.splitlines() if line.startswith("#")]
    words = " ".join(above.split()[-5:])
    return f"“{heads[-1] if heads else 'the beginning'}”, behind “… {words}”"


def quote(text: str) -> str:
    words = text.split()
    return " ".join(words[:QUOTE]).replace("|", "/") + (" …" if len(words) > QUOTE else "")


# -- the page -------------------------------------------------------------------------------------


def write_page() -> None:
    """Write the generated parts of the page from the committed results."""
    data, edits = read_json(FIGURES), read_json(EDITS)
    frequent = "; ".join(f"{n} × “{text}”" for n, text in data["frequent"])
    measured = sum(run["candidates"] for run in data["runs"])
    accepted = sum(len(run["accepted"]) for run in data["runs"])
    sections = [
        format_section(figures, found) for figures, found in zip(data["runs"], edits["runs"], strict=True)
    ]
    blocks = {
        "policy": (
            f"The policy is a system prompt of {data['words']:,} words; the conversations are "
            f"gpt-4o's {data['records']} trajectories on tau-bench's airline tasks with their "
            f"rewards, {data['failed']} of them failed. The built-in diffusion model (135M "
            "parameters) reads them and proposes edits. No target is called, so nothing here is "
            "verified."
        ),
        "failures": (
            f"Redaction replaced {data['secrets']}. The failures fall into {data['kinds']} kinds; "
            f"the most frequent, by their first conversation: {frequent}. These are read first."
        ),
        "runs": "\n\n".join([*sections, f"{accepted} of {measured} measured edits were accepted."]),
        "made": (
            f"Seed 0, commit {data['commit']}. Figures: `benchmarks/results/tau_case.json` and "
            "`tau_case_edits.json` beside it."
        ),
    }
    write_blocks(PAGE, blocks)


def format_section(figures: dict[str, Any], found: dict[str, Any]) -> str:
    """One run: its counts, and a table of the best edit of each iteration."""
    refused = figures["refused"]
    reasons = ", ".join(f"{reason} ({n})" for reason, n in refused.items())
    lines = [
        f"## {TITLES[figures['lock']]}: `--lock {figures['lock']}`",
        "",
        f"{found['iterations']} iterations, {figures['candidates']} candidates measured, "
        f"{sum(refused.values())} refused by the guard ({reasons or 'none'}), "
        f"{len(figures['accepted'])} accepted; {figures['seconds'] / 60:.0f} minutes on one thread "
        "beside other work. The best edit of each iteration:",
        "",
        "| iteration | where | before | after | nats on four groups | accepted | rests on |",
        "|---:|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(line for edit in found["edits"] for line in format_edit(edit))])


def format_edit(edit: dict[str, Any]) -> Iterator[str]:
    """The lines of one edit: one for each of its changes, the first with what holds for all."""
    evidence = "; ".join(f"{id} ({drop} nats): “{text}”" for id, drop, text in
                         edit["conversations"])  # fmt: skip
    common = [
        ", ".join(f"{gain:+.1f}" for gain in edit["gains"]),
        "yes" if edit["accepted"] else "no",
        evidence or "none",
    ]
    for number, (where, (before, after)) in enumerate(zip(edit["where"], edit["changes"], strict=True)):
        first = number == 0
        cells = [str(edit["iteration"]) if first else "", where, show_text(before)]
        cells += [show_text(after), *(common if first else ("", "", ""))]
        yield f"| {' | '.join(cells)} |"


def show_text(text: str) -> str:
    """A text in a cell of a table: "a\\nb" → "a ⏎ b"."""
    return " ⏎ ".join(text.strip().split("\n")).replace("|", "/") or "(nothing)"


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__file__, __doc__)
    option = parser.add_argument
    option("--data", type=Path, help="The folder with the policy and the trajectories.")
    option("--iterations", type=int, default=3, help="Iterations of each refinement.")
    option("--candidates", type=int, default=6, help="Candidates of each iteration.")
    option(
        "--locks", nargs="+", choices=list(TITLES), default=["text"],
        help="What of the policy may not change. Default: text.",
    )  # fmt: skip
    option("--runs", type=Path, help="A folder that keeps the run directories.")
    add_page_option(parser)
    args = parser.parse_args(words)
    if not args.page:
        if args.data is None:
            parser.error("--data is needed to measure; --page does without it")
        folders = [args.data, *([args.runs] if args.runs else [])]
        refine_policy(args, describe_run(__file__, words, *folders))
    write_page()


if __name__ == "__main__":
    main()
