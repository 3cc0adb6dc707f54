"""Models of Inspect with metered and stored calls, which read the prompt under test.

Inspect calls its models by itself, dozens of times for one sample of an agent. So the method
`generate` of the provider object is replaced by one that inserts the prompt, reserves the call,
records it in the ledger and stores the answer. Everything else of the provider stays as it is,
retries included. Each attempt is one call.

The key of a stored answer contains everything that can change the answer. So an interrupted sample
continues without paying again, as far as its tools and its task are deterministic.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

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
from remask.models.providers import count_tokens, describe_tool_infos
from remask.ports import Reply, report_step
from remask.prompt import Prompt
from remask.runs.budget import Price, Spend
from remask.runs.ledger import Calls, Ledger, Tariff, Tokens
from remask.sanitize import format_call
from remask.types import TOOL, Chat, Message

REFUSAL_STATUSES = (401, 403, 404)  # key, permission, model: no further call can succeed
MAX_OVERHEAD_TOKENS = 512  # that a provider may add, such as a preamble for tools

# Settings of a call that cannot change its answer. All other fields are part of its key.
IGNORED_SETTINGS = {
    "max_retries", "timeout", "attempt_timeout", "stream_idle_timeout", "max_connections",
    "adaptive_connections", "batch", "cache",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """The conversation and the calls of one sample."""

    chat: Chat  # the last conversation with the prompt, without the prompt; () for none
    calls: int  # answered calls, stored answers included
    error: str = ""  # of a call that failed in all attempts; "" where none did


class SampleStopped(Exception):
    """Raised in place of an answer. The models keep the reason, since a task may catch this."""


@dataclass(slots=True)
class _Sample:
    """The calls of one sample in one epoch."""

    calls: int = 0
    chat: Chat = ()
    error: str = ""
    answered: Counter[str] = field(default_factory=Counter)  # answers, by request
    failed: Counter[str] = field(default_factory=Counter)  # failed attempts, by request


@dataclass(slots=True)
class InspectModels:
    """Metered models that Inspect calls by itself, with the prompt in place.

    `make` returns the model under test and those of the roles, as new objects on each call
    (get_model(…, memoize=False)): they are modified, and used for one evaluation. `baseline` is the
    text that each prompt replaces in the system messages of the model under test; of a prompt of
    several components each replaces its own, and `tool:NAME` the description of a tool. `prices` are by
    role; "" is the model under test. `retries` are the attempts of Inspect after the first one.
    `expected` is the number of calls of one sample, until some samples have run. `identity` is an
    id of everything that can change a score; part of cache keys.

    Raises ConfigError where a limit in dollars or tokens cannot be guaranteed.
    """

    make: Callable[[], tuple[Model, dict[str, Model]]]
    ledger: Ledger
    baseline: Prompt
    identity: str
    prices: Mapping[str, Price]
    retries: int
    expected: int
    _tariffs: dict[str, Tariff] = field(init=False)
    _prompt: Prompt = field(init=False)
    _samples: dict[tuple[str, int], _Sample] = field(init=False, default_factory=dict)
    _finished: list[int] = field(init=False, default_factory=list)  # calls of each sample that has run
    _stop: BaseException | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._prompt = self.baseline
        main, roles = self.make()
        self._tariffs = {
            role: Tariff(self.ledger.budget, self.prices.get(role), model.config.max_tokens)
            for role, model in {"": main, **roles}.items()
        }

    # --- one evaluation

    def begin(self, prompt: Prompt, samples: int) -> None:
        """Run what follows with `prompt`.

        Raises BudgetSpent where `samples` samples would probably pass a limit: an interrupted
        sample costs money and gives no score.
        """
        self._prompt = prompt
        self._samples = {}
        self._stop = None
        seen = self._finished
        each = -(-sum(seen) // len(seen)) if seen else self.expected
        self.ledger.require(Spend(calls=samples * each))

    @asynccontextmanager
    async def open_models(self) -> AsyncIterator[tuple[Model, dict[str, Model]]]:
        """Open the model whose prompt is optimised, and the other models by role.

        The context manager closes their connections.
        """
        main, roles = self.make()
        self._meter(main, "")
        for role, model in roles.items():
            self._meter(model, role)
        try:
            yield main, roles
        finally:  # in the event loop that owns the connections
            for model in (main, *roles.values()):
                await model.api.aclose()

    def find_record(self, sample: str, epoch: int) -> SampleRecord:
        """Return the record of a sample that has run since `begin`."""
        record = self._samples.get((sample, epoch), _Sample())
        return SampleRecord(record.chat, record.calls, record.error)

    def end(self) -> None:
        """Raise the exception that stopped the calls since `begin`, such as BudgetSpent."""
        if self._stop is not None:
            raise self._stop
        self._finished += [s.calls for s in self._samples.values() if not s.error]

    def load_values(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the saved values of these keys."""
        return self.ledger.store.find_replies(keys)

    def save_value(self, key: str, value: Mapping[str, Any]) -> None:
        """Save a value in the run."""
        store = self.ledger.store
        store.settle(store.reserve(Spend(), billed=False), Spend(), {key: _to_plain_json(value)})

    # --- one call

    def _meter(self, model: Model, role: str) -> None:
        """Replace `generate` of the provider object of a model."""
        call = model.api.generate

        async def generate(
            input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
        ) -> Any:
            sample = self._find_sample()
            messages, inserted = self._insert_prompt(input) if role == "" else (input, False)
            tools = describe_tool_infos(tools, self._list_descriptions()) if role == "" else tools
            request = _make_request_id(str(model), messages, tools, tool_choice, config)
            epoch = active.epoch if (active := sample_active()) else 1
            turn = sample.answered[request]
            key = content_id("inspect call", self.identity, role, request, epoch, turn)
            if stored := self.ledger.store.find_replies([key]):
                output = ModelOutput.model_validate(stored[key])
                self._record_answer(sample, request, messages if inserted else None, output)
                return output
            bounds = [_bound_tokens(messages, tools, config)]
            with self._reserve(sample, role, bounds) as calls:
                try:
                    result = await call(messages, tools, tool_choice, config)
                except Exception as error:
                    self._record_error(model, sample, request, calls, error)
                    raise
                except BaseException:  # cancelled, also by a timeout; the attempt may be billed
                    self._record_failure(model, sample, request, "no answer in time", retry=True)
                    raise
                answer = result[0] if isinstance(result, tuple) else result
                if isinstance(answer, Exception):
                    self._record_error(model, sample, request, calls, answer)
                    return result
                value = _to_plain_json(answer.model_dump(exclude_none=True))
                read, written = count_tokens(answer.usage)
                spent = Reply("", input_tokens=read, output_tokens=written)
                calls.settle([spent], {key: value})
                report_step("call", self.ledger.store.get_spend().calls, 0)  # of how many is unknown
            self._record_answer(sample, request, messages if inserted else None, answer)
            return result

        # Not a wrapper class: Inspect checks the class of a provider and reads many attributes.
        setattr(model.api, "generate", generate)  # noqa: B010

    def _find_sample(self) -> _Sample:
        active = sample_active()
        key = (str(active.sample.id), active.epoch) if active else ("", 1)
        return self._samples.setdefault(key, _Sample())

    def _insert_prompt(self, messages: list[ChatMessage]) -> tuple[list[ChatMessage], bool]:
        """Replace the baseline by the prompt. Returns the messages and whether it was in them."""
        changed, found = [], False
        parts = self._prompt.components
        old = self.baseline.components or {"": self.baseline}
        for message in messages:
            if isinstance(message, ChatMessageSystem):
                for name, part in old.items():
                    if not name.startswith(TOOL) and part.text and part.text in message.text:
                        text = message.text.replace(part.text, parts.get(name, self._prompt).text)
                        message, found = message.model_copy(update={"content": text}), True
            changed.append(message)
        return changed, found or all(name.startswith(TOOL) for name in old)

    def _list_descriptions(self) -> dict[str, str]:
        """Return the descriptions of tools of the prompt, by component."""
        return {name: p.text for name, p in self._prompt.components.items() if name.startswith(TOOL)}

    def _reserve(self, sample: _Sample, role: str, bounds: Sequence[Tokens]) -> Calls:
        """Reserve a call. Ends the sample where no call may be made."""
        if self._stop is None and not sample.error:
            try:
                return self.ledger.reserve(self._tariffs[role], bounds)
            except Exception as stop:  # BudgetSpent or an exception of the checkpoint; see `end`
                self._stop = stop
        sample.error = sample.error or str(self._stop)
        _end_sample()
        raise SampleStopped(sample.error)

    def _record_answer(
        self, sample: _Sample, request: str, prompted: Sequence[ChatMessage] | None, output: ModelOutput
    ) -> None:
        sample.calls += 1
        sample.answered[request] += 1
        if prompted is not None and output.choices:
            messages = [*prompted, output.message]
            rest = (m for m in messages if not isinstance(m, ChatMessageSystem))
            sample.chat = tuple(map(_to_message, rest))

    def _record_error(
        self, model: Model, sample: _Sample, request: str, calls: Calls, error: Exception
    ) -> None:
        """Record a failed attempt. The last one ends its sample, a refusal ends the run."""
        why = f"{model}: {type(error).__name__}: {error}"
        if status_code_of(error) in REFUSAL_STATUSES:
            calls.release()
            self._stop = self._stop or TargetRefused(why)
            sample.error = why
            _end_sample()
            return
        calls.settle([Reply("", error=why)], {})
        retry = bool(model.api.should_retry(error))
        self._record_failure(model, sample, request, f"{type(error).__name__}: {error}", retry)

    def _record_failure(self, model: Model, sample: _Sample, request: str, why: str, retry: bool) -> None:
        """Count a failed attempt. Where Inspect makes no further one, the sample has failed."""
        sample.failed[request] += 1
        if sample.failed[request] > self.retries or not retry:
            sample.error = sample.error or f"{model}: {why}"
            _end_sample()


def _end_sample() -> None:
    """End the running sample. A task that catches errors would otherwise call without end."""
    if active := sample_active():
        active.interrupt("error")


# --- requests and messages as text


def _make_request_id(
    model: str,
    messages: Sequence[ChatMessage],
    tools: Sequence[ToolInfo],
    tool_choice: ToolChoice,
    config: GenerateConfig,
) -> str:
    settings = config.model_dump(exclude_none=True, exclude=IGNORED_SETTINGS)
    turns = [_dump_message(message) for message in messages]
    parts = [model, turns, [_dump_tool(tool) for tool in tools], tool_choice, settings]
    return content_id("request", _dump_json(parts))


def _bound_tokens(
    messages: Sequence[ChatMessage], tools: Sequence[ToolInfo], config: GenerateConfig
) -> Tokens:
    """Return the maximum tokens of one attempt. No tokenizer makes more tokens than bytes."""
    request = _dump_json([*map(_dump_message, messages), *map(_dump_tool, tools)])
    return len(request.encode()) + MAX_OVERHEAD_TOKENS, config.max_tokens or 0


def _dump_message(message: ChatMessage) -> dict[str, Any]:
    """Return a message without fields that change on each run or name its origin."""
    turn = message.model_dump(exclude={"id", "source", "metadata", "model"}, exclude_none=True)
    for call in turn.get("tool_calls") or ():
        call.pop("view", None)
    return turn


def _dump_tool(tool: ToolInfo) -> dict[str, Any]:
    return tool.model_dump(exclude_none=True)


def _to_plain_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a value as storing and reading it back does."""
    plain: dict[str, Any] = json.loads(_dump_json(value))
    return plain


def _dump_json(value: Any) -> str:
    """Write a value as JSON that is valid UTF-8."""
    # An answer that is cut inside of an emoji ends with half of a surrogate pair.
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return text.encode("utf-8", "replace").decode()


def _to_message(message: ChatMessage) -> Message:
    """Convert a message of Inspect, with its calls of tools as text."""
    parts = [message.text]
    if isinstance(message, ChatMessageAssistant):
        calls = message.tool_calls or ()
        parts += [format_call(call.function, call.arguments) for call in calls]
    return Message(message.role, "\n".join(part for part in parts if part))
