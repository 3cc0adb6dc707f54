"""Find the texts of tool lists, message lists, DSPy programs and promptfoo configurations.

Tools have the form of OpenAI's chat completions (`{"type": "function", "function": {…}}`), of its
Responses API and its former `functions` (`name`, `description` and `parameters` on top), of Anthropic
(`input_schema`) or of the Model Context Protocol (`{"tools": [{…, "inputSchema"}]}`, also as `result`).
Only descriptions are texts to edit; names, types and schemas are read and never changed.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from remask.data.json_nodes import Keys, UnreadableValue, format_pointer

TextPlaces = dict[str, tuple[str | int, ...]]  # name of a text -> where it is
SCHEMAS = ("parameters", "input_schema", "inputSchema")
_OWN_TYPES = (None, "function", "custom")  # of tools that a user defines; others are of the provider
_MAX_KEYS = 60  # of a path; in YAML, a schema can hold itself
# How promptfoo names a file of prompts, beside file://.
_PROMPT_FILE = re.compile(
    r"(?:file://|exec:).*|\S+\.(?:txt|md|j2|json|jsonl|ya?ml|csv|py|[cm]?[jt]s)(?::\w+)?"
)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool in any of the forms."""

    name: str
    keys: tuple[str | int, ...]  # of the object with the description
    value: Mapping[str, Any]  # that object
    schema: str  # key of the schema in it; "": it has none

    @property
    def parameters(self) -> TextPlaces:
        """Where the descriptions of its parameters are; of those inside of objects as OUTER/INNER."""
        found: TextPlaces = {}
        if self.schema:
            _add_descriptions(self.value[self.schema], (*self.keys, self.schema), "", found)
        return found


def list_tools(value: Any) -> list[Tool]:
    """Return the tools of a list, or of an object with a list `tools` (formerly `functions`).

    Tools that a provider defines, such as a web search, are left out. Raises UnreadableValue for
    other values, for a schema that is no object, and for two tools of one name.
    """
    items, start = _find_list(value)
    if not isinstance(items, list):
        raise UnreadableValue("is no list of tools; name the list, as FILE#/tools")
    tools: dict[str, Tool] = {}
    for number, item in enumerate(items):
        tool = _read_tool(item, (*start, number))
        if tool is None:
            continue
        if tool.name in tools:
            first = format_pointer(tools[tool.name].keys)
            raise UnreadableValue(f"two tools have the name {tool.name!r}; the other is {first}", tool.keys)
        tools[tool.name] = tool
    return list(tools.values())


def _find_list(value: Any) -> tuple[Any, tuple[str | int, ...]]:
    """Return the list of tools in a value, and its keys: also in a response of MCP to tools/list."""
    start: tuple[str | int, ...] = ()
    if isinstance(value, dict) and isinstance(value.get("result"), dict):
        value, start = value["result"], ("result",)
    for key in ("tools", "functions"):
        if isinstance(value, dict) and isinstance(value.get(key), list):
            return value[key], (*start, key)
    return value, start


def _read_tool(item: Any, keys: Keys) -> Tool | None:
    """Return a tool; None if its provider defines it."""
    keys = tuple(keys)
    if isinstance(item, dict) and isinstance(item.get("function"), dict):
        item, keys = item["function"], (*keys, "function")
    elif isinstance(item, dict) and item.get("type") not in _OWN_TYPES:
        return None
    name = item.get("name") if isinstance(item, dict) else None
    if not isinstance(name, str) or not name:
        raise UnreadableValue(f"the tool {format_pointer(keys)} has no name; give it one", keys)
    schema = next((key for key in SCHEMAS if key in item), "")
    if schema and not isinstance(item[schema], dict):
        kind = "a text" if isinstance(item[schema], str) else f"{item[schema]!r:.40}"
        raise UnreadableValue(f"the schema {schema} of the tool {name!r} is {kind}; write an object", keys)
    return Tool(name, keys, item, schema)


def _add_descriptions(schema: Any, keys: tuple[str | int, ...], path: str, found: TextPlaces) -> None:
    """Add the descriptions of the properties of a schema, of its lists and of the objects in it."""
    if not isinstance(schema, dict) or len(keys) > _MAX_KEYS:
        return
    if isinstance(schema.get("items"), dict):
        _add_descriptions(schema["items"], (*keys, "items"), path, found)
    properties = schema.get("properties")
    for name, inner in properties.items() if isinstance(properties, dict) else ():
        if not isinstance(inner, dict):
            continue
        inner_keys, inner_path = (*keys, "properties", name), f"{path}{name}"
        if isinstance(inner.get("description"), str):
            found[inner_path] = (*inner_keys, "description")
        _add_descriptions(inner, inner_keys, f"{inner_path}/", found)


def find_tool_texts(value: Any) -> TextPlaces:
    """Return where the descriptions of tools are, by the names of the tools.

    Raises UnreadableValue as `list_tools` does, and for a tool without a description.
    """
    found: TextPlaces = {}
    for tool in list_tools(value):
        if not isinstance(tool.value.get("description"), str):
            raise UnreadableValue(f'the tool {tool.name!r} has no text "description"; add one', tool.keys)
        found[tool.name] = (*tool.keys, "description")
    return found


def find_parameter_texts(value: Any) -> TextPlaces:
    """Return where the descriptions of parameters are, by TOOL/PARAMETER.

    Raises UnreadableValue as `list_tools` does, and where no parameter has a description.
    """
    found = {f"{t.name}/{name}": keys for t in list_tools(value) for name, keys in t.parameters.items()}
    if not found:
        raise UnreadableValue('has no parameter with a text "description"; add one, or leave this name out')
    return found


def convert_tools(value: Any) -> list[dict[str, Any]]:
    """Return tools of any form in the form of OpenAI's chat completions. Raises as `list_tools`."""
    found = []
    for tool in list_tools(value):
        kept = {key: tool.value[key] for key in ("name", "description", "strict") if key in tool.value}
        schema = {"parameters": tool.value[tool.schema]} if tool.schema else {}
        found.append({"type": "function", "function": kept | schema})
    return found


# --- whole files


def find_texts(value: Any) -> TextPlaces:
    """Return where the texts of a file of a known shape are, by their names.

    A tool has its name, a message its role (`user/2` for the second of that role, `user/2/0` for a
    part of it), a predictor of DSPy its name (`self` where the program is one predictor), and a prompt
    of promptfoo its label or position.
    Raises UnreadableValue for other shapes.
    """
    fitting = [find for fits, find in _SHAPES if fits(value)]
    if len(fitting) > 1:
        raise UnreadableValue("holds messages and tools; name one list, as FILE#/messages or FILE#/tools")
    if not fitting:
        raise UnreadableValue(
            "is no list of tools or messages, no DSPy program and no promptfoo configuration; name each "
            "text, as FILE#/key"
        )
    found = fitting[0](value)
    if not found:
        raise UnreadableValue("holds no text to edit; name a text, as FILE#/key")
    return found


def _are_tools(value: Any) -> bool:
    items, _ = _find_list(value)
    return isinstance(items, list) and any(
        isinstance(item, dict) and "role" not in item and ("name" in item or "function" in item)
        for item in items
    )


def _are_messages(value: Any) -> bool:
    items = value.get("messages") if isinstance(value, dict) else value
    return isinstance(items, list) and any(isinstance(item, dict) and "role" in item for item in items)


def _find_message_texts(value: Any) -> TextPlaces:
    """Find the contents of messages and their text parts, but for empty ones.

    The only message of a user is `user`, the template of that of each row, where it is the last one.
    """
    start: tuple[str | int, ...] = ("messages",) if isinstance(value, dict) else ()
    messages = [m if isinstance(m, dict) else {} for m in (value["messages"] if start else value)]
    roles = [str(message.get("role", "")) for message in messages]
    found: TextPlaces = {}
    for number, (role, message) in enumerate(zip(roles, messages, strict=True)):
        content = message.get("content")
        numbered = roles.count(role) > 1 or (role == "user" and number < len(roles) - 1)
        name = f"{role}/{roles[: number + 1].count(role)}" if numbered else role
        if isinstance(content, str) and content:
            found[name] = (*start, number, "content")
        for part, inner in enumerate(content if isinstance(content, list) else ()):
            if isinstance(inner, dict) and isinstance(inner.get("text"), str) and inner["text"]:
                found[f"{name}/{part}"] = (*start, number, "content", part, "text")
    return found


def find_instructions(value: Any) -> TextPlaces:
    """Return where the instructions of a saved DSPy program are, by its predictors.

    A program maps each predictor to its state; a saved `Predict` is only its own state, named self.
    """
    if _has_instructions(value):
        return {"self": ("signature", "instructions")}
    states = value.items() if isinstance(value, dict) else ()
    return {name: (name, "signature", "instructions") for name, state in states if _has_instructions(state)}


def _has_instructions(state: Any) -> bool:
    signature = state.get("signature") if isinstance(state, dict) else None
    return isinstance(signature, dict) and isinstance(signature.get("instructions"), str)


def _is_promptfoo(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("prompts"), str | list)


def _find_promptfoo_texts(value: Any) -> TextPlaces:
    prompts = value["prompts"]
    found: TextPlaces = {}
    for number, prompt in enumerate(prompts) if isinstance(prompts, list) else [(None, prompts)]:
        keys: tuple[str | int, ...] = ("prompts",) if number is None else ("prompts", number)
        name = "0" if number is None else str(number)
        if isinstance(prompt, dict):
            key = "raw" if "raw" in prompt else "id"
            keys, name, prompt = (*keys, key), str(prompt.get("label") or name), prompt.get(key)
        if not isinstance(prompt, str):
            raise UnreadableValue(
                f"{format_pointer(keys)} is no text; name each prompt, as FILE#/prompts/0", keys
            )
        if _PROMPT_FILE.fullmatch(prompt):
            raise UnreadableValue(f"{format_pointer(keys)} is the file {prompt}; name that file itself", keys)
        if name in found:
            raise UnreadableValue(f"two prompts have the label {name!r}; give each its own", keys)
        found[name] = keys
    return found


_SHAPES: tuple[tuple[Callable[[Any], bool], Callable[[Any], TextPlaces]], ...] = (
    (_are_tools, find_tool_texts),
    (_are_messages, _find_message_texts),
    (lambda value: bool(find_instructions(value)), find_instructions),
    (_is_promptfoo, _find_promptfoo_texts),
)
