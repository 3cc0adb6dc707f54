"""Use remask in DSPy 3.4: an optimizer, and an instruction proposer for `dspy.GEPA`.

`RemaskOptimizer` edits only the instructions of predictors. Signature fields, demos and the code of
the program stay as they are. `instruction_proposer` is for users of dspy.GEPA.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
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
from remask.models.event_loop import wait_for_result
from remask.prompt import Prompt
from remask.sanitize import one_line
from remask.stats import Comparison, compare
from remask.tasks.run_metric import MAX_FEEDBACK_CHARS, name_metric
from remask.types import Feedback, Score, Split, Trace

try:
    import dspy
    from dspy.teleprompt import Teleprompter
    from dspy.utils.exceptions import AdapterParseError
except ImportError as error:
    raise BackendError(
        f"remask inside DSPy needs dspy ({error}); install with pip install 'remask[dspy,local]'"
    ) from None

Metric = Callable[..., Any]  # (example, prediction, and up to three more) -> number or Prediction


class RemaskOptimizer(Teleprompter):  # type: ignore[misc]
    """Improves the instructions of the predictors of a program, in one search over all of them.

    metric: as for other optimizers of DSPy. Where it returns dspy.Prediction(score=…, feedback=…),
    the diffusion model reads the feedback. max_metric_calls: runs of the program in all, a hard
    limit. predictors: names as in `named_predictors()` (default: all). perfect_score: the highest
    score of the metric. labels, answer: texts that instructions may contain although examples do.
    denoiser, search: as for `remask.optimize`. num_threads: as in DSPy.
    """

    def __init__(
        self,
        metric: Metric,
        *,
        max_metric_calls: int = 600,
        predictors: Sequence[str] = (),
        perfect_score: float = 1.0,
        labels: Sequence[str] = (),
        answer: str = "{label}",
        denoiser: AnyDenoiser = "builtin",
        seed: int = 0,
        num_threads: int | None = None,
        search: Search | None = None,
    ) -> None:
        super().__init__()
        self.metric = metric
        self.max_metric_calls = max_metric_calls
        self.predictors = tuple(predictors)
        self.perfect_score = perfect_score
        self.labels = tuple(labels)
        self.seed = seed
        self.num_threads = num_threads
        self.config, self.denoiser = resolve_settings(denoiser, search, answer)
        self.improved: ImprovedProgram | None = None  # result of the last compile

    def compile(
        self,
        student: Any,
        *,
        trainset: list[Any],
        teacher: Any = None,
        valset: list[Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return a copy of `student` with improved instructions; the student stays as it is.

        Without `valset`, half of the trainset is used for validation. The reported scores chose the
        instructions, so use `compare_programs` on a test set to find out whether they are better.
        Raises ConfigError and TargetUnreliable.
        """
        if teacher is not None or kwargs:
            raise ConfigError(f"compile takes student, trainset and valset, not {sorted(kwargs)!r}")
        named = dict(student.named_predictors())
        if unknown := [name for name in self.predictors if name not in named]:
            raise ConfigError(f"no predictor {unknown[0]!r}; the program has {', '.join(named)}")
        start = {name: Prompt.parse(p.signature.instructions) for name, p in named.items()}
        chosen = {name: start[name] for name in self.predictors or named}
        makers = make_proposers(chosen, self.config, self.denoiser, self.labels)
        if not makers:
            raise ConfigError(
                "no predictor has editable instructions; write some plain words into one of them"
            )
        examples, rows = _split_rows(trainset, valset, self.seed)

        def run(texts: Texts, ids: Sequence[str]) -> list[ProgramRun]:
            program = copy_with_instructions(student, texts)
            batch = [examples[id] for id in ids]
            return _run_program(program, batch, self.metric, self.perfect_score, self.num_threads)

        bench = ProgramBench(run, rows, self.max_metric_calls)
        self.improved = improve_program(start, bench, makers, self.seed, self.config.search.cautious)
        return copy_with_instructions(student, self.improved.texts)

    def get_params(self) -> dict[str, Any]:
        """Return the settings, as DSPy shows them."""
        return {
            "max_metric_calls": self.max_metric_calls,
            "predictors": self.predictors,
            "seed": self.seed,
            "denoiser": self.config.denoiser.model,
        }


def instruction_proposer(**options: Any) -> Any:
    """Make an instruction proposer for `dspy.GEPA`. Takes the options of DiffusionReflection."""
    from remask.integrations.gepa import DiffusionReflection

    return DiffusionReflection(**options)


def compare_programs(
    before: Any, after: Any, testset: Sequence[Any], metric: Metric, num_threads: int | None = None
) -> Comparison:
    """Run both programs once on test examples that neither has seen, and compare the scores.

    Rows on which a run failed are left out. Raises ConfigError where no row has two scores.
    """
    found = [_run_program(program, testset, metric, 1.0, num_threads) for program in (before, after)]
    pairs = [
        (a.score, b.score) for a, b in zip(*found, strict=True) if a.score is not None and b.score is not None
    ]
    if not pairs:
        raise ConfigError("no test row has a score for both programs; look at the model's errors")
    return compare([a for a, _ in pairs], [b for _, b in pairs])


def copy_with_instructions(student: Any, texts: Texts) -> Any:
    """Return a deep copy of the program with these instructions."""
    program = student.deepcopy()
    for name, predictor in program.named_predictors():
        if name in texts:
            predictor.signature = predictor.signature.with_instructions(texts[name])
    return program


def _split_rows(
    trainset: Sequence[Any], valset: Sequence[Any] | None, seed: int
) -> tuple[dict[str, Any], dict[Split, tuple[str, ...]]]:
    train = {f"train-{i}": example for i, example in enumerate(trainset)}
    validation = {f"validation-{i}": example for i, example in enumerate(valset or ())}
    if not train or (valset is not None and not validation):
        raise ConfigError("trainset and valset must have at least one example")
    if not validation:
        return train, split_in_half(tuple(train), seed)
    return {**train, **validation}, {"train": tuple(train), "validation": tuple(validation)}


def _run_program(
    program: Any, examples: Sequence[Any], metric: Metric, perfect: float, threads: int | None
) -> list[ProgramRun]:
    """Run the program on examples in parallel, and score each run."""
    names = {id(predictor): name for name, predictor in program.named_predictors()}
    workers = threads or dspy.settings.num_threads or 1

    def run(example: Any) -> ProgramRun:
        with dspy.context(trace=[]):
            try:
                prediction = program(**example.inputs())
            except AdapterParseError:
                return ProgramRun(0.0, {})  # an answer in a wrong format is a wrong answer
            except Exception as error:  # the client of the model may raise anything
                return ProgramRun(None, {}, f"{type(error).__name__}: {error}")
            steps = list(dspy.settings.trace)
        graded = score_prediction(metric, example, prediction, perfect)
        if isinstance(graded, str):
            return ProgramRun(None, {}, graded)
        score, feedback = graded.value, graded.feedback
        traces = {
            names[id(step)]: _make_trace(step, given, made, example, score, feedback)
            for step, given, made in steps
            if id(step) in names
        }
        return ProgramRun(score, traces)

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(copy_context().run, run, example) for example in examples]
        return [future.result() for future in futures]


def score_prediction(metric: Metric, example: Any, prediction: Any, perfect: float) -> Score | str:
    """Return score and feedback, or why there is no score. Scores are divided by `perfect`.

    Further required arguments of a metric are None, as in DSPy. Async metrics are awaited.
    """
    parameters = inspect.signature(metric).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    name, feedback = name_metric(metric), ""
    try:
        found = wait_for_result(metric(example, prediction, *[None] * (len(needed) - 2)))
        if isinstance(found, dspy.Prediction):
            found, feedback = found.get("score"), str(found.get("feedback") or "")
        value = None if found is None else float(found)
    except Exception as error:  # user code may raise anything
        return f"metric {name} raised {type(error).__name__}: {one_line(str(error), 200)}"
    if value is None or not math.isfinite(value):
        return f"metric {name} returned {value}; return a number"
    return Score(value / perfect, feedback[:MAX_FEEDBACK_CHARS])


def _make_trace(
    step: Any, given: Mapping[str, Any], made: Any, example: Any, score: float, feedback: str
) -> Trace:
    """Make the trace of one predictor. Its right answers are fields of the example."""
    outputs = {name: made.get(name) for name in step.signature.output_fields}
    known = {name: example[name] for name in outputs if name in example}
    response = to_text({name: outputs[name] for name in known} or outputs)
    query = to_text({name: given[name] for name in step.signature.input_fields if name in given})
    return Trace(
        id=content_id("dspy", query, response, feedback),
        query=query,
        response=response,
        desired=to_text(known) if known else None,
        feedback=(Feedback("comment", feedback),) if feedback else (),
        score=score,
    )
