"""False alarms of `remask watch` in a month of nightly looks, and its power, simulated.

    python -m benchmarks.watch alarms
    python -m benchmarks.watch power
    python -m benchmarks.watch --page

A month has 30 nights after the reference is full. Each night some conversations come: real messages
of examples/support in the shares of a mix of topics, of which some are rated and some of those fail.
Each night the newest ones are compared with the reference by the tests of the command itself. The
figures are those of benchmarks/results/watch.json, and the page is docs/how-to/nightly.md.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import Any

import numpy as np

from benchmarks.record import (
    DOCS,
    RESULTS,
    ROOT,
    add_page_option,
    describe_run,
    format_table,
    make_parser,
    read_json,
    write_blocks,
    write_json,
)
from remask.api.watch import MIN_NEW
from remask.runs.drift import compare_failures, compare_inputs
from remask.stats import wilson_interval
from remask.types import Feedback, Trace

FIGURES, PAGE = RESULTS / "watch.json", DOCS / "how-to" / "nightly.md"
NIGHTS = 30
RATE = 0.05
NUMBERS = count()  # of conversations and users


@dataclass(frozen=True)
class Service:
    """What comes in a night."""

    name: str
    each: int = 60  # conversations of a night
    window: int = 300
    rated: float = 0.3
    failing: float = 0.1  # of the rated ones
    billing: float = 0.25  # share of one of four topics
    users: float = 0.0  # conversations of one user in a night, on average; 0: each has its own user
    known: bool = True  # whether the conversations say whose they are
    weekend: float = 0.0  # how much larger the share of that topic is on two nights of seven


@dataclass(frozen=True)
class Shift:
    """What changes on the first night of the month."""

    name: str
    failing: float = 0.1
    billing: float = 0.25
    window: int = 300
    each: int = 60


QUIET = (
    Service("60 a night"),
    Service("20 a night", each=20),
    Service("300 a night", each=300),
    Service("60 a night, all rated, window 100", window=100, rated=1.0),
    Service("users with 6 alike in a night, named", users=6),
    Service("users with 6 alike in a night, not named", users=6, known=False),
    Service("one topic 25 → 40 % at weekends, window 300 (5 nights)", weekend=0.15),
    Service("one topic 25 → 40 % at weekends, window 840 (14 nights)", weekend=0.15, window=840),
)
SHIFTS = (
    Shift("failures 10 → 15 %", failing=0.15),
    Shift("failures 10 → 20 %", failing=0.2),
    Shift("failures 10 → 30 %", failing=0.3),
    Shift("failures 10 → 20 %, window 600", failing=0.2, window=600),
    Shift("failures 10 → 20 %, 300 a night", failing=0.2, each=300, window=600),
    Shift("one topic 25 → 35 %", billing=0.35),
    Shift("one topic 25 → 50 %", billing=0.5),
    Shift("one topic 25 → 35 %, window 600", billing=0.35, window=600),
)


def read_messages() -> dict[str, list[str]]:
    rows = map(json.loads, (ROOT / "examples/support/messages.jsonl").read_text("utf-8").splitlines())
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["topic"], []).append(row["message"])
    return found


MESSAGES = read_messages()
TOPICS = sorted(MESSAGES, key=lambda topic: topic != "billing")  # that topic is the first


def tell_night(service: Service, night: int, rng: np.random.Generator) -> list[Trace]:
    """The conversations of a night."""
    share = service.billing + (service.weekend if night % 7 in (5, 6) else 0.0)
    found: list[Trace] = []
    while len(found) < service.each:
        # A user asks about one topic, and is served well or badly throughout.
        many = 1 + int(rng.poisson(service.users - 1)) if service.users else 1
        topic = TOPICS[0 if rng.random() < share else int(rng.integers(1, len(TOPICS)))]
        luck = float(rng.beta(service.failing, 1 - service.failing)) if many > 1 else service.failing
        source = f"user {next(NUMBERS)}" if service.users and service.known else ""
        for _ in range(min(many, service.each - len(found))):
            query = MESSAGES[topic][int(rng.integers(len(MESSAGES[topic])))]
            score = None
            if rng.random() < service.rated:
                score = float(rng.random() >= luck)
            notes = () if score is None else (Feedback("score", "", score),)
            found.append(Trace(f"{next(NUMBERS)}", query, "", None, notes, score, source))
    return found


def find_alarms(
    before: Service, after: Service, seed: int, wanted: Sequence[str] = ("failures", "mix of inputs")
) -> dict[str, int | None]:
    """The first night on which each test alarms in a month; None: it never does."""
    rng = np.random.default_rng([seed, before.each, before.window])
    reference: list[Trace] = []
    night = -math.ceil(before.window / before.each)
    while len(reference) < before.window:
        reference += tell_night(before, night % 7, rng)
        night += 1
    new, reference = reference[before.window :], reference[: before.window]
    found: dict[str, int | None] = dict.fromkeys(wanted)
    tests = {"failures": compare_failures, "mix of inputs": compare_inputs}
    for night in range(NIGHTS):
        new = [*new, *tell_night(after, night, rng)][-before.window :]
        if len(new) < MIN_NEW:
            continue
        for name in (name for name in wanted if found[name] is None):
            test = tests[name](reference, new, RATE)
            if not isinstance(test, str) and test.drifted:
                found[name] = night
        if None not in found.values():
            break
    return found


def tabulate_alarms(months: int) -> Iterator[dict[str, Any]]:
    """The share of quiet months with any false alarm, for each service."""
    for service in QUIET:
        found = [find_alarms(service, service, seed) for seed in range(months)]
        counts = {name: sum(month[name] is not None for month in found) for name in found[0]}
        any_of_them = sum(any(night is not None for night in month.values()) for month in found)
        yield {**asdict(service), "months": months, "by_test": counts, "alarms": any_of_them}


def tabulate_power(months: int) -> Iterator[dict[str, Any]]:
    """How often and how soon a shift is found, for each shift."""
    for shift in SHIFTS:
        before = Service(shift.name, window=shift.window, each=shift.each)
        after = replace(before, failing=shift.failing, billing=shift.billing)
        name = "failures" if shift.failing != before.failing else "mix of inputs"
        nights = [find_alarms(before, after, seed, (name,))[name] for seed in range(months)]
        seen = sorted(night for night in nights if night is not None)
        median = seen[months // 2] + 1 if len(seen) > months // 2 else None
        in_a_week = sum(night < 7 for night in seen)
        yield {
            **asdict(shift),
            "months": months,
            "found": len(seen),
            "in_a_week": in_a_week,
            "median": median,
        }


def format_share(count: int, of: int) -> str:
    interval = wilson_interval(of, count)
    return f"{100 * count / of:.1f} % ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def make_blocks(found: Mapping[str, Any]) -> dict[str, str]:
    """The tables of the page."""
    blocks = {}
    if "alarms" in found:
        rows = [
            (r["name"], format_share(r["alarms"], r["months"]), r["by_test"]["failures"],
             r["by_test"]["mix of inputs"], r["months"])
            for r in found["alarms"]["rows"]
        ]  # fmt: skip
        head = ("conversations", "months with a false alarm", "by failures", "by the mix", "months")
        blocks["alarms"] = format_table(head, rows)
    if "power" in found:
        rows = [
            (r["name"], format_share(r["in_a_week"], r["months"]), format_share(r["found"], r["months"]),
             "–" if r["median"] is None else r["median"], r["months"])
            for r in found["power"]["rows"]
        ]  # fmt: skip
        head = ("shift", "found within 7 nights", "within 30", "median night", "months")
        blocks["power"] = format_table(head, rows)
    return blocks


def main(words: Sequence[str] | None = None) -> None:
    parser = make_parser(__file__, __doc__)
    parser.add_argument("part", nargs="?", choices=("alarms", "power"), help="The part to run.")
    parser.add_argument("--months", type=int, default=1000, help="Months of each row.")
    add_page_option(parser)
    asked = parser.parse_args(words)
    found = read_json(FIGURES) if FIGURES.exists() else {}
    if asked.page:
        write_blocks(PAGE, make_blocks(found))
        return
    if asked.part is None:
        parser.error("name a part, or --page")
    run = describe_run(__file__, words)
    rows = []
    for row in (tabulate_alarms if asked.part == "alarms" else tabulate_power)(asked.months):
        rows.append(row)
        print(json.dumps(row), flush=True)
        found = read_json(FIGURES) if FIGURES.exists() else {}  # the other part may run beside
        write_json(FIGURES, {**found, asked.part: {"run": run, "rows": rows}})


if __name__ == "__main__":
    main()
