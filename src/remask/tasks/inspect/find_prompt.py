"""Which system messages a task of Inspect sends, found out without a call of a real model.

A prompt often stands inside a template in the task's code and is seen only when it runs. So a few
samples run with a model that answers nothing of use, notes what it is asked, and leaves. Knows
Inspect's tasks; nothing of budgets or search.
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

SAMPLES = 3  # that are run: a prompt is the same in all of them, a scenario is not
CALLS = 8  # of one sample, after which it is left
SHOWN = 60  # characters of a message in errors


def system_messages(suite: Suite) -> dict[str, int]:
    """The distinct system messages of a few samples, each with the samples in which it stood."""
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
        if active and calls[id] >= CALLS:
            active.interrupt("cancel")
        output = ModelOutput.from_content("probe", "I see.")
        # Where the usage is missing, Inspect would fetch a tokenizer to count it.
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output

    @asynccontextmanager
    async def opened() -> AsyncIterator[tuple[Model, dict[str, Model]]]:
        yield get_model("mockllm/probe", custom_outputs=answer, memoize=False), {}

    with tempfile.TemporaryDirectory() as folder:
        run_inspect(suite, _few(suite), opened, log_dir=Path(folder), score=False)
    return {text: len(ids) for text, ids in seen.items()}


def system_prompt(suite: Suite) -> str:
    """The one system message that does not depend on the sample. Raises ConfigError."""
    seen = system_messages(suite)
    if not seen:
        raise ConfigError(f"the Inspect task {suite.name} sends no system message to optimise")
    constant = [text for text, samples in seen.items() if samples == len(_few(suite))]
    if len(constant) != 1:
        what = "differs between samples" if not constant else "is one of several: "
        some = " / ".join(repr(_begin(text)) for text in constant)
        raise ConfigError(
            f"the system message of the Inspect task {suite.name} {what}{some}; put the part that "
            "is to be optimised into a file and name it with --prompt FILE"
        )
    return constant[0]


def require_prompt(suite: Suite, text: str) -> int:
    """Raise ConfigError unless `text` stands in a system message; in how many of the few samples
    it did."""
    seen = system_messages(suite)
    samples = [count for message, count in seen.items() if text in message]
    if not samples:
        some = "; ".join(repr(_begin(message)) for message in seen) or "none"
        raise ConfigError(
            f"the prompt stands word for word in no system message of the Inspect task "
            f"{suite.name}, so it cannot be replaced there; its system messages begin: {some}; "
            "use --prompt-from system, or copy a part of one of them"
        )
    return max(samples)


def _few(suite: Suite) -> Sequence[Sample]:
    chosen = sorted(suite.samples)[:SAMPLES]
    return [suite.samples[id] for id in chosen]


def _begin(text: str) -> str:
    return clip(" ".join(text.split()), SHOWN)
