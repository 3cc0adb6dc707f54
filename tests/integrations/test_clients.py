"""gepa (through litellm) and DSPy ask an endpoint over HTTP, as most users have it, and remask
writes the prompts. Inspect's own providers do so in tests/task."""

import os
import tempfile

import pytest

os.environ.setdefault("DSPY_CACHEDIR", tempfile.mkdtemp())
# litellm and DSPy leave sockets and loops to the garbage collector.
pytestmark = [
    pytest.mark.slow,  # importing them takes long
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning"
    ),
]

from fakes.server import Server, replying  # noqa: E402
from fakes.small_programs import DENOISER, ROWS, SEED, kind  # noqa: E402


def test_gepa_works_with_litellm():
    gepa = pytest.importorskip("gepa")
    pytest.importorskip("litellm")
    from gepa.adapters.default_adapter.default_adapter import DefaultAdapter

    from remask.integrations.gepa import DiffusionReflection, HardBudget, PairedAcceptance

    rows = [{"input": t, "additional_context": {}, "answer": label} for t, label in ROWS]
    reflection = DiffusionReflection({"system_prompt": SEED}, denoiser=DENOISER)
    with Server(default=replying(kind)) as server:
        result = gepa.optimize(
            seed_candidate=reflection.seed_candidate,
            trainset=rows,
            valset=rows,
            adapter=DefaultAdapter(
                "openai/tiny", litellm_batch_completion_kwargs={"api_base": server.url, "api_key": "none"}
            ),
            reflection_strategy=reflection,
            acceptance_criterion=PairedAcceptance(),
            stop_callbacks=HardBudget(200),
        )
    assert "kind" in result.best_candidate["system_prompt"].lower()
    assert result.val_aggregate_scores[0] == 0 and max(result.val_aggregate_scores) == 1
    assert server.requests == result.total_metric_calls <= 200


def test_dspy_works_with_its_own_client():
    dspy = pytest.importorskip("dspy")
    from remask.integrations.dspy import RemaskOptimizer

    def answer(messages):
        return f"[[ ## label ## ]]\n{kind(messages)}\n\n[[ ## completed ## ]]"

    examples = [dspy.Example(text=t, label=label).with_inputs("text") for t, label in ROWS]
    with Server(default=replying(answer)) as server:
        lm = dspy.LM("openai/tiny", api_base=server.url, api_key="none", cache=False)
        optimizer = RemaskOptimizer(
            lambda example, prediction, trace=None: float(example.label == prediction.label),
            max_metric_calls=200,
            denoiser=DENOISER,
            num_threads=1,
        )
        with dspy.context(lm=lm):
            better = optimizer.compile(
                dspy.Predict(dspy.Signature("text -> label", SEED)), trainset=examples, valset=examples
            )
    assert "kind" in better.signature.instructions.lower()
    assert server.requests == optimizer.improved.runs <= 200
