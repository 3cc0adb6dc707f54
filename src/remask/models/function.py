"""Any callable of the user as a target: `messages -> str`.

Knows the callable, and tells an outage (one row fails) from a bug (every row fails in the same
way). Knows nothing of models. Such a callable usually wraps a paid API, so its calls count as
billed.
"""

import functools
import hashlib
import inspect
import threading
from collections.abc import Awaitable, Callable, Sequence

from remask.errors import ConfigError, TargetRefused
from remask.models.event_loop import result_of
from remask.models.thread_map import ordered_map
from remask.ports import Reply, TargetModel
from remask.types import Chat

Function = Callable[[list[dict[str, str]]], str | Awaitable[str]]

_BUGS = (TypeError, NameError, AttributeError)  # what a slip in the user's code raises


class FunctionTarget(TargetModel):
    """Asks `fn([{"role": …, "content": …}, …])` for the text of the answer. `fn` may be async.

    `identity` holds `name` (default: where the function is defined) and a hash of its source, so
    that an edited function does not meet the cached answers of the old one. What the function
    closes over, is bound to or calls is not hashed: give another `name` when that changes.
    """

    billed = True
    max_attempts = 1  # attempts inside the function are its own business: remask cannot see them

    def __init__(self, fn: Function, name: str | None = None, concurrency: int = 1) -> None:
        if not callable(fn):
            raise ConfigError(
                f"the target must be a function of a list of messages, not {type(fn).__name__}"
            )
        if concurrency < 1:
            raise ConfigError(f"concurrency is {concurrency}; give 1 or more")
        self.identity = f"function:{name or _address(fn)}:{_source_hash(fn)}"
        self._fn = fn
        self._label = name or _address(fn)
        self._concurrency = concurrency

    def respond(self, chats: Sequence[Chat], repeat: int = 0) -> list[Reply]:
        """Answer each chat, in order.

        An exception of the function fails that row alone. Raises TargetRefused where the function
        does, and ConfigError when the function returns no str, or when all rows of the chunk raise
        the same TypeError, NameError or AttributeError: that is a bug, not an outage.
        """
        results = ordered_map(self._call, chats, self._concurrency)
        bugs = {
            (type(result), str(result)): result for result in results if isinstance(result, _BUGS)
        }
        if len(bugs) == 1 and all(isinstance(result, _BUGS) for result in results):
            bug = next(iter(bugs.values()))
            raise ConfigError(
                f"the target function {self._label} raised {_sentence(bug)} for all "
                f"{len(results)} calls; mend the function"
            ) from bug
        return [
            result if isinstance(result, Reply) else Reply("", error=_sentence(result))
            for result in results
        ]

    def _call(self, chat: Chat, stop: threading.Event) -> Reply | Exception:
        messages = [{"role": message.role, "content": message.content} for message in chat]
        try:
            text = result_of(self._fn(messages))
        except TargetRefused:
            raise
        except Exception as error:  # foreign code: whatever it raises is this row's failure
            return error
        if not isinstance(text, str):
            raise ConfigError(
                f"the target function {self._label} returned {type(text).__name__}; "
                "return the answer as str"
            )
        return Reply(text)


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _definition(fn: Function) -> object:
    """What carries name and source: the function itself, or the class of a callable object."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn if inspect.isroutine(fn) else type(fn)


def _address(fn: Function) -> str:
    definition = _definition(fn)
    return f"{getattr(definition, '__module__', '?')}.{getattr(definition, '__qualname__', '?')}"


def _source_hash(fn: Function) -> str:
    """Twelve digits that change with the source; "nosource" where Python does not have it."""
    try:
        source = inspect.getsource(_definition(fn))  # type: ignore[arg-type]
    except (OSError, TypeError):  # a builtin, or code typed at a prompt
        return "nosource"
    return hashlib.blake2b(source.encode(), digest_size=6).hexdigest()
