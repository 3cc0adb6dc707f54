"""DSPy's MIPROv2 with demonstrations, in an environment of its own.

The adapter renders instruction and demonstrations of the program as one system prompt, and the row
as user message. So the benchmark scores the text that MIPROv2 measured.
"""

import random
import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import dspy
from channel import Channel
from dspy.utils.callback import BaseCallback

CANDIDATES, INSTRUCTIONS, VALIDATION = 6, 3, 100  # of the mode `auto="light"` of MIPROv2
LIGHT_CALLS = 800  # about what that mode spends
TRAIN = 50  # rows that may become demonstrations; four sets of them ask up to so many rows each
MINIBATCH, FROM_ROWS = 35, 50  # its minibatch, and the validation rows from which it takes them
TRIALS = 10  # that MIPROv2 derives from six candidates: 2 * 2 * log2(6)
FIELD = re.compile(r"starting with the field `\[\[ ## (\w+) ## \]\]`")


def render(instruction: str, demos: Sequence[Any]) -> str:
    """The system prompt of a program, in the form that few_shot has."""
    blocks = [f"{demo['message']}\n{demo['answer']}" for demo in demos]
    return "\n\n".join([instruction, *(["Examples:", *blocks] if blocks else [])])


class Program(dspy.Module):
    """Answers one message under one system prompt."""

    def __init__(self, instruction: str) -> None:
        super().__init__()
        self.respond = dspy.Predict(dspy.Signature("message -> answer", instruction))

    def forward(self, message: str) -> Any:
        return self.respond(message=message)


class PromptAdapter(dspy.ChatAdapter):
    """Renders the program as the benchmark asks it, and the proposer's questions as DSPy does."""

    def format(self, signature: Any, demos: list[Any], inputs: dict[str, Any]) -> list[dict[str, Any]]:
        if not is_program(signature):
            messages: list[dict[str, Any]] = super().format(signature, demos, inputs)
            return messages
        return [
            {"role": "system", "content": render(signature.instructions, demos)},
            {"role": "user", "content": inputs["message"]},
        ]

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        if is_program(signature):
            return {"answer": completion}
        fields: dict[str, Any] = super().parse(signature, completion)
        return fields


def is_program(signature: Any) -> bool:
    return set(signature.fields) == {"message", "answer"}


class Target(dspy.BaseLM):
    """The frozen target behind the benchmark's counter. It knows the score of each answer it gave."""

    def __init__(self, channel: Channel, ids: dict[str, str]) -> None:
        super().__init__("target", cache=False)
        self.channel, self.ids = channel, ids
        self.scores: dict[tuple[str, str], float] = {}  # (message, answer)
        self._answers: dict[tuple[str, str], str] = {}  # (system prompt, message)

    def ask(self, prompt: str, messages: Sequence[str]) -> None:
        """Ask messages of one prompt together, which is faster than one by one."""
        outcomes = self.channel.evaluate([(prompt, self.ids[message]) for message in messages])
        for message, (score, response) in zip(messages, outcomes, strict=True):
            answer = response or " "  # DSPy takes an empty answer for an error
            self.scores[message, answer] = score
            self._answers[prompt, message] = answer

    def forward(self, prompt: Any = None, messages: Any = None, **how: Any) -> SimpleNamespace:
        system, user = (message["content"] for message in messages)
        if (system, user) not in self._answers:
            self.ask(system, [user])
        return make_reply(self._answers[system, user])


class Proposer(dspy.BaseLM):
    """The writer. Its answer begins with the field that is asked for, which a small model misses."""

    def __init__(self, channel: Channel) -> None:
        super().__init__("writer", cache=False)
        self.channel = channel

    def forward(self, prompt: Any = None, messages: Any = None, **how: Any) -> SimpleNamespace:
        said = "\n\n".join(message["content"] for message in messages)
        asked = FIELD.findall(said)
        begun = f"[[ ## {asked[-1]} ## ]]\n"
        return make_reply(begun + self.channel.write(said, begun, "[[ ##"))


def make_reply(text: str) -> SimpleNamespace:
    choice = SimpleNamespace(message=SimpleNamespace(content=text), finish_reason="stop")
    return SimpleNamespace(choices=[choice], usage={}, model="builtin")


class Reporter(BaseCallback):
    """Asks the rows of an evaluation together, and reports a program whose full one is the best so far.

    Where the calls that are left do not pay for all rows, the run ends before the evaluation.
    """

    def __init__(self, channel: Channel, target: Target) -> None:
        self.channel, self.target, self.best = channel, target, -1.0
        self.running: dict[str, str] = {}  # id of a full evaluation -> system prompt

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        predictor = inputs["program"].respond
        prompt = render(predictor.signature.instructions, predictor.demos)
        self.target.ask(prompt, [example.message for example in inputs["devset"]])
        if inputs["callback_metadata"]["metric_key"] == "eval_full":
            self.running[call_id] = prompt

    def on_evaluate_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        prompt = self.running.pop(call_id, None)
        if prompt is not None and outputs is not None and outputs.score > self.best:
            self.best = outputs.score
            self.channel.report(prompt)


def optimise(channel: Channel) -> None:
    """Run MIPROv2 as its mode `light` would, scaled to the cap.

    The numbers of train and validation rows follow the cap. As in that mode, minibatches are used from
    51 rows on. Where the trials of the mode cost more than the cap, the cap ends the run.
    """
    start = channel.start
    rows = {split: [make_example(row) for row in start[split]] for split in ("train", "validation")}
    target = Target(
        channel, {row["input"]: row["id"] for part in ("train", "validation") for row in start[part]}
    )

    def score(example: Any, answer: Any, trace: Any = None) -> float:
        return target.scores[example.message, answer.answer]

    dspy.configure(
        lm=target, adapter=PromptAdapter(), callbacks=[Reporter(channel, target)], disable_history=True
    )
    share = min(1, start["cap"] / LIGHT_CALLS)
    size = min(max(1, int(VALIDATION * share)), len(rows["validation"]))
    optimiser = dspy.MIPROv2(
        metric=score,
        metric_threshold=1.0,  # a demonstration that is half right would teach the half
        prompt_model=Proposer(channel),
        task_model=target,
        auto=None,
        num_candidates=CANDIDATES,
        num_threads=1,
        seed=start["seed"],
    )
    optimiser.num_instruct_candidates = INSTRUCTIONS
    optimiser.compile(
        Program(start["prompt"]),
        trainset=rows["train"][: max(1, int(TRAIN * share))],
        valset=random.Random(start["seed"]).sample(rows["validation"], size),
        num_trials=TRIALS,
        minibatch=size > FROM_ROWS,
        minibatch_size=min(MINIBATCH, size),
    )


def make_example(row: dict[str, str]) -> Any:
    return dspy.Example(message=row["input"], answer=row["answer"]).with_inputs("message")


optimise(Channel())  # a script: nothing imports it
