"""Which acceptance rule gains most without doing harm: the real search on simulated candidates.

    python benchmarks/acceptance/run.py measure --data DATA  what real candidates are like python
    benchmarks/acceptance/run.py rules                every rule, 1,000 runs in each world python
    benchmarks/acceptance/run.py verdict              false alarms of whole runs, and power python
    benchmarks/acceptance/run.py page                 writes the tables of
    docs/background/acceptance.md

Everything but the candidates and the answers is remask's own: `search.search` with its plan, rungs,
patience and budget, `evidence.improves` with other margins, and `evidence.compare` for the verdict.
Results, with command, commit and machine, are in benchmarks/results/acceptance.json.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # the checkout

import numpy as np
from numpy.typing import NDArray

from benchmarks import record
from benchmarks.acceptance.fit import Seen, fit
from benchmarks.acceptance.page import PAGE, pasted
from benchmarks.acceptance.rules import RULES, SHIPPED, Candidate
from benchmarks.acceptance.world import START, Climate, Kind, World
from remask.events import State, advance
from remask.search.halving import search
from remask.search.plan import make_plan
from remask.stats import Verdict, accepts, compare

RESULTS = record.RESULTS / "acceptance.json"
HARM = 0.01  # ending more than so much below the seed prompt is what a rule must avoid
UNCLEAR = (0.03, 0.06)  # shares of harmed runs that 1,000 do not tell from the 5 % allowed …
AGAIN = 4  # … and so many times as many do
SIZES = {"small": (50, 150, 800), "large": (200, 200, 2400)}  # train, validation, calls
TESTS = (100, 300, 1000)  # sealed rows
FRESH = 10_000  # first seed of the runs for the verdict: not those that chose the rule
TASK, ASKED = "sst2", 96  # what real candidates are measured on, and its rows


@dataclass(frozen=True, slots=True)
class End:
    """How one run ended."""

    gain: float  # true accuracy of the prompt it ends with, minus that of the seed prompt
    changed: bool
    verdicts: tuple[Verdict, ...]  # on the first so many sealed rows, for each of TESTS


def play(climate: Climate, size: str, rule: Candidate, seed: int) -> End:
    """One whole run: search, then the sealed test."""
    train, validation, calls = SIZES[size]
    rows = {"train": train, "validation": validation, "test": TESTS[-1]}
    world = World(climate, rows, calls, seed)
    plan, state = make_plan(calls, train, validation), State()
    if rule.make:
        plan = replace(plan, accepts=rule.make())
    for event in search(state, START, plan, world, world, seed):
        state = advance(state, event)
    best = state.prompt(state.incumbent)
    leads = np.subtract(world.scores(best, "validation"), world.scores(START, "validation"))
    if rule.last and not accepts(leads.tolist(), rule.last):
        best = START
    before, after = world.scores(START, "test"), world.scores(best, "test")
    verdicts = tuple(compare(before[:n], after[:n]).verdict for n in TESTS)
    return End(world.true(best) - world.true(START), best.id != START.id, verdicts)


def measure(data: Path, n: int) -> tuple[float, list[Seen]]:
    """The accuracy of the terse seed prompt on ASKED rows of the training file, and what up to `n`
    candidates of the built-in denoiser do on them."""
    from benchmarks.acceptance.candidates import Arm, played  # loads the models

    found = played(TASK, Arm(), data, "", n, ASKED)
    before = np.array(found["start_scores"])
    gaps = [(c["masker"], np.array(c["scores"]) - before) for c in found["candidates"]]
    seen = [Seen(masker, int((gap > 0).sum()), int((gap < 0).sum())) for masker, gap in gaps]
    return float(before.mean()), seen


def climates(accuracy: float, kinds: tuple[Kind, ...]) -> dict[str, Climate]:
    return {
        "measured": Climate(accuracy, kinds),
        "nothing is better": Climate(accuracy, kinds, best=0.0),
        "nothing differs": Climate(accuracy, kinds, flat=True),
    }


def rules_table(places: dict[str, Climate], runs: int) -> Iterator[dict[str, Any]]:
    """Gains in points; `over_shipped`: beyond the shipped rule's on the same runs."""
    for size in SIZES:
        for place, climate in places.items():
            shipped = gains_of(climate, size, SHIPPED, range(runs))[0]
            for name in RULES:
                yield {"size": size, "candidates": place} | row(climate, size, name, shipped)


def row(climate: Climate, size: str, name: str, shipped: NDArray[np.float64]) -> dict[str, Any]:
    """One rule in one world; played AGAIN times as often where harm is near what is allowed."""
    runs = len(shipped)
    gains, changed = gains_of(climate, size, name, range(runs))
    more = gains - shipped
    low, high = UNCLEAR
    if low <= np.mean(gains < -100 * HARM) <= high:
        again = gains_of(climate, size, name, range(runs, AGAIN * runs))
        gains, changed = np.append(gains, again[0]), np.append(changed, again[1])
    found = {
        "rule": name,
        "runs": len(gains),
        "gain": mean(gains),
        "over_shipped": mean(more),
        "over_shipped_standard_error": error(more),
        "changed": mean(changed),
        "harmed": mean(gains < -100 * HARM),
    }
    print(found, flush=True)
    return found


def gains_of(
    climate: Climate, size: str, name: str, seeds: range
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """In points, and whether the prompt was changed, by run."""
    ends = [play(climate, size, RULES[name], seed) for seed in seeds]
    return np.array([100 * end.gain for end in ends]), np.array([end.changed for end in ends])


def alarms_table(null: Climate, runs: int) -> Iterator[dict[str, Any]]:
    """The shipped rule where no prompt is better than another: every verdict is a false alarm."""
    for size in SIZES:
        ends = [play(null, size, RULES[SHIPPED], FRESH + seed) for seed in range(runs)]
        for i, test in enumerate(TESTS):
            said = [end.verdicts[i] for end in ends]
            yield {
                "size": size,
                "test": test,
                "runs": runs,
                "changed": mean([end.changed for end in ends]),
                "improved": mean([verdict == "improved" for verdict in said]),
                "worse": mean([verdict == "worse" for verdict in said]),
            }


def power_table(climate: Climate, kept: float, runs: int) -> Iterator[dict[str, Any]]:
    """How often the verdict is "improved" for a prompt that truly is so much better, and differs
    from the seed prompt on as many rows as a real edit does."""
    for points in (5, 10):
        for test in TESTS:
            said = [_verdict(climate.accuracy, points / 100, kept, test, s) for s in range(runs)]
            improved = mean([verdict == "improved" for verdict in said])
            yield {"points": points, "test": test, "runs": runs, "improved": improved}


def _verdict(accuracy: float, gain: float, kept: float, test: int, seed: int) -> Verdict:
    from scipy.special import ndtri

    shift = float(ndtri(accuracy + gain) - ndtri(accuracy))
    world = World(Climate(accuracy, (Kind(1.0, shift, 0.0, kept),)), {"test": test}, 0, seed)
    better = world.propose(START, (), 1, seed)[0].prompt
    return compare(world.scores(START, "test"), world.scores(better, "test")).verdict


def mean(values: Any) -> float:
    return round(float(np.mean(values)), 4)


def error(values: NDArray[np.float64]) -> float:
    return round(float(values.std() / np.sqrt(len(values))), 4)


def main() -> None:
    arg = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arg.add_argument("part", choices=("measure", "rules", "verdict", "page"))
    arg.add_argument("--data", type=Path, help="for measure: the folder with sst2/train.jsonl")
    arg.add_argument("--candidates", type=int, default=60, help="for measure: at most")
    arg.add_argument("--runs", type=int, default=1000, help="of each rule in each world")
    arg.add_argument("--out", type=Path, default=RESULTS)
    args = arg.parse_args()
    known: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    if args.part == "page":
        PAGE.write_text(pasted(PAGE.read_text("utf-8"), known), "utf-8")
        return
    about = record.made_by(__file__, *([args.data] if args.data else []))
    if args.part == "measure":
        accuracy, seen = measure(args.data or arg.error("give --data"), args.candidates)
        known["measured"] = {"task": TASK, "rows": ASKED, "accuracy": accuracy,
                             "candidates": [asdict(s) for s in seen]}  # fmt: skip
    else:
        if "measured" not in known:
            arg.error("there are no real candidates yet; run the part measure first")
        real = known["measured"]
        kinds = fit([Seen(**s) for s in real["candidates"]], real["rows"], real["accuracy"])
        places = climates(real["accuracy"], kinds)
        if args.part == "rules":
            known["mixture"] = [asdict(kind) for kind in kinds]
            known["rules"] = list(rules_table(places, args.runs))
        else:
            known["false_alarms"] = list(alarms_table(places["nothing differs"], args.runs))
            known["power"] = list(power_table(places["measured"], kinds[0].kept, args.runs))
    known.setdefault("made", {})[args.part] = about
    record.write_json(args.out, known)


if __name__ == "__main__":
    main()
