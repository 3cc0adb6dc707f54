"""Any callable of the user as a target: `messages -> str`, or `(components, input) -> str`.

It distinguishes an outage, in which some rows fail, from a bug, in which all rows fail in the same
way. Such a callable usually wraps a paid API, so its calls count as billed.
"""

import asyncio
import functools
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from remask.errors import ConfigError, TargetError, TargetRefused
from remask.files import read_file
from remask.models.event_loop import LOOP, get_own_loop, is_async, wait_for_result
from remask.models.requests import run_calls
from remask.ports import CallBook, Reply, TargetModel
from remask.sanitize import one_line, remove_thoughts
from remask.types import Chat

Function = Callable[..., str | Awaitable[str]]

_BUG_TYPES = (TypeError, NameError, AttributeError)  # raised by mistakes in the user's code


class FunctionTarget(TargetModel):
    """Asks `fn([{"role": …, "content": …}, …])` for the text of the answer. `fn` may be async.

    Where the prompt has several components, it asks `fn({name: text, …}, input)`, with the message
    of the row as `input`.

    `identity` contains `name` (by default the module and name of the function) and a hash of its
    source, so an edited function does not get cached answers of the old one. Objects that the
    function closes over, is bound to or calls are not hashed; use another `name` if they change.
    """

    billed = True
    books_attempts = True
    max_attempts = 1  # remask cannot count attempts inside the function

    def __init__(self, fn: Function, name: str | None = None, concurrency: int = 1) -> None:
        """Raises ConfigError for a bad argument."""
        if not callable(fn):
            raise ConfigError(f"the target must be a function of a list of messages, not {type(fn).__name__}")
        if concurrency < 1:
            raise ConfigError(f"concurrency is {concurrency}; give 1 or more")
        self.identity = f"function:{name or _make_address(fn)}:{hash_source(fn)}"
        self._fn = fn
        self._label = name or _make_address(fn)
        self._concurrency = concurrency
        self._answered = False

    def respond(self, chats: Sequence[Chat], repeat: int = 0, book: CallBook | None = None) -> list[Reply]:
        """Answer each chat, in order.

        If the function raises an exception or gives no text, only that row fails. Raises
        TargetRefused if the function does. Raises ConfigError if all rows fail by the same mistake
        in the function, which is a bug and not an outage: a TypeError, NameError or AttributeError,
        or an answer that is no str.
        """
        bugs: list[Exception] = []
        replies = run_calls(
            lambda call: self._start(chats[call], bugs),
            len(chats),
            concurrency=self._concurrency,
            max_attempts=1,
            wait=lambda call, tried, busy: 0.0,
            book=book or CallBook(),
            answered=self._answered,
        )
        self._answered = self._answered or any(not reply.error for reply in replies)
        asked = sum(reply.attempts for reply in replies)  # the first failures end the request
        if bugs and len(bugs) == asked and len({(type(bug), str(bug)) for bug in bugs}) == 1:
            said = str(bugs[0]) if isinstance(bugs[0], _NoText) else f"raised {_describe_error(bugs[0])}"
            raise ConfigError(
                f"the target function {self._label} {said} for all {len(bugs)} calls; fix the function"
            ) from bugs[0]
        return replies

    def _start(self, chat: Chat, bugs: list[Exception]) -> "Future[Reply]":
        """Start a call. A function that is not async runs on this thread, so a debugger works."""
        arguments = _make_arguments(chat)
        if self._concurrency > 1:
            coroutine = self._wait_for_reply(arguments, bugs)
            return asyncio.run_coroutine_threadsafe(coroutine, LOOP.get() or get_own_loop())
        future: Future[Reply] = Future()
        try:
            future.set_result(_make_reply(wait_for_result(self._fn(*arguments))))
        except Exception as error:
            future.set_exception(_translate(error, bugs))
        return future

    async def _wait_for_reply(self, arguments: tuple[Any, ...], bugs: list[Exception]) -> Reply:
        try:
            if is_async(self._fn):
                return _make_reply(await self._fn(*arguments))  # type: ignore[misc]
            return _make_reply(await asyncio.to_thread(self._fn, *arguments))
        except Exception as error:
            raise _translate(error, bugs) from error


def _make_arguments(chat: Chat) -> tuple[Any, ...]:
    """Return the messages; of a prompt of several components its texts by name, and the message."""
    if any(message.name for message in chat):
        return {m.name: m.content for m in chat if m.name}, chat[-1].content
    return ([{"role": message.role, "content": message.content} for message in chat],)


class _NoText(TypeError):
    """The function returned something else than text."""


def _make_reply(text: object) -> Reply:
    if not isinstance(text, str):
        raise _NoText(f"returned {type(text).__name__} instead of the answer as str")
    answer = remove_thoughts(text)
    if text.strip() and not answer.strip():
        raise ValueError("the answer holds only thoughts; raise the limit of tokens")
    return Reply(answer)


def _translate(error: Exception, bugs: list[Exception]) -> TargetError:
    """Return the error of one row. The user's code may raise anything, and only this row fails."""
    if isinstance(error, TargetRefused):
        return error
    if isinstance(error, _BUG_TYPES):
        bugs.append(error)
    return TargetError(str(error) if isinstance(error, _NoText) else _describe_error(error))


def _describe_error(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _find_definition(fn: Any) -> object:
    """Find the object with name and source: the function, or the class of a callable object."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn if inspect.isroutine(fn) else type(fn)


def _make_address(fn: Function) -> str:
    definition = _find_definition(fn)
    return f"{getattr(definition, '__module__', '?')}.{getattr(definition, '__qualname__', '?')}"


def hash_source(fn: Any) -> str:
    """Return a hash of twelve digits of the source; "nosource" if Python does not have it."""
    try:
        source = inspect.getsource(_find_definition(fn))  # type: ignore[arg-type]
    except (OSError, TypeError):  # a builtin, or code typed at a prompt
        return "nosource"
    return hashlib.blake2b(source.encode(), digest_size=6).hexdigest()


# --- a function in a file


def is_function_file(name: str) -> bool:
    """Return whether the name of a metric or of a target is FILE.py:FUNCTION."""
    path, colon, function = name.rpartition(":")
    return bool(colon) and path.endswith(".py") and function.isidentifier()


def load_function(name: str, what: str, signature: str) -> Any:
    """Load the function of FILE.py:FUNCTION. Raises ConfigError, which says `what` it is for.

    While the file is run, files of its folder can be imported.
    """
    path, _, function = name.rpartition(":")
    file = Path(path).resolve()
    if not file.is_file():
        raise ConfigError(f"{what} {name}: there is no file {file}")
    spec = importlib.util.spec_from_file_location(f"remask_{what}_{file.stem}", file)
    assert spec is not None and spec.loader is not None  # given a file that ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the file is code of the user
        raise ConfigError(
            f"{what} {name}: {file.name} raised {one_line(_describe_error(error), 200)}"
        ) from None
    except SystemExit:
        raise ConfigError(f"{what} {name}: {file.name} ends the program when it is imported") from None
    finally:
        sys.path.remove(str(file.parent))
    found: Any = getattr(module, function, None)
    if not callable(found):
        known = [k for k, v in vars(module).items() if callable(v) and not k.startswith("_")]
        raise ConfigError(
            f"{what} {name}: {file.name} has no function {function}; it has {', '.join(known) or 'none'}"
        )
    if isinstance(found, type):
        raise ConfigError(f"{what} {name}: {function} is a class; name a function {signature}")
    return found


def hash_function_file(name: str) -> str:
    """Return a hash of the file of FILE.py:FUNCTION, since the function may use all of it."""
    content = read_file(Path(name.rpartition(":")[0]), "there is no such file")
    return hashlib.blake2b(content, digest_size=6).hexdigest()
