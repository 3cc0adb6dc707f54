"""Write a prompt as a file for another tool, and read such a file.

Besides text, chat messages and templates these are the body of POST /api/public/v2/prompts of
Langfuse (fern/apis/server, prompts.yml; 2026), the arguments of `mlflow.genai.register_prompt`
(MLflow 3), and programs of DSPy that are saved as JSON (dspy/predict/predict.py, `dump_state`;
2026). No file has a label that would put the prompt into production.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from remask import __version__
from remask.data.json_nodes import JsonDocument, to_plain
from remask.data.placeholders import FORMAT, JINJA, LANGFUSE, MLFLOW, Names, Syntax, restore, translate
from remask.data.tool_lists import find_instructions
from remask.data.trace_record import UnreadableRecord
from remask.errors import ConfigError, DataError
from remask.files import require_prompt
from remask.prompt import Prompt

NOTE = f"optimised with remask {__version__}"


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What a file needs besides the prompt."""

    name: str  # of the prompt in the other tool
    names: Names = None  # of the variables; None: every plain {name}


Format = Callable[[Prompt, ExportOptions], str]


def format_text(prompt: Prompt, options: ExportOptions) -> str:
    """Write the text as the target reads it, and a final newline."""
    return prompt.text + "\n"


def format_marked(prompt: Prompt, options: ExportOptions) -> str:
    """Write the text with its [[keep]] marks, so that it can be optimised again."""
    return prompt.to_source() + "\n"


def format_messages(prompt: Prompt, options: ExportOptions) -> str:
    """Write a list of chat messages for OpenAI-compatible code. Nothing is escaped."""
    return to_json([{"role": "system", "content": prompt.text}])


def format_components(prompt: Prompt, options: ExportOptions) -> str:
    """Write the texts of the components by name."""
    if not prompt.components:
        raise ConfigError("the prompt has no components; choose the format text")
    return to_json({name: part.text for name, part in prompt.components.items()})


def format_langfuse(prompt: Prompt, options: ExportOptions) -> str:
    """Write the body of the request that creates a prompt or a new version, without a label."""
    return to_json(
        {
            "type": "text",
            "name": options.name,
            "prompt": translate(prompt.text, LANGFUSE, options.names),
            "config": {},
            "labels": [],
            "tags": [],
            "commitMessage": NOTE,
        }
    )


def format_mlflow(prompt: Prompt, options: ExportOptions) -> str:
    """Write the arguments of `mlflow.genai.register_prompt`."""
    return to_json(
        {
            "name": options.name,
            "template": make_mlflow_template(prompt, options.names),
            "commit_message": NOTE,
            "tags": {},
        }
    )


def make_mlflow_template(prompt: Prompt, names: Names = None) -> str:
    """Write the prompt as a template of MLflow; ConfigError where MLflow would misread it."""
    return translate(prompt.text, MLFLOW, names)


def replace_instructions(program: str, prompt: Prompt, predictor: str = "") -> str:
    """Return a saved DSPy program with the prompt as instructions of `predictor`.

    `predictor`: "" where there is only one. Nothing else in the program changes. Nothing is
    escaped, since DSPy puts instructions into the system message as they are. Raises ConfigError
    where there is no program or no such predictor.
    """
    try:
        document = JsonDocument(program)
        places = find_instructions(to_plain(document.root))
        if not places:
            raise ConfigError(
                "has no predictor with instructions; name a DSPy program that was saved as JSON"
            )
        known = ", ".join(places)
        if not predictor and len(places) > 1:
            raise ConfigError(f"has several predictors; name one with --predictor: {known}")
        if predictor and predictor not in places:
            raise ConfigError(f"has no predictor {predictor!r}; it has {known}")
        slot = document.find(places[predictor or next(iter(places))])
    except UnreadableRecord as error:
        where = f"line {error.line}: " if error.line else ""
        raise ConfigError(where + str(error)) from None
    return document.replace(slot, prompt.text)


def require_format(prompt: Prompt, kind: str) -> None:
    """Raise ConfigError where a format has no place for a prompt of several components."""
    if prompt.components and kind not in COMPONENT_FORMATS:
        raise ConfigError(
            f"the prompt has several components, and the format {kind} is for one text; give --in-place, "
            "--format components or --format marked"
        )


def make_template_format(syntax: Syntax) -> Format:
    """Make a format that writes the prompt as a template, and a final newline."""
    return lambda prompt, options: translate(prompt.text, syntax, options.names) + "\n"


FORMATS: dict[str, Format] = {
    "text": format_text,
    "marked": format_marked,
    "messages": format_messages,
    "components": format_components,
    "langfuse": format_langfuse,
    "mlflow": format_mlflow,
    "f-string": make_template_format(FORMAT),  # of str.format, LangChain and LangSmith
    "jinja": make_template_format(JINJA),
}
COMPONENT_FORMATS = ("text", "marked", "components")  # that can hold several components
_SUFFIXES = {
    ".langfuse.json": "langfuse",
    ".mlflow.json": "mlflow",
    ".json": "messages",
    **dict.fromkeys((".j2", ".jinja", ".jinja2", ".njk"), "jinja"),
}


def guess_format(path: Path) -> str:
    """Return the format that the name of a file implies."""
    name = path.name.lower()
    return next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), "text")


# --- reading


def read(path: Path, names: Names = None) -> Prompt:
    """Read the prompt of a file: text, or JSON of one of the formats above.

    Raises DataError where the file has no prompt, or more messages than one system message.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from None
    require_prompt(path, raw)
    try:
        content = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}; save the file as UTF-8", path) from None
    try:
        return Prompt.parse(parse(content, guess_format(path), names))
    except DataError:
        raise
    except ConfigError as error:
        raise DataError(str(error), path) from None


def parse(content: str, kind: str, names: Names = None) -> str:
    """Return the text of the prompt in the content of a file.

    `kind`: the format by the name of the file. The keys of JSON show which format it has. Raises
    ConfigError where there is no prompt.
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
        return restore(_extract_text(value["template"]), MLFLOW, names)
    if isinstance(value, dict) and "prompt" in value:
        return restore(_extract_text(value["prompt"]), LANGFUSE, names)
    return _extract_text(value)


def _extract_text(value: Any) -> str:
    """Return a text, or the text of a list of one system message. Raises ConfigError."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        role, value = value[0].get("role"), value[0].get("content")
        if role not in ("system", "developer"):
            raise ConfigError(f"the message has the role {role!r}; one system message is needed")
    if not isinstance(value, str):
        raise ConfigError("has no prompt; one text or a list of one system message is needed")
    return value


def to_json(value: Any) -> str:
    """Write a value as indented JSON, with a final newline."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n"
