"""Chats of a prompt of several components: what of them is a turn, and what describes a tool."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from remask.types import TOOL, Chat


def split_components(chat: Chat) -> tuple[Chat, dict[str, str]]:
    """Return the turns of a chat, and its descriptions of tools by component.

    Blank turns are left out. Where a component is named user, it is the last turn, and the message
    of the row is not sent beside it. A chat without components is returned as it is.
    """
    if not any(message.name for message in chat):
        return chat, {}
    turns = [m for m in chat if m.role != "component" and m.name != "user" and m.content.strip()]
    if last := [m for m in chat if m.name == "user"]:
        turns = [*(m for m in turns if m.name), *last]
    described = {m.name: m.content for m in chat if m.role == "component"}
    return tuple(replace(m, name="") for m in turns), described


def describe_tools(tools: Sequence[Any], described: Mapping[str, str]) -> list[Any]:
    """Return tools in the form of OpenAI with other descriptions.

    described: by component, "tool:NAME" for the tool and "tool:NAME/PARAMETER" for a parameter.
    """
    found = copy.deepcopy(list(tools)) if described else list(tools)
    for component, text in described.items():
        name, _, parameter = component.removeprefix(TOOL).partition("/")
        for tool in found:
            function = tool.get("function", tool)
            if function.get("name") != name:
                continue
            schema = _find_parameter(function.get("parameters"), parameter) if parameter else function
            if schema is not None:
                schema["description"] = text
    return found


def _find_parameter(schema: Any, path: str) -> dict[str, Any] | None:
    """Return the schema of a parameter; "OUTER/INNER" is one of an object, also of one in a list."""
    for key in path.split("/"):
        while isinstance(schema, dict) and "properties" not in schema and "items" in schema:
            schema = schema["items"]
        schema = (schema.get("properties") or {}).get(key) if isinstance(schema, dict) else None
    return schema if isinstance(schema, dict) else None


def find_unknown_tools(tools: Sequence[Any], components: Sequence[str]) -> list[str]:
    """Return the components that describe a tool, or a parameter, which `tools` do not have."""
    functions = {one.get("name"): one for tool in tools for one in [tool.get("function", tool)]}
    unknown = []
    for component in components:
        name, _, parameter = component.removeprefix(TOOL).partition("/")
        schema = functions.get(name, {}).get("parameters")
        known = name in functions and (not parameter or _find_parameter(schema, parameter) is not None)
        if component.startswith(TOOL) and not known:
            unknown.append(component)
    return unknown
