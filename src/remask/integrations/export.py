"""A prompt as one file for another tool, and back: texts, messages, Langfuse, MLflow, DSPy.

Shapes: Langfuse's POST /api/public/v2/prompts (fern/apis/server, prompts.yml; 2026); the arguments
of `mlflow.genai.register_prompt` (MLflow 3); programs of DSPy, saved as JSON
(dspy/predict/predict.py, `dump_state`; 2026). No file carries a label that would put the prompt
into production. Knows prompts and how placeholders are written; no runs and no models.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from remask import __version__
from remask.data.placeholders import (
    FORMAT,
    JINJA,
    LANGFUSE,
    MLFLOW,
    Names,
    Syntax,
    restore,
    translate,
)
from remask.errors import ConfigError, DataError
from remask.integrations import place
from remask.prompt import Prompt

NOTE = f"optimised with remask {__version__}"


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to write beside the prompt itself."""

    name: str  # of the prompt in the other tool
    names: Names = None  # what counts as a variable; None: whatever is named like one


Format = Callable[[Prompt, ExportOptions], str]


def text(prompt: Prompt, order: ExportOptions) -> str:
    """The text as the target reads it, byte for byte, and a final newline."""
    return prompt.text + "\n"


def marked(prompt: Prompt, order: ExportOptions) -> str:
    """The text with its [[keep]] marks, so that it can be optimised again."""
    return prompt.to_source() + "\n"


def messages(prompt: Prompt, order: ExportOptions) -> str:
    """A list of chat messages, as OpenAI-compatible code takes it. No engine, nothing escaped."""
    return as_json([{"role": "system", "content": prompt.text}])


def langfuse(prompt: Prompt, order: ExportOptions) -> str:
    """The body that creates a prompt, or a new version of it, without a label."""
    return as_json(
        {
            "type": "text",
            "name": order.name,
            "prompt": translate(prompt.text, LANGFUSE, order.names),
            "config": {},
            "labels": [],
            "tags": [],
            "commitMessage": NOTE,
        }
    )


def mlflow(prompt: Prompt, order: ExportOptions) -> str:
    """The arguments of `mlflow.genai.register_prompt`."""
    return as_json(
        {
            "name": order.name,
            "template": mlflow_template(prompt, order.names),
            "commit_message": NOTE,
            "tags": {},
        }
    )


def mlflow_template(prompt: Prompt, names: Names = None) -> str:
    """Raises ConfigError where MLflow would misread it."""
    return translate(prompt.text, MLFLOW, names)


def dspy(program: str, prompt: Prompt, predictor: str = "") -> str:
    """A saved program with the prompt as instructions of `predictor` ("": the only one). Nothing
    else in it changes. Raises ConfigError where it holds no such program or predictor.

    A program maps each predictor to its state; a bare `Predict` is that state itself. DSPy puts
    instructions into the system message as they are, so nothing is escaped.
    """
    value = place.parse(program)
    keys = ["signature", "instructions"]
    if not _has_instructions(value):
        states = value.items() if isinstance(value, dict) else ()
        names = [name for name, state in states if _has_instructions(state)]
        if not names:
            raise ConfigError("holds no predictor with instructions; is it a DSPy program?")
        known = ", ".join(names)
        if not predictor and len(names) > 1:
            raise ConfigError(f"has several predictors; name one with --predictor: {known}")
        if predictor and predictor not in names:
            raise ConfigError(f"has no predictor {predictor!r}; it has {known}")
        keys.insert(0, predictor or names[0])
    return place.replace_string(program, keys, prompt.text)


def _has_instructions(state: Any) -> bool:
    signature = state.get("signature") if isinstance(state, dict) else None
    return isinstance(signature, dict) and isinstance(signature.get("instructions"), str)


def template(syntax: Syntax) -> Format:
    """The bare template, and a final newline (which Jinja takes away again)."""
    return lambda prompt, order: translate(prompt.text, syntax, order.names) + "\n"


FORMATS: dict[str, Format] = {
    "text": text,
    "marked": marked,
    "messages": messages,
    "langfuse": langfuse,
    "mlflow": mlflow,
    "f-string": template(FORMAT),  # of str.format, LangChain and LangSmith
    "jinja": template(JINJA),
}
_SUFFIXES = {
    ".langfuse.json": "langfuse",
    ".mlflow.json": "mlflow",
    ".json": "messages",
    ".j2": "jinja",
    ".jinja": "jinja",
    ".jinja2": "jinja",
    ".njk": "jinja",
}


def guess(path: Path) -> str:
    """The name of the format that a file's name stands for."""
    name = path.name.lower()
    return next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), "text")


# --- and back


def read(path: Path, names: Names = None) -> Prompt:
    """The prompt in a file: a text, or JSON of one of the shapes above.

    Raises DataError where the file holds no prompt, or one of more than a system message.
    """
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from None
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}; save the file as UTF-8", path) from None
    try:
        return Prompt.parse(parse(content, guess(path), names))
    except DataError:
        raise
    except ConfigError as error:
        raise DataError(str(error), path) from None


def parse(content: str, kind: str, names: Names = None) -> str:
    """The text of the prompt in a file of a format; JSON says by itself which shape it has.

    Raises ConfigError where there is none.
    """
    syntax = {"f-string": FORMAT, "jinja": JINJA}.get(kind)
    if syntax is not None:
        return restore(content.rstrip("\r\n"), syntax, names)
    if kind in ("text", "marked"):
        return content.rstrip("\r\n")
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"malformed JSON ({error})") from None
    if isinstance(value, dict) and "template" in value:
        return restore(_single(value["template"]), MLFLOW, names)
    if isinstance(value, dict) and "prompt" in value:
        return restore(_single(value["prompt"]), LANGFUSE, names)
    return _single(value)


def _single(value: Any) -> str:
    """A text, or that of a list which holds one system message."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        role, value = value[0].get("role"), value[0].get("content")
        if role not in ("system", "developer"):
            raise ConfigError(f"the message has the role {role!r}; one system message is needed")
    if not isinstance(value, str):
        raise ConfigError("holds no prompt; one text, or a list of one system message, is needed")
    return value


def as_json(value: Any) -> str:
    """Indented, with a final newline."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n"
