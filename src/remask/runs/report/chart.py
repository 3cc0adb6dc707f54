"""Coordinates of the score curve and the interval bar for inline SVG.

Units are pixels of the view box, with y downwards. The template has the SVG elements.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from remask.runs.report.summary import Point
from remask.stats import Comparison

LEFT, RIGHT, TOP, BOTTOM = 52.0, 628.0, 16.0, 214.0  # plot area of a view box of 640 × 250
Size = tuple[int, int]  # of a view box: width and height


@dataclass(frozen=True, slots=True)
class Tick:
    at: float  # pixel
    label: str


@dataclass(frozen=True, slots=True)
class Dot:
    x: float
    y: float
    kind: str  # as Point.kind
    label: str


@dataclass(frozen=True, slots=True)
class Curve:
    """The validation score of the best prompt so far, against target calls."""

    path: str  # the step line as SVG path commands
    dots: tuple[Dot, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@dataclass(frozen=True, slots=True)
class IntervalBar:
    """An interval on a horizontal axis that includes zero."""

    low: float
    middle: float
    high: float
    zero: float
    ticks: tuple[Tick, ...]


def build_curve(points: Sequence[Point], calls: int, size: Size = (640, 250)) -> Curve | None:
    """Build the curve; None without points. `calls`: the axis ends there or later."""
    if not points:
        return None
    scores = [p.validation for p in points]
    end = max(calls, *(p.calls for p in points), 1)
    y_marks = choose_ticks(min(scores), max(scores))
    bottom, top = y_marks[0], y_marks[-1]

    def x(value: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * value / end, 1)

    def y(value: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (value - bottom) / (top - bottom), 1)

    steps = [p for p in points if p.kind != "kept"]
    path = "".join(
        f"M{x(p.calls)} {y(p.validation)}" if i == 0 else f"H{x(p.calls)}V{y(p.validation)}"
        for i, p in enumerate(steps)
    )
    return Curve(
        path=f"{path}H{x(end)}" if steps else "",
        dots=tuple(
            Dot(
                x(p.calls), y(p.validation), p.kind,
                f"{p.kind}: {p.validation:.3f} after {p.calls:,} calls",
            )
            for p in points
        ),
        x_ticks=tuple(Tick(x(v), f"{v:,.0f}") for v in choose_ticks(0, end) if v <= end),
        y_ticks=tuple(Tick(y(v), f"{v:.3g}") for v in y_marks),
    )  # fmt: skip


def build_interval_bar(test: Comparison) -> IntervalBar:
    """Build the bar of the interval of the difference on the test rows."""
    marks = choose_ticks(min(test.low, 0.0), max(test.high, 0.0))
    start, end = marks[0], marks[-1]

    def x(value: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * (value - start) / (end - start), 1)

    return IntervalBar(
        low=x(test.low),
        middle=x(test.difference),
        high=x(test.high),
        zero=x(0.0),
        ticks=tuple(Tick(x(v), f"{v:+.3g}" if v else "0") for v in marks),
    )


def choose_ticks(low: float, high: float) -> list[float]:
    """Return two to eight evenly spaced round numbers that enclose `low` and `high`."""
    if high - low < 1e-6:  # a single value needs a range around it
        low, high = low - 0.05, high + 0.05
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-12), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Overlay:
    """The curves of several runs on the same axes."""

    width: int
    height: int
    left: float  # of the plot
    right: float
    top: float
    bottom: float
    paths: tuple[str, ...]  # one for each run; "" without points
    ends: tuple[tuple[float, float], ...]  # the last point of each path
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def build_overlay(runs: Sequence[Sequence[Point]], size: tuple[int, int]) -> Overlay | None:
    """Build the curves of several runs; None where none has points."""
    scores = [p.validation for points in runs for p in points if p.kind in ("baseline", "accepted")]
    if not scores:
        return None
    width, height = size
    left, right, top, bottom = 46.0, width - 14.0, 16.0, height - 46.0
    end = max(1, *(p.calls for points in runs for p in points))
    y_marks = choose_ticks(min(scores), max(scores))
    x_marks = [v for v in choose_ticks(0, end) if v <= end]
    low, high = y_marks[0], y_marks[-1]

    def x(value: float) -> float:
        return round(left + (right - left) * value / end, 1)

    def y(value: float) -> float:
        return round(bottom - (bottom - top) * (value - low) / (high - low), 1)

    paths, ends = [], []
    for points in runs:
        steps = [p for p in points if p.kind in ("baseline", "accepted")]
        last = x(max((p.calls for p in points), default=0))
        marks = "".join(f"H{x(p.calls)}V{y(p.validation)}" for p in steps[1:])
        paths.append(f"M{x(steps[0].calls)} {y(steps[0].validation)}{marks}H{last}" if steps else "")
        ends.append((last, y(steps[-1].validation)) if steps else (0.0, 0.0))
    return Overlay(
        *(width, height, left, right, top, bottom, tuple(paths), tuple(ends)),
        x_ticks=tuple(Tick(x(v), f"{v:,.0f}") for v in x_marks[:: 1 + (len(x_marks) > 5 and width < 500)]),
        y_ticks=tuple(Tick(y(v), f"{v:.3g}") for v in y_marks),
    )
