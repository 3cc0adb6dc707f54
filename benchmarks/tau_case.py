"""The page docs/results/case-tau-airline.md: tau-bench's airline policy, refined.

    python benchmarks/tau_case.py --data FOLDER [--iterations 3] [--candidates 6]
                                  [--locks text none] [--runs FOLDER]

FOLDER holds airline-policy.md and airline_gpt-4o.jsonl (200 trajectories of gpt-4o with rewards, of
tau-bench). Refines the policy with its text locked (and, if asked, with nothing locked) and writes
the page and benchmarks/results/tau_case.json. Conversations are quoted by a few words at most.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout

import remask
from benchmarks.record import DOCS, RESULTS, made_by, write_json
from remask.data.prompt_traces import read_traces
from remask.prompt import Prompt
from remask.propose.failure_modes import group_failures
from remask.runs.result import RefinedEdit

PAGE = DOCS / "results" / "case-tau-airline.md"
QUOTE = 9  # words of a customer that are quoted


def quote(text: str) -> str:
    words = text.split()
    return " ".join(words[:QUOTE]).replace("|", "/") + (" …" if len(words) > QUOTE else "")


def place(policy: str, edit: RefinedEdit, start: int) -> str:
    """The heading above an edit, and the words it follows."""
    above = policy[:start]
    heads = [line.lstrip("# ") for line in above.splitlines() if line.startswith("#")]
    return f"“{heads[-1] if heads else 'the beginning'}”, behind “… {' '.join(above.split()[-5:])}”"


def shown(text: str) -> str:
    return " ⏎ ".join(text.strip().split("\n")).replace("|", "/") or "(nothing)"


def table(policy: str, run: remask.Result) -> list[str]:
    lines = [
        "| iteration | where | before | after | nats on four groups | accepted | speaks for it |",
        "|---:|---|---|---|---|---|---|",
    ]
    steps = [(e, "yes") for e in run.edits] + [(e, "no") for e in run.refinement.proposals]
    for edit, accepted in sorted(steps, key=lambda step: step[0].iteration):
        because = "; ".join(
            f"{one.trace} ({one.drop:.1f} nats): “{quote(one.query)}”" for one in edit.attributions
        )
        for number, (before, after) in enumerate(edit.changes):
            first = number == 0
            start = edit.places[number]
            lines.append(
                f"| {edit.iteration if first else ''} | {place(policy, edit, start)} | "
                f"{shown(before)} | {shown(after)} | "
                f"{', '.join(f'{g:+.1f}' for g in edit.gains) if first else ''} | "
                f"{accepted if first else ''} | {(because or 'none') if first else ''} |"
            )
    return lines


def section(policy: str, lock: str, run: remask.Result, seconds: float) -> list[str]:
    found = run.refinement
    kinds_of = Counter(refusal.reason.partition(":")[0] for refusal in found.refused)
    reasons = ", ".join(f"{reason} ({n})" for reason, n in kinds_of.most_common())
    title = {"text": "Nothing that stands may change", "none": "Everything unlocked"}[lock]
    return [
        f"## {title}: `--lock {lock}`",
        "",
        f"{found.iterations} iterations, {run.candidates} candidates measured, "
        f"{len(found.refused)} refused by the guard ({reasons or 'none'}), "
        f"{len(run.edits)} accepted; {seconds / 60:.0f} minutes on one thread beside other work. "
        "Of each iteration the best:",
        "",
        *table(policy, run),
        "",
    ]


def page(policy: str, data: dict, runs: list[tuple[str, remask.Result, float]]) -> str:
    frequent = "; ".join(f"{n} × “{text}”" for n, text in data["frequent"])
    lines = [
        "# A real case: tau-bench's airline policy",
        "",
        "<!-- Written by benchmarks/tau_case.py; change that file, not this page. -->",
        "",
        f"The policy is a system prompt of {data['words']:,} words; the conversations are gpt-4o's "
        f"{data['records']} trajectories on tau-bench's airline tasks with their rewards, "
        f"{data['failed']} of them failed. The built-in diffusion model (135M parameters) reads "
        "them and proposes edits. No target is called, so nothing here is verified.",
        "",
        "    python benchmarks/tau_case.py --data FOLDER",
        "",
        "The same from the command line, with a page of its own in the run directory:",
        "",
        "    remask refine airline-policy.md --traces airline_gpt-4o.jsonl --lock text",
        "",
        "`--lock text` leaves every word of the policy as it is: sentences are only put between. "
        "`--lock numbers`, the default, lets sentences change but no number; `--lock none` unlocks "
        "both. `[[keep]]…[[/keep]]` locks single passages, and no new number enters but under "
        "`none`.",
        "",
        f"Redaction replaced {data['secrets']}. The failures fall into {data['kinds']} kinds; the "
        f"most frequent, by their first conversation: {frequent}. These are read first.",
        "",
    ]
    for lock, run, seconds in runs:
        lines += section(policy, lock, run, seconds)
    accepted = sum(len(run.edits) for _, run, _ in runs)
    lines += [
        "## What this shows",
        "",
        f"- **{accepted} edits were accepted** of "
        f"{sum(run.candidates for _, run, _ in runs)} measured. The figures are differences of "
        "log-probability on held-out conversations against conversations of no concern, less the "
        "price of growth; below 0 the new text is supported less than the policy around it.",
        "- **The candidates are policy-like sentences, not policy.** They repeat what the section "
        "says, turn it round, or invent a duty that nobody asked for. Read them as a sign of where "
        "the model looked, not as advice.",
        "- **What it can do here:** keep every rule and number by construction, say which "
        "conversations speak for a proposal, and refuse what would change a figure, copy a "
        "customer or stammer.",
        "- **What it cannot do:** tell why a booking of several flights with three payment methods "
        "failed. That takes reasoning over a trajectory and a policy of 1,300 tokens; the model "
        "was trained on prompts up to 140 tokens and short answers. It reads a few dozen words of "
        "each trajectory, mostly names of tools and identifiers.",
        "- **For a real gain** give a larger denoiser (`--denoiser local:…`, "
        "[families](../reference/families.md)) and a target to verify with. Trajectories of agents "
        "are read, but not asked again: what a customer would have said to another answer is not "
        "in the file.",
        "",
        f"Seed 0, commit {data['commit']}. Figures: `benchmarks/results/tau_case.json`.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    arg = argparse.ArgumentParser(description=__doc__)
    arg.add_argument("--data", type=Path, required=True)
    arg.add_argument("--iterations", type=int, default=3)
    arg.add_argument("--candidates", type=int, default=6)
    arg.add_argument("--locks", nargs="+", choices=["text", "none"], default=["text"])
    arg.add_argument("--runs", type=Path, help="keeps the run directories")
    args = arg.parse_args()
    policy = (args.data / "airline-policy.md").read_text(encoding="utf-8").strip()
    log = args.data / "airline_gpt-4o.jsonl"
    kept = args.runs or Path(tempfile.mkdtemp())
    seen = read_traces(policy, [log])
    grouped = group_failures(seen.traces)
    firsts = {grouped.mode_of[t.id]: t for t in reversed(seen.traces) if t.failing}
    often = sorted(grouped.source_counts, key=lambda kind: (-grouped.source_counts[kind], kind))[:4]
    data = {
        **made_by(__file__, args.data, kept),
        "words": len(Prompt.parse(policy).text.split()),
        "records": seen.records,
        "failed": len(grouped.mode_of),
        "kinds": len(grouped.source_counts),
        "frequent": [(grouped.source_counts[kind], quote(firsts[kind].query)) for kind in often],
        "secrets": ", ".join(f"{n} {label}" for label, n in seen.secrets.items()) or "nothing",
    }
    runs, figures = [], []
    for lock in args.locks:
        start = time.monotonic()
        run = remask.refine(
            policy,
            log,
            lock=lock,
            iterations=args.iterations,
            candidates=args.candidates,
            run_dir=kept / lock,
        )
        runs.append((lock, run, time.monotonic() - start))
        figures.append(
            {
                "lock": lock,
                "seconds": round(runs[-1][2]),
                "candidates": run.candidates,
                "refused": dict(
                    Counter(r.reason.partition(":")[0] for r in run.refinement.refused)
                ),
                "accepted": [[e.changes, e.gains] for e in run.edits],
                "best_of_other_iterations": [
                    [e.changes, e.gains] for e in run.refinement.proposals
                ],
            }
        )
        write_json(RESULTS / "tau_case.json", {**data, "runs": figures})
        PAGE.write_text(page(policy, data, runs), encoding="utf-8")
        print(lock, run.candidates, len(run.edits), file=sys.stderr)


if __name__ == "__main__":
    main()
