"""Write the files of a new project: `remask init`."""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import orjson

from remask.cli import options
from remask.data.rows import read_rows
from remask.errors import ConfigError
from remask.files import write
from remask.sanitize import make_visible

KINDS = ("builtin", "endpoint", "callable")
# Columns that often hold the message and the right answer, in the order in which they are looked for.
INPUTS = ("input", "message", "question", "query", "text", "prompt", "user")
ANSWERS = ("label", "expected", "answer", "output", "category", "topic", "class", "target", "response")
ALL_KEYS = "https://github.com/remask/remask/blob/main/docs/reference/configuration.md"
MAX_LABELS = 20  # with more different answers, they are texts rather than labels

PROMPT = "Sort the message of a customer into one topic.\n"
TARGET = '''"""The target: a function that answers one chat. remask calls it for each row."""


def respond(messages: list[dict[str, str]]) -> str:
    """Answer a chat of a system message, which is the prompt, and a user message.

    Put the call of your own model or program here. This one looks for words.
    """
    message = messages[-1]["content"].lower()
    if any(word in message for word in ("invoice", "charged", "refund", "price", "card")):
        return "billing"
    return "delivery"
'''
# (split, topic, message): enough for a first run, too few for a verdict.
SAMPLE = (
    ("train", "billing", "I was charged twice for my order in May."),
    ("train", "billing", "Where can I download the invoice for last month?"),
    ("train", "delivery", "My parcel has been on its way for nine days."),
    ("train", "delivery", "Can the courier leave the box with my neighbour?"),
    ("validation", "billing", "The discount code was not taken off the price."),
    ("validation", "billing", "Please refund the shipping costs to my card."),
    ("validation", "billing", "Why is there a fee of two euros on my bill?"),
    ("validation", "delivery", "The tracking page says delivered, but nothing is here."),
    ("validation", "delivery", "I need to change the address before you send it."),
    ("validation", "delivery", "When will the blue lamp arrive?"),
    ("test", "billing", "My card was declined, but the money is gone."),
    ("test", "billing", "Can I pay by bank transfer?"),
    ("test", "billing", "The invoice has the wrong company name."),
    ("test", "billing", "I returned the shoes and still wait for my refund."),
    ("test", "billing", "Do students get a lower price?"),
    ("test", "delivery", "The box arrived open and one cup is missing."),
    ("test", "delivery", "Do you send to Norway?"),
    ("test", "delivery", "The driver did not ring, now it is at the depot."),
    ("test", "delivery", "Could it come on Saturday instead?"),
    ("test", "delivery", "Half of my order has not been sent yet."),
)


@dataclass(frozen=True, slots=True)
class Answers:
    """What was asked or given as options."""

    kind: str  # one of KINDS
    base_url: str
    model: str
    data: str  # "": sample rows


@click.command(cls=options.GroupedCommand)
@click.argument("folder", type=click.Path(path_type=Path), default=".")
@options.option("Project", "--target", "kind", type=click.Choice(KINDS),
                help="What answers: the built-in model, an OpenAI-compatible endpoint, or a Python "
                     "function. Default: builtin.")  # fmt: skip
@options.option("Project", "--base-url", metavar="URL", help="Base URL of the endpoint. Default: OpenAI.")
@options.option("Project", "--model", metavar="NAME", help="Model of the endpoint.")
@options.option("Project", "--data", metavar="FILE",
                help="Your rows: JSONL, JSON, CSV or TSV. Default: twenty sample rows.")  # fmt: skip
@options.option("Project", "--yes", is_flag=True, help="Ask nothing; what is not given gets its default.")
def init(
    folder: Path, kind: str | None, base_url: str | None, model: str | None, data: str | None, yes: bool
) -> None:
    """Write the files of a new project: settings, a prompt and sample rows.

    Writes remask.toml and prompt.md into FOLDER (default: the current folder), rows.jsonl without
    --data, and target.py for a function. On a terminal it asks for what is not given. No file is
    overwritten.

    \b
    Example:
      remask init my-project --target endpoint --base-url http://localhost:8000/v1 --model qwen3
    """
    ask = not yes and sys.stdin.isatty()
    answers = _settle(kind, base_url, model, data, ask)
    files = dict(_make_files(folder, answers))
    taken = [name for name in files if (folder / name).exists() or (folder / name).is_symlink()]
    if taken:
        verb = "exists" if len(taken) == 1 else "exist"
        raise ConfigError(f"{' and '.join(taken)} {verb} already in {folder}; nothing was written")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the folder {folder} cannot be made ({error.strerror}); name another one"
        ) from None
    for name, text in files.items():
        write(folder / name, text)
        click.echo(f"wrote {make_visible(str(folder / name))}")
    place = make_visible(str(folder / "remask.toml"))
    click.echo(f"next: remask check {place}, then: remask optimize {place}")


def _settle(
    kind: str | None, base_url: str | None, model: str | None, data: str | None, ask: bool
) -> Answers:
    """Combine options and answers. Raises ConfigError where they do not fit."""
    if kind is None and (base_url or model):
        kind = "endpoint"
    if kind is None:
        kind = click.prompt("target", type=click.Choice(KINDS), default="builtin") if ask else "builtin"
    if kind == "endpoint":
        if ask and base_url is None:
            base_url = click.prompt("base URL (empty: OpenAI)", default="", show_default=False)
        if ask and not model:
            model = click.prompt("model")
        if not model:
            raise ConfigError("an endpoint needs the name of a model; give --model NAME")
    elif base_url or model:
        raise ConfigError(f"--base-url and --model belong to an endpoint, not to --target {kind}")
    if data is None and ask:
        data = click.prompt("file with your rows (empty: sample rows)", default="", show_default=False)
    return Answers(str(kind), base_url or "", model or "", data or "")


def _make_files(folder: Path, answers: Answers) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of each file. Raises ConfigError and DataError where the data is wrong."""
    yield "remask.toml", make_settings(folder, answers)
    yield "prompt.md", "Answer the message.\n" if answers.data else PROMPT
    if not answers.data:
        rows = ({"message": text, "topic": topic, "split": split} for split, topic, text in SAMPLE)
        yield "rows.jsonl", "".join(orjson.dumps(row).decode() + "\n" for row in rows)
    if answers.kind == "callable":
        yield "target.py", TARGET


def make_settings(folder: Path, answers: Answers) -> str:
    """Return the text of remask.toml."""
    parts = [
        f"# Settings of remask. Paths are relative to this file. All keys: {ALL_KEYS}",
        'prompt = "prompt.md"  # the system prompt to improve; [[keep]]…[[/keep]] marks what must stay',
        "",
        *_make_target_section(answers),
        "",
        *_make_data_sections(folder, answers),
        "",
        "[budget]",
        *_make_budget(answers),
    ]
    return "\n".join(parts) + "\n"


def _make_target_section(answers: Answers) -> Iterator[str]:
    yield "[target]"
    if answers.kind == "builtin":
        yield 'model = "builtin"  # a small model on this machine; it chooses among the labels'
    elif answers.kind == "callable":
        yield 'model = "target.py:respond"  # a function: messages -> str'
    else:
        yield f"model = {_quote(f'openai:{answers.model}')}"
        if answers.base_url:
            yield f"base_url = {_quote(answers.base_url)}"
        yield 'api_key_env = "OPENAI_API_KEY"  # the variable with the key; a local server needs none'
        yield "# input_price = 0.1  # US dollars per million tokens; needed for budget.usd"
        yield "# output_price = 0.4"


def _make_data_sections(folder: Path, answers: Answers) -> Iterator[str]:
    yield "[data]"
    if answers.data:
        values = _guess_columns(Path(answers.data))
        yield f"path = {_quote(_relate(Path(answers.data), folder))}"
        yield f"input = {_quote('{' + values['input'] + '}')}  # the user message: a template over columns"
        yield f"expected = {_quote(values['expected'])}  # the column of the right answer"
        if values["split"]:
            yield 'split = "split"  # the column that says train, validation or test'
        metric = values["metric"]
    else:
        yield 'path = "rows.jsonl"  # samples: replace them by at least a hundred rows of your own'
        yield 'input = "{message}"  # the user message: a template over columns'
        yield 'expected = "topic"  # the column of the right answer'
        yield 'split = "split"  # the column that says train, validation or test'
        metric = "label"
    yield ""
    yield "[metric]"
    yield f'name = "{metric}"  # or exact, contains, f1, json, number, judge, or FILE.py:FUNCTION'
    if metric == "label" and answers.kind == "builtin":
        yield 'answer = "This message is about {label}."  # how the target says a label'


def _make_budget(answers: Answers) -> Iterator[str]:
    if answers.data:
        yield "calls = 2000  # target calls in all, those of the sealed test included"
        yield "# minutes = 30"
        return
    yield "calls = 48  # for a first look at the sample rows; without this line 2000"
    yield ""
    yield "[search]"
    yield "candidates = 3  # of a round; without this line as the budget allows, 6 to 24"


def _guess_columns(file: Path) -> Mapping[str, str]:
    """Guess the columns of message, answer and split, and the metric, by the names and the values."""
    rows = read_rows(file)
    if not rows:
        raise ConfigError(f"{file} has no rows; name a file with rows")
    names = list(rows[0].values)
    wanted = _pick(names, INPUTS) or names[0]
    rest = [name for name in names if name not in (wanted, "split")]
    answer = _pick(rest, ANSWERS) or (rest[-1] if rest else "")
    different = {row.values.get(answer, "") for row in rows}
    return {
        "input": wanted,
        "expected": answer,
        "split": "split" if "split" in names else "",
        "metric": "label" if len(different) <= min(MAX_LABELS, len(rows) // 2) else "f1",
    }


def _pick(names: list[str], usual: tuple[str, ...]) -> str:
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in usual if name in lower), "")


def _relate(data: Path, folder: Path) -> str:
    """Return the path of the data as remask.toml in `folder` names it."""
    try:
        return Path(os.path.relpath(data.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        return str(data.resolve())


def _quote(text: str) -> str:
    """Write a text as TOML: JSON's escapes are TOML's, but for one control character."""
    return orjson.dumps(text).decode().replace("\x7f", "\\u007f")
