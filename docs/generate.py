"""Write what is made from the code: parts of three reference pages, and a JSON schema.

    python docs/generate.py

Replaces what stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->` in command-line.md,
configuration.md and events.md of docs/reference, and writes the schema of remask.toml that the
package ships. The meaning of a key or a field stands beside it in the code: as the text below it
(config.py) or as the comment behind it (events, results). tests/test_docs.py fails where a file is
stale.
"""

import ast
import inspect
import json
import re
import tokenize
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click
from click.testing import CliRunner
from pydantic import BaseModel

from remask import events
from remask.cli import main as remask
from remask.cli import settings
from remask.config import FILE_KEYS, PROMPT_PLACES, Config, MetricConfig, TargetConfig
from remask.runs import result
from remask.runs.budget import Spend
from remask.runs.goal_results import GuardResult, ObjectiveResult
from remask.stats import Comparison

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
SCHEMA = ROOT / "src" / "remask" / "remask.schema.json"
WIDTH = 100  # characters of a line of --help
# Flags that set a key in another way than cli/settings.py lists in KEYS.
OTHER_FLAGS = {
    "data": "data.path",
    "denoiser": "denoiser.model",
    "adapter": "denoiser.adapter",
    "revision": "target.revision",  # or of the denoiser
    "judge": "metric.judge.model",
    "task": "task.name",
    "task_arg": "task.args",
    "role": "task.roles",
    "files": "refine.traces",
    "redact": "refine.redact",
    "prompt_from": "prompt_from",
    "run_dir": "run_dir",
    "seed": "seed",
    "max_drop": "search.max_drop",
    "objective": "objectives.name",
}
# Fields whose name says nearly all, and which have no comment in the code.
FIELDS = {
    "attributions": "conversations that the edit rests on",
    "baseline": "the seed prompt",
    "best": "the best prompt",
    "changes": "(before, after) of each edit",
    "counts": "how many conversations were read and what for",
    "conversations": "how many conversations were read and what for",
    "edits": "accepted edits, in order",
    "fold_gains": "gain on each group of held-out conversations, nats",
    "high": "upper end of the interval",
    "id": "id of the prompt: a hash of its text",
    "guards": "guard sets: rows on which no loss above a margin is accepted",
    "input_tokens": "tokens that were read",
    "iteration": "number of the iteration, from 1",
    "iterations": "iterations that were played",
    "logp": "mean log-probability of the written tokens, nats",
    "masker": "masker that chose where to edit",
    "method": "how the interval was computed",
    "name": "its name",
    "output_tokens": "tokens that were written",
    "parent": "id of the prompt that was edited",
    "prompt": "text of the prompt",
    "query": "message of the user",
    "reason": "why, in one sentence",
    "records": "records in the files",
    "redacted": "whether secrets and personal details were replaced",
    "refinement": "what only `refine` has; missing where the run had rows",
    "refused": "candidates that the guard refused",
    "round": "number of the round, from 0",
    "rows": "each row: id, score (null: the call failed), and the score that ranks candidates",
    "run_dir": "the run directory",
    "spend": "what the run cost",
    "stopped": "why the search ended",
    "tokens": "tokens of the prompt, as the denoiser counts",
    "usd": "US dollars",
    "verdict": "what the sealed test says",
    "warnings": "sentences for the user",
    "Started.prompt": "text of the prompt, with its `[[keep]]` marks",
    "Refused.prompt": "text of the prompt, with its `[[keep]]` marks",
    "Tested.baseline": "each row under the seed prompt: id, score, ranking score",
    "Tested.best": "the same under the best prompt",
    "Tested.objectives": "name, rows under the seed prompt, rows under the best one; values for scores",
    "Tested.guards": "name, rows under the seed prompt, rows under the best one",
    "ObjectiveResult.test": "null: exact, or no row has a value",
    "GuardResult.test": "both prompts on its sealed rows",
    "GuardResult.status": "`held`: a loss above margin and tolerance is excluded; `lost`: one above the "
    "margin is shown",
}


def main() -> None:
    for path, text in made_files():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


def made_files() -> Iterator[tuple[Path, str]]:
    """Each file with the content that it should have."""
    for page, name, make in (
        ("command-line.md", "commands", command_line),
        ("configuration.md", "keys", configuration),
        ("events.md", "events", events_and_result),
    ):
        path = REFERENCE / page
        head, begin, rest = path.read_text("utf-8").partition(f"<!-- {name}:begin -->")
        _, end, tail = rest.partition(f"<!-- {name}:end -->")
        assert begin and end, f"{path} has no part {name}"
        yield path, f"{head}{begin}\n{make()}\n{end}{tail}"
    yield SCHEMA, json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


# --- the command line


def command_line() -> str:
    """Every command with its --help, and which flag is which key."""
    parts = []
    for words in ((), *command_names(remask)):
        parts.append(f"## {' '.join(('remask', *words))}\n\n```text\n{help_text(words)}```")
    rows = [[f"`{flag}`", f"`{key}`"] for flag, key in sorted(flags().items())]
    parts.append("## Flags and keys\n\nA flag wins over the same key in `remask.toml`.")
    parts.append(table(("Flag", "Key"), rows))
    return "\n\n".join(parts)


def command_names(group: click.Group) -> Iterator[tuple[str, ...]]:
    """The words of every command, those of groups included."""
    context = click.Context(group)
    for name in group.list_commands(context):
        yield (name,)
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from ((name, *words) for words in command_names(command))


def help_text(words: Iterable[str]) -> str:
    shown = CliRunner().invoke(remask, [*words, "--help"], prog_name="remask", terminal_width=WIDTH)
    assert shown.exit_code == 0, shown.output
    return shown.stdout


@cache
def flags() -> Mapping[str, str]:
    """The key of remask.toml that each flag sets."""
    keys = {name: ".".join(key) for name, key in settings.KEYS.items()} | OTHER_FLAGS
    found = {}
    for words in command_names(remask):
        command = find_command(words)
        for option in command.params:
            if isinstance(option, click.Option) and option.name in keys:
                found[option.opts[0]] = keys[option.name]
    assert set(found.values()) == set(keys.values()), "a flag in settings.py is of no command"
    return found


def find_command(words: Iterable[str]) -> click.Command:
    command: click.Command = remask
    for word in words:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), word)
        assert found is not None, word
        command = found
    return command


# --- remask.toml


def configuration() -> str:
    """Every key of remask.toml."""
    top = schema()
    kept = ("refine", "objectives", "watch")
    keys = {k: v for k, v in top["properties"].items() if "$ref" not in v and k not in kept}
    parts = [f"## Top level\n\n{key_table(keys, top, '')}"]
    for name, field in Config.model_fields.items():
        section = section_of(field.annotation)
        if section is not None:
            parts += section_parts(name, section, top)
    return "\n\n".join(parts)


def section_parts(name: str, section: type[BaseModel], top: dict[str, Any]) -> Iterator[str]:
    """A section, and those that lie in it."""
    found = top["$defs"][section.__name__]
    heading = f"[[{name}]]" if name == "objectives" else f"[{name}]"
    yield f"## {heading}\n\n{with_links(found['description'])}"
    own = {k: v for k, v in found["properties"].items() if section_of_key(section, k) is None}
    yield key_table(own, found, f"{name}.")
    for key in section.model_fields:
        inner = section_of_key(section, key)
        if inner is None:
            continue
        place = f"{name}.{key}.NAME" if key == "roles" else f"{name}.{key}"
        yield f"### [{place}]\n\n{found['properties'][key]['description']}"
        if inner not in (TargetConfig, MetricConfig):  # their keys stand elsewhere on the page
            below = top["$defs"][inner.__name__]
            yield key_table(below["properties"], below, f"{place}.")


def section_of_key(section: type[BaseModel], key: str) -> type[BaseModel] | None:
    return section_of(section.model_fields[key].annotation)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section in an annotation such as `RefineConfig | None`, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(section_of, get_args(annotation))), None)


def key_table(keys: Mapping[str, Any], section: Mapping[str, Any], prefix: str) -> str:
    places = {key: flag for flag, key in sorted(flags().items(), reverse=True)}
    rows = []
    for key, value in keys.items():
        meaning = with_links(value["description"])
        if f"{prefix}{key}" in places:
            meaning += f" Flag: `{places[prefix + key]}`."
        needed = key in section.get("required", ())
        rows.append([f"`{key}`", kind_of(value), default_of(value, needed), meaning])
    return table(("Key", "Type", "Default", "Meaning"), rows)


def with_links(text: str) -> str:
    """Names of other pages as links."""
    return re.sub(r"docs/(\S+/)(\S+)\.md", r"[\2](../\1\2.md)", text)


def default_of(value: Mapping[str, Any], needed: bool) -> str:
    if needed:
        return "required"
    if "default" not in value:
        return ""
    default = value["default"]
    return default if default == "none" else f"`{json.dumps(default, ensure_ascii=False)}`"


def kind_of(value: Mapping[str, Any]) -> str:
    """The type of a key in words, with its limits."""
    if "anyOf" in value:
        return " or ".join(kind_of(one) for one in value["anyOf"])
    if "enum" in value:
        return "one of " + ", ".join(f"`{json.dumps(one)}`" for one in value["enum"])
    if value.get("const") == "none":
        return "none"
    kind = value.get("type")
    if kind == "array":
        items = value.get("items") or {}
        if not items:
            return f"list of {value['minItems']} numbers"
        return f"list of {kind_of(items).removeprefix('one of ')}"
    names = {
        "string": "text", "integer": "whole number", "number": "number", "boolean": "true or false",
        "object": "table",
    }  # fmt: skip
    return names[str(kind)] + limits(value)


def limits(value: Mapping[str, Any]) -> str:
    low, high = value.get("minimum"), value.get("maximum")
    if "exclusiveMinimum" in value:
        above = f" above {value['exclusiveMinimum']:g}"
        return above if high is None else f"{above}, {high:g} at most"
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    return "" if low is None else f", {low:g} or more"


@cache
def schema() -> dict[str, Any]:
    """The JSON schema of remask.toml: that of Config, with the keys that only the file has."""
    found = Config.model_json_schema()
    for cls in all_sections(Config):
        place = found if cls is Config else found["$defs"][cls.__name__]
        place.pop("title", None)
        place["description"] = one_paragraph(place["description"])
        texts = attribute_docs(cls)
        for key, value in place["properties"].items():
            value.pop("title", None)
            if key in texts:
                value["description"] = texts[key]
            name_none(value)
            if section_of_key(cls, key) is not None:
                value.pop("default", None)
    allow_text(found["$defs"]["TaskConfig"]["properties"]["roles"], "additionalProperties")
    for section in ("RefineConfig", "WatchConfig"):
        allow_text(found["$defs"][section]["properties"], "traces")
    allow_text(found["properties"]["components"], "additionalProperties")
    allow_text(found["$defs"]["ObjectiveConfig"]["properties"], "metric")
    own = {key: {"type": "string", "description": text} for key, text in FILE_KEYS.items()}
    own["prompt_from"]["enum"] = list(PROMPT_PLACES)
    found["properties"] = own | {k: v for k, v in found["properties"].items() if k not in own}
    del found["required"]  # a prompt may be named on the command line
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "remask.toml"} | found


def name_none(value: dict[str, Any]) -> None:
    """TOML has no null; in remask.toml the word "none" stands for it."""
    for kind in value.get("anyOf", ()):
        if kind == {"type": "null"}:
            del kind["type"]
            kind["const"] = "none"
    if value.get("default", "") is None:
        value["default"] = "none"


def allow_text(place: dict[str, Any], key: str) -> None:
    """A text also stands for the value at `key`, as config.py reads it."""
    value = place[key]
    about = {"description": value.pop("description")} if "description" in value else {}
    place[key] = {"anyOf": [value, {"type": "string"}]} | about


def all_sections(section: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield section
    for key in section.model_fields:
        inner = section_of_key(section, key)
        if inner is not None:
            yield from all_sections(inner)


def attribute_docs(cls: type) -> dict[str, str]:
    """The text below each attribute of a class and of those that it extends."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base.__module__ != Config.__module__:
            continue
        body = class_body(base)
        for field, text in pairwise(body):
            if isinstance(field, ast.AnnAssign) and is_text(text):
                found[ast.unparse(field.target)] = one_paragraph(ast.literal_eval(text.value))
    return found


# --- events and result.json


def events_and_result() -> str:
    """What happens in a run, and what result.json holds."""
    kinds = (*events.KINDS.values(), events.GuardSet, events.ConversationCounts)
    results = (
        *(result.Result, result.PromptScore, Comparison, ObjectiveResult, GuardResult),
        *(result.AcceptedEdit, Spend),
        *(result.Refinement, result.RefinedEdit, result.Evidence, result.Refusal),
    )
    return "\n\n".join(["## Events", *map(class_part, kinds), "## result.json", *map(class_part, results)])


def class_part(cls: type) -> str:
    assert is_dataclass(cls)
    hints, comments = get_type_hints(cls), field_comments(cls)
    rows = [[f"`{f.name}`", json_kind(hints[f.name]), comments[f.name]] for f in fields(cls)]
    about = one_paragraph(inspect.getdoc(cls) or "")
    return f"### {cls.__name__}\n\n{about}\n\n{table(('Field', 'Type', 'Meaning'), rows)}"


def field_comments(cls: type) -> dict[str, str]:
    """The comment behind each field of a dataclass."""
    source = inspect.getsource(cls)
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    for node in class_body(cls):
        if isinstance(node, ast.AnnAssign):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            said = " ".join(comments[line] for line in lines if line in comments)
            name = ast.unparse(node.target)
            found[name] = said or FIELDS.get(f"{cls.__name__}.{name}") or FIELDS[name]
    return found


def json_kind(hint: Any) -> str:
    """An annotation as the kind of JSON value that it becomes."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(f"`{json.dumps(one)}`" for one in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(json_kind(one) for one in inner)
    if origin is tuple:
        if inner[-1] is Ellipsis:
            return f"list of {json_kind(inner[0])}"
        return f"[{', '.join(map(json_kind, inner))}]"
    if is_dataclass(hint):
        assert isinstance(hint, type)
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    if origin is not None:
        return "object"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return "null" if hint is type(None) else names[hint]


# --- shared


def class_body(cls: type) -> list[ast.stmt]:
    tree = ast.parse(inspect.getsource(cls))
    assert isinstance(tree.body[0], ast.ClassDef)
    return tree.body[0].body


def is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def one_paragraph(text: str) -> str:
    return " ".join(text.split())


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = list(head)
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(escaped(cell) for cell in line) + " |" for line in lines)


def escaped(cell: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", cell)


if __name__ == "__main__":
    main()
