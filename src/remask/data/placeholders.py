"""Placeholders: how remask and other tools write a variable, and text that only looks like one.

A `Syntax` reads a text into pieces, texts and variables in turn, and writes pieces as a text.
`convert` takes a text from one syntax to another, reads its own work back by the rules of the
target, and refuses what would be taken for something else. Nothing is evaluated: a template that
holds code is refused. Knows texts only: no prompts, no rows, no files.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from string import Formatter

from remask.errors import ConfigError

Names = Collection[str] | None  # what counts as a variable; None: whatever is named like one


@dataclass(frozen=True, slots=True)
class Variable:
    """A place in a text that is filled later."""

    name: str
    source: str = field(compare=False)  # as it stands in the text it came from


Pieces = tuple[str | Variable, ...]  # texts and variables in turn; no empty text, no two in a row


@dataclass(frozen=True, slots=True)
class Syntax:
    """How one kind of template is written and read."""

    name: str
    write: Callable[[Pieces], str]  # ConfigError where a name cannot be written
    read: Callable[[str, Names], Pieces]  # ConfigError where the template holds code


def convert(text: str, source: Syntax, target: Syntax, names: Names = None) -> str:
    """A text of one syntax in another, with the same variables.

    Raises ConfigError where `text` holds code, or where `target` would take text for a variable or
    a variable for text.
    """
    pieces = source.read(text, names)
    written = target.write(pieces)
    known = names if names is None else {*names, *list_variables(pieces)}
    _check_round_trip(pieces, target.read(written, known), target.name)
    return written


def translate(text: str, syntax: Syntax, names: Names = None) -> str:
    """The text of a prompt as a template of another syntax. Raises ConfigError as `convert`."""
    return convert(text, PROMPT, syntax, names)


def restore(template: str, syntax: Syntax, names: Names = None) -> str:
    """The text of a prompt whose template this is. Raises ConfigError as `convert`."""
    return convert(template, syntax, PROMPT, names)


def fill(text: str, row: Mapping[str, str]) -> str:
    """The text of a prompt with {name}, {{name}} and ${name} replaced once where `row` has that
    column. Everything else in braces stays as it is, and nothing is evaluated."""
    return substitute(PROMPT.read(text, row), row)


def substitute(pieces: Pieces, values: Mapping[str, str]) -> str:
    """The text with each variable replaced once. Raises KeyError for one without a value."""
    return "".join(values[p.name] if isinstance(p, Variable) else p for p in pieces)


def list_variables(pieces: Pieces) -> tuple[str, ...]:
    """The names of the variables, in order, as often as they occur."""
    return tuple(piece.name for piece in pieces if isinstance(piece, Variable))


def _check_round_trip(meant: Pieces, understood: Pieces, reader: str) -> None:
    if meant == understood:
        return
    pairs = zip_longest(meant, understood)
    piece = next(mine or theirs for mine, theirs in pairs if mine != theirs)
    shown = piece.source if isinstance(piece, Variable) else str(piece).strip()[:60]
    raise ConfigError(
        f"{reader} would misread the prompt at {shown!r}; change the braces there, or say with "
        "--variable what is a variable"
    )


# --- reading by a pattern

_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)


def _make_reader(pattern: re.Pattern[str]) -> Callable[[str, Names], Pieces]:
    """A reader of texts in which `pattern` finds variables; the group that matched is the name."""

    def read(text: str, names: Names) -> Pieces:
        parts: list[str | Variable] = []
        at = 0
        for match in pattern.finditer(text):
            name = next((group for group in match.groups() if group is not None), "").strip()
            if _NAME.fullmatch(name) if names is None else name in names:
                parts += [text[at : match.start()], Variable(name, match[0])]
                at = match.end()
        return _join_parts([*parts, text[at:]])

    return read


def _join_parts(parts: Iterable[str | Variable]) -> Pieces:
    """Texts beside each other become one, empty texts are left out."""
    pieces: list[str | Variable] = []
    for part in parts:
        if isinstance(part, str) and pieces and isinstance(pieces[-1], str):
            pieces[-1] += part
        elif part:
            pieces.append(part)
    return tuple(pieces)


# --- {{name}}, without a way to escape: prompts of remask, Langfuse

_BLANKS = str.maketrans("", "", " \t\r\n")  # that every tool allows beside a name


def _write_variable(variable: Variable) -> str:
    """As it stands in the prompt where it stands in two braces there."""
    kept = variable.source.translate(_BLANKS) == f"{{{{{variable.name}}}}}"
    return variable.source if kept else f"{{{{{variable.name}}}}}"


def _write_double(pieces: Pieces) -> str:
    return "".join(_write_variable(p) if isinstance(p, Variable) else p for p in pieces)


# remask fills ${name}, {{name}} and {name} in a prompt. Everything else in braces is text.
PROMPT = Syntax(
    "remask",
    _write_double,
    _make_reader(re.compile(r"\$\{([^{}]*)\}|\{\{([^{}]*)\}\}|\{([^{}]*)\}")),
)
# Langfuse takes all between {{ and the next }} for a name, and leaves alone names it has not got
# (langfuse/model.py, TemplateParser; 2026).
LANGFUSE = Syntax("Langfuse", _write_double, _make_reader(re.compile(r"\{\{([\s\S]*?)\}\}")))


# --- {name}, with doubled braces for plain ones: messages over columns, str.format

# `string.Formatter` does not fit columns, which may have any name: it takes "a.b" or "a!r" for an
# access or a conversion, and refuses a single brace.
_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")


def _write_fields(pieces: Pieces) -> str:
    return "".join(
        f"{{{p.name}}}" if isinstance(p, Variable) else p.replace("{", "{{").replace("}", "}}")
        for p in pieces
    )


def _read_fields(template: str, names: Names) -> Pieces:
    """Whatever stands in braces is a column, of any name."""
    parts: list[str | Variable] = []
    at = 0
    for match in _FIELD.finditer(template):
        brace_or_column = match[0][0] if match[1] is None else Variable(match[1].strip(), match[0])
        parts += [template[at : match.start()], brace_or_column]
        at = match.end()
    return _join_parts([*parts, template[at:]])


MESSAGE = Syntax("a template over columns", _write_fields, _read_fields)

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Words of Jinja's and Nunjucks' languages, which would not be looked up.
_RESERVED_WORDS = frozenset(
    ("and", "else", "false", "if", "in", "is", "none", "not", "null", "or", "self", "true")
) | {"False", "None", "True"}


def _check_names(pieces: Pieces) -> None:
    for name in list_variables(pieces):
        if not _PLAIN_NAME.fullmatch(name) or name in _RESERVED_WORDS:
            raise ConfigError(f"a template cannot hold a variable {name!r}; give it a plain name")


def _write_format(pieces: Pieces) -> str:
    _check_names(pieces)
    return _write_fields(pieces)


def _read_format(template: str, names: Names) -> Pieces:
    parts: list[str | Variable] = []
    try:
        for plain, name, spec, conversion in Formatter().parse(template):
            parts.append(plain)
            if name is not None:
                if spec or conversion or not _PLAIN_NAME.fullmatch(name):
                    raise ConfigError(
                        f"the template holds {{{name}}} with a format or access; only plain "
                        "{name} can be read back"
                    )
                parts.append(Variable(name, f"{{{name}}}"))
    except ValueError as error:
        raise ConfigError(f"not a template of str.format: {error}") from None
    return _join_parts(parts)


FORMAT = Syntax("str.format", _write_format, _read_format)


# --- {{name}}, with raw blocks: Jinja and Nunjucks

# Nunjucks also stops at a lone #}; a { at the end would join the braces of a variable.
_OPENER = re.compile(r"\{[{%#]|#\}|\{\Z")
_RAW_TAG = re.compile(r"\{(?=%[-+]?\s*(?:end)?raw\b)")  # Nunjucks also counts inner raw blocks
_RAW, _END = "{% raw %}", "{% endraw %}"
_BRACE = '{{ "{" }}'
_CARRIAGE_RETURN = "\ue00d"  # stands for \r, which Jinja's lexer turns into \n and Nunjucks keeps


def _write_jinja(pieces: Pieces) -> str:
    _check_names(pieces)
    return "".join(
        _write_variable(p) if isinstance(p, Variable) else _escape_jinja(p) for p in pieces
    )


def _escape_jinja(text: str) -> str:
    if not _OPENER.search(text):
        return text
    parts = [f"{_RAW}{part}{_END}" if part else "" for part in _RAW_TAG.split(text)]
    return _BRACE.join(parts)


def _read_jinja(template: str, names: Names) -> Pieces:
    """By Jinja's own lexer, so that blanks beside {{- and {%- go as they do there."""
    from jinja2 import Environment, TemplateSyntaxError  # importing it takes time

    parts: list[str | Variable] = []
    construct: list[tuple[str, str]] = []  # tokens of the variable, tag or comment that is open
    line = 1
    source = template.replace("\r", _CARRIAGE_RETURN)
    try:
        for line, kind, value in Environment(keep_trailing_newline=True).lex(source):
            if kind == "data":
                parts.append(value.replace(_CARRIAGE_RETURN, "\r"))
            elif kind not in ("raw_begin", "raw_end"):
                construct.append((kind, value))
            if kind == "variable_end":
                parts.append(_parse_jinja_piece(construct, line))
                construct = []
    except TemplateSyntaxError as error:
        raise _code_error(template.split("\n")[error.lineno - 1], error.lineno) from None
    if construct:  # a tag, a comment, or what is never closed
        raise _code_error("".join(value for _, value in construct), line)
    return _join_parts(parts)


def _parse_jinja_piece(tokens: Sequence[tuple[str, str]], line: int) -> str | Variable:
    """What stands between {{ and }}: a variable, or a text in quotes."""
    source = "".join(value for _, value in tokens)
    match [token for token in tokens if token[0] != "whitespace"]:
        case [("variable_begin", _), ("name", name), ("variable_end", _)]:
            return Variable(name, source)
        case [("variable_begin", _), ("string", text), ("variable_end", _)] if "\\" not in text:
            return text[1:-1]
    raise _code_error(source, line)


def _code_error(source: str, line: int) -> ConfigError:
    return ConfigError(
        f"line {line} of the template holds code, {source[:30]!r}; only {{{{ name }}}} and raw "
        "blocks can be read"
    )


JINJA = Syntax("Jinja", _write_jinja, _read_jinja)


# --- MLflow: {{name}}, or Jinja where {% and %} occur (entities/model_registry/prompt_version.py)

_read_names = _make_reader(
    re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)\s*\}\}")
)


def _write_mlflow(pieces: Pieces) -> str:
    plain = _write_double(pieces)
    return plain if _read_mlflow_names(plain) == pieces else _write_jinja(pieces)


def _read_mlflow_names(text: str) -> Pieces | None:
    """None where MLflow would let Jinja render the text."""
    return None if "{%" in text and "%}" in text else _read_names(text, None)


def _read_mlflow(text: str, names: Names) -> Pieces:
    plain = _read_mlflow_names(text)
    return _read_jinja(text, names) if plain is None else plain


MLFLOW = Syntax("MLflow", _write_mlflow, _read_mlflow)
