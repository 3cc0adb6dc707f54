"""Playing a run from the command line: begin, go on, score; and how each of them ends.

Ties the hooks of a run to a display and to the signals. Knows neither search nor models.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click
import orjson

from remask.api.build_task import Given
from remask.api.evaluate import Evaluation, score_prompt
from remask.api.job import Hooks, OnEvent, add_callback, new_run_dir
from remask.api.optimize import load_config, resume_run, start_run
from remask.cli.interrupt import Interrupted, Watch
from remask.cli.live import display
from remask.cli.settings import Request
from remask.cli.show import result_json, result_text
from remask.config import Config
from remask.errors import ConfigError
from remask.events import Event, State, Tested
from remask.runs.budget import Spend
from remask.runs.report.summary import format_spend
from remask.runs.result import Result
from remask.sanitize import one_line
from remask.types import Split


def new_run(request: Request, mode: str, track: str = "") -> Result:
    """`remask optimize` and `remask refine`."""
    run_dir = request.run_dir or new_run_dir()
    config = request.config
    return _play(lambda hooks: start_run(config, request.given, run_dir, hooks), config, run_dir, mode, track)


def continue_run(run_dir: Path, mode: str, track: str = "") -> None:
    """`remask resume`."""
    config = load_config(run_dir)
    _play(lambda hooks: resume_run(run_dir, Given(), hooks), config, run_dir, mode, track)


def evaluate_prompt(request: Request, split: Split, json: bool) -> None:
    """`remask eval`."""
    with Watch() as signals:
        try:
            found = score_prompt(request.config, request.given, split, Hooks(checkpoint=signals.checkpoint))
        except Interrupted as stop:
            click.echo("stopped", err=True)
            sys.exit(stop.exit_code)
    if json:
        click.echo(orjson.dumps({"kind": "Evaluation", "split": split, **asdict(found)}))
    else:
        for line in _lines(found, split):
            click.echo(line)


def _lines(found: Evaluation, split: Split) -> Iterator[str]:
    score = found.score
    yield (f"{split}: {score.mean:.3f} on {score.n} rows (95 % interval {score.low:.3f} to {score.high:.3f})")
    if found.failed:
        yield f"warning: {found.failed} rows have no score because the call failed"
    if found.unparsed:
        yield f"warning: no label was found in {found.unparsed} responses; scored 0"
    for label in found.never_predicted:
        yield f"warning: the target never answered {one_line(label)!r}"
    yield f"spent: {format_spend(found.spend)}"


def _play(run: Callable[[Hooks], Result], config: Config, run_dir: Path, mode: str, track: str) -> Result:
    with Watch() as signals:
        try:
            with _tracker(track, config, run_dir) as tracker, display(mode, config, run_dir) as shown:
                result = run(add_callback(_hooks(shown, signals), tracker))
        except (Interrupted, KeyboardInterrupt) as stop:
            how = "stopped" if isinstance(stop, Interrupted) else "stopped at once"
            click.echo(f"{how}; go on with: remask resume {run_dir}", err=True)
            sys.exit(getattr(stop, "exit_code", 130))
    if mode == "json":
        result_json(result)
    else:
        result_text(result, mode)
    return result


def _hooks(shown: OnEvent, signals: Watch) -> Hooks:
    def watch(event: Event, state: State, spend: Spend) -> None:
        shown(event, state, spend)
        if not isinstance(event, Tested):  # nothing is left to do then but to write the result
            signals.checkpoint()

    return Hooks(watch, signals.checkpoint)


@contextmanager
def _tracker(track: str, config: Config, run_dir: Path) -> Iterator[OnEvent | None]:
    """Who else hears the events: `--track`. ConfigError and BackendError."""
    kind, _, uri = track.partition(":")
    if not kind:
        yield None
        return
    if kind != "mlflow":
        raise ConfigError(f"--track {track}: only mlflow and mlflow:URI are known")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # remask sends nothing home
    from remask.integrations.tracking import MlflowTracker

    settings = config.model_dump(mode="json", exclude={"prompt"})
    with MlflowTracker(uri, run_dir=run_dir, settings=settings) as tracker:
        yield tracker
