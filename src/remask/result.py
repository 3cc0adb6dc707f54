"""What a run ends with, derived from its events: the verdict, the prompt and what it cost.

Test figures come from rows that the search never saw, scored once. Validation figures chose the
prompt, so they are too good to be quoted; they are kept and labelled "used for selection".
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from remask.budget import Spend
from remask.errors import ConfigError
from remask.events import Accepted, Proposed, Rows, State
from remask.evidence import Comparison, Verdict, compare, estimate
from remask.prompt import Change, Prompt, diff

RESULT = "result.json"  # in the run directory


@dataclass(frozen=True, slots=True)
class PromptScore:
    """One prompt, its length, and its score on the rows used for selection."""

    prompt: str
    tokens: int
    validation: float | None  # used for selection


@dataclass(frozen=True, slots=True)
class AcceptedEdit:
    """One accepted step from the baseline to the best prompt."""

    round: int
    masker: str
    changes: tuple[tuple[str, str], ...]  # (before, after)
    validation_gain: float  # used for selection
    because: tuple[str, ...]  # queries of the traces that speak for it most


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of `optimize`."""

    verdict: Verdict
    prompt: str
    baseline: PromptScore
    best: PromptScore
    test: Comparison
    edits: tuple[AcceptedEdit, ...]
    spend: Spend
    stopped: str
    candidates: int  # evaluated
    rejected: int  # by the guard, at no cost
    warnings: tuple[str, ...]
    run_dir: str
    front: tuple[PromptScore, ...] = ()  # score against length; see `front`

    def diff(self) -> tuple[Change, ...]:
        """Words of the baseline and of the best prompt side by side."""
        return diff(self.baseline.prompt, self.best.prompt)

    def to_dict(self) -> dict[str, Any]:
        """What `result.json` holds."""
        return asdict(self)

    def _repr_html_(self) -> str:
        t = self.test
        head = (
            f"<p><b>{self.verdict}</b>: {t.baseline:.3f} → {t.best:.3f} on {t.n} sealed test rows, "
            f"difference {t.difference:+.3f} (95 % interval {t.low:+.3f} to {t.high:+.3f})</p>"
        )
        tags = {"same": "span", "removed": "del", "added": "ins"}
        body = "".join(
            f"<{tags[c.kind]}>{html.escape(c.text)}</{tags[c.kind]}>" for c in self.diff()
        )
        return f'{head}<pre style="white-space:pre-wrap">{body}</pre>'


def make_result(
    state: State,
    queries: Mapping[str, str],
    spend: Spend,
    warnings: Sequence[str],
    run_dir: str,
) -> Result:
    """`queries`: the input of every row, to say which conversations speak for an edit."""
    assert state.tested is not None, "a result needs the sealed test"
    baseline, best = (_prompt_score(state, id) for id in (state.baseline, state.incumbent))
    test, failed = compare_rows(state.tested.baseline, state.tested.best)
    return Result(
        verdict=test.verdict,
        prompt=best.prompt,
        baseline=baseline,
        best=best,
        test=test,
        edits=tuple(_edit(state, event, queries) for event in state.accepted),
        spend=spend,
        stopped=state.stopped,
        candidates=len({id for id, split in state.scores if split == "train"} - {state.baseline}),
        rejected=len({r.prompt for r in state.rejections}),
        warnings=(*warnings, *_warnings(state, failed)),
        run_dir=run_dir,
        front=tuple(_prompt_score(state, id) for id in front(state)),
    )


def read_result(run_dir: Path) -> Result | None:
    """What `result.json` of a finished run holds; None where there is none yet.

    Raises ConfigError where the file is not one that this remask wrote.
    """
    from pydantic import TypeAdapter, ValidationError

    file = run_dir / RESULT
    try:
        return TypeAdapter(Result).validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ConfigError(
            f"{file} is not a result of this version of remask ({error.error_count()} problems); "
            f"`remask resume {run_dir}` writes it anew"
        ) from None


def front(state: State) -> tuple[str, ...]:
    """The Pareto front of score and length, shortest first: prompts to which none is preferable
    in both. Only those count that were asked on all validation rows."""
    ids = sorted(_validated(state), key=lambda id: (state.tokens[id], -_validation(state, id)))
    found: list[str] = []
    for id in ids:
        if not found or _validation(state, id) > _validation(state, found[-1]):
            found.append(id)
    return tuple(found)


def shortest_within(state: State, points: float) -> str:
    """The shortest prompt whose validation score is at most `points` of 100 below that of the
    best prompt. It was chosen by the rows that score it, and never met the test rows."""
    least = _validation(state, state.incumbent) - points / 100 - 1e-9
    able = (id for id in front(state) if _validation(state, id) >= least)
    return next(able, state.incumbent)


def _validated(state: State) -> list[str]:
    scored = {id: rows for (id, split), rows in state.scores.items() if split == "validation"}
    whole = scored.get(state.baseline, {}).keys()
    return [id for id, rows in scored.items() if rows.keys() == whole]


def _validation(state: State, id: str) -> float:
    scores = [s for s in state.scores[(id, "validation")].values() if s is not None]
    return sum(scores) / len(scores)


def _prompt_score(state: State, id: str) -> PromptScore:
    scores = [s for s in state.scores.get((id, "validation"), {}).values() if s is not None]
    mean = estimate(scores).mean if scores else None
    return PromptScore(state.prompt(id).text, state.tokens[id], mean)


def compare_rows(before: Rows, after: Rows) -> tuple[Comparison, int]:
    """Rows that failed under either prompt have no difference and are left out, and counted."""
    pairs = [
        (a, b)
        for (_, a, _), (_, b, _) in zip(before, after, strict=True)
        if a is not None and b is not None
    ]
    test = compare([a for a, _ in pairs], [b for _, b in pairs])
    return test, len(before) - len(pairs)


def _edit(state: State, event: Accepted, queries: Mapping[str, str]) -> AcceptedEdit:
    proposal = next(p for p in state.proposals if p.id == event.id and p.round == event.round)
    return AcceptedEdit(
        round=event.round,
        masker=proposal.masker,
        changes=changes(state, proposal),
        validation_gain=event.gain,
        because=tuple(queries[id] for id in event.because if id in queries),
    )


def changes(state: State, proposal: Proposed) -> tuple[tuple[str, str], ...]:
    """(before, after) of every edit of a candidate."""
    parent = Prompt.parse(state.prompts[proposal.parent]).text
    return tuple((parent[start:stop], text) for start, stop, text in proposal.edits)


def _warnings(state: State, failed: int) -> list[str]:
    assert state.tested is not None
    out = []
    if state.tested.silent:
        labels = ", ".join(repr(label) for label in state.tested.silent)
        out.append(f"the target never answered {labels} under the best prompt")
    if state.tested.unparsed:
        out.append(f"no label was found in {state.tested.unparsed} test responses; scored 0")
    if failed:
        out.append(f"{failed} test rows have no score because the call failed; left out")
    out += state.tested.notes
    return out
