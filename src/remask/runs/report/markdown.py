"""A refinement as a page of Markdown: report.md.

Everything quoted is untrusted: it is shown on one line, without hidden characters, as code.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from remask.runs.report.summary import edit_line, refinement_lines, spend_line, verdict_line
from remask.runs.result import RefinedEdit, Refinement, Result
from remask.sanitize import make_visible, one_line

WIDTH = 200


def render(result: Result, found: Refinement) -> str:
    """The whole page."""
    facts = [*refinement_lines(result, found), f"spent: {spend_line(result.spend)}"]
    facts += [f"warning: {one_line(warning)}" for warning in result.warnings]
    edits = [edit for edit in result.edits if isinstance(edit, RefinedEdit)]
    lines = [
        "# Refined prompt",
        "",
        f"**{verdict_line(result)}**",
        "",
        *(f"- {line}" for line in facts),
        "",
        "## Prompt",
        "",
        _fenced(make_visible(result.prompt)),
        "",
        "## Edits",
        "",
        *(_edits(edits) if edits else ["None: the prompt is unchanged."]),
        "",
        "## Proposed and not accepted",
        "",
        *(_edits(found.proposals) if found.proposals else ["Nothing."]),
        "",
        "## Refused by the guard",
        "",
        *(_refused(found) if found.refused else ["Nothing."]),
    ]
    return "\n".join(lines) + "\n"


def _edits(edits: Sequence[RefinedEdit]) -> Iterator[str]:
    for edit in edits:
        yield (
            f"{edit.iteration}. {edit.masker}, {edit.log_likelihood_gain:+.1f} nats on held-out "
            f"conversations: {_code(edit_line(edit.changes))}"
        )
        for one in edit.attributions:
            parts = [one.trace, one.query, *([one.said] if one.said else [])]
            said = ", ".join(_code(one_line(part, WIDTH)) for part in parts)
            yield f"   - because of {said}: {one.drop:.2f} nats less without it"


def _refused(result: Refinement) -> Iterator[str]:
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
