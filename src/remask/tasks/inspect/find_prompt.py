"""Find the system messages that an Inspect task sends, without calling a real model.

A prompt is often inside a template in the code of the task, so it is known only when the task runs.
A few samples are run with a fake model that records the messages and gives a fixed answer.
"""

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

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
from remask.sanitize import clip
from remask.tasks.inspect.task import Suite, run_inspect

MAX_SAMPLES = 3  # to run; a prompt is the same in all of them, a scenario is not
MAX_CALLS_PER_SAMPLE = 8  # after which the sample is cancelled
MAX_SHOWN_CHARACTERS = 60  # of a message in errors


def find_system_messages(suite: Suite) -> dict[str, int]:
    """Return the system messages of a few samples, each with the number of samples that sent it."""
    seen: dict[str, set[str]] = {}
    calls: dict[str, int] = {}

    def answer(
        input: list[ChatMessage], tools: list[ToolInfo], choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        active = sample_active()
        id = str(active.sample.id) if active else ""
        for message in input:
            if isinstance(message, ChatMessageSystem):
                seen.setdefault(message.text, set()).add(id)
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
    return {text: len(ids) for text, ids in seen.items()}


def find_system_prompt(suite: Suite) -> str:
    """Return the only system message that is the same in all samples. Raises ConfigError."""
    seen = find_system_messages(suite)
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


def require_prompt(suite: Suite, text: str) -> int:
    """Return in how many of the samples `text` is in a system message.

    Raises ConfigError where it is in none.
    """
    seen = find_system_messages(suite)
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
