"""The result of a run, derived from its events: verdict, prompt and cost.

Test scores come from rows that the search never saw, scored once. Validation scores chose the
prompt, so they are never reported as results; they are labelled "used for selection". If no target
answered with the new prompt (`refine` without a target), the verdict is "unverified".
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson

from remask import events
from remask.errors import ConfigError
from remask.events import Rows, State
from remask.files import write
from remask.prompt import Prompt
from remask.runs.budget import Spend
from remask.runs.goal_results import (
    GuardResult,
    ObjectiveResult,
    decide,
    find_level,
    judge_guard,
    judge_length,
    turn,
)
from remask.runs.outcomes import read_row_file
from remask.runs.reused_rows import describe_reuse
from remask.runs.word_diff import Change, diff
from remask.sanitize import clip, make_visible, one_line
from remask.stats import (
    GUARD_TOLERANCE,
    LEVEL,
    Comparison,
    Verdict,
    compare,
    estimate,
    find_front,
    format_level,
    sign_test,
)

if TYPE_CHECKING:
    from pydantic import TypeAdapter

RESULT = "result.json"  # in the run directory
MIN_TESTED = 0.95  # of the test rows must have scores of both prompts


@dataclass(frozen=True, slots=True)
class PromptScore:
    """One prompt, its length, and its score on the rows used for selection."""

    prompt: str
    tokens: int
    validation: float | None  # used for selection
    values: Mapping[str, float | None] = field(default_factory=dict)  # of each objective, as validation


@dataclass(frozen=True, slots=True)
class AcceptedEdit:
    """One accepted step from the baseline to the best prompt."""

    round: int  # number of the round, from 1
    masker: str
    changes: tuple[tuple[str, str], ...]  # (before, after)
    validation_gain: float  # used for selection
    attributions: tuple[str, ...]  # the evidence: messages of the conversations that support it most


@dataclass(frozen=True, slots=True)
class Evidence:
    """A conversation that supports an edit: without it, the new text is less probable."""

    trace: str  # id
    query: str
    said: str  # the right response or the feedback, or ""
    drop: float  # decrease of the log-probability of all new texts without it, in nats
    attributions: tuple[float, ...]  # the same for each change in order; 0 for a deletion


@dataclass(frozen=True, slots=True)
class RefinedEdit:
    """An edit of `refine`: accepted, or the best of an iteration that accepted none."""

    iteration: int  # from 1
    masker: str
    changes: tuple[tuple[str, str], ...]  # (before, after)
    places: tuple[int, ...]  # of the changes: characters into the prompt of this iteration
    log_likelihood_gain: float  # mean of `fold_gains`, in nats
    fold_gains: tuple[float, ...]  # gain on each group of held-out conversations, in nats
    attributions: tuple[Evidence, ...]  # conversations that support it most


@dataclass(frozen=True, slots=True)
class Refusal:
    """A candidate that the guard refused."""

    iteration: int
    masker: str
    changes: tuple[tuple[str, str], ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Refinement:
    """The part of a result that only `refine` has."""

    conversations: events.ConversationCounts
    iterations: int
    proposals: tuple[RefinedEdit, ...]  # the best of each iteration that accepted none
    refused: tuple[Refusal, ...]
    metric: str  # of the sealed rows; "" without a target
    marked: str  # the prompt with its [[keep]] marks


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """The outcome of `optimize` and `refine`."""

    verdict: Verdict | Literal["unverified"]
    prompt: str
    baseline: PromptScore
    best: PromptScore
    test: Comparison | None  # None if unverified
    edits: tuple[AcceptedEdit | RefinedEdit, ...]
    spend: Spend
    stopped: str
    candidates: int  # evaluated, by a target or by likelihood
    rejected: int  # refused by the guard, without a call
    warnings: tuple[str, ...]
    run_dir: str
    pareto_front: tuple[PromptScore, ...] = ()  # of score and objectives, by default of the length
    refinement: Refinement | None = None
    earlier_tests: int = 0  # of the same test rows, by other runs in this folder
    quoted_rows: int = 0  # train rows that the best prompt shows as examples
    objectives: tuple[ObjectiveResult, ...] = ()  # beside the score
    guards: tuple[GuardResult, ...] = ()  # rows on which no loss is accepted
    prefer: str = ""  # the objective that chose among prompts; "": the score
    within: float = 0.0  # points of 100 of score that may be lost for it

    def __repr__(self) -> str:
        """The verdict and the start of the prompt; `to_dict` has everything."""
        prompt = clip(repr(self.prompt), 300)
        return f"<Result {self._verdict}; prompt={prompt}; run_dir={self.run_dir!r}>"

    @property
    def components(self) -> dict[str, str]:
        """The texts of the best prompt by component; empty where the prompt is one text."""
        return {name: part.text for name, part in Prompt(self.prompt).components.items()}

    @property
    def rows(self) -> Any:
        """The validation and test rows with the answers of both prompts, as in rows.jsonl.

        A DataFrame where pandas is installed, else a list of dicts.
        """
        found = read_row_file(Path(self.run_dir))
        try:
            import pandas
        except ImportError:
            return found
        return pandas.json_normalize(found)

    @property
    def _verdict(self) -> str:
        if self.test is None:
            return self.verdict
        t = self.test
        if self.best.prompt == self.baseline.prompt:
            return f"{self.verdict}: the prompt is unchanged, {t.best:.3f} on {t.n} sealed test rows"
        return (
            f"{self.verdict}: {t.baseline:.3f} → {t.best:.3f} on {t.n} sealed test rows, "
            f"difference {t.difference:+.3f} ({format_level(t.level)} interval {t.low:+.3f} to {t.high:+.3f})"
        )

    def diff(self) -> tuple[Change, ...]:
        """Compare the baseline with the best prompt, word by word."""
        return diff(self.baseline.prompt, self.best.prompt)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `result.json`; it has `refinement` only for `refine`."""
        values = asdict(self)
        if self.refinement is None:
            del values["refinement"]
        return values

    def _repr_html_(self) -> str:
        """What the terminal says at the end of a run, for notebooks."""
        from remask.runs.report.summary import format_verdict, list_facts  # it imports this module

        tags = {"same": "span", "removed": "del", "added": "ins"}
        body = "".join(
            f"<{tags[c.kind]}>{html.escape(make_visible(c.text))}</{tags[c.kind]}>" for c in self.diff()
        )
        lines = [*list_facts(self), *(f"warning: {one_line(warning)}" for warning in self.warnings)]
        facts = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
        verdict = html.escape(format_verdict(self))
        page = html.escape(one_line(str(Path(self.run_dir) / "report.html")))
        return (
            f'<p><b>{verdict}</b></p><pre style="white-space:pre-wrap">{body}</pre><ul>{facts}</ul>'
            f"<p>report: <code>{page}</code></p>"
        )


Sources = Mapping[str, tuple[str, str]]  # id -> (message, right answer or feedback)


def make_result(
    state: State, sources: Sources, spend: Spend, warnings: Sequence[str], run_dir: str
) -> Result:
    """Build the result. `sources` has the texts of the rows or traces that support an edit."""
    baseline, best = (_score_prompt(state, id) for id in (state.baseline, state.incumbent))
    test: Comparison | None = None
    doubts: tuple[str, ...] = ()
    verdict: Verdict | Literal["unverified"] = "unverified"
    objectives, guards = _compare_goals(state, state.tested) if state.tested is not None else ((), ())
    if state.tested is not None:
        test, doubts = compare_tested(state.tested)
        of = next((one.verdict for one in objectives if one.name == state.goals.prefer), None)
        verdict = decide(test, len(doubts) > 1, state.goals, of, guards)
    refinement = None
    if state.traces_read is not None:
        refinement = _build_refinement(state, state.traces_read, sources)
        warnings = (*state.traces_read.notes, *warnings)
    edit = _build_accepted_edit if refinement is None else _build_refined_edit
    ranked = {id for id, split in state.scores if split == "train"} - {state.baseline}
    return Result(
        verdict=verdict,
        prompt=best.prompt,
        baseline=baseline,
        best=best,
        test=test,
        edits=tuple(edit(state, event, sources) for event in state.accepted),
        spend=spend,
        stopped=state.stopped,
        candidates=len(ranked) or len(state.measured),
        rejected=len({r.prompt for r in state.refusals}),
        warnings=(*warnings, *_list_warnings(state, doubts)),
        run_dir=run_dir,
        pareto_front=tuple(_score_prompt(state, id) for id in find_pareto_front(state)),
        refinement=refinement,
        earlier_tests=0 if state.tested is None else state.tested.earlier_tests,
        quoted_rows=_count_quoted_rows(state),
        objectives=objectives,
        guards=guards,
        prefer=state.goals.prefer,
        within=state.goals.within,
    )


def _compare_goals(
    state: State, event: events.Tested
) -> tuple[tuple[ObjectiveResult, ...], tuple[GuardResult, ...]]:
    """Compare both prompts on the objectives and the guard sets of a sealed test."""
    level, measured = find_level(event), {name: rows for name, *rows in event.objectives}
    objectives = []
    for name, higher in state.goals.objectives:
        if name == events.PROMPT_TOKENS:
            objectives.append(judge_length(state.tokens[state.baseline], state.tokens[state.incumbent]))
            continue
        before, after = measured.get(name, ((), ()))
        if not any(a[1] is not None and b[1] is not None for a, b in zip(before, after, strict=True)):
            objectives.append(ObjectiveResult(name, higher, None, None, None, "no evidence"))
            continue
        test, _ = compare_rows(before, after, level)
        verdict = turn(test.verdict, higher)
        objectives.append(ObjectiveResult(name, higher, test.baseline, test.best, test, verdict))
    margins = {guard.name: guard.margin for guard in state.goals.guards}
    guards = []
    for name, before, after in event.guards:
        test, doubts = compare_rows(before, after, level)
        status = judge_guard(test, margins[name]) if len(doubts) < 2 else "not shown"
        guards.append(GuardResult(name, margins[name], 100 * GUARD_TOLERANCE, test, status))
    return tuple(objectives), tuple(guards)


def _count_quoted_rows(state: State) -> int:
    """Return how many train rows the best prompt shows as examples.

    Only a block of examples adds a kept region to a prompt. It begins with a heading, and a blank
    line stands before each example.
    """
    best, baseline = state.prompt(state.incumbent), state.prompt(state.baseline)
    own = {baseline.text[start:stop] for start, stop in baseline.kept}
    new = [text for start, stop in best.kept if (text := best.text[start:stop]) not in own]
    return new[-1].count("\n\n") if len(best.kept) > len(baseline.kept) and new else 0


def write_result(result: Result, run_dir: Path) -> None:
    """Write result.json atomically."""
    text = orjson.dumps(result.to_dict(), option=orjson.OPT_INDENT_2)
    write(run_dir / RESULT, text, force=True)


def read_result(run_dir: Path) -> Result | None:
    """Read `result.json` of a finished run; None if the run is not finished.

    Raises ConfigError if the file is not a result of this version.
    """
    from pydantic import ValidationError

    file = run_dir / RESULT
    if not file.exists():
        return None
    if not file.is_file():  # reading a pipe or a device might never end
        raise ConfigError(f"{file} is not a file; remove it")
    try:
        return _make_adapter().validate_json(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}); check it and its permissions") from None
    except ValidationError as error:
        raise ConfigError(
            f"{file} is not a result of this version of remask ({error.error_count()} problems); "
            f"run `remask resume {run_dir}` to write it again"
        ) from None


@cache
def _make_adapter() -> "TypeAdapter[Result]":
    from pydantic import TypeAdapter  # imported here because it is slow

    return TypeAdapter(Result)


def find_pareto_front(state: State, of: Sequence[tuple[str, bool]] = ()) -> tuple[str, ...]:
    """Return the ids on the Pareto front of the score and the objectives, shortest prompt first.

    No other prompt is better in one and at least as good in all others. Only prompts with a score
    on all validation rows count, and of a run with guard sets those that were accepted. `of`:
    (objective, whether more is better); default: those of the run, or else the length.
    """
    goals = (("", True), *(of or state.goals.objectives or ((events.PROMPT_TOKENS, False),)))
    points = {}
    for id in _list_validated(state):
        means = [(state.measure(id, name), up) for name, up in goals]
        known = [value if up else -value for value, up in means if value is not None]
        if len(known) == len(goals):
            points[id] = known
    found = find_front(points, first=state.baseline)
    return tuple(sorted(found, key=lambda id: (state.tokens[id], [-value for value in points[id]], id)))


def find_shortest_within(state: State, points: float) -> str:
    """Return the shortest prompt whose validation score is at most `points` (of 100) below the
    best.

    It was selected by its validation score and was not tested.
    """
    least = _average_validation(state, state.incumbent) - points / 100 - 1e-9
    front = find_pareto_front(state, ((events.PROMPT_TOKENS, False),))
    able = (id for id in front if _average_validation(state, id) >= least)
    return next(able, state.incumbent)


def _list_validated(state: State) -> list[str]:
    scored = {id: rows for (id, split), rows in state.scores.items() if split == "validation"}
    whole = scored.get(state.baseline, {}).keys()
    found = [id for id, rows in scored.items() if rows.keys() == whole]
    held = {state.baseline, *(event.id for event in state.accepted)}  # on the guard sets
    return [id for id in found if id in held] if state.goals.guards else found


def _average_validation(state: State, id: str) -> float:
    scores = [s for s in state.scores[(id, "validation")].values() if s is not None]
    return sum(scores) / len(scores)


def _score_prompt(state: State, id: str) -> PromptScore:
    scores = [s for s in state.scores.get((id, "validation"), {}).values() if s is not None]
    mean = estimate(scores).mean if scores else None
    values = {name: state.measure(id, name) for name, _ in state.goals.objectives}
    return PromptScore(state.prompt(id).text, state.tokens[id], mean, values)


def compare_tested(event: events.Tested) -> tuple[Comparison, tuple[str, ...]]:
    """Compare the scores of a sealed test, as `compare_rows` does, with the interval that fits the
    number of earlier tests of the same rows, and of intervals of this test."""
    return compare_rows(event.baseline, event.best, find_level(event))


def compare_rows(before: Rows, after: Rows, level: float = LEVEL) -> tuple[Comparison, tuple[str, ...]]:
    """Compare two prompts on the rows that both have a score for; return also what makes it doubtful.

    The verdict is "no evidence" where fewer than MIN_TESTED of the rows have both scores, or where
    the failures of the two prompts differ by more than chance (a sign test at 5 %): then the rows
    that are left may be the easy ones of one prompt.
    """
    scores = [(a, b) for (_, a, _), (_, b, _) in zip(before, after, strict=True)]
    pairs = [(a, b) for a, b in scores if a is not None and b is not None]
    test = compare([a for a, _ in pairs], [b for _, b in pairs], level)
    missing = len(scores) - len(pairs)
    if not missing:
        return test, ()
    doubts = [
        f"{missing} of {len(scores)} test rows have no score because a call failed or the budget was spent; "
        "they were left out"
    ]
    if len(pairs) < MIN_TESTED * len(scores):
        doubts.append(f"fewer than {MIN_TESTED:.0%} of the test rows have a score, so there is no evidence")
    only_before = sum(a is None and b is not None for a, b in scores)
    only_after = sum(b is None and a is not None for a, b in scores)
    if sign_test(only_before, only_after) < 0.05:
        doubts.append(
            f"{only_before} test rows failed only with the baseline and {only_after} only with the best "
            "prompt, which is more than chance, so there is no evidence"
        )
    return (replace(test, verdict="no evidence") if len(doubts) > 1 else test), tuple(doubts)


def _build_accepted_edit(state: State, event: events.Accepted, sources: Sources) -> AcceptedEdit:
    proposal = state.proposal(event.round, event.id)
    return AcceptedEdit(
        round=event.round + 1,
        masker=proposal.masker,
        changes=list_changes(state, proposal),
        validation_gain=event.gain,
        attributions=tuple(sources[id][0] for id in event.attributions if id in sources),
    )


def _build_refinement(state: State, event: events.TracesRead, sources: Sources) -> Refinement:
    taken = {event.round for event in state.accepted}
    best: dict[int, events.Measured] = {}  # by round, of rounds that accepted nothing
    for one in sorted(state.measured, key=lambda one: (one.round, -one.log_likelihood_gain, one.id)):
        if one.round not in taken:
            best.setdefault(one.round, one)
    return Refinement(
        conversations=event.counts,
        iterations=state.round,
        proposals=tuple(_build_refined_edit(state, one, sources) for one in best.values()),
        refused=tuple(
            Refusal(event.round + 1, event.masker, list_changes(state, event), event.reason)
            for event in state.refusals
        ),
        metric=event.metric,
        marked=state.prompts[state.incumbent],
    )


def _build_refined_edit(
    state: State, event: events.Accepted | events.Measured, sources: Sources
) -> RefinedEdit:
    proposal = state.proposal(event.round, event.id)
    (measured,) = (m for m in state.measured if (m.round, m.id) == (event.round, event.id))
    rests_on = [a for a in state.attributed if (a.round, a.id) == (event.round, event.id)]
    return RefinedEdit(
        iteration=event.round + 1,
        masker=proposal.masker,
        changes=list_changes(state, proposal),
        places=tuple(start for start, _, _ in proposal.edits),
        log_likelihood_gain=measured.log_likelihood_gain,
        fold_gains=measured.fold_gains,
        attributions=tuple(one for event in rests_on for one in _list_evidence(event, proposal, sources)),
    )


def _list_evidence(
    event: events.Attributed, proposal: events.Proposed, sources: Sources
) -> Iterator[Evidence]:
    for trace, nats in event.attributions:
        each = iter(nats)
        drops = tuple(next(each) if text else 0.0 for _, _, text in proposal.edits)
        query, said = sources.get(trace, ("", ""))
        yield Evidence(trace, query, said, sum(nats), drops)


def list_changes(state: State, proposal: events.Proposed | events.Refused) -> tuple[tuple[str, str], ...]:
    """Return (before, after) of every edit of a candidate."""
    parent = _parse_text(state.prompts[proposal.parent])
    return tuple((parent[start:stop], text) for start, stop, text in proposal.edits)


@lru_cache(maxsize=256)  # the candidates of a round have one parent
def _parse_text(source: str) -> str:
    return Prompt.parse(source).text


def _list_warnings(state: State, doubts: Sequence[str]) -> list[str]:
    tested = state.tested
    if tested is None:
        return []
    out = [text] if (text := describe_reuse(tested.earlier_tests, find_level(tested))) else []
    if tested.never_predicted:
        labels = ", ".join(repr(label) for label in tested.never_predicted)
        out.append(f"the target never answered {labels} with the best prompt")
    if tested.unparsed:
        out.append(f"{tested.unparsed} test responses contain no label; they were scored 0")
    return [*out, *doubts, *tested.notes]
