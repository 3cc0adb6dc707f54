"""How many denoising steps: the same draws filled in different numbers of steps, and compared.

A draw is what a round of the search has before it denoises: the traces that are read, the canvases,
the seed. Each number of steps fills the very same ones; what comes out is judged by the frozen
base, by the guard, and by the task as in a round of the search: all candidates on the same train
rows, the one that is ahead on validation rows. arXiv 2602.18449 says that moderate numbers of steps
balance quality and stability best; how it measured that is not public, so this protocol is our own.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.search.lab import Lab
from remask.api.build_proposer import make_proposer
from remask.dlm.denoiser import LocalDenoiser
from remask.ids import rng_for, seed_for
from remask.ports import Context, Proposal, find_written_spans
from remask.prompt import Prompt
from remask.propose.proposer import DiffusionProposer, ProposalBatch
from remask.stats import Estimate, estimate
from remask.types import Outcome, Split, mean_score

RIGHT = 120  # characters behind a written text that are judged with it: two dozen tokens


@dataclass(frozen=True, slots=True)
class Design:
    """What is compared, on how much."""

    steps: tuple[int, ...]  # numbers of steps, rising
    candidates: int  # of each round and number of steps
    rounds: int  # draws
    train: int  # rows of a round: their traces are read, and candidates are ranked on them
    validation: int  # rows that score the best candidate; the same in all rounds


@dataclass(frozen=True, slots=True)
class Candidate:
    """One filled canvas."""

    prompt: str
    masks: int  # tokens that were to be written
    nats: float | None  # minus log p of what was written, per token; None: only deletions
    nats_right: float | None  # … of that and what stands to the right of it
    violation: str  # not empty: the guard refused it, and why
    train: float | None  # mean score on the train rows; None: refused, unchanged or a repetition


@dataclass(frozen=True, slots=True)
class Cell:
    """One draw in one number of steps."""

    round: int
    steps: int
    seconds: float  # of denoising on a processor; the context had been read before
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


@dataclass(frozen=True, slots=True)
class Study:
    """The outcome of one task."""

    prompt: str
    design: Design
    baseline: Estimate  # of the prompt as it is, on the validation rows (over rows)
    cells: tuple[Cell, ...]

    @property
    def rows(self) -> list[Row]:
        """One for each number of steps."""
        return [
            _row(self.prompt, steps, [c for c in self.cells if c.steps == steps])
            for steps in self.design.steps
        ]


# -- what is done ---------------------------------------------------------------------------------


def play(
    lab: Lab,
    denoisers: Mapping[int, LocalDenoiser],
    design: Design,
    watch: Callable[[Cell], None] = lambda cell: None,
) -> Study:
    """A whole study of the lab's task. `denoisers`: for each number of steps one that takes so
    many, and differs in nothing else. Raises TargetUnreliable."""
    start, found = lab.start, list[Cell]()
    proposer = make_proposer(lab.config, start, denoisers[design.steps[0]], lab.task.labels)
    baseline = _scores(lab, start, "validation", design.validation, 0)
    for number in range(design.rounds):
        outcomes = _scores(lab, start, "train", design.train, number)
        traces = [o.trace for o in outcomes if o.trace is not None]
        drawn_from = seed_for(lab.seed, number, "propose", 0)
        draw = proposer.plan(start, traces, design.candidates, drawn_from)
        for steps in design.steps:
            found.append(_cell(lab, denoisers[steps], proposer, draw, design, number, steps))
            watch(found[-1])
    scores = [o.score for o in baseline if o.status == "scored"]
    return Study(start.text, design, estimate(scores), tuple(found))


def _cell(
    lab: Lab,
    denoiser: LocalDenoiser,
    proposer: DiffusionProposer,
    draw: ProposalBatch,
    design: Design,
    number: int,
    steps: int,
) -> Cell:
    # To score anything reads the context, whose time is not that of denoising.
    denoiser.score(draw.context, draw.parent.text, [(0, len(draw.parent.text))])
    since = time.process_time()
    fills = denoiser.infill(draw.context, draw.canvases, draw.seed)
    seconds = time.process_time() - since
    proposals = proposer.collect(draw, fills)
    train: dict[str, float] = {}
    best, ahead = draw.parent, float("-inf")
    passed = {p.prompt.id: p.prompt for p in proposals if not p.violation}
    for id, prompt in sorted(passed.items()):
        if id == draw.parent.id:
            continue
        outcomes = _scores(lab, prompt, "train", design.train, number)
        train[id] = mean_score(outcomes)
        # Soft scores rank: their noise is smaller than that of right or wrong.
        soft = fmean(o.ranking_score for o in outcomes if o.status == "scored")
        if soft >= ahead:
            best, ahead = prompt, soft
    return Cell(
        round=number,
        steps=steps,
        seconds=seconds,
        candidates=tuple(_candidate(denoiser, draw.context, p, train) for p in proposals),
        best=best.text,
        validation=mean_score(_scores(lab, best, "validation", design.validation, 0)),
    )


def _scores(lab: Lab, prompt: Prompt, split: Split, n: int, number: int) -> list[Outcome]:
    """The prompt on `n` rows drawn for a round. Raises TargetUnreliable."""
    ids = lab.task.ids(split)
    order = rng_for(lab.seed, number, "rows", split).permutation(len(ids))
    outcomes = lab.task.evaluate(prompt, [ids[i] for i in order[:n]])
    mean_score(outcomes)
    return outcomes


def _candidate(
    scorer: LocalDenoiser, context: Context, proposal: Proposal, train: dict[str, float]
) -> Candidate:
    """`train`: scores by prompt; of equal candidates the first takes it."""
    nats, right = _nats(scorer, context, proposal)
    return Candidate(
        prompt=proposal.prompt.text,
        masks=sum(tokens for _, _, tokens in proposal.masks),
        nats=nats,
        nats_right=right,
        violation=proposal.violation,
        train=train.pop(proposal.prompt.id, None),
    )


def _nats(
    scorer: LocalDenoiser, context: Context, proposal: Proposal
) -> tuple[float | None, float | None]:
    """Minus log p per token of what was written: alone, and with what stands to the right of it.

    Read left to right, a text does not know what follows; where it does not lead there, what
    follows becomes improbable.
    """
    text = proposal.prompt.text
    # The blank before a word belongs to its token.
    own = [(a - text[a - 1 : a].isspace(), b) for a, b in find_written_spans(proposal)]
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


def _row(prompt: str, steps: int, found: Sequence[Cell]) -> Row:
    fills = [one for cell in found for one in cell.candidates]
    masks = [one.masks for one in fills if one.masks]
    texts = [
        {one.prompt: one.violation for one in cell.candidates if one.prompt != prompt}
        for cell in found
    ]
    return Row(
        steps=steps,
        taken=fmean(min(steps, n) for n in masks) if masks else 0.0,
        nats=_estimated([one.nats for one in fills]),
        nats_right=_estimated([one.nats_right for one in fills]),
        different=fmean(len(some) for some in texts),
        refused=fmean(sum(map(bool, some.values())) for some in texts),
        train=_estimated([one.train for one in fills]),
        best=estimate([cell.validation for cell in found]),
        seconds=fmean(cell.seconds for cell in found),
    )


def _estimated(values: Sequence[float | None]) -> Estimate | None:
    known = [v for v in values if v is not None]
    return estimate(known) if known else None


def behind(study: Study) -> dict[int, Estimate]:
    """For each number of steps but the largest: nats per token, with what follows, above those of
    the largest on the same canvas. Pairs: canvases and seeds are the same, so less is noise."""
    filled = {(c.round, c.steps): c.candidates for c in study.cells}
    *fewer, most = study.design.steps
    found = {}
    for steps in fewer:
        gaps = [
            few.nats_right - many.nats_right
            for (number, n), some in filled.items()
            if n == steps
            for few, many in zip(some, filled[number, most], strict=True)
            if few.nats_right is not None and many.nats_right is not None
        ]
        if len(gaps) > 1:
            found[steps] = estimate(gaps)
    return found


def leaders(study: Study) -> tuple[Row, list[Row]]:
    """The row with the best score, and the others whose interval reaches it."""
    first = max(study.rows, key=lambda row: (row.best.mean, -row.steps))
    near = [r for r in study.rows if r.steps != first.steps and r.best.high >= first.best.mean]
    return first, near
