"""Runs of the real search on simulated candidates, and what each acceptance rule makes of them.

Only the candidates and the answers are simulated. The search, with its plan, race and budget,
the rule `improves` (with other margins) and the verdict of `compare` are those of remask.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from benchmarks.acceptance.fit import Seen
from benchmarks.acceptance.rules import RULES, SHIPPED
from benchmarks.acceptance.world import START, Climate, Kind, World
from remask.events import State, advance
from remask.search.plan import make_plan
from remask.search.scores import search
from remask.stats import Rule, Verdict, compare

HARM = 0.01  # a run is harmed if it ends more than this below the seed prompt
UNCLEAR = (0.03, 0.06)  # 1,000 runs cannot tell these shares of harmed runs from the allowed 5 %,
AGAIN = 4  # so a rule with such a share runs this many times as often
# Train rows, validation rows and calls.
SIZES = {"200 calls": (50, 150, 200), "800 calls": (50, 150, 800), "2,400 calls": (200, 200, 2400)}
TESTS = (100, 300, 1000)  # sealed rows
FRESH = 10_000  # first seed of the runs for the verdict, whose seeds did not choose the rule
TASK, ASKED = "sst2", 96  # the task that real candidates are measured on, and the rows


@dataclass(frozen=True, slots=True)
class End:
    """How one run ended."""

    gain: float  # true accuracy of the prompt it ends with, minus that of the seed prompt
    changed: bool
    verdicts: tuple[Verdict, ...]  # on the first so many sealed rows, for each of TESTS


def play_run(climate: Climate, size: str, rule: Rule | None, seed: int) -> End:
    """Run the search and then the sealed test. rule: None for that of the plan."""
    train, validation, calls = SIZES[size]
    rows = {"train": train, "validation": validation, "test": TESTS[-1]}
    world = World(climate, rows, calls, seed)
    plan, state = make_plan(calls, train, validation), State()
    if rule:
        plan = replace(plan, accepts=rule)
    for event in search(state, START, plan, world, world, seed):
        state = advance(state, event)
    best = state.prompt(state.incumbent)
    before, after = world.score_rows(START, "test"), world.score_rows(best, "test")
    verdicts = tuple(compare(before[:n], after[:n]).verdict for n in TESTS)
    return End(world.true_accuracy(best) - world.true_accuracy(START), best.id != START.id, verdicts)


def measure_candidates(data: Path, n: int) -> tuple[float, list[Seen]]:
    """The accuracy of the terse seed prompt on ASKED rows of the training file, and the rows that
    up to `n` candidates of the built-in denoiser win and lose against it."""
    from benchmarks.acceptance.candidates import Arm, play_arm  # loads the models

    found = play_arm(TASK, Arm(), data, "", n, ASKED)
    before = np.array(found["start_scores"])
    gaps = [(c["masker"], np.array(c["scores"]) - before) for c in found["candidates"]]
    seen = [Seen(masker, int((gap > 0).sum()), int((gap < 0).sum())) for masker, gap in gaps]
    return float(before.mean()), seen


def make_climates(accuracy: float, kinds: tuple[Kind, ...]) -> dict[str, Climate]:
    """The three worlds: candidates as measured, none better than its parent, and all alike."""
    return {
        "measured": Climate(accuracy, kinds),
        "nothing is better": Climate(accuracy, kinds, best=0.0),
        "nothing differs": Climate(accuracy, kinds, flat=True),
    }


def tabulate_rules(places: dict[str, Climate], runs: int) -> Iterator[dict[str, Any]]:
    """Yield a row per budget, world and rule. Gains are in points.

    `over_shipped` is the gain beyond that of the shipped rule on the same runs.
    """
    for size in SIZES:
        for place, climate in places.items():
            shipped = measure_gains(climate, size, SHIPPED, range(runs))[0]
            for name in RULES:
                yield {"size": size, "candidates": place} | measure_rule(climate, size, name, shipped)


def measure_rule(climate: Climate, size: str, name: str, shipped: NDArray[np.float64]) -> dict[str, Any]:
    """One rule in one world; it runs AGAIN times as often where harm is near the allowed share."""
    runs = len(shipped)
    gains, changed = measure_gains(climate, size, name, range(runs))
    more = gains - shipped
    low, high = UNCLEAR
    if low <= np.mean(gains < -100 * HARM) <= high:
        again = measure_gains(climate, size, name, range(runs, AGAIN * runs))
        gains, changed = np.append(gains, again[0]), np.append(changed, again[1])
    found = {
        "rule": name,
        "runs": len(gains),
        "gain": round_mean(gains),
        "over_shipped": round_mean(more),
        "over_shipped_standard_error": find_standard_error(more),
        "changed": round_mean(changed),
        "harmed": round_mean(gains < -100 * HARM),
    }
    print(found, flush=True)
    return found


def measure_gains(
    climate: Climate, size: str, name: str, seeds: range
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The gain in points, and whether the prompt was changed, by run."""
    ends = [play_run(climate, size, RULES[name], seed) for seed in seeds]
    return np.array([100 * end.gain for end in ends]), np.array([end.changed for end in ends])


def tabulate_alarms(null: Climate, runs: int) -> Iterator[dict[str, Any]]:
    """The verdicts of the shipped rule where no prompt is better: each one is a false alarm."""
    for size in SIZES:
        ends = [play_run(null, size, RULES[SHIPPED], FRESH + seed) for seed in range(runs)]
        for i, test in enumerate(TESTS):
            said = [end.verdicts[i] for end in ends]
            yield {
                "size": size,
                "test": test,
                "runs": runs,
                "changed": round_mean([end.changed for end in ends]),
                "improved": round_mean([verdict == "improved" for verdict in said]),
                "worse": round_mean([verdict == "worse" for verdict in said]),
            }


def tabulate_power(climate: Climate, kept: float, runs: int) -> Iterator[dict[str, Any]]:
    """How often the verdict is "improved" for a prompt that is truly better by 5 or 10 points, and
    that differs from the seed prompt on as many rows as a real edit."""
    for points in (5, 10):
        for test in TESTS:
            said = [_draw_verdict(climate.accuracy, points / 100, kept, test, s) for s in range(runs)]
            improved = round_mean([verdict == "improved" for verdict in said])
            yield {"points": points, "test": test, "runs": runs, "improved": improved}


def _draw_verdict(accuracy: float, gain: float, kept: float, test: int, seed: int) -> Verdict:
    shift = float(ndtri(accuracy + gain) - ndtri(accuracy))
    world = World(Climate(accuracy, (Kind(1.0, shift, 0.0, kept),)), {"test": test}, 0, seed)
    better = world.propose(START, (), 1, seed)[0].prompt
    return compare(world.score_rows(START, "test"), world.score_rows(better, "test")).verdict


def round_mean(values: Any) -> float:
    return round(float(np.mean(values)), 4)


def find_standard_error(values: NDArray[np.float64]) -> float:
    return round(float(values.std() / np.sqrt(len(values))), 4)
