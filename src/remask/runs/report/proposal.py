"""The files of a proposal beside those of its run: new prompt, diff, and the text of a pull request.

Quoted text of users is untrusted, so it is shown as code on one line, without invisible characters.
"""

from collections.abc import Iterator, Sequence
from difflib import unified_diff
from pathlib import Path

from remask.files import write
from remask.runs.drift import DriftTest
from remask.runs.report.markdown import format_block, format_code
from remask.runs.report.summary import format_verdict, list_facts, list_refinement_facts
from remask.runs.result import Result
from remask.sanitize import make_visible, one_line

PULL_REQUEST = "pull-request.md"
DIFF = "changes.diff"


def write_proposal(
    folder: Path,
    result: Result,
    before: str,
    after: str,
    place: str,
    why: Sequence[str],
    kinds: Sequence[str],
) -> None:
    """Write the new prompt under the name of its file, changes.diff, and pull-request.md, the last.

    before, after: the content of the prompt file. place: its path, relative to the configuration.
    why: sentences about what has drifted. kinds: lines about kinds of failure, which quote users.
    """
    write(folder / Path(place).name, after, force=True)
    diff = "".join(_compare_lines(before, after, place))
    write(folder / DIFF, diff, force=True)
    facts = [*list_facts(result), *list_refinement_facts(result)]
    facts += [f"warning: {one_line(warning)}" for warning in result.warnings]
    sections = {
        f"# Change the prompt {format_code(one_line(place))}": [f"**{format_verdict(result)}**"],
        "## Why": [f"- {sentence}" for sentence in why],
        "## Kinds of failure in the new conversations": [f"- {format_code(kind)}" for kind in kinds],
        "## Change": [format_block(make_visible(diff)).replace("```text", "```diff", 1)],
        "## How it was found": [f"- {fact}" for fact in facts],
    }
    text = "\n\n".join("\n".join([title, "", *lines]) for title, lines in sections.items() if lines)
    note = "Proposed by `remask watch`. Nothing was deployed: read the change before you merge it."
    write(folder / PULL_REQUEST, f"{text}\n\n{note}\n", force=True)


def describe_test(test: DriftTest) -> str:
    """Say in one sentence what was compared, and whether it counts as drift."""
    verdict, before, after = "has drifted" if test.drifted else "no drift", test.n_before, test.n_after
    if test.name == "failures":
        what = f"failures: {test.before:.1%} of {before} conversations, now {test.after:.1%} of {after}"
    else:
        what = f"mix of inputs: distance {test.after:.4f} between {before} and {after} conversations"
        what += f", about {test.before:.4f} by chance"
    return f"{what} (p = {test.p:.2g}, drift at {test.alpha:.2g} or less): {verdict}".replace("%", " %")


def _compare_lines(before: str, after: str, place: str) -> Iterator[str]:
    """Yield a unified diff that `git apply` and `patch -p1` take."""
    old, new = (text.splitlines(keepends=True) for text in (before, after))
    for line in unified_diff(old, new, f"a/{place}", f"b/{place}"):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
