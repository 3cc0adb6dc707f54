"""Writing the files of `remask export`: from a run or a prompt file to the rooms of `export`."""

from pathlib import Path

import click

from remask.cli.show import best_prompt
from remask.errors import ConfigError
from remask.export import dspy, formats, promptfoo
from remask.export.files import require_free, write
from remask.prompt import Prompt
from remask.report.files import look
from remask.report.words import one_line
from remask.run import stored_config
from remask.wire import data_id, make_dataset, stated_assertions


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
    source: Path,
    output: Path,
    kind: str,
    name: str | None,
    names: tuple[str, ...] | None,
    force: bool,
) -> None:
    """One file for people or another tool."""
    order = formats.Order(name or output.name.partition(".")[0], names)
    write(output, formats.FORMATS[kind](_prompt(source, names), order), force)
    click.echo(f"wrote {output} ({kind})")


def program(source: Path, output: Path, given: Path | None, predictor: str, force: bool) -> None:
    """A DSPy program with the prompt in it; its own file may be the output."""
    if given is None:
        raise ConfigError("the format dspy needs --program FILE, the saved program to change")
    try:
        before = given.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{given} cannot be read: {error}; name a program in JSON") from None
    after = dspy.patch(before, given, _prompt(source, None).text, predictor)
    write(output, after, force)
    click.echo(f"wrote {output} (dspy)")


def comparison(source: Path, output: Path, force: bool) -> None:
    """A promptfoo folder around `output`: the run's first and best prompt on its test rows."""
    if output.name != promptfoo.CONFIG:
        raise ConfigError(f"promptfoo reads {promptfoo.CONFIG}; give -o FOLDER/{promptfoo.CONFIG}")
    config = stored_config(source)
    if not (config.data.path or config.data.train):
        raise ConfigError(f"{source}: the rows were given in memory; there is no file of tests")
    dataset = make_dataset(config)
    if data_id(dataset) != look(source).config["data_id"]:
        raise ConfigError(f"the data of {source} has changed since; put the old rows back")
    target = config.target
    found = promptfoo.compare(
        Prompt.parse(config.prompt),
        best_prompt(source),
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
        stated_assertions(config),
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    for name in found.files:
        require_free(output.with_name(name), force)
    for name, content in found.files.items():
        write(output.with_name(name), content, force)
    click.echo(f"wrote {', '.join(found.files)} in {output.parent} ({found.rows} test rows)")
    if found.left_out:
        click.echo(f"left out: {found.left_out} rows that promptfoo would read as templates")
    if not found.graded:
        click.echo(
            f"the metric {one_line(config.metric.name)} has no plain assertion; add your own to "
            "tests.json"
        )


def _prompt(source: Path, names: tuple[str, ...] | None) -> Prompt:
    return formats.read(source, names) if source.is_file() else best_prompt(source)
