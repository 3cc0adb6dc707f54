import os
import tempfile

import pytest

os.environ.setdefault("DSPY_CACHEDIR", tempfile.mkdtemp())
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
dspy = pytest.importorskip("dspy")

from dspy.lm15 import Message, Response, Usage  # noqa: E402

from fakes.small_programs import DENOISER, LABELS, ROWS, chosen, kind  # noqa: E402
from remask.errors import ConfigError  # noqa: E402
from remask.integrations.dspy import RemaskOptimizer, compare_programs, instruction_proposer  # noqa: E402
from remask.integrations.gepa import HardBudget  # noqa: E402


class Engine:
    """A model that is a function of its messages, through DSPy's own engine."""

    def __init__(self, answer):
        self.answer, self.calls = answer, 0

    def complete(self, request):
        self.calls += 1
        messages = [{"role": "system", "content": request.system or ""}]
        messages += [{"role": m.role, "content": m.text or ""} for m in request.messages]
        text = f"[[ ## label ## ]]\n{self.answer(messages)}\n\n[[ ## completed ## ]]"
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant(text),
            finish_reason="stop",
            usage=Usage(input_tokens=0, output_tokens=0, total_tokens=0),
        )

    def close(self):
        pass


def builtin(messages):
    """The built-in target's choice, in DSPy's format."""
    text = next(text for text, _ in ROWS if text in messages[-1]["content"])
    told = messages[0]["content"].rsplit("objective is:", 1)[-1].strip()
    found = chosen([{"role": "system", "content": told}, {"role": "user", "content": text}])
    return next(label for label in LABELS if label in found)


def exact(example, prediction, trace=None):
    return float(example.label == prediction.label)


def graded(gold, prediction, trace=None, pred_name=None, pred_trace=None):
    return dspy.Prediction(score=exact(gold, prediction), feedback=f"It is {gold.label}.")


def examples():
    return [dspy.Example(text=t, label=label).with_inputs("text") for t, label in ROWS]


def program():
    made = dspy.Predict(dspy.Signature("text -> label", "Classify the sentiment."))
    made.demos = [dspy.Example(text="Fine.", label="positive")]
    return made


def lm(answer):
    engine = Engine(answer)
    return engine, dspy.LM("local/tiny", engine=engine, cache=False)


class Chain(dspy.Module):
    def __init__(self):
        self.first = dspy.Predict(dspy.Signature("text -> label", "Say what it is about."))
        self.second = dspy.Predict(dspy.Signature("text -> label", "Classify the sentiment."))

    def forward(self, text):
        self.first(text=text)
        return self.second(text=text)


def test_compile_improves_only_the_instructions():
    student = program()
    engine, model = lm(kind)
    optimizer = RemaskOptimizer(exact, max_metric_calls=400, denoiser=DENOISER, num_threads=1)
    with dspy.context(lm=model):
        better = optimizer.compile(student, trainset=examples(), valset=examples())
        used = engine.calls
        found = compare_programs(student, better, examples() * 2, exact, num_threads=1)
    assert "kind" in better.signature.instructions.lower()
    assert student.signature.instructions == "Classify the sentiment."
    assert better.signature.with_instructions("").equals(student.signature.with_instructions(""))
    assert better.demos == student.demos
    assert used == optimizer.improved.runs <= 400
    assert (optimizer.improved.before, optimizer.improved.after) == (0, 1)
    assert (found.difference, found.verdict) == (1, "improved")


@pytest.mark.parametrize("cap", [9, 20, 50])
def test_max_metric_calls_is_a_hard_limit(cap):
    engine, model = lm(lambda messages: "neither")
    with dspy.context(lm=model):
        RemaskOptimizer(exact, max_metric_calls=cap, denoiser=DENOISER, num_threads=1).compile(
            program(), trainset=examples(), valset=examples()
        )
    assert 8 <= engine.calls <= cap


def test_predictors_alternate_or_are_named():
    _, model = lm(lambda messages: "neither")
    options = {"max_metric_calls": 300, "denoiser": DENOISER, "num_threads": 1}
    with dspy.context(lm=model):
        optimizer = RemaskOptimizer(exact, **options)
        optimizer.compile(Chain(), trainset=examples())
        assert optimizer.improved.rounds >= 1
        _, model = lm(kind)
        with dspy.context(lm=model):
            named = RemaskOptimizer(exact, predictors=["second"], **options)
            better = named.compile(Chain(), trainset=examples())
    assert better.first.signature.instructions == "Say what it is about."
    assert set(named.improved.changed) == {"second"}
    with pytest.raises(ConfigError, match="no predictor 'third'; the program has first, second"):
        RemaskOptimizer(exact, predictors=["third"]).compile(Chain(), trainset=examples())


def test_instruction_proposer_works_in_dspy_gepa():
    engine, model = lm(kind)
    with dspy.context(lm=model):
        better = dspy.GEPA(
            metric=lambda gold, pred, trace=None, pred_name=None, pred_trace=None: exact(gold, pred),
            instruction_proposer=instruction_proposer(denoiser=DENOISER),
            max_metric_calls=200,
            num_threads=1,
            use_merge=False,
            gepa_kwargs={"stop_callbacks": [HardBudget(200)]},
        ).compile(program(), trainset=examples(), valset=examples())
    assert "kind" in better.signature.instructions.lower()
    assert engine.calls <= 200


@pytest.mark.slow
def test_builtin_models_run_in_dspy():
    engine, model = lm(builtin)
    optimizer = RemaskOptimizer(
        exact,
        max_metric_calls=60,
        num_threads=1,
        labels=LABELS,
        perfect_score=2,  # rounding decides whether the seed is right on all eight rows
    )
    with dspy.context(lm=model):
        optimizer.compile(program(), trainset=examples(), valset=examples())
    assert 8 < engine.calls <= 60


def test_metric_without_a_number_fails_its_row_with_a_reason():
    from remask.integrations.dspy import score_prediction

    async def later(example, prediction):
        return 0.5

    def broken(example, prediction):
        raise ValueError("no")

    prediction, example = dspy.Prediction(label="a"), dspy.Example(label="a")
    none = score_prediction(lambda e, p: None, example, prediction, 1.0)
    assert none.endswith("returned None; return a number")
    assert "returned nan" in score_prediction(lambda e, p, trace=None: float("nan"), example, prediction, 1.0)
    assert score_prediction(broken, example, prediction, 1.0) == "metric broken raised ValueError: no"
    assert score_prediction(later, example, prediction, 1.0).value == 0.5
    found = score_prediction(lambda e, p: dspy.Prediction(score=50, feedback="so"), example, prediction, 100)
    assert (found.value, found.feedback) == (0.5, "so")
