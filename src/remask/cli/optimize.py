"""Run `remask optimize`, `refine`, `resume` and `eval`, with a display and signal handlers."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import click
import orjson

from remask.api.build_models import limit_spend
from remask.api.build_task import Given
from remask.api.evaluate import Evaluation, score_prompt
from remask.api.job import Hooks, OnEvent, add_callback, choose_run_dir
from remask.api.optimize import load_config, resume_run, start_run
from remask.cli.interrupt import Interrupted, InterruptHandler, exit_stopped
from remask.cli.live import open_display, open_side_display
from remask.cli.settings import Request
from remask.cli.show import print_result, print_result_json
from remask.config import Config, RunConfig
from remask.errors import ConfigError
from remask.events import Event, State, Tested
from remask.files import read_prompt
from remask.runs.budget import Spend
from remask.runs.progress import Follower
from remask.runs.report.summary import format_against, format_spend
from remask.runs.result import Result
from remask.sanitize import make_visible, one_line
from remask.types import Split


def new_run(request: Request, mode: str, track: str = "") -> Result:
    """Start a run and print its result: `remask optimize` and `remask refine`."""
    config = request.config
    with choose_run_dir(request.run_dir) as run_dir:
        return _complete_run(
            lambda hooks: start_run(config, request.given, run_dir, hooks), config, run_dir, mode, track
        )


def continue_run(run_dir: Path, workers: RunConfig, mode: str, track: str = "") -> Result:
    """Continue a run and print its result: `remask resume`."""
    return _complete_run(
        lambda hooks: resume_run(run_dir, Given(), hooks, workers), load_config(run_dir), run_dir, mode, track
    )


def evaluate_prompt(request: Request, split: Split, json: bool, against: Path | None = None) -> Evaluation:
    """Score a prompt and print the score: `remask eval`. against: the file of another prompt."""
    other = None if against is None else read_prompt(against)
    with InterruptHandler() as signals:
        follower = Follower(limit_spend(request.config)[0], is_stopping=signals.is_pending)
        try:
            with open_side_display(json, follower) as display:
                hooks = replace(display, checkpoint=signals.checkpoint)
                found = score_prompt(request.config, request.given, split, hooks, other)
        except (Interrupted, KeyboardInterrupt) as stop:
            exit_stopped("stopped", stop)
    if json:
        click.echo(orjson.dumps({"kind": "Evaluation", "split": split, **asdict(found)}))
    else:
        for line in _describe_evaluation(found, split):
            click.echo(line)
    return found


def _describe_evaluation(found: Evaluation, split: Split) -> Iterator[str]:
    score = found.score
    yield (f"{split}: {score.mean:.3f} on {score.n} rows (95 % interval {score.low:.3f} to {score.high:.3f})")
    if found.comparison is not None:
        yield format_against(found.comparison)
    if found.failed:
        yield f"warning: rows without a score: {found.failed}, because: {one_line('; '.join(found.errors))}"
    if found.unparsed:
        yield f"warning: responses that contain no label, and were scored 0: {found.unparsed}"
    for warning in found.warnings:
        yield f"warning: {one_line(warning)}"
    for label in found.never_predicted:
        yield f"warning: the target never answered {one_line(label)!r}"
    yield f"spent: {format_spend(found.spend)}"


def _complete_run(
    run: Callable[[Hooks], Result], config: Config, run_dir: Path, mode: str, track: str
) -> Result:
    """Run to the end and print the result. Exits where the user interrupts the run."""
    with InterruptHandler() as signals:
        follower = Follower(limit_spend(config)[0], is_stopping=signals.is_pending)
        try:
            with (
                _open_tracker(track, config, run_dir) as tracker,
                open_display(mode, follower, run_dir) as display,
            ):
                result = run(add_callback(_add_signals(display, signals), tracker))
        except (Interrupted, KeyboardInterrupt) as stop:
            how = "stopped" if isinstance(stop, Interrupted) else "stopped at once"
            exit_stopped(f"{how}; continue with: remask resume {make_visible(str(run_dir))}", stop)
    if mode == "json":
        print_result_json(result)
    else:
        print_result(result, mode)
    return result


def _add_signals(display: Hooks, signals: InterruptHandler) -> Hooks:
    def watch(event: Event, state: State, spend: Spend) -> None:
        display.watch(event, state, spend)
        if not isinstance(event, Tested):  # after the test only the result must be written
            signals.checkpoint()

    return replace(display, watch=watch, checkpoint=signals.checkpoint)


@contextmanager
def _open_tracker(track: str, config: Config, run_dir: Path) -> Iterator[OnEvent | None]:
    """Open the tracker of `--track`, if there is one. Raises ConfigError and BackendError."""
    kind, _, uri = track.partition(":")
    if not kind:
        yield None
        return
    if kind != "mlflow":
        raise ConfigError(f"--track {track} is unknown; give mlflow or mlflow:URI")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # remask sends no usage data
    from remask.integrations.tracking import MlflowTracker

    settings = config.model_dump(mode="json", exclude={"prompt"})
    with MlflowTracker(uri, run_dir=run_dir, settings=settings) as tracker:
        yield tracker
