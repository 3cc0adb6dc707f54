"""Find the acceptance rule that gains most without harm: the real search on simulated candidates.

    python -m benchmarks.acceptance measure --data FOLDER
    python -m benchmarks.acceptance rules
    python -m benchmarks.acceptance verdict
    python -m benchmarks.acceptance guards --runs 200
    python -m benchmarks.acceptance --page

"measure" asks what real candidates are like. "rules" runs every rule 1,000 times in each simulated
world. "verdict" counts the false alarms of whole runs and the power of the sealed test. "guards"
counts runs that accept an edit which loses on guard rows, and one which does not. Each part
writes its figures, with command, commit and machine, to benchmarks/results/acceptance.json. The
page is docs/background/acceptance.md.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.acceptance.fit import Seen, fit_mixture
from benchmarks.acceptance.guards import tabulate_guards
from benchmarks.acceptance.page import FIGURES, write_page
from benchmarks.acceptance.simulate import (
    ASKED,
    TASK,
    make_climates,
    measure_candidates,
    tabulate_alarms,
    tabulate_power,
    tabulate_rules,
)
from benchmarks.record import add_page_option, describe_run, make_parser, read_json, write_json


def read_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__file__, __doc__)
    option = parser.add_argument
    option("part", nargs="?", choices=("measure", "rules", "verdict", "guards"), help="The part to run.")
    option("--data", type=Path, help="The folder with sst2/train.jsonl. Only measure reads it.")
    option("--candidates", type=int, default=60, help="How many candidates measure asks, at most.")
    option("--runs", type=int, default=1000, help="Runs of each rule in each world.")
    option("--out", type=Path, default=FIGURES, help="The results file.")
    add_page_option(parser)
    args = parser.parse_args(words)
    if not args.page and args.part is None:
        parser.error("name a part (measure, rules, verdict or guards), or give --page")
    if args.part == "measure" and args.data is None:
        parser.error("measure needs --data")
    return args


def main(words: Sequence[str] | None = None) -> None:
    args = read_arguments(words)
    if args.page:
        write_page()
        return
    about = describe_run(__file__, words, *([args.data] if args.data else []))
    known: dict[str, Any] = read_json(args.out) if args.out.exists() else {}
    if args.part == "measure":
        accuracy, seen = measure_candidates(args.data, args.candidates)
        known["measured"] = {"task": TASK, "rows": ASKED, "accuracy": accuracy,
                             "candidates": [asdict(s) for s in seen]}  # fmt: skip
    elif args.part == "guards":
        known["guards"] = list(tabulate_guards(args.runs))
    elif "measured" not in known:
        raise SystemExit("there are no real candidates yet; run the part measure first")
    else:
        known |= simulate(args.part, known["measured"], args.runs)
    known.setdefault("made", {})[args.part] = about
    write_json(args.out, known)


def simulate(part: str, real: dict[str, Any], runs: int) -> dict[str, Any]:
    """The tables of one part, in worlds fitted to the real candidates."""
    kinds = fit_mixture([Seen(**s) for s in real["candidates"]], real["rows"], real["accuracy"])
    places = make_climates(real["accuracy"], kinds)
    if part == "rules":
        mixture = [asdict(kind) for kind in kinds]
        return {"mixture": mixture, "rules": list(tabulate_rules(places, runs))}
    return {
        "false_alarms": list(tabulate_alarms(places["nothing differs"], runs)),
        "power": list(tabulate_power(places["measured"], kinds[0].kept, runs)),
    }


if __name__ == "__main__":
    main()
