"""Read, write and convert the variables of templates: remask, Jinja, str.format, Langfuse, MLflow.

A `Syntax` reads a text into pieces (strings and variables) and writes pieces as a text. `convert`
translates a text from one syntax to another, parses the result again by the rules of the target
syntax, and raises ConfigError if that gives other pieces. Templates are never evaluated; one that
contains code is refused.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from string import Formatter

from remask.errors import ConfigError

Names = Collection[str] | None  # names of variables; None: everything that looks like a name


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable in a text."""

    name: str
    source: str = field(compare=False)  # the characters in the text that was read


Pieces = tuple[str | Variable, ...]  # no empty string, and no two strings side by side


@dataclass(frozen=True, slots=True)
class Syntax:
    """One template syntax."""

    name: str
    write: Callable[[Pieces], str]  # raises ConfigError if a name cannot be written
    read: Callable[[str, Names], Pieces]  # raises ConfigError if the template contains code


def convert(text: str, source: Syntax, target: Syntax, names: Names = None) -> str:
    """Convert a text to another syntax, with the same variables.

    Raises ConfigError if `text` contains code, or if `target` would read text as a variable or a
    variable as text.
    """
    pieces = source.read(text, names)
    written = target.write(pieces)
    known = names if names is None else {*names, *list_variables(pieces)}
    _check_round_trip(pieces, target.read(written, known), target.name)
    return written


def translate(text: str, syntax: Syntax, names: Names = None) -> str:
    """Convert a prompt to a template of another syntax. Raises ConfigError, see `convert`."""
    return convert(text, PROMPT, syntax, names)


def restore(template: str, syntax: Syntax, names: Names = None) -> str:
    """Convert a template of another syntax to a prompt. Raises ConfigError, see `convert`."""
    return convert(template, syntax, PROMPT, names)


def fill(text: str, row: Mapping[str, str]) -> str:
    """Replace {name}, {{name}} and ${name} in a prompt by the columns of `row`.

    Values are not searched for variables again. Other text in braces does not change.
    """
    return substitute(PROMPT.read(text, row), row)


def substitute(pieces: Pieces, values: Mapping[str, str]) -> str:
    """Join the pieces with each variable replaced. Raises KeyError if one has no value."""
    return "".join(values[p.name] if isinstance(p, Variable) else p for p in pieces)


def list_variables(pieces: Pieces) -> tuple[str, ...]:
    """Return the names of the variables in order, with repetitions."""
    return tuple(piece.name for piece in pieces if isinstance(piece, Variable))


def _check_round_trip(meant: Pieces, understood: Pieces, reader: str) -> None:
    if meant == understood:
        return
    pairs = zip_longest(meant, understood)
    piece = next(mine or theirs for mine, theirs in pairs if mine != theirs)
    shown = piece.source if isinstance(piece, Variable) else str(piece).strip()[:60]
    raise ConfigError(
        f"{reader} would misread the prompt at {shown!r}; change the braces there, or name the "
        "variables with --variable"
    )


# --- Readers that use a regular expression

_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)


def _make_reader(pattern: re.Pattern[str]) -> Callable[[str, Names], Pieces]:
    """Make a reader that finds variables with `pattern`; the group that matched is the name."""

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
    """Join neighbouring strings and drop empty ones."""
    pieces: list[str | Variable] = []
    for part in parts:
        if isinstance(part, str) and pieces and isinstance(pieces[-1], str):
            pieces[-1] += part
        elif part:
            pieces.append(part)
    return tuple(pieces)


# --- {{name}} without escapes: prompts of remask, Langfuse

_BLANKS = str.maketrans("", "", " \t\r\n")  # blanks that every tool allows beside a name


def _write_variable(variable: Variable) -> str:
    """Write {{name}}; a variable that was read in double braces keeps its blanks."""
    kept = variable.source.translate(_BLANKS) == f"{{{{{variable.name}}}}}"
    return variable.source if kept else f"{{{{{variable.name}}}}}"


def _write_double(pieces: Pieces) -> str:
    return "".join(_write_variable(p) if isinstance(p, Variable) else p for p in pieces)


# remask replaces ${name}, {{name}} and {name} in a prompt. Other text in braces is plain text.
PROMPT = Syntax(
    "remask", _write_double, _make_reader(re.compile(r"\$\{([^{}]*)\}|\{\{([^{}]*)\}\}|\{([^{}]*)\}"))
)
# Langfuse reads everything between {{ and the next }} as a name and does not change unknown names
# (langfuse/model.py, TemplateParser; 2026).
LANGFUSE = Syntax("Langfuse", _write_double, _make_reader(re.compile(r"\{\{([\s\S]*?)\}\}")))


# --- {name}, with {{ and }} for braces: message templates over columns, str.format

# `string.Formatter` cannot be used for columns, which may have any name: it reads "a.b" as an
# attribute and "a!r" as a conversion, and it refuses a single brace.
_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")


def _write_fields(pieces: Pieces) -> str:
    return "".join(
        f"{{{p.name}}}" if isinstance(p, Variable) else p.replace("{", "{{").replace("}", "}}")
        for p in pieces
    )


def _read_fields(template: str, names: Names) -> Pieces:
    """Read everything in braces as the name of a column."""
    parts: list[str | Variable] = []
    at = 0
    for match in _FIELD.finditer(template):
        brace_or_column = match[0][0] if match[1] is None else Variable(match[1].strip(), match[0])
        parts += [template[at : match.start()], brace_or_column]
        at = match.end()
    return _join_parts([*parts, template[at:]])


MESSAGE = Syntax("a template over columns", _write_fields, _read_fields)

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Reserved words of Jinja and Nunjucks, which are not looked up as variables.
_RESERVED_WORDS = frozenset(
    ("and", "else", "false", "if", "in", "is", "none", "not", "null", "or", "self", "true")
) | {"False", "None", "True"}


def _check_names(pieces: Pieces) -> None:
    for name in list_variables(pieces):
        if not _PLAIN_NAME.fullmatch(name) or name in _RESERVED_WORDS:
            raise ConfigError(
                f"the variable {name!r} cannot be written in this template; use only letters, "
                "digits and _, and no reserved word"
            )


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
                        f"the template holds {{{name}}} with a format or an attribute; use only "
                        "plain {name}"
                    )
                parts.append(Variable(name, f"{{{name}}}"))
    except ValueError as error:
        raise ConfigError(f"the template is not valid for str.format ({error}); fix it") from None
    return _join_parts(parts)


FORMAT = Syntax("str.format", _write_format, _read_format)


# --- {{name}} with raw blocks: Jinja and Nunjucks

# Text that must be escaped. Nunjucks also stops at a lone #}, and a { at the end of a text would
# join the braces of the variable after it.
_OPENER = re.compile(r"\{[{%#]|#\}|\{\Z")
_RAW_TAG = re.compile(r"\{(?=%[-+]?\s*(?:end)?raw\b)")  # Nunjucks counts nested raw blocks
_RAW, _END = "{% raw %}", "{% endraw %}"
_BRACE = '{{ "{" }}'
_CARRIAGE_RETURN = "\ue00d"  # replaces \r, which Jinja's lexer changes to \n and Nunjucks keeps


def _write_jinja(pieces: Pieces) -> str:
    _check_names(pieces)
    return "".join(_write_variable(p) if isinstance(p, Variable) else _escape_jinja(p) for p in pieces)


def _escape_jinja(text: str) -> str:
    if not _OPENER.search(text):
        return text
    parts = [f"{_RAW}{part}{_END}" if part else "" for part in _RAW_TAG.split(text)]
    return _BRACE.join(parts)


def _read_jinja(template: str, names: Names) -> Pieces:
    """Read a template with Jinja's own lexer, which also removes the blanks at {{- and {%-."""
    from jinja2 import Environment, TemplateSyntaxError  # imported here because it is slow

    parts: list[str | Variable] = []
    construct: list[tuple[str, str]] = []  # tokens of the open variable, tag or comment
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
    if construct:  # a tag, a comment, or a construct without an end
        raise _code_error("".join(value for _, value in construct), line)
    return _join_parts(parts)


def _parse_jinja_piece(tokens: Sequence[tuple[str, str]], line: int) -> str | Variable:
    """Return the content of {{ }}: a variable, or a quoted string."""
    source = "".join(value for _, value in tokens)
    match [token for token in tokens if token[0] != "whitespace"]:
        case [("variable_begin", _), ("name", name), ("variable_end", _)]:
            return Variable(name, source)
        case [("variable_begin", _), ("string", text), ("variable_end", _)] if "\\" not in text:
            return text[1:-1]
    raise _code_error(source, line)


def _code_error(source: str, line: int) -> ConfigError:
    return ConfigError(
        f"line {line} of the template contains code, {source[:30]!r}; use only {{{{ name }}}} and raw blocks"
    )


JINJA = Syntax("Jinja", _write_jinja, _read_jinja)


# --- MLflow: {{name}}, or Jinja if {% and %} occur (entities/model_registry/prompt_version.py)

_read_names = _make_reader(re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)\s*\}\}"))


def _write_mlflow(pieces: Pieces) -> str:
    plain = _write_double(pieces)
    return plain if _read_mlflow_names(plain) == pieces else _write_jinja(pieces)


def _read_mlflow_names(text: str) -> Pieces | None:
    """Read {{name}} as MLflow does; None if MLflow would render the text with Jinja."""
    return None if "{%" in text and "%}" in text else _read_names(text, None)


def _read_mlflow(text: str, names: Names) -> Pieces:
    plain = _read_mlflow_names(text)
    return _read_jinja(text, names) if plain is None else plain


MLFLOW = Syntax("MLflow", _write_mlflow, _read_mlflow)
