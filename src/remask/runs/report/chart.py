"""Coordinates of the score curve and the interval bar for inline SVG.

Units are pixels of the view box, with y downwards. The template has the SVG elements. A chart is
built for the width at which it is shown, so that its labels keep their size on a telephone.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from remask.runs.report.summary import Point
from remask.stats import Comparison

Size = tuple[int, int]  # of a view box: width and height

MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 46.0, 14.0, 24.0, 46.0  # around the plot
BAR_WIDTH, BAR_MARGIN = 340.0, 24.0
CHAR_WIDTH, LABEL_HEIGHT = 6.6, 14.0  # of a label of 12 pixels, roughly
MAX_LABELS = 24
MAX_BUDGET_SHARE = 10  # a budget of which less than a tenth was used ends outside of the chart


@dataclass(frozen=True, slots=True)
class Tick:
    at: float  # pixel
    label: str


@dataclass(frozen=True, slots=True)
class Dot:
    x: float
    y: float
    kind: str  # as Point.kind
    label: str  # the whole sentence


@dataclass(frozen=True, slots=True)
class DotLabel:
    x: float  # its middle
    y: float  # its base line
    text: str
    kind: str  # of its dot


@dataclass(frozen=True, slots=True)
class Plot:
    """The box of a chart in pixels: target calls from left to right, scores upwards."""

    width: int
    height: int
    end: int  # calls at the right edge
    scores: tuple[float, ...]  # the marks of the scores, from the bottom to the top

    left = MARGIN_LEFT  # of the area of the lines
    top = MARGIN_TOP

    @property
    def right(self) -> float:
        return self.width - MARGIN_RIGHT

    @property
    def bottom(self) -> float:
        return self.height - MARGIN_BOTTOM

    def x(self, calls: float) -> float:
        """Return the place of a number of calls."""
        return round(self.left + (self.right - self.left) * calls / self.end, 1)

    def y(self, score: float) -> float:
        """Return the place of a score."""
        low, high = self.scores[0], self.scores[-1]
        return round(self.bottom - (self.bottom - self.top) * (score - low) / (high - low), 1)

    @property
    def x_ticks(self) -> tuple[Tick, ...]:
        marks = [v for v in choose_ticks(0, self.end) if v <= self.end]
        shown = marks[:: 1 + (len(marks) > 5 and self.width < 500)]
        return tuple(Tick(self.x(v), f"{v:,.0f}") for v in shown)

    @property
    def y_ticks(self) -> tuple[Tick, ...]:
        return tuple(Tick(self.y(v), f"{v:.3g}") for v in self.scores)


@dataclass(frozen=True, slots=True)
class Curve:
    """The validation score of the best prompt so far, against target calls."""

    plot: Plot
    path: str  # the step line as SVG path commands
    dots: tuple[Dot, ...]
    labels: tuple[DotLabel, ...]  # of the dots that have room for one


@dataclass(frozen=True, slots=True)
class IntervalBar:
    """An interval on a horizontal axis that includes zero."""

    low: float
    middle: float
    high: float
    zero: float
    ticks: tuple[Tick, ...]


@lru_cache(maxsize=16)  # most changes of a run that goes on add no point
def build_curve(points: tuple[Point, ...], calls: int, size: Size = (680, 300)) -> Curve | None:
    """Build the curve; None without points.

    calls: the axis ends there, or where the last point is. A budget that is much larger than what
    was used ends outside.
    """
    if not points:
        return None
    used = max(1, *(p.calls for p in points))
    end = calls if used < calls <= MAX_BUDGET_SHARE * used else used
    scores = [p.validation for p in points]
    plot = Plot(*size, end, tuple(choose_ticks(min(scores), max(scores))))
    path = _draw_steps(plot, points)
    dots = tuple(Dot(plot.x(p.calls), plot.y(p.validation), p.kind, describe_point(p)) for p in points)
    return Curve(
        plot,
        path=f"{path}H{plot.x(used)}" if path else "",
        dots=dots,
        labels=tuple(_place_labels(points, dots, (plot.left, plot.right, 0.0, plot.bottom))),
    )


def _draw_steps(plot: Plot, points: Sequence[Point]) -> str:
    """Return the step line of the best prompt so far as SVG path commands; "" without points."""
    steps = [(plot.x(p.calls), plot.y(p.validation)) for p in points if p.kind in ("baseline", "accepted")]
    return "".join(f"H{x}V{y}" if i else f"M{x} {y}" for i, (x, y) in enumerate(steps))


def describe_point(point: Point) -> str:
    """Describe a point in words."""
    score = f"{point.validation:.3f} after {point.calls:,} calls"
    if point.kind in ("test before", "test after"):
        return f"sealed test, {'baseline' if point.kind == 'test before' else 'best prompt'}: {score}"
    return f"{'not accepted' if point.kind == 'kept' else point.kind}: {score}"


Box = tuple[float, float, float, float]  # left, top, right, bottom


def _place_labels(points: Sequence[Point], dots: Sequence[Dot], area: Box) -> Iterator[DotLabel]:
    """Yield labels that cover neither one another nor a dot, those of the important dots first."""
    order = ("test after", "test before", "baseline", "accepted", "kept")
    names = {"baseline": "baseline ", "test before": "test, baseline ", "test after": "test, best "}
    taken: list[Box] = [(d.x - 5, d.y - 5, d.x + 5, d.y + 5) for d in dots]
    ranked = sorted(range(len(dots)), key=lambda i: (order.index(dots[i].kind), -dots[i].x))
    left, right, top, bottom = area
    for i in ranked[:MAX_LABELS]:
        dot = dots[i]
        text = f"{names.get(dot.kind, '')}{points[i].validation:.3f}"
        half = len(text) * CHAR_WIDTH / 2
        middle = min(max(dot.x, left + half), right - half)
        beside = (dot.x - half - 9, dot.x + half + 9)
        spots = [(middle, dot.y - 9), (middle, dot.y + 18), (beside[0], dot.y + 4), (beside[1], dot.y + 4)]
        for x, y in spots:
            box = (x - half, y - LABEL_HEIGHT + 3, x + half, y + 3)
            inside = left <= box[0] + 0.1 and box[2] - 0.1 <= right and top <= box[1] and box[3] <= bottom
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                yield DotLabel(round(x, 1), round(y, 1), text, dot.kind)
                break


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def build_interval_bar(test: Comparison) -> IntervalBar:
    """Build the bar of the interval of the difference on the test rows."""
    marks = choose_ticks(min(test.low, 0.0), max(test.high, 0.0))
    start, end = marks[0], marks[-1]

    def x(value: float) -> float:
        return round(BAR_MARGIN + (BAR_WIDTH - 2 * BAR_MARGIN) * (value - start) / (end - start), 1)

    shown = marks[:: 1 + (len(marks) > 6)]
    return IntervalBar(
        low=x(test.low),
        middle=x(test.difference),
        high=x(test.high),
        zero=x(0.0),
        ticks=tuple(Tick(x(v), f"{v:+.3g}" if v else "0") for v in shown),
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

    plot: Plot
    paths: tuple[str, ...]  # one for each run; "" without points
    ends: tuple[tuple[float, float], ...]  # the last point of each path


def build_overlay(runs: Sequence[tuple[Sequence[Point], int]], size: Size) -> Overlay | None:
    """Build the curves of several runs; None where none has points. runs: (points, calls so far)."""
    scores = [p.validation for points, _ in runs for p in points if p.kind in ("baseline", "accepted")]
    if not scores:
        return None
    end = max(1, *(calls for _, calls in runs))
    plot = Plot(*size, end, tuple(choose_ticks(min(scores), max(scores))))
    paths, ends = [], []
    for points, calls in runs:
        path = _draw_steps(plot, points)
        last = [p.validation for p in points if p.kind in ("baseline", "accepted")][-1:]
        paths.append(f"{path}H{plot.x(calls)}" if path else "")
        ends.append((plot.x(calls), plot.y(last[0])) if last else (0.0, 0.0))
    return Overlay(plot, tuple(paths), tuple(ends))
