"""Compare numbers of denoising steps: each fills the same draws.

A draw is the state of a round of the search before it denoises: traces, canvases and seed. Each
number of steps fills the same draws. The candidates are scored by the frozen base, by the guard and
by the task as in a round of the search: all candidates on the same train rows, the best one on
validation rows. arXiv 2602.18449 says that moderate numbers of steps balance quality and stability
best. As far as we could find, it does not say how that was measured, so this protocol is our own.
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

RIGHT = 120  # characters after a written text that are scored with it: about 24 tokens


@dataclass(frozen=True, slots=True)
class Design:
    """The numbers of steps that are compared, and the size of the study."""

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
    nats_right: float | None  # of that and the text to its right
    violation: str  # not empty: the guard refused it, and why
    train: float | None  # mean score on the train rows; None: refused, unchanged or a repetition


@dataclass(frozen=True, slots=True)
class Cell:
    """One draw, filled in one number of steps."""

    round: int
    steps: int
    seconds: float  # of denoising on a processor; the context had been read before
    candidates: tuple[Candidate, ...]
    best: str  # the prompt that is ahead on the train rows; the prompt as it is where none passed
    validation: float  # its mean score


@dataclass(frozen=True, slots=True)
class Row:
    """The results of one number of steps. Intervals are 95 %, over the things in brackets."""

    steps: int
    taken: float  # steps until no mask was left, at most one per mask; mean
    nats: Estimate | None  # per token of what was written (over fills)
    nats_right: Estimate | None  # per token of that and the text to its right (over fills)
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
            _make_row(self.prompt, steps, [c for c in self.cells if c.steps == steps])
            for steps in self.design.steps
        ]


# Only these write all of a new text. The committed studies were made with them.
MASKERS = ("insert", "span", "insert", "sentence", "insert", "attribution")

# -- measuring ------------------------------------------------------------------------------------


def run_study(
    lab: Lab,
    denoisers: Mapping[int, LocalDenoiser],
    design: Design,
    watch: Callable[[Cell], None] = lambda cell: None,
) -> Study:
    """Run the study of one task. Raises TargetUnreliable.

    denoisers: one for each number of steps, which differ in nothing else. watch: called after each
    cell.
    """
    start, found = lab.start, list[Cell]()
    config = lab.config
    config = config.model_copy(update={"search": config.search.model_copy(update={"maskers": MASKERS})})
    proposer = make_proposer(config, start, denoisers[design.steps[0]], lab.task.labels)
    baseline = _score_prompt(lab, start, "validation", design.validation, 0)
    for number in range(design.rounds):
        outcomes = _score_prompt(lab, start, "train", design.train, number)
        traces = [o.trace for o in outcomes if o.trace is not None]
        drawn_from = seed_for(lab.seed, number, "propose", 0)
        draw = proposer.plan(start, traces, design.candidates, drawn_from)
        for steps in design.steps:
            found.append(_run_cell(lab, denoisers[steps], proposer, draw, design, number, steps))
            watch(found[-1])
    scores = [o.score for o in baseline if o.status == "scored"]
    return Study(start.text, design, estimate(scores), tuple(found))


def _run_cell(
    lab: Lab,
    denoiser: LocalDenoiser,
    proposer: DiffusionProposer,
    draw: ProposalBatch,
    design: Design,
    number: int,
    steps: int,
) -> Cell:
    # Scoring reads the context, so its time does not count as denoising.
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
        outcomes = _score_prompt(lab, prompt, "train", design.train, number)
        train[id] = mean_score(outcomes)
        # Ranking scores have less noise than right or wrong.
        soft = fmean(o.ranking_score for o in outcomes if o.status == "scored")
        if soft >= ahead:
            best, ahead = prompt, soft
    return Cell(
        round=number,
        steps=steps,
        seconds=seconds,
        candidates=tuple(_make_candidate(denoiser, draw.context, p, train) for p in proposals),
        best=best.text,
        validation=mean_score(_score_prompt(lab, best, "validation", design.validation, 0)),
    )


def _score_prompt(lab: Lab, prompt: Prompt, split: Split, n: int, number: int) -> list[Outcome]:
    """Score the prompt on `n` rows drawn for a round. Raises TargetUnreliable."""
    ids = lab.task.ids(split)
    order = rng_for(lab.seed, number, "rows", split).permutation(len(ids))
    outcomes = lab.task.evaluate(prompt, [ids[i] for i in order[:n]])
    mean_score(outcomes)
    return outcomes


def _make_candidate(
    scorer: LocalDenoiser, context: Context, proposal: Proposal, train: dict[str, float]
) -> Candidate:
    """`train`: scores by prompt, which are given to the first of equal candidates."""
    nats, right = _measure_nats(scorer, context, proposal)
    return Candidate(
        prompt=proposal.prompt.text,
        masks=sum(tokens for _, _, tokens in proposal.masks),
        nats=nats,
        nats_right=right,
        violation=proposal.violation,
        train=train.pop(proposal.prompt.id, None),
    )


def _measure_nats(
    scorer: LocalDenoiser, context: Context, proposal: Proposal
) -> tuple[float | None, float | None]:
    """Minus log p per token of the written text: alone, and with the text to the right of it.

    A text that does not lead to what follows makes that improbable, which only the second shows.
    """
    text = proposal.prompt.text
    # The blank before a word belongs to its token.
    own = [(a - text[a - 1 : a].isspace(), b) for a, b in find_written_spans(proposal)]
    if not own:
        return None, None
    wide = _join_spans([(a, min(len(text), b + RIGHT)) for a, b in own])
    logp = scorer.score(context, text, [*own, *wide])
    tokens = [max(1, scorer.count(text[a:b])) for a, b in (*own, *wide)]
    n = len(own)
    return -sum(logp[:n]) / sum(tokens[:n]), -sum(logp[n:]) / sum(tokens[n:])


def _join_spans(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join spans that overlap; `spans` are sorted."""
    made: list[tuple[int, int]] = []
    for start, stop in spans:
        if made and start <= made[-1][1]:
            made[-1] = (made[-1][0], max(stop, made[-1][1]))
        else:
            made.append((start, stop))
    return made


# -- results --------------------------------------------------------------------------------------


def _make_row(prompt: str, steps: int, found: Sequence[Cell]) -> Row:
    fills = [one for cell in found for one in cell.candidates]
    masks = [one.masks for one in fills if one.masks]
    texts = [{one.prompt: one.violation for one in cell.candidates if one.prompt != prompt} for cell in found]
    return Row(
        steps=steps,
        taken=fmean(min(steps, n) for n in masks) if masks else 0.0,
        nats=_estimate_known([one.nats for one in fills]),
        nats_right=_estimate_known([one.nats_right for one in fills]),
        different=fmean(len(some) for some in texts),
        refused=fmean(sum(map(bool, some.values())) for some in texts),
        train=_estimate_known([one.train for one in fills]),
        best=estimate([cell.validation for cell in found]),
        seconds=fmean(cell.seconds for cell in found),
    )


def _estimate_known(values: Sequence[float | None]) -> Estimate | None:
    known = [v for v in values if v is not None]
    return estimate(known) if known else None


def compare_steps(study: Study) -> dict[int, Estimate]:
    """Nats per token, with what follows, above those of the largest number of steps.

    Compared are pairs of fills of the same canvas with the same seed, which lowers the noise.
    """
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


def find_leaders(study: Study) -> tuple[Row, list[Row]]:
    """The row with the best score, and the others whose interval reaches it."""
    first = max(study.rows, key=lambda row: (row.best.mean, -row.steps))
    near = [r for r in study.rows if r.steps != first.steps and r.best.high >= first.best.mean]
    return first, near
