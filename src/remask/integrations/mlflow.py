"""remask inside MLflow: an optimizer for `mlflow.genai.optimize_prompts`, and the prompt registry.

MLflow (3.17) hands over templates by name, chat prompts as JSON in a string. Only the text of
messages is edited; roles, order and {{variables}} stay. Registering, tracking and linking stay
MLflow's.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from remask.api.arguments import Search
from remask.errors import BackendError, ConfigError
from remask.ids import content_id
from remask.integrations.multi_prompt import (
    AnyDenoiser,
    Bench,
    Improved,
    Ran,
    Texts,
    halves,
    improve,
    proposers,
    settle,
)
from remask.integrations.records import as_text
from remask.prompt import Prompt
from remask.types import Feedback, Trace

try:
    import mlflow
    from mlflow.genai.optimize.optimizers import BasePromptOptimizer
    from mlflow.genai.optimize.types import EvaluationResultRecord, PromptOptimizerOutput
except ImportError as error:
    raise BackendError(
        f"remask inside MLflow needs mlflow 3.5 or newer ({error}); install with "
        "pip install 'remask[mlflow,local]'"
    ) from None

Evaluate = Callable[[dict[str, str], list[dict[str, Any]]], list[EvaluationResultRecord]]
_FAILED = "Failed to invoke the predict_fn with"  # how MLflow hands over an exception


class RemaskPromptOptimizer(BasePromptOptimizer):
    """Improves prompts of the registry by masked denoising, one round each in turn.

    Half of the train data is read, the other half validates; the scores that MLflow shows are of
    that half, which also chose the prompts. max_metric_calls: runs of predict_fn, never passed.
    perfect_score: the best that scorers and aggregation give; by default the number of scorers,
    since MLflow adds them up. roles: of chat prompts, whose messages are edited. labels, answer:
    texts that a prompt may name although the data do. denoiser, search: as for `remask.optimize`.
    """

    def __init__(
        self,
        *,
        max_metric_calls: int = 600,
        perfect_score: float | None = None,
        roles: Sequence[str] = ("system", "developer"),
        labels: Sequence[str] = (),
        answer: str = "{label}",
        denoiser: AnyDenoiser = "builtin",
        seed: int = 0,
        search: Search | None = None,
    ) -> None:
        self.max_metric_calls = max_metric_calls
        self.perfect_score = perfect_score
        self.roles = tuple(roles)
        self.labels = tuple(labels)
        self.seed = seed
        self.config, self.denoiser = settle(denoiser, search, answer)
        self.improved: Improved | None = None  # of the last run

    def optimize(
        self,
        eval_fn: Evaluate | None,
        train_data: list[dict[str, Any]],
        target_prompts: dict[str, str],
        enable_tracking: bool = True,
    ) -> PromptOptimizerOutput:
        """Called by MLflow. Raises ConfigError and TargetUnreliable."""
        if eval_fn is None or not train_data:
            raise ConfigError("remask compares prompts by scores: give train_data and scorers")
        start = components(target_prompts, self.roles)
        makers = proposers(start, self.config, self.denoiser, self.labels)
        if not makers:
            raise ConfigError(
                f"nothing to edit: no prompt has plain text in a message of {', '.join(self.roles)}"
            )
        records = {f"row-{i}": record for i, record in enumerate(train_data)}

        def run(texts: Texts, ids: Sequence[str]) -> list[Ran]:
            written = serialised(target_prompts, texts)
            found = eval_fn(written, [records[id] for id in ids])
            return [self._ran(record, texts) for record in found]

        def tell(runs: int, score: float) -> None:
            if enable_tracking and mlflow.active_run() is not None:
                mlflow.log_metric("remask/validation", score, step=runs)

        bench = Bench(run, halves(tuple(records), self.seed), self.max_metric_calls)
        found = improve(start, bench, makers, self.seed, self.config.search.cautious, tell)
        self.improved = found
        first = {name: prompt.text for name, prompt in start.items()}
        before, after = (_shown(bench, texts) for texts in (first, found.texts))
        return PromptOptimizerOutput(
            optimized_prompts=serialised(target_prompts, found.texts),
            initial_eval_score=before.pop("", None),
            final_eval_score=after.pop("", None),
            initial_eval_score_per_scorer=before,
            final_eval_score_per_scorer=after,
        )

    def _ran(self, record: EvaluationResultRecord, texts: Texts) -> Ran:
        response = as_text(record.outputs)
        if response.startswith(_FAILED):
            return Ran(None, {}, response)
        if record.score is None:
            return Ran(None, {}, "the scorers gave no score")
        scores = {**record.individual_scores, "": float(record.score)}
        score = record.score / (self.perfect_score or len(record.individual_scores) or 1)
        query = as_text(record.inputs)
        notes = [f"{name}: {text}" for name, text in record.rationales.items() if text]
        expected = record.expectations
        trace = Trace(
            id=content_id("mlflow", query, response, notes),
            query=query,
            response=response,
            desired=as_text(expected) if _says_something(expected) else None,
            feedback=tuple(Feedback("comment", note) for note in notes),
            score=score,
        )
        return Ran(score, dict.fromkeys(texts, trace), parts=scores)


def _says_something(expected: Any) -> bool:
    values = expected.values() if isinstance(expected, Mapping) else [expected]
    return any(value not in (None, "") for value in values)


def _shown(bench: Bench, texts: Texts) -> dict[str, float]:
    """Mean scores on the validation rows in MLflow's own unit: "" the aggregate, then scorers."""
    ran = [one for one in bench.ask(texts, bench.rows["validation"]) if one.score is not None]
    names = dict.fromkeys(name for one in ran for name in one.parts)
    return {name: sum(one.parts.get(name, 0.0) for one in ran) / len(ran) for name in names}


def components(templates: Mapping[str, str], roles: Sequence[str]) -> dict[str, Prompt]:
    """The texts that may be edited: a text prompt by its name, a message as NAME/NUMBER."""
    found = {}
    for name, template in templates.items():
        messages = _messages(template)
        if messages is None:
            found[name] = Prompt.parse(template)
            continue
        for i, message in enumerate(messages):
            if message["role"] in roles and isinstance(message.get("content"), str):
                found[f"{name}/{i}"] = Prompt.parse(message["content"])
    return found


def serialised(templates: Mapping[str, str], texts: Texts) -> dict[str, str]:
    """The templates with these texts, in the form in which MLflow gave them."""
    written = {}
    for name, template in templates.items():
        messages = _messages(template)
        if messages is None:
            written[name] = texts[name]
            continue
        changed = [
            {**message, "content": texts.get(f"{name}/{i}", message.get("content"))}
            for i, message in enumerate(messages)
        ]
        written[name] = json.dumps(changed)
    return written


def _messages(template: str) -> list[dict[str, Any]] | None:
    """The messages of a chat prompt; None for a text prompt."""
    try:
        value = json.loads(template)
    except ValueError:
        return None
    chat = isinstance(value, list) and value and all(
        isinstance(message, dict) and "role" in message for message in value
    )  # fmt: skip
    return value if chat else None


# --- A prompt as a new version in MLflow's prompt registry.
#
# No alias is set, so that nothing which serves prompts takes the version up by itself.


try:
    from mlflow.tracking import MlflowClient
except ImportError as error:
    raise BackendError(
        f"the prompt registry needs mlflow 3.5 or newer ({error}); install with "
        "pip install 'remask[mlflow]'"
    ) from None


def register(name: str, template: str, commit_message: str, uri: str = "") -> str:
    """The URI of the version, as prompts:/NAME/3.

    uri: of MLflow's server or store; "": as MLflow is set up. Raises ConfigError where it cannot
    be reached, or refuses the prompt.
    """
    try:
        client = MlflowClient(uri or None, uri or None)
        made: str = client.register_prompt(name, template, commit_message).uri
    except Exception as error:  # of MLflow, its database or its network
        raise ConfigError(
            f"MLflow{f' at {uri}' if uri else ''} did not register the prompt {name!r}: {error}"
        ) from None
    return made
