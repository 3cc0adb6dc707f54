"""Write a folder in which `promptfoo eval` compares the prompt before and after a run.

This checks a result with another program, which asks the target and grades the answers. The files
are a configuration, both prompts as chats, and the rows as tests. promptfoo renders prompts and
the values of assertions with Nunjucks, so text of the user is put into raw blocks there. It does
not render variables, but it replaces references to other variables and files in them
(src/evaluatorHelpers.ts, `renderPrompt`; 2026). So rows with such references are left out.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from remask.data.placeholders import JINJA, translate
from remask.errors import ConfigError
from remask.integrations.export import to_json
from remask.prompt import Prompt
from remask.sanitize import hide_credentials
from remask.types import Example

CONFIG = "promptfooconfig.yaml"
_MESSAGE_NAME = "user_message"
_FILE_REFERENCE = re.compile(r"(?:file|package):")
_RENDERED = re.compile(rf"\{{\{{\s*\w+\s*\}}\}}|\A{_FILE_REFERENCE.pattern}")


@dataclass(frozen=True, slots=True)
class PromptfooModel:
    """The settings with which promptfoo calls the target."""

    name: str  # "openai:MODEL"
    base_url: str = ""
    key_env: str = "OPENAI_API_KEY"
    temperature: float | None = 0.0
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class PromptfooComparison:
    """The files of a comparison, and the number of rows in them."""

    files: Mapping[str, str]  # name -> content; the configuration comes last
    rows: int
    left_out: int  # rows that promptfoo would read as templates or files
    graded: bool  # False: the metric has no equivalent assertion


def compare(
    before: Prompt,
    after: Prompt,
    examples: Sequence[Example],
    model: PromptfooModel,
    metric: str,
    labels: Sequence[str] = (),
    role: Literal["system", "user"] = "system",
) -> PromptfooComparison:
    """Make the files of the folder.

    `role` is the role of the prompt's message. Rows of the metric "promptfoo" keep their own
    assertions. Raises ConfigError where promptfoo cannot call the target.
    """
    usable = [e for e in examples if not any(map(_RENDERED.search, _variable_texts(e, role)))]
    if not usable:
        raise ConfigError("there is no row to compare on: promptfoo would read all of them as templates")
    columns = set.intersection(*(set(example.row) for example in usable))
    message = _choose_message_name(usable)
    tests: list[dict[str, Any]] = [
        {
            "vars": {**e.row, message: e.input} if role == "system" else e.row,
            "assert": _make_assertions(e, metric, labels),
        }
        for e in usable
    ]
    files = {
        "before.json": _format_chat(before, columns, message, role),
        "after.json": _format_chat(after, columns, message, role),
        "tests.json": to_json(tests),
        CONFIG: _format_config(model),
    }
    graded = bool(tests[0]["assert"])
    return PromptfooComparison(files, len(usable), len(examples) - len(usable), graded)


def _variable_texts(example: Example, role: str) -> tuple[str, ...]:
    """Return the texts that become variables: the columns, and the input unless `role` is user."""
    return (*((example.input,) if role == "system" else ()), *example.row.values())


def _choose_message_name(examples: Sequence[Example]) -> str:
    """Choose a variable for the message: no column, or a column that has the messages already."""
    # A column has the messages where the rows come from a folder that this function has written.
    name = _MESSAGE_NAME
    while any(name in e.row and e.row[name] != e.input for e in examples):
        name += "_"
    return name


def _escape(text: str) -> str:
    """Return a value that promptfoo renders to `text` and does not load from a file."""
    template = translate(text, JINJA, ())
    if _FILE_REFERENCE.match(template):
        return f"{{% raw %}}{template[0]}{{% endraw %}}{template[1:]}"
    return template


def _format_chat(prompt: Prompt, columns: set[str], message: str, role: str) -> str:
    system = {"role": role, "content": translate(prompt.text, JINJA, columns)}
    user = {"role": "user", "content": f"{{{{ {message} }}}}"}
    if role == "user":
        return to_json([system])
    return to_json([system, user] if prompt.text.strip() else [user])


def _make_assertions(example: Example, metric: str, labels: Sequence[str]) -> list[dict[str, str]]:
    """Return the assertions that come closest to the metric of remask."""
    if example.expected is None:
        return []
    if metric == "promptfoo":
        stated = orjson.loads(example.expected)
        return [{"type": a["type"], "value": _escape(a["value"])} for a in stated]
    value = _escape(example.expected)
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
        *({"type": "not-icontains", "value": _escape(label)} for label in others),
    ]


def _format_config(model: PromptfooModel) -> str:
    kind, _, name = model.name.partition(":")
    if kind != "openai" or not name:
        raise ConfigError(
            f"promptfoo cannot call the target {model.name!r}; export a run whose target is openai:MODEL"
        )
    settings = {
        "apiKeyEnvar": model.key_env,
        "apiBaseUrl": hide_credentials(model.base_url) or None,
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
