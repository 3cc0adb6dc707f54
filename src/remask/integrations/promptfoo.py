"""promptfoo: a folder in which `promptfoo eval` compares the prompt before and after.

An independent look at a result: another program asks the target and grades it. The files are a
configuration, two prompts as chats, and the rows as tests. promptfoo renders prompts and the
values of assertions with Nunjucks, so text of the user stands in raw blocks there; variables it
does not render, but it puts other variables and files into them (src/evaluatorHelpers.ts,
`renderPrompt`; 2026), so rows that look so are left out. Knows examples, not where they come from.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

import orjson

from remask.data.placeholders import JINJA, translate
from remask.errors import ConfigError
from remask.integrations.export import as_json
from remask.prompt import Prompt
from remask.types import Example

CONFIG = "promptfooconfig.yaml"
_MESSAGE = "user_message"
_LOADED = re.compile(r"(?:file|package):")
_TAKEN = re.compile(rf"\{{\{{\s*\w+\s*\}}\}}|\A{_LOADED.pattern}")


@dataclass(frozen=True, slots=True)
class Model:
    """The target, as promptfoo reaches it."""

    name: str  # "openai:MODEL"
    base_url: str = ""
    key_env: str = "OPENAI_API_KEY"
    temperature: float | None = 0.0
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class PromptfooComparison:
    """The files by name, and how many rows they hold."""

    files: Mapping[str, str]  # the configuration comes last
    rows: int
    left_out: int  # rows that promptfoo would take for templates or files
    graded: bool  # False: the metric has no plain assertion


def compare(
    before: Prompt,
    after: Prompt,
    examples: Sequence[Example],
    model: Model,
    metric: str,
    labels: Sequence[str] = (),
    role: Literal["system", "user"] = "system",
) -> PromptfooComparison:
    """The folder's files. `role`: the message that the prompt is. Rows of the metric "promptfoo"
    keep their own assertions. Raises ConfigError where the target cannot be asked by promptfoo."""
    usable = [e for e in examples if not any(map(_TAKEN.search, _texts(e, role)))]
    if not usable:
        raise ConfigError("no row is left to compare on; promptfoo would read all as templates")
    columns = set.intersection(*(set(example.row) for example in usable))
    message = _message(usable)
    tests: list[dict[str, Any]] = [
        {
            "vars": {**e.row, message: e.input} if role == "system" else e.row,
            "assert": _assertions(e, metric, labels),
        }
        for e in usable
    ]
    files = {
        "before.json": _chat(before, columns, message, role),
        "after.json": _chat(after, columns, message, role),
        "tests.json": as_json(tests),
        CONFIG: _config(model),
    }
    graded = bool(tests[0]["assert"])
    return PromptfooComparison(files, len(usable), len(examples) - len(usable), graded)


def _texts(example: Example, role: str) -> tuple[str, ...]:
    """What becomes a variable: where the prompt is the user's message, the columns alone."""
    return (*((example.input,) if role == "system" else ()), *example.row.values())


def _message(examples: Sequence[Example]) -> str:
    """A name for the message that is no column, or a column that holds the messages already, as
    after this export was read back."""
    name = _MESSAGE
    while any(name in e.row and e.row[name] != e.input for e in examples):
        name += "_"
    return name


def _verbatim(text: str) -> str:
    """A value of an assertion that promptfoo renders to `text`, and loads from nowhere."""
    template = translate(text, JINJA, ())
    if _LOADED.match(template):
        return f"{{% raw %}}{template[0]}{{% endraw %}}{template[1:]}"
    return template


def _chat(prompt: Prompt, columns: set[str], message: str, role: str) -> str:
    system = {"role": role, "content": translate(prompt.text, JINJA, columns)}
    user = {"role": "user", "content": f"{{{{ {message} }}}}"}
    if role == "user":
        return as_json([system])
    return as_json([system, user] if prompt.text.strip() else [user])


def _assertions(example: Example, metric: str, labels: Sequence[str]) -> list[dict[str, str]]:
    """Plain assertions only; they are a little stricter or laxer than remask's own metrics."""
    if example.expected is None:
        return []
    if metric == "promptfoo":
        stated = orjson.loads(example.expected)
        return [{"type": a["type"], "value": _verbatim(a["value"])} for a in stated]
    value = _verbatim(example.expected)
    if metric == "exact":
        return [{"type": "equals", "value": value}]
    if metric == "contains":
        return [{"type": "icontains", "value": value}]
    if metric != "label":
        return []
    inside = example.expected.casefold()
    others = [label for label in labels if label.casefold() not in inside]
    return [
        {"type": "icontains", "value": value},
        *({"type": "not-icontains", "value": _verbatim(label)} for label in others),
    ]


def _config(model: Model) -> str:
    kind, _, name = model.name.partition(":")
    if kind != "openai" or not name:
        raise ConfigError(
            f"promptfoo cannot ask the target {model.name!r}; export a run whose target is "
            "openai:MODEL"
        )
    settings = {
        "apiKeyEnvar": model.key_env,
        "apiBaseUrl": _without_password(model.base_url) or None,
        "temperature": model.temperature,
        "max_tokens": model.max_tokens,
    }
    config = {
        "description": "A prompt before and after remask",
        "prompts": [{"id": f"file://{n}.json", "label": n} for n in ("before", "after")],
        "providers": [
            {
                "id": f"openai:chat:{name}",
                "config": {key: value for key, value in settings.items() if value is not None},
            }
        ],
        "tests": "file://tests.json",
    }
    # Every JSON text is YAML.
    lines = [f"{key}: {orjson.dumps(value).decode()}" for key, value in config.items()]
    return "\n".join(["# Run: promptfoo eval -c " + CONFIG, *lines]) + "\n"


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
