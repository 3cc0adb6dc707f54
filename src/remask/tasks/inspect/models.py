"""Models of Inspect that are paid for: the prompt put in its place, cache, reserve, call, settle.

Inspect calls its models by itself, dozens of times for one sample of an agent. So the calls are met
where Inspect hands them to a provider: `generate` of the provider's object is replaced by one that
substitutes, meters and listens, and everything else of the provider, retries included, stays as it
is. Each attempt is one call. Knows models and the ledger; nothing of tasks and scores.

An answer is stored under everything that could change it, so a sample that was cut by a kill goes
on from where it was without paying again, as far as its tools and its task are deterministic.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from inspect_ai._util.http import status_code_of
from inspect_ai.log._samples import sample_active
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    GenerateConfig,
    Model,
    ModelOutput,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from remask.errors import TargetRefused
from remask.ids import content_id
from remask.ports import Reply
from remask.prompt import Prompt
from remask.runs.budget import Price, Spend
from remask.runs.meter import Calls, Ledger, Tariff, Tokens
from remask.sanitize import format_call
from remask.types import Chat, Message

REFUSALS = (401, 403, 404)  # of key, permission and model: no further call can succeed
OVERHEAD = 512  # tokens that a provider may add to messages and tools, such as a preamble for tools

# Of a call's configuration what cannot change an answer. An unknown new field changes the key.
IDLE = {
    "max_retries", "timeout", "attempt_timeout", "stream_idle_timeout", "max_connections",
    "adaptive_connections", "batch", "cache",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Overheard:
    """What the models of one sample said while a framework evaluated it."""

    chat: Chat  # the last conversation that held the prompt, without it; () where none did
    calls: int  # answered, stored answers included
    error: str = ""  # not empty: a call failed for good, and why


class AgentModels(Protocol):
    """Models that an evaluation framework calls by itself, as often as it likes: each call is
    metered, and the prompt stands where the baseline stood."""

    @property
    def identity(self) -> str:
        """Everything about them that can change a score: part of cache keys."""
        ...

    def opened(self) -> AbstractAsyncContextManager[tuple[Any, Mapping[str, Any]]]:
        """The model whose prompt is optimised, and the others by the names under which the
        framework asks for them, as it takes them; their connections are closed at the end."""
        ...

    def begin(self, prompt: Prompt, samples: int) -> None:
        """What follows runs under `prompt`. Raises BudgetSpent where `samples` more would probably
        pass a limit: a sample that is cut off is paid for and says nothing."""
        ...

    def overheard(self, sample: str, epoch: int) -> Overheard:
        """Of a sample that has run since `begin`."""
        ...

    def end(self) -> None:
        """Raise what stopped the calls since `begin`: BudgetSpent, TargetRefused, an interrupt."""
        ...

    def known(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What was kept under these keys."""
        ...

    def keep(self, key: str, value: Mapping[str, Any]) -> None:
        """Make a value durable in the run."""
        ...


class SampleStopped(Exception):
    """Told to Inspect instead of an answer; why is kept in the models, for the task may swallow
    what its models raise."""


@dataclass(slots=True)
class _Sample:
    """The calls of one sample in one epoch."""

    calls: int = 0
    chat: Chat = ()
    error: str = ""
    answered: Counter[str] = field(default_factory=Counter)  # by request
    failed: Counter[str] = field(default_factory=Counter)  # attempts, by request


class InspectModels:
    """Implements ports.AgentModels.

    `make` gives the model under test and those of the roles, each time new objects (get_model(…,
    memoize=False)): they are changed, and live as long as one evaluation. `baseline`: the text that
    each prompt replaces in the system messages of the model under test. `prices` by role ("" is the
    model under test). `retries`: attempts that Inspect makes after the first. `expected`: calls of
    one sample, as long as none was seen.

    Raises ConfigError where a limit in dollars or tokens could not be held.
    """

    def __init__(
        self,
        make: Callable[[], tuple[Model, dict[str, Model]]],
        ledger: Ledger,
        baseline: str,
        *,
        identity: str,
        prices: Mapping[str, Price],
        retries: int,
        expected: int,
    ) -> None:
        main, roles = make()
        self._tariffs = {
            role: Tariff(ledger.budget, prices.get(role), model.config.max_tokens)
            for role, model in {"": main, **roles}.items()
        }
        self.identity = identity
        self._make = make
        self._ledger = ledger
        self._baseline = self._text = baseline
        self._retries = retries
        self._expected = expected
        self._samples: dict[tuple[str, int], _Sample] = {}
        self._finished: list[int] = []  # calls of each sample that has run
        self._stop: BaseException | None = None

    # --- ports.AgentModels

    def begin(self, prompt: Prompt, samples: int) -> None:
        self._text = prompt.text
        self._samples = {}
        self._stop = None
        seen = self._finished
        each = -(-sum(seen) // len(seen)) if seen else self._expected
        self._ledger.require(Spend(calls=samples * each))

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[Model, dict[str, Model]]]:
        main, roles = self._make()
        self._metered(main, "")
        for role, model in roles.items():
            self._metered(model, role)
        try:
            yield main, roles
        finally:  # within the loop that holds the connections
            for model in (main, *roles.values()):
                await model.api.aclose()

    def overheard(self, sample: str, epoch: int) -> Overheard:
        heard = self._samples.get((sample, epoch), _Sample())
        return Overheard(heard.chat, heard.calls, heard.error)

    def end(self) -> None:
        if self._stop is not None:
            raise self._stop
        self._finished += [s.calls for s in self._samples.values() if not s.error]

    def known(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        return self._ledger.store.find_replies(keys)

    def keep(self, key: str, value: Mapping[str, Any]) -> None:
        store = self._ledger.store
        store.settle(store.reserve(Spend(), billed=False), Spend(), {key: _plain(value)})

    # --- one call

    def _metered(self, model: Model, role: str) -> None:
        ask = model.api.generate

        async def generate(
            input: list[ChatMessage],
            tools: list[ToolInfo],
            tool_choice: ToolChoice,
            config: GenerateConfig,
        ) -> Any:
            sample = self._here()
            messages, placed = self._placed(input) if role == "" else (input, False)
            request = _request(str(model), messages, tools, tool_choice, config)
            epoch = active.epoch if (active := sample_active()) else 1
            turn = sample.answered[request]
            key = content_id("inspect call", self.identity, role, request, epoch, turn)
            if stored := self._ledger.store.find_replies([key]):
                output = ModelOutput.model_validate(stored[key])
                self._answered(sample, request, messages if placed else None, output)
                return output
            bounds = [_bound(messages, tools, config)]
            with self._reserved(sample, role, bounds) as calls:
                try:
                    result = await ask(messages, tools, tool_choice, config)
                except Exception as error:
                    self._failed(model, sample, request, calls, error)
                    raise
                except BaseException:  # cancelled, by a timeout too: it may be billed
                    self._missed(model, sample, request, "no answer in time", again=True)
                    raise
                answer = result[0] if isinstance(result, tuple) else result
                if isinstance(answer, Exception):
                    self._failed(model, sample, request, calls, answer)
                    return result
                calls.settle([_used(answer)], {key: _plain(answer.model_dump(exclude_none=True))})
            self._answered(sample, request, messages if placed else None, answer)
            return result

        # Not a wrapping class: Inspect tells providers apart by class, and asks them many things.
        setattr(model.api, "generate", generate)  # noqa: B010

    def _here(self) -> _Sample:
        active = sample_active()
        key = (str(active.sample.id), active.epoch) if active else ("", 1)
        return self._samples.setdefault(key, _Sample())

    def _placed(self, messages: list[ChatMessage]) -> tuple[list[ChatMessage], bool]:
        """The messages with the prompt in place of the baseline, and whether it stood there."""
        placed, found = [], False
        for message in messages:
            if isinstance(message, ChatMessageSystem) and self._baseline in message.text:
                text = message.text.replace(self._baseline, self._text)
                message, found = message.model_copy(update={"content": text}), True
            placed.append(message)
        return placed, found

    def _reserved(self, sample: _Sample, role: str, bounds: Sequence[Tokens]) -> Calls:
        """A call that may be made; ends the sample where none may."""
        if self._stop is None and not sample.error:
            try:
                return self._ledger.reserve(self._tariffs[role], bounds)
            except Exception as stop:  # BudgetSpent, or whatever the checkpoint raises: see `end`
                self._stop = stop
        sample.error = sample.error or str(self._stop)
        _leave()
        raise SampleStopped(sample.error)

    def _answered(
        self,
        sample: _Sample,
        request: str,
        prompted: Sequence[ChatMessage] | None,
        output: ModelOutput,
    ) -> None:
        sample.calls += 1
        sample.answered[request] += 1
        if prompted is not None and output.choices:
            said = [*prompted, output.message]
            sample.chat = tuple(_spoken(m) for m in said if not isinstance(m, ChatMessageSystem))

    def _failed(
        self, model: Model, sample: _Sample, request: str, calls: Calls, error: Exception
    ) -> None:
        """Book a failed attempt; the last one ends its sample, a refusal ends the run."""
        why = f"{model}: {type(error).__name__}: {error}"
        if status_code_of(error) in REFUSALS:
            calls.release()
            self._stop = self._stop or TargetRefused(why)
            sample.error = why
            _leave()
            return
        calls.settle([Reply("", error=why)], {})
        again = bool(model.api.should_retry(error))
        self._missed(model, sample, request, f"{type(error).__name__}: {error}", again)

    def _missed(self, model: Model, sample: _Sample, request: str, why: str, again: bool) -> None:
        """An attempt brought nothing; where Inspect makes no other, the sample has failed."""
        sample.failed[request] += 1
        if sample.failed[request] > self._retries or not again:
            sample.error = sample.error or f"{model}: {why}"
            _leave()


def _leave() -> None:
    """End the running sample: a task that swallows errors would go on asking without end."""
    if active := sample_active():
        active.interrupt("error")


# --- requests and messages as text


def _request(
    model: str,
    messages: Sequence[ChatMessage],
    tools: Sequence[ToolInfo],
    tool_choice: ToolChoice,
    config: GenerateConfig,
) -> str:
    settings = config.model_dump(exclude_none=True, exclude=IDLE)
    turns = [_turn(message) for message in messages]
    parts = [model, turns, [_tool(tool) for tool in tools], tool_choice, settings]
    return content_id("request", _json(parts))


def _bound(
    messages: Sequence[ChatMessage], tools: Sequence[ToolInfo], config: GenerateConfig
) -> Tokens:
    """The tokens of one attempt at most: no tokenizer makes more tokens than bytes."""
    asked = _json([*map(_turn, messages), *map(_tool, tools)])
    return len(asked.encode()) + OVERHEAD, config.max_tokens or 0


def _used(output: ModelOutput) -> Reply:
    """The tokens that an answer took, as far as they are reported."""
    usage = output.usage
    if usage is None:
        return Reply("")
    cached = (usage.input_tokens_cache_read or 0) + (usage.input_tokens_cache_write or 0)
    return Reply("", input_tokens=usage.input_tokens + cached, output_tokens=usage.output_tokens)


def _turn(message: ChatMessage) -> dict[str, Any]:
    """A message without what is drawn anew each time or says where it came from."""
    turn = message.model_dump(exclude={"id", "source", "metadata", "model"}, exclude_none=True)
    for call in turn.get("tool_calls") or ():
        call.pop("view", None)
    return turn


def _tool(tool: ToolInfo) -> dict[str, Any]:
    return tool.model_dump(exclude_none=True)


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """As it comes back from the store."""
    plain: dict[str, Any] = json.loads(_json(value))
    return plain


def _json(value: Any) -> str:
    """Half of a surrogate pair, as from an answer cut inside an emoji, is no UTF-8."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return text.encode("utf-8", "replace").decode()


def _spoken(message: ChatMessage) -> Message:
    """A message as text, with the calls of tools."""
    parts = [message.text]
    if isinstance(message, ChatMessageAssistant):
        calls = message.tool_calls or ()
        parts += [format_call(call.function, call.arguments) for call in calls]
    return Message(message.role, "\n".join(part for part in parts if part))
