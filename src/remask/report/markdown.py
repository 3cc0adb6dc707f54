"""A refinement as a page of Markdown: report.md, and the lines that the command line shares.

Everything quoted is untrusted: it is shown on one line, without hidden characters, as code.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from remask.refined import Refined, RefinedEdit
from remask.report.words import comparison, edit_line, one_line, spend_line, visible

WIDTH = 200
UNVERIFIED = (
    "unverified: no target has answered under this prompt; a likelihood chose the edits, and it "
    "does not show that a target does better"
)


def render(result: Refined) -> str:
    """The whole page."""
    lines = [
        "# Refined prompt",
        "",
        f"**{verdict(result)}**",
        "",
        *(f"- {line}" for line in facts(result)),
        "",
        "## Prompt",
        "",
        _fenced(visible(result.prompt)),
        "",
        "## Edits",
        "",
        *(_edits(result.edits) if result.edits else ["None: the prompt is unchanged."]),
        "",
        "## Proposed and not accepted",
        "",
        *(_edits(result.proposals) if result.proposals else ["Nothing."]),
        "",
        "## Refused by the guard",
        "",
        *(_refused(result) if result.refused else ["Nothing."]),
    ]
    return "\n".join(lines) + "\n"


def verdict(result: Refined) -> str:
    """The one claim, or that there is none."""
    if result.test is None:
        return UNVERIFIED
    return f"{result.verdict}: {comparison(result.test)}, metric {result.metric}"


def facts(result: Refined) -> Iterator[str]:
    """Counts, one sentence each."""
    seen = result.conversations
    sealed = f", {seen.sealed} sealed for the verification" if seen.sealed else ""
    yield (
        f"conversations: {seen.records} records, {seen.rejected} rejected, {seen.elsewhere} of "
        f"another system prompt; {seen.read} read, {seen.held} held out to measure{sealed}"
    )
    if not seen.redacted:
        yield "redaction: OFF; secrets and personal details in the conversations were kept"
    else:
        counts = ", ".join(f"{n} {label}" for label, n in seen.secrets.items())
        yield f"redaction: on; replaced: {counts or 'nothing'}"
    yield (
        f"{result.iterations} iterations, {result.candidates} candidates measured, "
        f"{len(result.refused)} refused by the guard"
    )
    if result.spend is not None:
        yield f"spent: {spend_line(result.spend)}"
    for warning in result.warnings:
        yield f"warning: {one_line(warning)}"


def _edits(edits: Sequence[RefinedEdit]) -> Iterator[str]:
    for edit in edits:
        yield (
            f"{edit.iteration}. {edit.masker}, {edit.gain:+.1f} nats on held-out conversations: "
            f"{_code(edit_line(edit.changes))}"
        )
        for one in edit.because:
            parts = [one.trace, one.query, *([one.said] if one.said else [])]
            said = ", ".join(_code(one_line(part, WIDTH)) for part in parts)
            yield f"   - because of {said}: {one.drop:.2f} nats less without it"


def _refused(result: Refined) -> Iterator[str]:
    kinds = Counter(refusal.reason.partition(":")[0] for refusal in result.refused)
    for reason, count in kinds.most_common():
        yield f"- {count} × {_code(one_line(reason))}"
    yield ""
    for refusal in result.refused:
        line, reason = edit_line(refusal.changes, WIDTH), one_line(refusal.reason)
        yield f"- {refusal.iteration}, {refusal.masker}: {_code(line)}: {_code(reason)}"


def _code(text: str) -> str:
    """`text` as code of one line, whatever backticks it holds."""
    longest = max((len(run) for run in _runs(text)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {text} {fence}"


def _fenced(text: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in _runs(text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _runs(text: str) -> list[str]:
    """Runs of backticks."""
    return [run for run in "".join(c if c == "`" else " " for c in text).split() if run]
