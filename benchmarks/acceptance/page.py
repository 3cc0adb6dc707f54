"""The tables of docs/background/acceptance.md, from benchmarks/results/acceptance.json."""

from typing import Any

from benchmarks.acceptance.rules import RULES, SHIPPED
from benchmarks.record import DOCS, placed, table
from remask.stats import wilson_interval

PAGE = DOCS / "background" / "acceptance.md"
ALLOWED = 0.05  # of runs that may end harmed, in any world
WORTH = 0.1  # points of gain; for less no rule of more parts is taken
ONE_SIDED = 1.6448536269514722  # normal quantile of 95 %
Rows = list[dict[str, Any]]


def pasted(text: str, known: dict[str, Any]) -> str:
    """The page with every table between its marks `<!-- NAME:begin -->` and `<!-- NAME:end -->`."""
    parts = {
        "rules": rules(known["rules"]),
        "alarms": alarms(known["false_alarms"]),
        "power": power(known["power"]),
        "made": made(known["made"]),
    }
    for name, part in parts.items():
        text = placed(text, name, part)
    return text


def harm(rows: Rows, rule: str) -> tuple[float, float]:
    """The largest share of harmed runs, and the largest upper limit of one (one-sided 95 %)."""
    own = [row for row in rows if row["rule"] == rule]
    limits = [
        wilson_interval(r["runs"], round(r["harmed"] * r["runs"]), ONE_SIDED).high for r in own
    ]
    return max(float(row["harmed"]) for row in own), max(limits)


def shown_harmless(rows: Rows, rule: str) -> bool:
    """Whether the runs show that at most ALLOWED are harmed in any world."""
    return harm(rows, rule)[1] <= ALLOWED


def rules(rows: Rows) -> str:
    found = {(r["rule"], r["size"], r["candidates"]): r for r in rows}
    lines = []
    for rule in RULES:
        cells = [f"**{rule}**" if rule == SHIPPED else rule]
        for size in ("small", "large"):
            row = found[rule, size, "measured"]
            beyond = f" ({row['over_shipped']:+.2f} ± {row['over_shipped_standard_error']:.2f})"
            cells.append(f"+{row['gain']:.2f}" + ("" if rule == SHIPPED else beyond))
        nulls = (found[rule, size, "nothing differs"]["changed"] for size in ("small", "large"))
        cells += [percent(share, 0) for share in nulls]
        share, limit = harm(rows, rule)
        cells.append(f"{percent(share)} (≤ {percent(limit)})")
        lines.append(cells)
    head = (
        "rule",
        "gain, small",
        "gain, large",
        "null changed, small",
        "… large",
        "harmed, at most",
    )
    return table(head, lines)


def alarms(rows: Rows) -> str:
    lines = [
        [r["size"], r["test"], percent(r["changed"], 0), percent(r["improved"]),
         percent(r["worse"]), percent(r["improved"] + r["worse"])] for r in rows
    ]  # fmt: skip
    head = ("budget", "test rows", "prompt changed", "*improved*", "*worse*", "false alarms in all")
    return table(head, lines)


def power(rows: Rows) -> str:
    tests = sorted({r["test"] for r in rows})
    found = {(r["points"], r["test"]): r["improved"] for r in rows}
    lines = [
        [f"+{points} points", *(percent(found[points, test], 0) for test in tests)]
        for points in sorted({r["points"] for r in rows})
    ]
    return table(("true gain", *(f"{test:,} test rows" for test in tests)), lines)


def made(parts: dict[str, dict[str, str]]) -> str:
    return table(
        ("part", "command", "commit", "machine"),
        [[p, f"`{about['command']}`", about["commit"], about["machine"]]
         for p, about in parts.items()],
    )  # fmt: skip


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"
