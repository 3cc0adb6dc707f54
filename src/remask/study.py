"""How many denoising steps: the same draws filled in different numbers of steps, and compared.

A draw is what a round of the search has before it denoises: the traces that are read, the canvases,
the seed. Each number of steps fills the very same ones; what comes out is judged by the frozen
base, by the guard, and by the task as in a round of the search: all candidates on the same train
rows, the one that is ahead on validation rows. The test rows are never asked for. Knows nothing of
files, faces, models and budgets. arXiv 2602.18449 says that moderate numbers of steps balance
quality and stability best; how it measured that is not public, so this protocol is our own.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from remask.evidence import Estimate, estimate
from remask.identity import rng_for, seed_for
from remask.ports import Context, Denoiser, Proposal, Scorer, Stepwise, Task
from remask.prompt import Prompt
from remask.propose import DiffusionProposer, Draw, written
from remask.trace import Outcome, Split, mean_score

STEPS = (1, 2, 4, 8, 16, 32)
RIGHT = 120  # characters behind a written text that are judged with it: two dozen tokens


@runtime_checkable
class Studied(Denoiser, Scorer, Stepwise, Protocol):
    """A denoiser whose steps can be chosen and that can score text."""


@dataclass(frozen=True, slots=True)
class Design:
    """What is compared, on how much."""

    steps: tuple[int, ...]  # numbers of steps, rising
    candidates: int  # of each round and number of steps
    rounds: int  # draws
    train: int  # rows of a round: their traces are read, and candidates are ranked on them
    validation: int  # rows that score the best candidate; the same in all rounds

    @property
    def rows_scored(self) -> int:
        """Rows that a target answers at most; fewer where candidates are refused or equal."""
        each = self.candidates * self.train + self.validation
        return self.validation + self.rounds * (self.train + len(self.steps) * each)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One filled canvas."""

    prompt: str
    masks: int  # tokens that were to be written
    nats: float | None  # minus log p of what was written, per token; None: only deletions
    nats_right: float | None  # … of that and what stands to the right of it
    objection: str  # not empty: the guard refused it, and why
    train: float | None  # mean score on the train rows; None: refused, unchanged or a repetition


@dataclass(frozen=True, slots=True)
class Cell:
    """One draw in one number of steps."""

    round: int
    steps: int
    seconds: float  # of denoising; the context had been read before
    candidates: tuple[Candidate, ...]
    best: str  # the prompt that is ahead on the train rows; the prompt as it is where none passed
    validation: float  # its mean score


@dataclass(frozen=True, slots=True)
class Row:
    """What one number of steps came to. Intervals: 95 %, of what stands in brackets."""

    steps: int
    taken: float  # steps until no mask was left: there are never more than masks; mean
    nats: Estimate | None  # per token of what was written (over fills)
    nats_right: Estimate | None  # … and what stands to the right of it (over fills)
    different: float  # candidates of a round that differ from each other and from the prompt; mean
    refused: float  # of those, by the guard; mean
    train: Estimate | None  # score of the others on the train rows (over candidates)
    best: Estimate  # score of the best of a round on the validation rows (over rounds)
    seconds: float  # of denoising, per round; mean


# -- what is done ---------------------------------------------------------------------------------


def validated(task: Task, prompt: Prompt, design: Design, seed: int) -> list[Outcome]:
    """The prompt on the validation rows of the study. Raises TargetUnreliable and BudgetSpent."""
    outcomes = task.evaluate(prompt, _rows(task, "validation", design.validation, seed, 0))
    mean_score(outcomes)
    return outcomes


def cells(
    start: Prompt,
    design: Design,
    proposer: DiffusionProposer,
    denoiser: Studied,
    task: Task,
    seed: int,
    clock: Callable[[], float],
) -> Iterator[Cell]:
    """Every draw in every number of steps, round by round. Raises TargetUnreliable and BudgetSpent.

    clock: seconds, of the denoising.
    """
    for number in range(design.rounds):
        ids = _rows(task, "train", design.train, seed, number)
        outcomes = task.evaluate(start, ids)
        mean_score(outcomes)
        traces = [o.trace for o in outcomes if o.trace is not None]
        draw = proposer.draw(start, traces, design.candidates, seed_for(seed, number, "propose", 0))
        # Whoever comes first reads the context for all; that is not its own time.
        denoiser.in_steps(1).infill(draw.context, draw.canvases, draw.seed)
        for steps in design.steps:
            before = clock()
            fills = denoiser.in_steps(steps).infill(draw.context, draw.canvases, draw.seed)
            seconds = clock() - before
            proposals = proposer.finish(draw, fills)
            train = _ranked(start, proposals, task, ids)
            best = max(train, key=lambda one: (one.soft, one.prompt.id)).prompt if train else start
            yield Cell(
                round=number,
                steps=steps,
                seconds=seconds,
                candidates=_candidates(draw, proposals, train, denoiser),
                best=best.text,
                validation=mean_score(validated(task, best, design, seed)),
            )


def _rows(task: Task, split: Split, n: int, seed: int, number: int) -> tuple[str, ...]:
    ids = task.ids(split)
    order = rng_for(seed, number, "rows", split).permutation(len(ids))
    return tuple(ids[i] for i in order[:n])


@dataclass(frozen=True, slots=True)
class _Scored:
    """A candidate on the train rows."""

    prompt: Prompt
    score: float
    soft: float  # ranks: its noise is smaller than that of right or wrong


def _ranked(
    start: Prompt, proposals: Sequence[Proposal], task: Task, ids: Sequence[str]
) -> list[_Scored]:
    """Each different candidate that the guard lets pass, on the train rows."""
    scored = []
    passed = {p.prompt.id: p.prompt for p in proposals if not p.objection}
    for prompt in passed.values():
        if prompt.id == start.id:
            continue
        outcomes = task.evaluate(prompt, ids)
        soft = [o.soft for o in outcomes if o.status == "scored"]
        scored.append(_Scored(prompt, mean_score(outcomes), sum(soft) / len(soft)))
    return scored


def _candidates(
    draw: Draw, proposals: Sequence[Proposal], train: Sequence[_Scored], scorer: Studied
) -> tuple[Candidate, ...]:
    left = {one.prompt.id: one.score for one in train}
    made = []
    for proposal in proposals:
        nats, right = _judged(scorer, draw.context, proposal)
        made.append(
            Candidate(
                prompt=proposal.prompt.text,
                masks=sum(tokens for _, _, tokens in proposal.masks),
                nats=nats,
                nats_right=right,
                objection=proposal.objection,
                train=left.pop(proposal.prompt.id, None),  # of equal ones the first
            )
        )
    return tuple(made)


def _judged(
    scorer: Studied, context: Context, proposal: Proposal
) -> tuple[float | None, float | None]:
    """Minus log p per token of what was written: alone, and with what stands to the right of it.

    Read left to right, a text does not know what follows; where it does not lead there, what
    follows becomes improbable.
    """
    text = proposal.prompt.text
    # The blank before a word belongs to its token.
    own = [(a - text[a - 1 : a].isspace(), b) for a, b in written(proposal)]
    if not own:
        return None, None
    wide = _joined([(a, min(len(text), b + RIGHT)) for a, b in own])
    logp = scorer.score(context, text, [*own, *wide])
    tokens = [max(1, scorer.count(text[a:b])) for a, b in (*own, *wide)]
    n = len(own)
    return -sum(logp[:n]) / sum(tokens[:n]), -sum(logp[n:]) / sum(tokens[n:])


def _joined(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Rising spans, those that overlap as one."""
    made: list[tuple[int, int]] = []
    for start, stop in spans:
        if made and start <= made[-1][1]:
            made[-1] = (made[-1][0], max(stop, made[-1][1]))
        else:
            made.append((start, stop))
    return made


# -- what it came to ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Study:
    """The outcome, and everything it was computed from."""

    prompt: str
    design: Design
    target: str
    denoiser: str
    rounds: int  # whole ones, which alone count
    baseline: Estimate  # of the prompt as it is, on the validation rows (over rows)
    rows: tuple[Row, ...]  # one for each number of steps
    cells: tuple[Cell, ...]
    most_calls: int  # what was announced before it started
    calls: int  # what was spent
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What steps.json holds."""
        return asdict(self)


def whole_rounds(found: Sequence[Cell], design: Design) -> list[Cell]:
    """The cells of the rounds that every number of steps has played."""
    by_round: dict[int, list[Cell]] = defaultdict(list)
    for cell in found:
        by_round[cell.round].append(cell)
    return [c for some in by_round.values() if len(some) == len(design.steps) for c in some]


def tabulated(prompt: str, found: Sequence[Cell], design: Design) -> tuple[Row, ...]:
    """One row for each number of steps. `found`: whole rounds, at least one."""
    return tuple(_row(prompt, s, [c for c in found if c.steps == s]) for s in design.steps)


def _row(prompt: str, steps: int, found: Sequence[Cell]) -> Row:
    fills = [one for cell in found for one in cell.candidates]
    masks = [one.masks for one in fills if one.masks]
    texts = [
        {one.prompt: one.objection for one in cell.candidates if one.prompt != prompt}
        for cell in found
    ]
    return Row(
        steps=steps,
        taken=_mean([min(steps, n) for n in masks]) if masks else 0.0,
        nats=_estimated([one.nats for one in fills]),
        nats_right=_estimated([one.nats_right for one in fills]),
        different=_mean([len(some) for some in texts]),
        refused=_mean([sum(map(bool, some.values())) for some in texts]),
        train=_estimated([one.train for one in fills]),
        best=estimate([cell.validation for cell in found]),
        seconds=_mean([cell.seconds for cell in found]),
    )


def _estimated(values: Sequence[float | None]) -> Estimate | None:
    known = [v for v in values if v is not None]
    return estimate(known) if known else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def behind(study: Study) -> list[tuple[int, Estimate]]:
    """For each number of steps but the largest: nats per token, with what follows, above those of
    the largest on the same canvas. Pairs: canvases and seeds are the same, so less is noise."""
    filled = {(c.round, c.steps): c.candidates for c in study.cells}
    most = study.design.steps[-1]
    found = []
    for steps in study.design.steps[:-1]:
        gaps = [
            few.nats_right - many.nats_right
            for (number, n), some in filled.items()
            if n == steps
            for few, many in zip(some, filled[number, most], strict=True)
            if few.nats_right is not None and many.nats_right is not None
        ]
        if len(gaps) > 1:
            found.append((steps, estimate(gaps)))
    return found


def leaders(study: Study) -> tuple[Row, list[Row]]:
    """The row with the best score, and the others whose interval reaches it."""
    first = max(study.rows, key=lambda row: (row.best.mean, -row.steps))
    near = [r for r in study.rows if r is not first and r.best.high >= first.best.mean]
    return first, near


def counted(rounds: int) -> str:
    """A number of rounds in words."""
    return "1 round" if rounds == 1 else f"{rounds} rounds"
