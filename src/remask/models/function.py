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
from remask.ports import CallBook, Executor, Item, Reply, TargetModel
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

    def __init__(
        self,
        fn: Function,
        name: str | None = None,
        concurrency: int = 1,
        executor: Executor | None = None,
        role: str = "target",
    ) -> None:
        """`executor`: whose workers call the function, where it is their model of this `role`.

        Raises ConfigError for a bad argument.
        """
        if not callable(fn):
            raise ConfigError(f"the target must be a function of a list of messages, not {type(fn).__name__}")
        if concurrency < 1:
            raise ConfigError(f"concurrency is {concurrency}; give 1 or more")
        self.identity = f"function:{name or _make_address(fn)}:{hash_source(fn)}"
        self._fn = fn
        self._label = name or _make_address(fn)
        self._concurrency = concurrency
        self._answered = False
        self._executor, self._role = executor, role
        if executor is not None:
            self._concurrency = executor.workers
            self.max_attempts = 2  # the second, where a worker was lost

    def respond(self, chats: Sequence[Chat], repeat: int = 0, book: CallBook | None = None) -> list[Reply]:
        """Answer each chat, in order.

        If the function raises an exception or gives no text, only that row fails. Raises
        TargetRefused if the function does. Raises ConfigError if all rows fail by the same mistake
        in the function, which is a bug and not an outage: a TypeError, NameError or AttributeError,
        or an answer that is no str.
        """
        bugs: list[FunctionFailed] = []
        replies = run_calls(
            lambda call: self._start(chats[call], bugs),
            len(chats),
            concurrency=self._concurrency,
            max_attempts=self.max_attempts,
            wait=lambda call, tried: 0.0,
            book=book or CallBook(),
            answered=self._answered,
        )
        self._answered = self._answered or any(not reply.error for reply in replies)
        made = sum(reply.attempts > 0 for reply in replies)  # the rest was given up
        if bugs and len(bugs) == made and len({bug.bug for bug in bugs}) == 1:
            raise ConfigError(
                f"the target function {self._label} {bugs[0].bug} for all {len(bugs)} calls; fix the function"
            ) from bugs[0].__cause__
        return replies

    def ask(self, chat: Chat) -> Reply:
        """Answer one chat on this thread. Raises FunctionFailed and TargetRefused."""
        try:
            return _make_reply(wait_for_result(self._fn(*_make_arguments(chat))))
        except Exception as error:
            raise _translate(error) from error

    def _start(self, chat: Chat, bugs: "list[FunctionFailed]") -> "Future[Reply]":
        """Start a call. A function that is not async runs on this thread, so a debugger works."""
        future: Future[Reply]
        if self._executor is not None:
            future = self._executor.submit(Item(self._role, "ask", (chat,)), again=False)
        elif self._concurrency > 1:
            future = asyncio.run_coroutine_threadsafe(
                self._wait_for_reply(chat), LOOP.get() or get_own_loop()
            )
        else:
            future = Future()
            try:
                future.set_result(self.ask(chat))
            except TargetError as error:
                future.set_exception(error)

        def note(ended: "Future[Reply]") -> None:
            error = None if ended.cancelled() else ended.exception()
            if isinstance(error, FunctionFailed) and error.bug:
                bugs.append(error)

        future.add_done_callback(note)
        return future

    async def _wait_for_reply(self, chat: Chat) -> Reply:
        if not is_async(self._fn):
            return await asyncio.to_thread(self.ask, chat)
        try:
            return _make_reply(await self._fn(*_make_arguments(chat)))  # type: ignore[misc]
        except Exception as error:
            raise _translate(error) from error


class FunctionFailed(TargetError):
    """The function raised an exception, or gave no text."""

    bug = ""  # what it did, where this looks like a mistake in its code


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


def _translate(error: Exception) -> TargetError:
    """Return the error of one row. The user's code may raise anything, and only this row fails."""
    if isinstance(error, TargetRefused):
        return error
    no_text = isinstance(error, _NoText)
    failed = FunctionFailed(str(error) if no_text else _describe_error(error))
    if isinstance(error, _BUG_TYPES):
        failed.bug = str(error) if no_text else f"raised {_describe_error(error)}"
    return failed


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
