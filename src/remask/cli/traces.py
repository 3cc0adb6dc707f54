"""`remask traces`: inspect files of conversations, or copy them without secrets.

Texts of users are printed without control and invisible characters.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import click
import orjson

from remask.api.job import follow_steps
from remask.api.worker import make_readers
from remask.cli.live import open_side_display
from remask.cli.options import FullHelpGroup, GroupedCommand, json_option, map_option, option, scale_option
from remask.data.formats.chat import record_to_chat
from remask.data.overview import Overview
from remask.data.part_reader import count_records, report_items
from remask.data.prompt_templates import PromptTemplate
from remask.data.ratings import RatingStats, Scale, find_scales, parse_scales, require_scales
from remask.data.redact.redact import Placeholders, redact_text
from remask.data.tables import parse_column_map
from remask.data.trace_reader import find_files, read_records
from remask.data.trace_record import RejectedRecord
from remask.errors import ConfigError
from remask.files import draft, require_free
from remask.ports import Executor
from remask.sanitize import make_visible, one_line

MAX_SHOWN_PROMPTS = 10
REDACTION_CACHE_SIZE = 64  # texts
MAX_PROMPT_CHARACTERS = 100  # of a system prompt, as printed


def inspect_files(
    files: tuple[str, ...],
    columns: tuple[str, ...],
    scales: tuple[str, ...],
    json: bool,
    workers: int | None = None,
) -> None:
    """Print an overview of files. Raises ConfigError where there is no usable record."""
    declared = parse_scales(scales)
    paths = find_files(files)
    with _open_readers(workers) as executor, open_side_display(json) as display, follow_steps(display):
        _, found = count_records(paths, parse_column_map(columns), executor)
    if found.records:
        require_scales(declared, found.ratings)
    known = find_scales(found.ratings, declared)
    if json:
        click.echo(orjson.dumps({"files": len(paths), **_overview_to_dict(found, known, declared)}))
    else:
        if len(paths) > 1:
            click.echo(f"files: {len(paths)}, from {one_line(str(paths[0]))} to {one_line(str(paths[-1]))}")
        _print_overview(found, known, declared)
    if not found.records:
        raise ConfigError("no usable record was found; see the reasons above, or try --map")


def redact_file(file: str, output: Path, columns: tuple[str, ...], force: bool) -> None:
    """Write the records of a file as chats, one per line, without secrets and personal data."""
    placeholders = Placeholders()
    # Nearly all records of a file have one of a few system prompts, so a cache saves most work.
    redact = lru_cache(REDACTION_CACHE_SIZE)(lambda text: redact_text(text, placeholders))
    rejected = written = 0
    require_free(output, force)
    paths = find_files([file])
    if output.exists() and any(output.samefile(path) for path in paths):
        raise ConfigError(f"{output} is a file to read; name another output")
    items = report_items(read_records(paths, parse_column_map(columns)))
    with (
        open_side_display(False) as display,
        follow_steps(display),
        draft(output) as partial,
        partial.open("wb") as out,
    ):
        for item in items:
            if isinstance(item, RejectedRecord):
                rejected += 1
                continue
            value = record_to_chat(item, redact)
            out.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))
            written += 1
    click.echo(
        f"wrote {make_visible(str(output))}: {written} records, {rejected} rejected (see traces inspect)"
    )


@contextmanager
def _open_readers(workers: int | None) -> Iterator[Executor | None]:
    """Yield so many processes that parse files; None where no number is given. Raises ConfigError."""
    executor = None if workers is None else make_readers(workers)
    try:
        yield executor
    finally:
        if executor is not None:
            executor.close()


def _overview_to_dict(found: Overview, known: dict[str, Scale], declared: dict[str, Scale]) -> dict[str, Any]:
    formats = [name for name, _ in found.formats.most_common()]
    return {
        "format": formats[0] if len(formats) == 1 else ("mixed" if formats else None),
        "formats": dict(found.formats),
        "records": found.records,
        "with_system": found.with_system,
        "with_feedback": found.with_feedback,
        "with_desired": found.with_desired,
        "rejected": found.rejected,
        "rejects": [{"path": r.path, "line": r.line, "reason": r.reason} for r in found.first_rejects],
        "reasons": dict(found.reasons.most_common()),
        "unused": dict(found.unused.most_common()),
        "ratings": [
            {
                "name": name,
                "count": seen.count,
                "kinds": dict(seen.kinds),
                "range": [seen.low, seen.high] if seen.values else None,
                "labels": list(seen.words),
                "scale": known.get(name),
                "note": _describe_scale(name, seen, known, declared),
            }
            for name, seen in found.ratings.items()
        ],
        "systems": [
            {
                "template": system.text,
                "count": system.count,
                "distinct": system.distinct,
                "variables": [list(values) for values in system.examples],
            }
            for system in found.find_templates()
        ],
    }


def _print_overview(found: Overview, known: dict[str, Scale], declared: dict[str, Scale]) -> None:
    formats = ", ".join(f"{name} ({n})" for name, n in found.formats.most_common())
    click.echo(f"format: {formats or 'not recognised'}")
    click.echo(
        f"records: {found.records}, {found.with_system} with a system prompt, "
        f"{found.with_feedback} with feedback, {found.with_desired} with a right response"
    )
    for name, seen in found.ratings.items():
        who = ", ".join(seen.kinds)
        note = _describe_scale(name, seen, known, declared)
        click.echo(f"feedback {one_line(name, 40)!r}: {seen.count} ({who}); {note}")
    systems = found.find_templates()
    click.echo(f"system prompts: {len(systems)}")
    for system in systems[:MAX_SHOWN_PROMPTS]:
        _print_template(system)
    if len(systems) > MAX_SHOWN_PROMPTS:
        click.echo(f"  … and {len(systems) - MAX_SHOWN_PROMPTS} more")
    if unused := found.describe_unused():
        click.echo(f"columns that were not used: {unused}")
    click.echo(f"rejected: {found.rejected}")
    for reject in found.first_rejects:
        where = reject.path if reject.line is None else f"{reject.path}:{reject.line}"
        click.echo(f"  {one_line(where)}: {one_line(reject.reason, 200)}")
    if found.rejected > len(found.first_rejects):
        for reason, count in found.reasons.most_common(MAX_SHOWN_PROMPTS):
            click.echo(f"  {count} × {one_line(reason, 200)}")


def _print_template(system: PromptTemplate) -> None:
    click.echo(f"  {system.count} × {one_line(system.text, MAX_PROMPT_CHARACTERS)}")
    for number, values in enumerate(system.examples, 1):
        some = ", ".join(repr(one_line(value, 24)) for value in values)
        click.echo(f"      variable_{number}: {some}")


def _describe_scale(name: str, seen: RatingStats, known: dict[str, Scale], declared: dict[str, Scale]) -> str:
    """Say on which scale the ratings of a name are read, or why they are not used as scores."""
    parts = []
    if seen.values:
        scale = known.get(name)
        if scale is None:
            parts.append(
                f"numbers from {seen.low:g} to {seen.high:g} on an unknown scale, not used as "
                f"scores; declare it with --scale '{one_line(name)}=WORST..BEST'"
            )
        else:
            how = "declared" if name in declared else "of the format" if seen.scale else "inferred"
            parts.append(f"scale {scale[0]:g} (bad) to {scale[1]:g} (good), {how}")
            if min(scale) > seen.low or seen.high > max(scale):
                parts.append(f"some values ({seen.low:g} to {seen.high:g}) are outside of it")
    if seen.words:
        labels = ", ".join(one_line(label, 24) for label in list(seen.words)[:4])
        parts.append(f"unknown labels, not used as scores: {labels}")
    if seen.comments:
        parts.append(f"{seen.comments} comments")
    if seen.corrections:
        parts.append(f"{seen.corrections} corrections")
    return "; ".join(parts) or "true or false, or known labels"


@click.group(cls=FullHelpGroup)
def traces() -> None:
    """Inspect files of conversations, or copy them without secrets.

    \b
    Example:
      remask traces inspect conversations.jsonl
    """


@traces.command(cls=GroupedCommand)
@click.argument("files", nargs=-1, required=True, type=click.Path())
@map_option
@scale_option
@option(
    "Workers",
    "--workers",
    type=int,
    help="Number of processes that parse the files. Default: none, this process does all.",
)
@json_option
def inspect(
    files: tuple[str, ...], columns: tuple[str, ...], scales: tuple[str, ...], workers: int | None, json: bool
) -> None:
    """Print which records were found in FILES, and why others were rejected.

    A folder stands for all files in it.

    \b
    Example:
      remask traces inspect conversations.csv --map input=question,output=answer
    """
    inspect_files(files, columns, scales, json, workers)


@traces.command("redact", cls=GroupedCommand)
@click.argument("file", type=click.Path())
@map_option
@option("Output", "--output", "-o", required=True, type=click.Path(path_type=Path), metavar="FILE",
        help="File to write.")  # fmt: skip
@option("Output", "--force", is_flag=True, help="Replace the file if it exists.")
def redact_command(file: str, output: Path, columns: tuple[str, ...], force: bool) -> None:
    """Write the records of FILE as chats, with secrets and personal data replaced.

    A folder stands for all files in it.

    \b
    Example:
      remask traces redact conversations.jsonl -o redacted.jsonl
    """
    redact_file(file, output, columns, force)
