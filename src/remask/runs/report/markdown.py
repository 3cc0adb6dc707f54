"""The report of a refinement as Markdown (report.md).

Quoted text is untrusted, so it is shown as code on one line, without invisible characters.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from remask.runs.report.summary import format_edit, format_spend, format_verdict, list_refinement_facts
from remask.runs.result import RefinedEdit, Refinement, Result
from remask.sanitize import make_visible, one_line

MAX_QUOTE_CHARS = 200


def render(result: Result, found: Refinement) -> str:
    """Render the page."""
    facts = [*list_refinement_facts(result), f"spent: {format_spend(result.spend)}"]
    facts += [f"warning: {one_line(warning)}" for warning in result.warnings]
    edits = [edit for edit in result.edits if isinstance(edit, RefinedEdit)]
    sections = {
        "# Refined prompt": [f"**{format_verdict(result)}**", "", *(f"- {fact}" for fact in facts)],
        "## Prompt": [format_block(make_visible(result.prompt))],
        "## Edits": list(_format_edits(edits)) or ["None: the prompt is unchanged."],
        "## Best edits that were not accepted": list(_format_edits(found.proposals)) or ["None."],
        "## Refused by the guard": _format_refusals(found) if found.refused else ["None."],
    }
    return "\n\n".join("\n".join([title, "", *lines]) for title, lines in sections.items()) + "\n"


def _format_edits(edits: Sequence[RefinedEdit]) -> Iterator[str]:
    for edit in edits:
        yield (
            f"{edit.iteration}. {edit.masker}, {edit.log_likelihood_gain:+.1f} nats on held-out "
            f"conversations: {format_code(format_edit(edit.changes))}"
        )
        for one in edit.attributions:
            parts = [one.trace, one.query, *([one.said] if one.said else [])]
            quoted = ", ".join(format_code(one_line(part, MAX_QUOTE_CHARS)) for part in parts)
            yield f"   - evidence: {quoted}; {one.drop:.2f} nats less without it"


def _format_refusals(result: Refinement) -> Iterator[str]:
    kinds = Counter(refusal.reason.partition(":")[0] for refusal in result.refused)
    for reason, count in kinds.most_common():
        yield f"- {count} × {format_code(one_line(reason))}"
    yield ""
    for refusal in result.refused:
        line, reason = format_edit(refusal.changes, MAX_QUOTE_CHARS), one_line(refusal.reason)
        where = f"{refusal.iteration}, {refusal.masker}"
        yield f"- {where}: {format_code(line)}: {format_code(reason)}"


def format_code(text: str) -> str:
    """Format `text` as inline code; it may contain backticks."""
    fence = "`" * (_count_backticks(text) + 1)
    return f"{fence} {text} {fence}"


def format_block(text: str) -> str:
    """Format `text` as a block of code; it may contain backticks."""
    fence = "`" * max(3, _count_backticks(text) + 1)
    return f"{fence}text\n{text}\n{fence}"


def _count_backticks(text: str) -> int:
    """Return the length of the longest run of backticks in `text`."""
    return max(map(len, re.findall("`+", text)), default=0)
