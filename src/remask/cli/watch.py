"""`remask watch`. Imports only click; the command imports the rest when it runs."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from remask.cli import options

if TYPE_CHECKING:
    from remask.api.watch import Night


@click.command(cls=options.GroupedCommand)
@click.argument("config", metavar="[REMASK.TOML]", default="remask.toml")
@options.option(
    "Output", "--dry-run", is_flag=True,
    help="Read and compare, and say what would be done. Writes nothing and asks no model.",
)  # fmt: skip
@options.json_option
def watch(config: str, dry_run: bool, json: bool) -> None:
    """Read new conversations, and propose a new prompt where they have drifted.

    For cron: each call reads what is new, compares it with a reference, and after a drift runs
    remask optimize or refine within the budget of a night. A proposal is a folder with the new
    prompt, a diff and the text of a pull request. The prompt file itself is never changed. To follow
    a run that is going on, see remask view.

    \b
    Exit codes beside the usual ones:
      0  nothing to do
      6  a proposal is ready
      7  drift, but no better prompt was found
    \b
    Example:
      remask watch remask.toml --dry-run
    """
    from dataclasses import replace
    from pathlib import Path

    import orjson

    from remask.api.build_models import limit_spend
    from remask.api.watch import load_settings, watch_once
    from remask.cli.interrupt import Interrupted, InterruptHandler, exit_stopped
    from remask.cli.live import open_side_display
    from remask.runs.progress import Follower

    settings = load_settings(Path(config))
    with InterruptHandler() as signals:
        follower = Follower(limit_spend(settings.run)[0], is_stopping=signals.is_pending)
        try:
            with open_side_display(json, follower) as display:
                hooks = replace(display, checkpoint=signals.checkpoint)
                night = watch_once(settings, hooks, dry_run)
        except (Interrupted, KeyboardInterrupt) as stop:
            exit_stopped("stopped; the next call goes on", stop)
    if json:
        result = None if night.result is None else night.result.to_dict()
        value = {"kind": "Night", "exit_code": night.exit_code, **_to_dict(night), "result": result}
        click.echo(orjson.dumps(value))
    else:
        for line in describe_night(night, dry_run):
            click.echo(line)
    sys.exit(night.exit_code)


def _to_dict(night: "Night") -> dict[str, object]:
    return {name: getattr(night, name) for name in night.__dataclass_fields__ if name != "result"}


def describe_night(night: "Night", dry_run: bool) -> Iterator[str]:
    """Yield the lines that the command prints."""
    from remask.runs.report.proposal import PULL_REQUEST, describe_test
    from remask.runs.report.summary import format_spend, format_verdict
    from remask.sanitize import one_line

    yield (
        f"conversations: {night.new} new, {night.grown} known ones that have grown, {night.counted} in all; "
        f"{night.elsewhere} of another system prompt, {night.rejected} rejected"
    )
    for note in night.notes:
        yield f"note: {one_line(note)}"
    if night.missing:
        yield f"too few to compare: {night.missing} more conversations are missing"
    for test in night.tests:
        yield describe_test(test)
    for kind in night.kinds:
        yield f"kind of failure: {kind}"
    if night.result is not None:
        yield f"run: {format_verdict(night.result)}"
        yield f"spent: {format_spend(night.result.spend)}"
    if dry_run and night.proposal:
        yield f"a run in {one_line(night.proposal)} would look for a better prompt; this was a dry run"
    elif night.proposal:
        yield f"proposal: {one_line(night.proposal)} (begin with {PULL_REQUEST})"
    elif night.result is None:
        yield "nothing to do"
