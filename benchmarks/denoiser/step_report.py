"""Tables and a picture of studies of denoising steps.

Coordinates are pixels of the view box, with y downwards. The syntax of SVG is in the template
steps.svg.j2.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from benchmarks.denoiser.step_study import Row, Study, compare_steps, find_leaders
from remask.runs.report.chart import Tick, choose_ticks
from remask.stats import Estimate

TEMPLATE = Path(__file__).with_name("steps.svg.j2")
HEAD = (
    *("steps", "taken", "nats/token", "with what follows", "different", "refused"),
    *("candidates", "best of a round", "95 % interval", "seconds"),
)
WIDTH, HEIGHT = 340.0, 210.0  # of one panel
LEFT, RIGHT, TOP, BOTTOM = 52.0, 326.0, 40.0, 168.0  # of the plot in a panel
LEGEND = 24.0  # pixels above the panels
COLOURS = ("#1f6feb", "#c2410c", "#14692d", "#7c3aed", "#0e7490")


def format_report(studies: Mapping[str, Study]) -> str:
    """A table and remarks for each study by name, as Markdown."""
    parts = []
    for name, study in studies.items():
        lines = [HEAD, ["---:"] * len(HEAD), *map(_format_cells, study.rows)]
        parts.append(f"### {name}: “{study.prompt}”")
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
        parts.append("\n".join(f"- {remark}" for remark in list_remarks(study)))
    return "\n\n".join(parts)


def _format_cells(row: Row) -> tuple[str, ...]:
    return (
        str(row.steps),
        f"{row.taken:.1f}",
        _format_nats(row.nats),
        _format_nats(row.nats_right),
        f"{row.different:.1f}",
        f"{row.refused:.1f}",
        "–" if row.train is None else f"{row.train.mean:.3f}",
        f"{row.best.mean:.3f}",
        f"{row.best.low:.3f} to {row.best.high:.3f}" if row.best.n > 1 else "–",
        f"{row.seconds:.1f}",
    )


def _format_nats(found: Estimate | None) -> str:
    if found is None:
        return "–"
    return f"{found.mean:.2f}" + (f" ± {found.mean - found.low:.2f}" if found.n > 1 else "")


def list_remarks(study: Study) -> Iterator[str]:
    """Yield remarks for the table, one sentence each."""
    base, design = study.baseline, study.design
    yield (
        f"the prompt as it is: {base.mean:.3f} on the same {base.n} validation rows (95 % interval "
        f"over rows {base.low:.3f} to {base.high:.3f})"
    )
    yield (
        f"rounds: {design.rounds}, of {design.candidates} candidates; nats: minus the frozen "
        "base's log p, ± half a 95 % interval over fills; candidates: mean score on the train rows "
        "that rank them; best: the one ahead there, on validation rows, interval over rounds"
    )
    if gaps := compare_steps(study):
        parts = [f"{n}: {e.mean:+.2f} ({e.low:+.2f} to {e.high:+.2f})" for n, e in gaps.items()]
        yield (
            f"nats/token with what follows, above those in {design.steps[-1]} steps on the same "
            f"{next(iter(gaps.values())).n} canvases (95 % interval): {'; '.join(parts)}"
        )
    first, near = find_leaders(study)
    if design.rounds == 1:
        yield "one round says nothing about noise; take more (--rounds)"
    elif near:
        others = ", ".join(str(row.steps) for row in near)
        yield (
            f"best score at {first.steps} steps, but the interval of {others} reaches it: these "
            "cannot be told apart here"
        )
    else:
        yield f"best score at {first.steps} steps; the interval of no other number reaches it"


# -- the picture ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mark:
    """A value and its interval."""

    x: float
    y: float
    low: float
    high: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """One study in one panel."""

    colour: str
    path: str  # through the marks, in SVG path commands
    marks: tuple[Mark, ...]
    level: float | None  # of the prompt as it is, where the panel shows scores


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    left: float  # of the panel in the picture
    top: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]


def _without_interval(value: float) -> Estimate:
    """A value whose interval is not drawn."""
    return Estimate(1, value, value, value)


def _hide_single(found: Estimate | None) -> Estimate | None:
    return found if found is None or found.n > 1 else _without_interval(found.mean)


PANELS: tuple[tuple[str, Callable[[Row], Estimate | None]], ...] = (
    ("nats per token, with what follows", lambda row: _hide_single(row.nats_right)),
    ("best of a round, validation score", lambda row: _hide_single(row.best)),
    ("different candidates of a round", lambda row: _without_interval(row.different)),
    ("seconds of denoising per round", lambda row: _without_interval(row.seconds)),
)
FROM_ZERO = (2, 3)  # indices of panels of amounts
SCORES = 1  # index of the panel that also shows the score of the prompt as it is


def draw_picture(studies: Mapping[str, Study]) -> str:
    """An SVG of studies by name, all with the same numbers of steps."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    steps = next(iter(studies.values())).design.steps
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        names=[(name, COLOURS[i % len(COLOURS)]) for i, name in enumerate(studies)],
        panels=[_make_panel(i, steps, list(studies.values())) for i in range(len(PANELS))],
        width=2 * WIDTH,
        height=LEGEND + 2 * HEIGHT,
        area=(LEFT, RIGHT, TOP, BOTTOM),
    )


def _make_panel(index: int, steps: Sequence[int], studies: Sequence[Study]) -> Panel:
    title, pick = PANELS[index]
    found = [[pick(row) for row in study.rows] for study in studies]
    levels = [study.baseline.mean if index == SCORES else None for study in studies]
    ends = [end for line in found for e in line if e is not None for end in (e.low, e.high)]
    ends += [level for level in levels if level is not None]
    ends += [0.0] if index in FROM_ZERO else []
    marks = choose_ticks(min(ends, default=0.0), max(ends, default=1.0))

    def x(place: int) -> float:  # steps that double lie equally far apart
        return round(LEFT + 14 + (RIGHT - LEFT - 28) * place / max(1, len(steps) - 1), 1)

    def y(value: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (value - marks[0]) / (marks[-1] - marks[0]), 1)

    def line(values: Sequence[Estimate | None], number: int) -> Line:
        dots = tuple(
            Mark(x(i), y(e.mean), y(e.low), y(e.high), f"{steps[i]} steps: {e.mean:.3g}")
            for i, e in enumerate(values)
            if e is not None
        )
        level = levels[number]
        path = "".join(f"{'L' if i else 'M'}{dot.x} {dot.y}" for i, dot in enumerate(dots))
        colour = COLOURS[number % len(COLOURS)]
        return Line(colour, path, dots, None if level is None else y(level))

    return Panel(
        title=title,
        left=WIDTH * (index % 2),
        top=LEGEND + HEIGHT * (index // 2),
        x_ticks=tuple(Tick(x(i), str(n)) for i, n in enumerate(steps)),
        y_ticks=tuple(Tick(y(v), f"{v:.3g}") for v in marks),
        lines=tuple(line(values, i) for i, values in enumerate(found)),
    )
