"""The tables of the page on acceptance rules, from benchmarks/results/acceptance.json."""

from typing import Any

from benchmarks.acceptance.rules import RULES, SHIPPED
from benchmarks.acceptance.simulate import SIZES
from benchmarks.record import DOCS, RESULTS, format_table, read_json, write_blocks
from remask.stats import wilson_interval

FIGURES = RESULTS / "acceptance.json"
PAGE = DOCS / "background" / "acceptance.md"
ALLOWED = 0.05  # of runs that may end harmed, in any world
WORTH = 0.1  # points of gain that a rule with more parts must add
ONE_SIDED = 1.6448536269514722  # normal quantile of 95 %
Rows = list[dict[str, Any]]


def write_page() -> None:
    """Write the tables of the page from the committed results."""
    known = read_json(FIGURES)
    blocks = {
        "rules": tabulate_rules(known["rules"]),
        "alarms": tabulate_alarms(known["false_alarms"]),
        "power": tabulate_power(known["power"]),
        "guards": tabulate_guards(known["guards"]),
        "made": tabulate_origins(known["made"]),
    }
    write_blocks(PAGE, blocks)


def measure_harm(rows: Rows, rule: str) -> tuple[float, float]:
    """The largest share of harmed runs, and the largest upper limit of one (one-sided 95 %)."""
    own = [row for row in rows if row["rule"] == rule]
    limits = [wilson_interval(r["runs"], round(r["harmed"] * r["runs"]), ONE_SIDED).high for r in own]
    return max(float(row["harmed"]) for row in own), max(limits)


def is_shown_harmless(rows: Rows, rule: str) -> bool:
    """Whether the runs show that at most ALLOWED are harmed in any world."""
    return measure_harm(rows, rule)[1] <= ALLOWED


def tabulate_rules(rows: Rows) -> str:
    """Gain and harm of every rule, a line each."""
    found = {(r["rule"], r["size"], r["candidates"]): r for r in rows}
    lines = []
    for rule in RULES:
        cells = [f"**{rule}**" if rule == SHIPPED else rule]
        for size in SIZES:
            row = found[rule, size, "measured"]
            beyond = f" ({row['over_shipped']:+.2f} ± {row['over_shipped_standard_error']:.2f})"
            cells.append(f"+{row['gain']:.2f}" + ("" if rule == SHIPPED else beyond))
        changed = (found[rule, size, "nothing differs"]["changed"] for size in SIZES)
        cells += [format_percent(share, 0) for share in changed]
        share, limit = measure_harm(rows, rule)
        cells.append(f"{format_percent(share)} (≤ {format_percent(limit)})")
        lines.append(cells)
    gains, nulls = ([f"{what}, {size}" for size in SIZES] for what in ("gain", "null changed"))
    head = ("rule", *gains, *nulls, "harmed, at most")
    return format_table(head, lines)


def tabulate_alarms(rows: Rows) -> str:
    """False alarms where no prompt is better than another."""
    lines = [
        [r["size"], r["test"], format_percent(r["changed"], 0), format_percent(r["improved"]),
         format_percent(r["worse"]), format_percent(r["improved"] + r["worse"])] for r in rows
    ]  # fmt: skip
    head = ("budget", "test rows", "prompt changed", "*improved*", "*worse*", "false alarms in all")
    return format_table(head, lines)


def tabulate_power(rows: Rows) -> str:
    """How often a true gain is found, by its size and the number of test rows."""
    tests = sorted({r["test"] for r in rows})
    found = {(r["points"], r["test"]): r["improved"] for r in rows}
    lines = [
        [f"+{points} points", *(format_percent(found[points, test], 0) for test in tests)]
        for points in sorted({r["points"] for r in rows})
    ]
    return format_table(("true gain", *(f"{test:,} test rows" for test in tests)), lines)


def tabulate_guards(rows: Rows) -> str:
    """How often runs accept an edit that loses on guard rows, and one that does not."""
    sizes = sorted({r["rows"] for r in rows})
    found = {(r["churn"], r["rows"], r["loss"] > 0): r["accepted"] for r in rows}
    lines = [
        [churn, "losing" if loses else "harmless",
         *(format_percent(found[churn, size, loses], 1 if loses else 0) for size in sizes)]
        for churn in dict.fromkeys(r["churn"] for r in rows) for loses in (True, False)
    ]  # fmt: skip
    return format_table(("changes", "edits", *(f"{size:,} guard rows" for size in sizes)), lines)


def tabulate_origins(parts: dict[str, dict[str, str]]) -> str:
    """Command, commit and machine of each part."""
    return format_table(
        ("part", "command", "commit", "machine"),
        [[p, f"`{about['command']}`", about["commit"], about["machine"]]
         for p, about in parts.items()],
    )  # fmt: skip


def format_percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"
