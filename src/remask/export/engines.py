"""Template engines: how each writes a variable, and how it writes what only looks like one.

In remask {name}, {{name}} and ${name} are variables (`task/labelled.py` fills them) and everything
else is text. `translate` writes the same variables and the same text for another engine, reads its
own work back by that engine's rules, and refuses what the engine would take for something else.
Templates are cut into pieces here, never evaluated. Knows texts only: no prompts, no files.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import zip_longest
from string import Formatter

from remask.errors import ConfigError
from remask.prompt import COLUMN

Names = Collection[str] | None  # what counts as a variable; None: whatever is named like one


@dataclass(frozen=True, slots=True)
class Variable:
    """A place that somebody else fills."""

    name: str
    source: str = field(compare=False)  # as it stands in the text it came from


Pieces = tuple[str | Variable, ...]  # texts and variables in turn; no empty text, no two in a row


@dataclass(frozen=True, slots=True)
class Engine:
    """How one engine's templates are written and read."""

    name: str
    write: Callable[[Pieces], str]
    read: Callable[[str, Names], Pieces]  # ConfigError where the template holds code


def translate(text: str, engine: Engine, names: Names = None) -> str:
    """`text` of a prompt as a template of `engine`, with the same variables.

    Raises ConfigError where the engine cannot tell text and variables apart as remask does.
    """
    pieces = split(text, names)
    template = engine.write(pieces)
    _check(pieces, engine.read(template, _known(pieces, names)), engine.name)
    return template


def restore(template: str, engine: Engine, names: Names = None) -> str:
    """The text of a prompt whose template for `engine` this is. Raises ConfigError where it holds
    code, or text that remask would take for a variable."""
    pieces = engine.read(template, names)
    text = DOUBLE.write(pieces)
    _check(pieces, split(text, _known(pieces, names)), "remask")
    return text


def variables(text: str, names: Names = None) -> tuple[str, ...]:
    """The variables of a prompt, in order, as often as they occur."""
    return tuple(piece.name for piece in split(text, names) if isinstance(piece, Variable))


def _known(pieces: Pieces, names: Names) -> Names:
    """Where names were given, what looks like another one is text."""
    return names if names is None else {p.name for p in pieces if isinstance(p, Variable)}


def _check(meant: Pieces, understood: Pieces, reader: str) -> None:
    if meant == understood:
        return
    pairs = zip_longest(meant, understood)
    piece = next(mine or theirs for mine, theirs in pairs if mine != theirs)
    shown = piece.source if isinstance(piece, Variable) else str(piece).strip()[:60]
    raise ConfigError(
        f"{reader} would misread the prompt at {shown!r}; change the braces there, or say with "
        "--variable what is a variable"
    )


# --- cutting

_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
# Langfuse takes all between {{ and the next }} for a name, and leaves alone names it has not got
# (langfuse/model.py, TemplateParser; 2026).
_LANGFUSE = re.compile(r"\{\{([\s\S]*?)\}\}")


def split(text: str, names: Names = None) -> Pieces:
    """The pieces of a prompt, as remask reads them."""
    return _cut(text, COLUMN, names)


def _cut(text: str, pattern: re.Pattern[str], names: Names) -> Pieces:
    pieces: list[str | Variable] = []
    at = 0
    for match in pattern.finditer(text):
        name = next((group for group in match.groups() if group is not None), "").strip()
        if _NAME.fullmatch(name) if names is None else name in names:
            pieces += [text[at : match.start()], Variable(name, match[0])]
            at = match.end()
    return _joined([*pieces, text[at:]])


def _joined(pieces: list[str | Variable]) -> Pieces:
    joined: list[str | Variable] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        elif piece:
            joined.append(piece)
    return tuple(joined)


# --- {{name}}, without a way to escape

_BLANKS = str.maketrans("", "", " \t\r\n")  # that every engine allows beside a name


def _double(variable: Variable) -> str:
    """As it stands in the prompt where it stands in two braces there."""
    kept = variable.source.translate(_BLANKS) == f"{{{{{variable.name}}}}}"
    return variable.source if kept else f"{{{{{variable.name}}}}}"


def _write_double(pieces: Pieces) -> str:
    return "".join(_double(p) if isinstance(p, Variable) else p for p in pieces)


DOUBLE = Engine("Langfuse", _write_double, lambda text, names: _cut(text, _LANGFUSE, names))


# --- {name}, with doubled braces for plain ones

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Words of Jinja's and Nunjucks' languages, which would not be looked up.
_WORDS = frozenset(
    ("and", "else", "false", "if", "in", "is", "none", "not", "null", "or", "self", "true")
) | {"False", "None", "True"}


def _write_format(pieces: Pieces) -> str:
    return "".join(
        f"{{{_plain(p.name)}}}"
        if isinstance(p, Variable)
        else p.replace("{", "{{").replace("}", "}}")
        for p in pieces
    )


def _plain(name: str) -> str:
    if not _PLAIN.fullmatch(name) or name in _WORDS:
        raise ConfigError(f"a template cannot hold a variable {name!r}; give it a plain name")
    return name


def _read_format(text: str, names: Names) -> Pieces:
    pieces: list[str | Variable] = []
    try:
        for plain, name, spec, conversion in Formatter().parse(text):
            pieces.append(plain)
            if name is not None:
                if spec or conversion or not _PLAIN.fullmatch(name):
                    raise ConfigError(
                        f"the template holds {{{name}}} with a format or access; only plain "
                        "{name} can be read back"
                    )
                pieces.append(Variable(name, f"{{{name}}}"))
    except ValueError as error:
        raise ConfigError(f"not a template of str.format: {error}") from None
    return _joined(pieces)


FORMAT = Engine("str.format", _write_format, _read_format)


# --- Jinja and Nunjucks: {{name}}, with raw blocks

# Nunjucks also stops at a lone #}; a { at the end would join the braces of a variable.
_OPENER = re.compile(r"\{[{%#]|#\}|\{\Z")
_RAW_TAG = re.compile(r"\{(?=%[-+]?\s*(?:end)?raw\b)")  # Nunjucks also counts inner raw blocks
_RAW, _END = "{% raw %}", "{% endraw %}"
_BRACE = '{{ "{" }}'
_TOKENS = re.compile(
    r"\{% raw %\}(?P<raw>[\s\S]*?)\{% endraw %\}"
    r"|\{\{ \"(?P<brace>\{)\" \}\}"
    r"|\{\{\s*(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*\}\}"
    r"|(?P<code>\{[{%#])"
)


def _write_jinja(pieces: Pieces) -> str:
    for piece in pieces:
        if isinstance(piece, Variable):
            _plain(piece.name)
    return "".join(_double(p) if isinstance(p, Variable) else _raw(p) for p in pieces)


def _raw(text: str) -> str:
    if not _OPENER.search(text):
        return text
    parts = [f"{_RAW}{part}{_END}" if part else "" for part in _RAW_TAG.split(text)]
    return _BRACE.join(parts)


def _read_jinja(text: str, names: Names) -> Pieces:
    pieces: list[str | Variable] = []
    at = 0
    for token in _TOKENS.finditer(text):
        if token["code"]:
            line = text.count("\n", 0, token.start()) + 1
            raise ConfigError(
                f"line {line} of the template holds code, {text[token.start() :][:30]!r}; only "
                "{{ name }} and raw blocks can be read back"
            )
        pieces.append(text[at : token.start()])
        pieces.append(
            Variable(token["name"], token[0])
            if token["name"]
            else (token["raw"] or token["brace"] or "")
        )
        at = token.end()
    return _joined([*pieces, text[at:]])


JINJA = Engine("Jinja", _write_jinja, _read_jinja)


# --- MLflow: {{name}}, or Jinja where {% and %} occur (entities/model_registry/prompt_version.py)

_MLFLOW = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)\s*\}\}")


def _write_mlflow(pieces: Pieces) -> str:
    plain = _write_double(pieces)
    return plain if _read_mlflow_or_none(plain) == pieces else _write_jinja(pieces)


def _read_mlflow_or_none(text: str) -> Pieces | None:
    return None if _is_jinja(text) else _cut(text, _MLFLOW, None)


def _read_mlflow(text: str, names: Names) -> Pieces:
    plain = _read_mlflow_or_none(text)
    return _read_jinja(text, names) if plain is None else plain


def _is_jinja(text: str) -> bool:
    return "{%" in text and "%}" in text


MLFLOW = Engine("MLflow", _write_mlflow, _read_mlflow)
