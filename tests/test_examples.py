"""What pages show can be done: commands parse, settings are valid, and Python runs.

A block of Python is run where it stands in docs/start or in docs/how-to/python.md and no comment
`<!-- not run: WHY -->` stands before it. The blocks of a page are run in order, as one program, in
an empty folder; phrases of a list stand for what the built-in denoiser writes.
"""

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from itertools import groupby
from pathlib import Path

import click
import jsonschema
import pytest
from click.testing import CliRunner

from docs.generate import SCHEMA, made_files
from fakes import ROOT
from fakes.scripted_denoiser import ScriptedDenoiser
from remask.cli import main
from remask.config import FILE_KEYS, make_config
from remask.data.trace_reader import FORMATS

PAGES = sorted(
    path
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md"))
    if path.name != "log.md"  # history: it shows what there was
)
BLOCK = re.compile(
    r"^(?:<!-- (?P<note>[^\n]+) -->\n+)?```(?P<kind>\w+)[^\n]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
NOT_RUN = "not run: "
PHRASES = ("Answer with one number.", "Be brief.", "Think first.", "Name the topic.", "Do not guess.")


def blocks(page: Path, *kinds: str) -> Iterator[tuple[str, str]]:
    """Each block of these languages, and the comment before it."""
    for found in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if found["kind"] in kinds:
            yield found["text"], found["note"] or ""


def pages_with(*kinds: str) -> list[Path]:
    return [page for page in PAGES if any(blocks(page, *kinds))]


def name_of(page: object) -> str:
    return str(page.relative_to(ROOT)) if isinstance(page, Path) else str(page)


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command in a block of shell."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="&|>")
        lexer.whitespace_split = True  # a word ends at a blank or at one of these signs outside of quotes
        for between, part in groupby(lexer, lambda word: set(word) <= set("&|>")):
            words = list(part)
            if not between and words[0] == "remask":
                yield words[1:]


def check_command(words: list[str]) -> None:
    """Raise click.UsageError where the command line would refuse these words."""
    group: click.Command = main
    with suppress(click.exceptions.Exit):  # --help and --version
        while isinstance(group, click.Group):
            context = group.make_context("remask", list(words))
            _, found, words = group.resolve_command(context, words)
            assert found is not None
            group = found
        group.make_context("remask", words)


@pytest.mark.parametrize("page", pages_with("sh", "console"), ids=name_of)
def test_commands_of_a_page_parse(page: Path) -> None:
    for text, _ in blocks(page, "sh", "console"):
        for words in commands(text):
            try:
                check_command(words)
            except click.UsageError as error:
                pytest.fail(f"remask {shlex.join(words)}: {error.format_message()}")


def test_a_wrong_command_of_a_page_is_found() -> None:
    for line in ("optimise p.md", "check p.md --dlm x", "traces inspekt f", "refine"):
        with pytest.raises(click.UsageError):
            check_command(line.split())


@pytest.mark.parametrize("page", pages_with("toml"), ids=name_of)
def test_settings_of_a_page_are_valid(page: Path) -> None:
    schema = json.loads(SCHEMA.read_text("utf-8"))
    for text, _ in blocks(page, "toml"):
        values = tomllib.loads(text)
        jsonschema.validate(values, schema)
        kept = {key: value for key, value in values.items() if key not in FILE_KEYS}
        if "refine" in kept and isinstance(kept["refine"].get("traces"), str):
            kept["refine"]["traces"] = [kept["refine"]["traces"]]
        make_config({"prompt": "x", **kept}, str(page))


@pytest.mark.parametrize("name", ["support", "tools"])
def test_the_example_keeps_to_the_schema(name: str) -> None:
    values = tomllib.loads((ROOT / "examples" / name / "remask.toml").read_text("utf-8"))
    jsonschema.validate(values, json.loads(SCHEMA.read_text("utf-8")))


@pytest.mark.parametrize(
    "values", [{"target": {"modle": "builtin"}}, {"budget": {"calls": 0}}, {"data": {"role": "x"}}]
)
def test_the_schema_finds_what_is_wrong(values: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, json.loads(SCHEMA.read_text("utf-8")))


@pytest.mark.parametrize("page", pages_with("python"), ids=name_of)
def test_python_of_a_page_is_python(page: Path) -> None:
    for text, _ in blocks(page, "python"):
        compile(text, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)  # of notebooks


def is_run(page: Path) -> bool:
    return page.parent.name == "start" or page.name == "python.md"


RUN = [page for page in pages_with("python") if is_run(page)]


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_python_of_a_page_runs(page: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "remask.api.job.make_denoiser", lambda _, given, *rest: given or ScriptedDenoiser(PHRASES)
    )
    run_blocks(page)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_python_of_a_page_runs_with_the_models(page: Path, here: Path) -> None:
    run_blocks(page)


def run_blocks(page: Path) -> None:
    names = {"__name__": "page"}
    for text, note in blocks(page, "python"):
        if not note.startswith(NOT_RUN):
            exec(compile(text, str(page), "exec"), names)


def test_what_is_made_from_the_code_is_up_to_date() -> None:
    stale = [name_of(path) for path, text in made_files() if path.read_text("utf-8") != text]
    assert not stale, "run python docs/generate.py"


FORMATS_PAGE = ROOT / "docs" / "reference" / "traces.md"
FORMAT = re.compile(r"^Name in the output: `([\w-]+)`.*?^```(jsonl?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("found", list(FORMAT.finditer(FORMATS_PAGE.read_text("utf-8"))), ids=lambda m: m[1])
def test_example_of_a_trace_format_is_read(found: re.Match[str], tmp_path: Path) -> None:
    file = tmp_path / f"example.{found[2]}"
    file.write_text(found[3], "utf-8")
    done = CliRunner().invoke(main, ["traces", "inspect", str(file), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["format"] == found[1]
    assert (said["records"], said["with_system"], said["rejected"]) == (1, 1, 0)


def test_every_trace_format_has_an_example() -> None:
    names = {format.name for format in FORMATS} - {"responses"}  # rejected, as the page says
    assert {found[1] for found in FORMAT.finditer(FORMATS_PAGE.read_text("utf-8"))} == names
