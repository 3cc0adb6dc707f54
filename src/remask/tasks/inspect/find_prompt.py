"""Find the system messages and the tools that an Inspect task sends, without calling a real model.

A prompt is often inside a template in the code of the task, so it is known only when the task runs.
A few samples are run with a fake model that records the messages and gives a fixed answer.
"""

import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspect_ai.dataset import Sample
from inspect_ai.log._samples import sample_active
from inspect_ai.model import (
    ChatMessage,
    ChatMessageSystem,
    GenerateConfig,
    Model,
    ModelOutput,
    ModelUsage,
    get_model,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from remask.errors import ConfigError
from remask.models.chat_components import find_unknown_tools
from remask.prompt import Prompt, join_components
from remask.sanitize import clip
from remask.tasks.inspect.task import Suite, run_inspect
from remask.types import TOOL

MAX_SAMPLES = 3  # to run; a prompt is the same in all of them, a scenario is not
MAX_CALLS_PER_SAMPLE = 8  # after which the sample is cancelled
MAX_SHOWN_CHARACTERS = 60  # of a message in errors


@dataclass(frozen=True, slots=True)
class Sent:
    """What a few samples send to the model under test."""

    messages: Mapping[str, int]  # system message -> number of samples that sent it
    tools: Mapping[str, Mapping[str, Any]]  # name of a tool -> its description and schema


def find_sent(suite: Suite) -> Sent:
    """Run a few samples and return what they send."""
    seen: dict[str, set[str]] = {}
    offered: dict[str, dict[str, Any]] = {}
    calls: dict[str, int] = {}

    def answer(
        input: list[ChatMessage], tools: list[ToolInfo], choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        active = sample_active()
        id = str(active.sample.id) if active else ""
        for message in input:
            if isinstance(message, ChatMessageSystem):
                seen.setdefault(message.text, set()).add(id)
        offered.update({tool.name: tool.model_dump(exclude_none=True) for tool in tools})
        calls[id] = calls.get(id, 0) + 1
        if active and calls[id] >= MAX_CALLS_PER_SAMPLE:
            active.interrupt("cancel")
        output = ModelOutput.from_content("probe", "I see.")
        # Without the usage, Inspect would download a tokenizer to count tokens.
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output

    @asynccontextmanager
    async def open_models() -> AsyncIterator[tuple[Model, dict[str, Model]]]:
        yield get_model("mockllm/probe", custom_outputs=answer, memoize=False), {}

    with tempfile.TemporaryDirectory() as folder:
        run_inspect(suite, _choose_samples(suite), open_models, log_dir=Path(folder), score=False)
    return Sent({text: len(ids) for text, ids in seen.items()}, offered)


def find_prompt(suite: Suite, components: bool = False) -> str:
    """Return the only system message that is the same in all samples. Raises ConfigError.

    components: as the component `system`, beside one for the description of each tool.
    """
    sent = find_sent(suite)
    prompt = _choose_system_message(suite, sent.messages)
    if not components:
        return prompt
    described = {f"{TOOL}{name}": tool.get("description", "") for name, tool in sent.tools.items()}
    tools = {name: text for name, text in described.items() if text.strip()}
    if not tools:
        raise ConfigError(f"the Inspect task {suite.name} has no tools; use --prompt-from system")
    return join_components({"system": prompt, **tools})


def _choose_system_message(suite: Suite, seen: Mapping[str, int]) -> str:
    if not seen:
        raise ConfigError(f"the Inspect task {suite.name} sends no system message to optimise")
    constant = [text for text, samples in seen.items() if samples == len(_choose_samples(suite))]
    if len(constant) != 1:
        what = "differs between samples" if not constant else "is one of several: "
        some = " / ".join(repr(_clip_start(text)) for text in constant)
        raise ConfigError(
            f"the system message of the Inspect task {suite.name} {what}{some}; write the part to "
            "optimise into a file and name it with --prompt FILE"
        )
    return constant[0]


def require_prompt(suite: Suite, start: Prompt) -> int:
    """Return in how many of the samples the prompt is in a system message; 0 for tools alone.

    Raises ConfigError where it, or a component of it, is in none, and for an unknown tool.
    """
    sent, parts = find_sent(suite), start.components
    if unknown := find_unknown_tools(list(sent.tools.values()), list(parts)):
        known = ", ".join(sent.tools) or "none"
        raise ConfigError(
            f"the Inspect task {suite.name} has no tool or parameter {unknown[0]!r}; its tools: {known}"
        )
    own = {name: part for name, part in (parts or {"": start}).items() if not name.startswith(TOOL)}
    return min((_count_samples(suite, sent.messages, part.text) for part in own.values()), default=0)


def _count_samples(suite: Suite, seen: Mapping[str, int], text: str) -> int:
    samples = [count for message, count in seen.items() if text in message]
    if not samples:
        some = "; ".join(repr(_clip_start(message)) for message in seen) or "none"
        raise ConfigError(
            f"no system message of the Inspect task {suite.name} contains the prompt literally, so "
            f"it cannot be replaced there; its system messages begin: {some}; use --prompt-from "
            "system, or copy a part of one of them"
        )
    return max(samples)


def _choose_samples(suite: Suite) -> Sequence[Sample]:
    """Return the few samples to run; always the same ones."""
    chosen = sorted(suite.samples)[:MAX_SAMPLES]
    return [suite.samples[id] for id in chosen]


def _clip_start(text: str) -> str:
    return clip(" ".join(text.split()), MAX_SHOWN_CHARACTERS)
