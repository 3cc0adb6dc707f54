"""Compare two runs in words: `remask compare`."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
import orjson

from remask.cli import options
from remask.cli.show import format_diff
from remask.errors import ConfigError
from remask.runs.outcomes import row_to_dict
from remask.runs.report import summary
from remask.runs.report.compare_runs import RunsComparison, compare_runs
from remask.runs.report.read_run import view_run
from remask.sanitize import one_line
from remask.stats import format_level

MAX_ROWS = 20  # that flipped and are shown
MAX_VALUE_CHARS = 60  # of a setting
MAX_TEXT_CHARS = 200  # of a message or an answer


@click.command(cls=options.GroupedCommand)
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@options.plain_option
@options.json_option
def compare(first: Path, second: Path, plain: bool, json: bool) -> None:
    """Compare two runs: settings, cost, prompts and shared test rows.

    Where both have scored the same test rows with the same metric, their best prompts are compared
    row by row.

    \b
    Example:
      remask compare runs/20260101-120000 runs/20260102-093000
    """
    if first.resolve() == second.resolve():
        raise ConfigError(f"{first} and {second} are the same run; name two runs")
    found = compare_runs(view_run(first), view_run(second))
    if json:
        click.echo(orjson.dumps(_make_record(first, second, found)))
        return
    for line in _describe(first, second, found):
        click.echo(line)
    click.echo("\nbest prompts, from the first to the second:")
    if not all(found.prompts):
        click.echo("one of the runs has no prompt yet")
    elif found.prompts[0] == found.prompts[1]:
        click.echo("they are the same")
    else:
        click.echo(format_diff(found.prompt_diff, options.choose_mode(plain, False) == "rich"))


def _make_record(first: Path, second: Path, found: RunsComparison) -> dict[str, object]:
    values = {key: value for key, value in asdict(found).items() if key != "rows"}
    return {
        "kind": "RunsComparison",
        "runs": [str(first), str(second)],
        **values,
        "flipped": [row_to_dict(row) for row in found.flipped],
    }


def _describe(first: Path, second: Path, found: RunsComparison) -> Iterator[str]:
    for name, path, verdict, spend in zip(
        ("first", "second"), (first, second), found.verdicts, found.spend, strict=True
    ):
        yield f"{name}: {one_line(str(path))}"
        yield f"  {one_line(verdict)}"
        yield f"  spent: {summary.format_spend(spend)}"
    if not (found.settings or not found.same_start):
        yield "settings: the same"
    else:
        yield "settings that differ:"
    if not found.same_start:
        yield "  prompt: the runs began with different prompts"
    for one in found.settings:
        pair = (one_line(value, MAX_VALUE_CHARS) or "not set" for value in (one.first, one.second))
        yield f"  {one_line(one.key)}: {' → '.join(pair)}"
    yield f"length of the best prompt: {found.tokens[0]} → {found.tokens[1]} tokens"
    yield from _describe_test(found)


def _describe_test(found: RunsComparison) -> Iterator[str]:
    test = found.test
    if test is None:
        yield f"no paired comparison: {found.reason}"
        return
    yield (
        f"shared test rows: {test.n}; second against first: {test.baseline:.3f} → {test.best:.3f}, "
        f"difference {test.difference:+.3f} ({format_level(test.level)} interval {test.low:+.3f} to "
        f"{test.high:+.3f}); {test.differing} rows flipped"
    )
    for note in found.notes:
        yield f"note: {note}"
    for row in found.flipped[:MAX_ROWS]:
        yield f"  {row.change}  {one_line(row.place)}  {one_line(row.message, MAX_TEXT_CHARS)}"
        for name, answer in (("first", row.before), ("second", row.after)):
            yield (
                f"    {name:<7} {summary.format_score(answer.score)}: {one_line(answer.text, MAX_TEXT_CHARS)}"
            )
    if (left := len(found.flipped) - MAX_ROWS) > 0:
        yield f"  {left} more; --json has all"
