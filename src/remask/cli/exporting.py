"""Writing the files of `remask export`: from a run or a prompt file to the rooms of `export`."""

import os
from dataclasses import dataclass
from pathlib import Path

import click

from remask.cli.show import best_prompt
from remask.errors import ConfigError, DataError
from remask.export import formats, promptfoo
from remask.export.files import require_free, write
from remask.prompt import Prompt
from remask.report.files import look
from remask.report.words import SELECTION, one_line, verdict_line
from remask.run import stored_config
from remask.wire import data_id, make_dataset


@dataclass(frozen=True, slots=True)
class Source:
    """What is exported: a run or a prompt file, and of a run how much worse it may be for being
    shorter (points of 100 on validation; None: the best prompt)."""

    place: Path
    within: float | None = None

    def prompt(self, names: tuple[str, ...] | None = None) -> Prompt:
        if self.place.is_file():
            if self.within is not None:
                raise ConfigError(
                    f"--shortest-within chooses among the prompts of a run, and {self.place} is a "
                    "file; name a run's folder"
                )
            return formats.read(self.place, names)
        return best_prompt(self.place, self.within)

    @property
    def verdict(self) -> str:
        """What the sealed test says of the best prompt of a run."""
        if self.place.is_file():
            return ""
        result = look(self.place).result
        return f"; {verdict_line(result)}" if result else "; not tested, the run is not finished"

    @property
    def said(self) -> str:
        """What a reader should know of a prompt that is not the run's best."""
        if self.within is None:
            return ""
        return f"; chosen by length and validation score ({SELECTION}), not tested"


def choose(output: Path, kind: str | None, marked: bool, program: Path | None) -> str:
    """The format, by what was said or else by the file's name. ConfigError where both differ."""
    said = {*([kind] if kind else []), *(["marked"] if marked else [])}
    said |= {"dspy"} if program else set()
    if len(said) > 1:
        raise ConfigError(f"{' and '.join(sorted(said))} exclude each other; choose one format")
    if said:
        return said.pop()
    return "promptfoo" if output.name == promptfoo.CONFIG else formats.guess(output)


def prompt(
    source: Source,
    output: Path,
    kind: str,
    name: str | None,
    names: tuple[str, ...] | None,
    force: bool,
) -> None:
    """One file for people or another tool."""
    order = formats.Order(name or output.name.partition(".")[0], names)
    write(output, formats.FORMATS[kind](source.prompt(names), order), force)
    click.echo(f"wrote {output} ({kind}){source.said}")


def register(source: Source, name: str, names: tuple[str, ...] | None, uri: str) -> None:
    """A version in MLflow's prompt registry, whose message says what the run found."""
    template = formats.mlflow_template(source.prompt(names), names)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # remask sends nothing home
    from remask.integrations.registry import register as send

    message = formats.NOTE + (source.said or source.verdict)
    click.echo(f"registered {send(name, template, message, uri)} (mlflow){source.said}")


def program(source: Source, output: Path, given: Path | None, predictor: str, force: bool) -> None:
    """A DSPy program with the prompt in it; its own file may be the output."""
    if given is None:
        raise ConfigError("the format dspy needs --program FILE, the saved program to change")
    try:
        before = given.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{given} cannot be read: {error}; name a program in JSON") from None
    prompt = source.prompt()
    try:
        after = formats.dspy(before, prompt, predictor)
    except ConfigError as error:
        raise DataError(str(error), given) from None
    write(output, after, force)
    click.echo(f"wrote {output} (dspy){source.said}")


def comparison(source: Source, output: Path, force: bool) -> None:
    """A promptfoo folder around `output`: the run's first and best prompt on its test rows."""
    run = source.place
    if output.name != promptfoo.CONFIG:
        raise ConfigError(f"promptfoo reads {promptfoo.CONFIG}; give -o FOLDER/{promptfoo.CONFIG}")
    config = stored_config(run)
    if not (config.data.path or config.data.train):
        raise ConfigError(f"{run}: the rows were given in memory; there is no file of tests")
    dataset = make_dataset(config)
    if data_id(dataset) != look(run).config["data_id"]:
        raise ConfigError(f"the data of {run} has changed since; put the old rows back")
    target = config.target
    found = promptfoo.compare(
        Prompt.parse(config.prompt),
        source.prompt(),
        [e for e in dataset.examples if e.split == "test"],
        promptfoo.Model(
            target.model,
            target.base_url,
            target.api_key_env,
            target.temperature,
            target.max_tokens,
        ),
        config.metric.name,
        config.metric.labels or dataset.labels,
        config.data.role,
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    for name in found.files:
        require_free(output.with_name(name), force)
    for name, content in found.files.items():
        write(output.with_name(name), content, force)
    click.echo(
        f"wrote {', '.join(found.files)} in {output.parent} ({found.rows} test rows){source.said}"
    )
    if found.left_out:
        click.echo(f"left out: {found.left_out} rows that promptfoo would read as templates")
    if not found.graded:
        click.echo(
            f"the metric {one_line(config.metric.name)} has no plain assertion; add your own to "
            "tests.json"
        )
