"""Any callable of the user as a target: `messages -> str`.

It distinguishes an outage, in which some rows fail, from a bug, in which all rows fail in the same
way. Such a callable usually wraps a paid API, so its calls count as billed.
"""

import functools
import hashlib
import inspect
import threading
from collections.abc import Awaitable, Callable, Sequence

from remask.errors import ConfigError, TargetRefused
from remask.models.event_loop import wait_for_result
from remask.models.thread_map import map_in_order
from remask.ports import Reply, TargetModel
from remask.types import Chat

Function = Callable[[list[dict[str, str]]], str | Awaitable[str]]

_BUG_TYPES = (TypeError, NameError, AttributeError)  # raised by mistakes in the user's code


class FunctionTarget(TargetModel):
    """Asks `fn([{"role": …, "content": …}, …])` for the text of the answer. `fn` may be async.

    `identity` contains `name` (by default the module and name of the function) and a hash of its
    source, so an edited function does not get cached answers of the old one. Objects that the
    function closes over, is bound to or calls are not hashed; use another `name` if they change.
    """

    billed = True
    max_attempts = 1  # remask cannot count attempts inside the function

    def __init__(self, fn: Function, name: str | None = None, concurrency: int = 1) -> None:
        """Raises ConfigError for a bad argument."""
        if not callable(fn):
            raise ConfigError(f"the target must be a function of a list of messages, not {type(fn).__name__}")
        if concurrency < 1:
            raise ConfigError(f"concurrency is {concurrency}; give 1 or more")
        self.identity = f"function:{name or _make_address(fn)}:{_hash_source(fn)}"
        self._fn = fn
        self._label = name or _make_address(fn)
        self._concurrency = concurrency

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        """Answer each chat, in order.

        If the function raises an exception, only that row fails. Raises TargetRefused if the
        function does. Raises ConfigError if the function does not return a str, or if all rows
        raise the same TypeError, NameError or AttributeError, which is a bug and not an outage.
        """
        results = map_in_order(self._call, chats, self._concurrency)
        bugs = {(type(result), str(result)): result for result in results if isinstance(result, _BUG_TYPES)}
        if len(bugs) == 1 and all(isinstance(result, _BUG_TYPES) for result in results):
            bug = next(iter(bugs.values()))
            raise ConfigError(
                f"the target function {self._label} raised {_describe_error(bug)} for all "
                f"{len(results)} calls; fix the function"
            ) from bug
        return [
            result if isinstance(result, Reply) else Reply("", error=_describe_error(result))
            for result in results
        ]

    def _call(self, chat: Chat, stop: threading.Event) -> Reply | Exception:
        messages = [{"role": message.role, "content": message.content} for message in chat]
        try:
            text = wait_for_result(self._fn(messages))
        except TargetRefused:
            raise
        except Exception as error:  # the user's code may raise anything; only this row fails
            return error
        if not isinstance(text, str):
            raise ConfigError(
                f"the target function {self._label} returned {type(text).__name__}; return the answer as str"
            )
        return Reply(text)


def _describe_error(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _find_definition(fn: Function) -> object:
    """Find the object with name and source: the function, or the class of a callable object."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn if inspect.isroutine(fn) else type(fn)


def _make_address(fn: Function) -> str:
    definition = _find_definition(fn)
    return f"{getattr(definition, '__module__', '?')}.{getattr(definition, '__qualname__', '?')}"


def _hash_source(fn: Function) -> str:
    """Return a hash of twelve digits of the source; "nosource" if Python does not have it."""
    try:
        source = inspect.getsource(_find_definition(fn))  # type: ignore[arg-type]
    except (OSError, TypeError):  # a builtin, or code typed at a prompt
        return "nosource"
    return hashlib.blake2b(source.encode(), digest_size=6).hexdigest()
