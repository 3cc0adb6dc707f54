"""Use remask in MLflow 3.17: an optimizer for `mlflow.genai.optimize_prompts`, and the registry.

MLflow passes templates by name, and chat prompts as JSON in a string. Only the text of messages is
edited; roles, order and {{variables}} stay as they are. MLflow itself registers, tracks and links.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from remask.api.arguments import Search
from remask.errors import BackendError, ConfigError
from remask.ids import content_id
from remask.integrations.multi_prompt import (
    AnyDenoiser,
    ImprovedProgram,
    ProgramBench,
    ProgramRun,
    Texts,
    improve_program,
    make_proposers,
    resolve_settings,
    split_in_half,
)
from remask.integrations.records import to_text
from remask.prompt import Prompt
from remask.types import Feedback, Trace

try:
    import mlflow
    from mlflow.genai.optimize.optimizers import BasePromptOptimizer
    from mlflow.genai.optimize.types import EvaluationResultRecord, PromptOptimizerOutput
    from mlflow.tracking import MlflowClient
except ImportError as error:
    raise BackendError(
        f"remask inside MLflow needs mlflow 3.5 or newer ({error}); install with "
        "pip install 'remask[mlflow,local]'"
    ) from None

Evaluate = Callable[[dict[str, str], list[dict[str, Any]]], list[EvaluationResultRecord]]
_FAILURE_PREFIX = "Failed to invoke the predict_fn with"  # of an exception that MLflow passes on


class RemaskPromptOptimizer(BasePromptOptimizer):
    """Improves prompts of the registry by masked denoising, in one search over all of them.

    Half of the train data is used for training and half for validation. MLflow shows the scores of
    the validation half, which also chose the prompts. max_metric_calls: runs of predict_fn, a hard
    limit. perfect_score: the highest score that scorers and aggregation give (default: the number
    of scorers, since MLflow adds their scores). roles: roles of the messages to edit. labels,
    answer: texts that a prompt may contain although the data do. denoiser, search: as for
    `remask.optimize`.
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
        self.config, self.denoiser = resolve_settings(denoiser, search, answer)
        self.improved: ImprovedProgram | None = None  # result of the last optimization

    def optimize(
        self,
        eval_fn: Evaluate | None,
        train_data: list[dict[str, Any]],
        target_prompts: dict[str, str],
        enable_tracking: bool = True,
    ) -> PromptOptimizerOutput:
        """Optimise the prompts; MLflow calls this. Raises ConfigError and TargetUnreliable."""
        if eval_fn is None or not train_data:
            raise ConfigError("remask compares prompts by scores; give train_data and scorers")
        start = find_components(target_prompts, self.roles)
        makers = make_proposers(start, self.config, self.denoiser, self.labels)
        if not makers:
            raise ConfigError(
                f"no prompt has editable text in a message of the roles {', '.join(self.roles)}; "
                "write some plain words into one of them"
            )
        records = {f"row-{i}": record for i, record in enumerate(train_data)}

        def run(texts: Texts, ids: Sequence[str]) -> list[ProgramRun]:
            written = serialise(target_prompts, texts)
            found = eval_fn(written, [records[id] for id in ids])
            return [self._make_run(record, texts) for record in found]

        def log_score(runs: int, score: float) -> None:
            if enable_tracking and mlflow.active_run() is not None:
                mlflow.log_metric("remask/validation", score, step=runs)

        bench = ProgramBench(run, split_in_half(tuple(records), self.seed), self.max_metric_calls)
        found = improve_program(start, bench, makers, self.seed, self.config.search.cautious, log_score)
        self.improved = found
        first = {name: prompt.text for name, prompt in start.items()}
        before, after = (_mean_scores(bench, texts) for texts in (first, found.texts))
        return PromptOptimizerOutput(
            optimized_prompts=serialise(target_prompts, found.texts),
            initial_eval_score=before.pop("", None),
            final_eval_score=after.pop("", None),
            initial_eval_score_per_scorer=before,
            final_eval_score_per_scorer=after,
        )

    def _make_run(self, record: EvaluationResultRecord, texts: Texts) -> ProgramRun:
        response = to_text(record.outputs)
        if response.startswith(_FAILURE_PREFIX):
            return ProgramRun(None, {}, response)
        if record.score is None:
            return ProgramRun(None, {}, "the scorers gave no score")
        scores = {**record.individual_scores, "": float(record.score)}
        score = record.score / (self.perfect_score or len(record.individual_scores) or 1)
        query = to_text(record.inputs)
        notes = [f"{name}: {text}" for name, text in record.rationales.items() if text]
        expected = record.expectations
        trace = Trace(
            id=content_id("mlflow", query, response, notes),
            query=query,
            response=response,
            desired=to_text(expected) if _has_value(expected) else None,
            feedback=tuple(Feedback("comment", note) for note in notes),
            score=score,
        )
        return ProgramRun(score, dict.fromkeys(texts, trace), parts=scores)


def _has_value(expected: Any) -> bool:
    """Return whether the expectations of a record are more than empty values."""
    values = expected.values() if isinstance(expected, Mapping) else [expected]
    return any(value not in (None, "") for value in values)


def _mean_scores(bench: ProgramBench, texts: Texts) -> dict[str, float]:
    """Return mean scores on the validation rows in the unit of MLflow: "" the sum, then scorers."""
    runs = bench.run_rows(texts, bench.rows["validation"])
    scored = [run for run in runs if run.score is not None]
    names = dict.fromkeys(name for run in scored for name in run.parts)
    return {name: sum(run.parts.get(name, 0.0) for run in scored) / len(scored) for name in names}


def find_components(templates: Mapping[str, str], roles: Sequence[str]) -> dict[str, Prompt]:
    """Return the texts that may be edited: a text prompt by its name, a message as NAME/NUMBER."""
    found = {}
    for name, template in templates.items():
        messages = _parse_messages(template)
        if messages is None:
            found[name] = Prompt.parse(template)
            continue
        for i, message in enumerate(messages):
            if message["role"] in roles and isinstance(message.get("content"), str):
                found[f"{name}/{i}"] = Prompt.parse(message["content"])
    return found


def serialise(templates: Mapping[str, str], texts: Texts) -> dict[str, str]:
    """Write these texts into the templates, in the form in which MLflow gave them."""
    written = {}
    for name, template in templates.items():
        messages = _parse_messages(template)
        if messages is None:
            written[name] = texts[name]
            continue
        changed = [
            {**message, "content": texts.get(f"{name}/{i}", message.get("content"))}
            for i, message in enumerate(messages)
        ]
        written[name] = json.dumps(changed)
    return written


def _parse_messages(template: str) -> list[dict[str, Any]] | None:
    """Return the messages of a chat prompt; None for a text prompt."""
    try:
        value = json.loads(template)
    except ValueError:
        return None
    chat = isinstance(value, list) and value and all(
        isinstance(message, dict) and "role" in message for message in value
    )  # fmt: skip
    return value if chat else None


# --- the prompt registry


def register(name: str, template: str, commit_message: str, uri: str = "") -> str:
    """Register a template as a new version of the prompt `name`. Returns its URI: prompts:/NAME/3.

    No alias is set, so that no service uses the version by itself. uri: of the server or store of
    MLflow; "": as MLflow is configured. Raises ConfigError where it cannot be reached or refuses
    the prompt.
    """
    try:
        client = MlflowClient(uri or None, uri or None)
        return str(client.register_prompt(name, template, commit_message).uri)
    except Exception as error:  # MLflow, its database and its network may raise anything
        raise ConfigError(
            f"MLflow{f' at {uri}' if uri else ''} did not register the prompt {name!r}: {error}"
        ) from None
