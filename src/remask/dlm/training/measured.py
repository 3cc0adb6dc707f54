"""Learn from edits that a search has measured: read them from runs, and weigh them.

A run stores each candidate with its edits, the ids of the traces that the denoiser read, and the
ranking scores of parent and candidate on train rows. The mean paired difference is the candidate's
gain. Within the candidates of one parent, gains become weights of both signs as in wd1 (arXiv
2507.08838): softmax of the gains minus a share of softmax of the negated gains. The training makes
texts of positive weight more probable and those of negative weight less probable.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from pathlib import Path
from statistics import mean, pstdev

import numpy as np
from numpy.typing import NDArray

from remask.data.prompt_traces import shorten
from remask.dlm.adapter import AdaptedModel
from remask.dlm.build import BuiltinDenoiser
from remask.dlm.training.corpus import TrainingExample
from remask.errors import ConfigError
from remask.events import Event, Proposed, Scored, Started
from remask.ids import content_id, rng_for
from remask.models.backbone.transformer import Backbone
from remask.ports import NOT_DENOISED, Canvas, Context, Hole, find_new_spans
from remask.prompt import Prompt
from remask.runs.outcomes import find_traces
from remask.runs.reused_rows import list_run_folders
from remask.runs.store import RunReader, Store
from remask.types import Trace

# A gain on n rows is multiplied by n / (n + PRIOR_ROWS), since few rows say little.
PRIOR_ROWS = 8
MAX_FILLS = 32  # whose diversity is measured
FILL_SEED = 0


@dataclass(frozen=True, slots=True)
class MeasuredEdit:
    """A candidate that the denoiser has written, and what it gained."""

    prompt: str
    spans: tuple[tuple[int, int], ...]  # [start, stop) of the written texts in `prompt`
    traces: Context  # that the denoiser read
    gain: float  # over the parent in ranking scores, shrunk
    masks: tuple[tuple[int, int, int], ...]  # (start, stop, tokens) in the parent's text


@dataclass(frozen=True, slots=True)
class EditGroup:
    """The measured edits of one parent, with the weight of each in the loss."""

    parent: str
    edits: tuple[MeasuredEdit, ...]
    weights: tuple[float, ...] = ()

    @property
    def scale(self) -> float:
        """The sum of the absolute weights."""
        return sum(map(abs, self.weights))

    def draw(self, rng: np.random.Generator) -> tuple[MeasuredEdit, float]:
        """Draw an edit with a probability that is proportional to its absolute weight.

        The second value is its sign times `scale`, so that the mean over draws is the weighted sum.
        """
        chances = np.abs(self.weights) / self.scale
        i = int(rng.choice(len(self.edits), p=chances))
        return self.edits[i], float(np.sign(self.weights[i])) * self.scale


@dataclass(frozen=True, slots=True)
class EditPlan:
    """How measured edits enter the training."""

    share: float = 0.5  # of the tasks of a step; the others are windows of prompts
    negative: float = 0.5  # weight of the term that makes worse edits less probable
    sharpness: float = 1.0  # of the weights, per standard deviation of the gains of a group


@dataclass(frozen=True, slots=True)
class EditSource:
    """Groups of measured edits with their weights, as a source of training tasks."""

    plan: EditPlan
    groups: tuple[EditGroup, ...]

    @property
    def id(self) -> str:
        """A hash of everything that determines the training."""
        edits = [[e.prompt, e.gain, [t.id for t in e.traces]] for g in self.groups for e in g.edits]
        plan = self.plan
        return content_id("edits", plan.share, plan.negative, plan.sharpness, edits)

    @property
    def edits(self) -> int:
        """The number of edits."""
        return sum(len(group.edits) for group in self.groups)


def make_source(groups: Iterable[EditGroup], plan: EditPlan) -> EditSource:
    """Weigh the edits of each group. Groups whose edits have equal gains are left out.

    Raises ConfigError if no group is left.
    """
    found = []
    for group in groups:
        gains = [edit.gain for edit in group.edits]
        if len(gains) > 1 and pstdev(gains) > 0:
            found.append(replace(group, weights=weigh_gains(gains, plan)))
    if not found:
        raise ConfigError(
            "the runs have no prompt with two measured edits of different gains; name runs of remask "
            "optimize in which the denoiser's candidates were asked on train rows"
        )
    return EditSource(plan, tuple(found))


def weigh_gains(gains: Sequence[float], plan: EditPlan) -> tuple[float, ...]:
    """Return softmax(gains) - negative * softmax(-gains), with gains in their standard deviations.

    >>> [round(w, 2) for w in weigh_gains([1.0, 0.0, -1.0], EditPlan(negative=1.0))]
    [0.66, 0.0, -0.66]
    """
    scaled = np.array(gains) * (plan.sharpness / pstdev(gains))
    up, down = _softmax(scaled), _softmax(-scaled)
    return tuple((up - plan.negative * down).tolist())


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(values - values.max())
    total: NDArray[np.float64] = weights / weights.sum()
    return total


# -- reading runs ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _RunEvents:
    """What the events of one run say about its candidates."""

    prompts: dict[str, str] = field(default_factory=dict)  # id -> text
    proposals: dict[str, Proposed] = field(default_factory=dict)  # by id
    ranked: dict[str, dict[str, float]] = field(
        default_factory=lambda: defaultdict(dict)
    )  # id -> row -> score

    def add(self, event: Event) -> None:
        match event:
            case Started():
                self.prompts[event.id] = Prompt.parse(event.prompt).text
            case Proposed():
                self.prompts[event.id] = Prompt.parse(event.prompt).text
                self.proposals[event.id] = event
            case Scored() if event.split == "train":
                rows = {row: rank for row, score, rank in event.rows if None not in (score, rank)}
                self.ranked[event.id] |= {row: rank for row, rank in rows.items() if rank is not None}


def read_edits(paths: Sequence[Path]) -> list[EditGroup]:
    """Read the measured edits of run directories, or of folders of run directories, by parent.

    Equal parents of several runs are separate groups, since the rows differ. Raises ConfigError.
    """
    groups: list[EditGroup] = []
    for folder in _list_runs(paths):
        with Store.read(folder) as store:
            groups += _read_groups(store)
    return groups


def _list_runs(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        inner = list_run_folders(path) if path.is_dir() else []
        yield from inner or [path]  # a path without a run gets its error when it is read


def _read_groups(store: RunReader) -> Iterator[EditGroup]:
    found = _RunEvents()
    for event in store.find_events("Started", "Proposed", "Scored"):
        found.add(event)
    by_parent: dict[str, list[MeasuredEdit]] = defaultdict(list)
    traces_of: dict[str, dict[str, Trace]] = {}
    for proposed in found.proposals.values():
        parent = proposed.parent
        if parent not in traces_of:
            traces_of[parent] = _read_traces(store, parent)
        edit = _make_edit(proposed, found, traces_of[parent])
        if edit is not None:
            by_parent[parent].append(edit)
    for parent, edits in by_parent.items():
        yield EditGroup(found.prompts[parent], tuple(edits))


def _read_traces(store: RunReader, prompt: str) -> dict[str, Trace]:
    try:
        return find_traces(store.find_outcomes(prompt))
    except ValueError as error:
        raise ConfigError(f"{store.folder} is damaged: the outcome of a row {error}") from None


def _make_edit(proposed: Proposed, found: _RunEvents, traces: Mapping[str, Trace]) -> MeasuredEdit | None:
    """Return the edit of a candidate; None if the denoiser wrote nothing or nothing was measured."""
    before, after = found.ranked[proposed.parent], found.ranked[proposed.id]
    gains = [after[row] - before[row] for row in after if row in before]
    spans = find_denoised_spans(proposed)
    if not gains or not spans or proposed.masker.partition(" ")[0] in {"demos", *NOT_DENOISED}:
        return None
    return MeasuredEdit(
        found.prompts[proposed.id],
        spans,
        tuple(shorten(traces[id]) for id in proposed.traces if id in traces),
        mean(gains) * len(gains) / (len(gains) + PRIOR_ROWS),
        proposed.masks,
    )


def find_denoised_spans(proposed: Proposed) -> tuple[tuple[int, int], ...]:
    """Return the spans of a candidate that the denoiser wrote.

    Fixed words of an anchored edit are pieces of step 0: the denoiser read them. The spaces at the
    ends of its own pieces belong to it.
    """
    texts = [text for _, _, text in proposed.edits]
    pieces_of = proposed.pieces or [()] * len(texts)
    written = [(text, pieces) for text, pieces in zip(texts, pieces_of, strict=True) if text]
    found: list[tuple[int, int]] = []
    for (at, _), (text, pieces) in zip(find_new_spans(proposed.edits), written, strict=True):
        for step, group in groupby(pieces or ((text, 1),), key=lambda piece: min(piece[1], 1)):
            end = at + sum(len(piece) for piece, _ in group)
            found += [(at, end)] if step else []
            at = end
    return tuple(found)


def list_parents(groups: Iterable[EditGroup]) -> list[TrainingExample]:
    """Return the parents with the traces of their edits, as prompts to train on."""
    traces: dict[str, dict[str, Trace]] = defaultdict(dict)
    for group in groups:
        traces[group.parent] |= {t.id: t for edit in group.edits for t in edit.traces}
    return [TrainingExample(prompt, tuple(found.values())) for prompt, found in traces.items()]


# -- diversity ------------------------------------------------------------------------------------


def measure_diversity(base: Backbone, adapted: AdaptedModel, groups: Sequence[EditGroup]) -> float:
    """Return the share of distinct word pairs in new fills of measured edits' masks.

    The masks are the same ones for every adapter of the same groups.
    """
    denoiser = BuiltinDenoiser(base, adapted)
    edits = [(group.parent, edit) for group in groups for edit in group.edits]
    order = rng_for(FILL_SEED, "diversity").permutation(len(edits))[:MAX_FILLS]
    canvases: dict[Context, list[Canvas]] = defaultdict(list)
    for parent, edit in (edits[i] for i in order):
        canvases[edit.traces].append(cut_holes(parent, edit.masks))
    texts: list[str] = []
    for traces, same in canvases.items():
        texts += [text for fill in denoiser.infill(traces, same, FILL_SEED) for text in fill.texts]
    return count_distinct_pairs(texts)


def count_distinct_pairs(texts: Iterable[str]) -> float:
    """Return the number of different word pairs over the number of all word pairs (distinct-2).

    >>> count_distinct_pairs(["be brief now", "Be brief"])
    0.6666666666666666
    """
    pairs = [pair for text in texts for pair in pairwise(text.lower().split())]
    return len(set(pairs)) / max(1, len(pairs))


def cut_holes(text: str, masks: Sequence[tuple[int, int, int]]) -> Canvas:
    """Return the canvas of a prompt with masks (start, stop, tokens).

    >>> cut_holes("Be very kind.", [(3, 7, 2)])
    ('Be ', Hole(old='very', tokens=2), ' kind.')
    """
    parts: list[str | Hole] = []
    at = 0
    for start, stop, tokens in masks:
        parts += [text[at:start], Hole(text[start:stop], tokens)]
        at = stop
    return tuple(part for part in (*parts, text[at:]) if part)
