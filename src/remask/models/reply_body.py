"""Read the answer in the body of a completion: its text without thoughts, its tokens, its end.

The body is read from the raw JSON, because the SDK builds its objects without validating them.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from remask.errors import TargetBusy, TargetError
from remask.ports import Reply
from remask.sanitize import format_call, remove_thoughts

RETRY_STATUSES = frozenset({408, 409, 429})  # and every 5xx
_MAX_TOKENS = 1 << 40  # of one answer; a larger number is none
_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "reasoning_details", "thinking")  # beside the text
_CUT = ("length", "max_tokens", "MAX_TOKENS")  # reasons of an end, at a limit of tokens
_TEXT_TYPES = ("text", "output_text")  # of the parts of a text


def read_reply(
    body: bytes,
    shape: str,
    field: Sequence[str],
    max_tokens: int | None,
    host: str,
    clean: Callable[[str], str],
) -> Reply:
    """Read the answer in the body of a 200. Raises TargetBusy or TargetError without one.

    shape: name of a reply in errors. field: path of the text in a choice. clean: makes a message of
    the server safe to show.
    """
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):  # truncated, HTML, not UTF-8, or nested too deeply
        text = clean(body.decode("utf-8", "replace"))[:60]
        raise TargetError(f"{host} sent no JSON but {text!r}; check base_url") from None
    if isinstance(payload, dict) and payload.get("error"):  # some routers do this with a 200
        raise _make_body_error(payload["error"], host, clean)
    problem = _find_shape_problem(payload, shape, field)
    if problem:
        raise TargetError(f"{host} sent a reply that {problem}")
    choice = payload["choices"][0]
    text, thought = _read_text(choice, field)
    calls = _list_calls(_get_nested(choice, field[:-1]).get("tool_calls"))
    text = "\n".join(part for part in (text, *calls) if part) if calls else text
    usage = payload.get("usage")
    tokens = _read_count(usage, "prompt_tokens"), _read_count(usage, "completion_tokens")
    return make_reply(text, thought, choice.get("finish_reason"), tokens, max_tokens, host)


def make_reply(
    text: str, thought: bool, finish: object, tokens: tuple[int, int], max_tokens: int | None, host: str
) -> Reply:
    """Make the reply of an answer. Raises TargetError where its end says that it is none.

    thought: whether there were thoughts beside the text. finish: the reason of its end. tokens: read
    and written.
    """
    limit = f"max_tokens = {max_tokens}" if max_tokens else "its own limit of tokens"
    if not text.strip() and finish in _CUT:
        raise TargetError(
            f"{host} sent no text: the answer was cut off at {limit}; thoughts use tokens too, so raise it"
        )
    if not text.strip() and thought:
        raise TargetError(f"{host} sent thoughts but no answer, under {limit}; raise max_tokens")
    if finish == "content_filter":
        kind = "only a part of an answer" if text.strip() else "no text"
        raise TargetError(f"{host} sent {kind}, finish_reason is 'content_filter'")
    return Reply(text, input_tokens=tokens[0], output_tokens=tokens[1], cut=finish in _CUT)


def _list_calls(calls: object) -> list[str]:
    """Return calls of tools as text, such as `find(name="Ann")`; arguments that are no JSON as they are."""
    found = []
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            continue
        given = function.get("arguments") or "{}"
        try:
            arguments = json.loads(given) if isinstance(given, str) else given
        except (ValueError, RecursionError):
            arguments = None
        known = isinstance(arguments, dict)
        found.append(format_call(function["name"], arguments) if known else f"{function['name']}({given})")
    return found


def _read_text(choice: dict[str, Any], field: Sequence[str]) -> tuple[str, bool]:
    """Return the text of the answer without thoughts, and whether there were thoughts."""
    holder, content = _get_nested(choice, field[:-1]), _get_nested(choice, field)
    if isinstance(content, list):
        texts = [part["text"] for part in content if _is_text(part)]
        thought = len(texts) < len(content)
        content = "".join(texts)
    else:
        content, thought = content or "", False
    answer = remove_thoughts(content)
    return answer, thought or answer != content or any(holder.get(name) for name in _THOUGHT_FIELDS)


def _is_text(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") in _TEXT_TYPES and isinstance(part.get("text"), str)


def _make_body_error(error: object, host: str, clean: Callable[[str], str]) -> TargetError:
    code = error.get("code") if isinstance(error, dict) else None
    reason = error.get("message") if isinstance(error, dict) else error
    message = clean(f"{host} sent an error instead of an answer ({reason})")
    if isinstance(code, int) and (code in RETRY_STATUSES or code >= 500):
        return TargetBusy(message)
    return TargetError(message)


def _find_shape_problem(payload: object, shape: str, field: Sequence[str]) -> str:
    """Return why `payload` is not a completion with its text at `field`; "" if it is one."""
    if not isinstance(payload, dict) or not isinstance(payload.get("choices"), list):
        return f"is not a {shape} (it has no list 'choices')"
    if not payload["choices"]:
        return "has no choices"
    choice = payload["choices"][0]
    if not isinstance(_get_nested(choice, field[:-1]), dict):
        return f"has a choice without a {field[0]}"
    content = _get_nested(choice, field)
    thought = any(_get_nested(choice, field[:-1]).get(name) for name in _THOUGHT_FIELDS)
    called = bool(_list_calls(_get_nested(choice, field[:-1]).get("tool_calls")))
    if content is None and not thought and not called and choice.get("finish_reason") not in _CUT:
        return f"has no {field[-1]} (finish_reason is {choice.get('finish_reason')!r})"
    if isinstance(content, list) and not all(isinstance(part, dict) for part in content):
        return f"has {field[-1]} of type list that holds no parts"
    if not isinstance(content, str | list | None):
        return f"has {field[-1]} of type {type(content).__name__} instead of text"
    return ""


def _get_nested(value: Any, field: Sequence[str]) -> Any:
    """Return the value in nested objects under these names, or None if there is none."""
    for name in field:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _read_count(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and 0 <= value < _MAX_TOKENS else 0
