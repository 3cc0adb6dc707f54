import json
import os

import pytest

os.environ["MLFLOW_GENAI_EVAL_MAX_WORKERS"] = "1"
pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own, of pydantic, alembic and sqlite
mlflow = pytest.importorskip("mlflow")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from mlflow.genai.scorers import scorer  # noqa: E402

from fakes.small_programs import DENOISER, LABELS, ROWS, chosen  # noqa: E402
from remask.errors import ConfigError  # noqa: E402
from remask.integrations.mlflow import RemaskPromptOptimizer, find_components, serialise  # noqa: E402

DATA = [{"inputs": {"text": text}, "outputs": label} for text, label in ROWS]


@scorer
def exact(outputs, expectations):
    return float(expectations["expected_response"] in outputs)


@pytest.fixture(scope="module")
def registry(mlflow_uri):
    mlflow.set_tracking_uri(mlflow_uri)
    mlflow.set_experiment("prompts")


def optimise(prompt, predict, optimizer):
    return mlflow.genai.optimize_prompts(
        predict_fn=predict, train_data=DATA, prompt_uris=[prompt.uri], optimizer=optimizer, scorers=[exact]
    )


def test_optimizer_keeps_roles_and_variables_of_a_chat_prompt(registry):
    prompt = mlflow.genai.register_prompt(
        name="mood",
        template=[
            {"role": "system", "content": "Classify the mood of {{text}}. Be quick."},
            {"role": "user", "content": "{{text}}"},
        ],
    )
    calls = []

    def predict(text):
        messages = prompt.format(text=text)
        calls.append(messages)
        return dict(ROWS)[text] if "kind" in messages[0]["content"].lower() else "neither"

    optimizer = RemaskPromptOptimizer(max_metric_calls=300, denoiser=DENOISER)
    result = optimise(prompt, predict, optimizer)
    system, user = result.optimized_prompts[0].template
    assert "kind" in system["content"].lower() and system["content"].count("{{text}}") == 1
    assert (system["role"], user) == ("system", {"role": "user", "content": "{{text}}"})
    assert (result.initial_eval_score, result.final_eval_score) == (0, 1)
    assert result.final_eval_score_per_scorer == {"exact": 1}
    assert result.optimized_prompts[0].version == 2
    assert optimizer.improved.runs <= 300
    assert len(calls) <= 301  # MLflow itself tries predict_fn once
    runs = mlflow.search_runs()
    assert runs["metrics.remask/validation"].max() == 1


def test_optimizer_counts_failed_runs_as_no_scores(registry):
    prompt = mlflow.genai.register_prompt(name="down", template="Classify {{text}}.")
    state = {"calls": 0}

    def predict(text):
        prompt.format(text=text)
        state["calls"] += 1
        if state["calls"] > 1:
            raise ConnectionError("the model is down")
        return "positive"

    with pytest.raises(Exception, match="have no score"):
        optimise(prompt, predict, RemaskPromptOptimizer(max_metric_calls=50, denoiser=DENOISER))


def test_optimizer_needs_scores():
    with pytest.raises(ConfigError, match="scorers"):
        RemaskPromptOptimizer(denoiser=DENOISER).optimize(None, [], {"p": "Say hello."})


messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text()}),
    min_size=1,
)


@settings(max_examples=30, deadline=None)
@given(messages.filter(lambda found: all("keep]]" not in m["content"] for m in found)))
def test_serialise_restores_chat_prompts(found):
    templates = {"chat": json.dumps(found), "text": "Say {{hello}}."}
    texts = {name: p.text for name, p in find_components(templates, ("system",)).items()}
    written = serialise(templates, texts)
    assert json.loads(written["chat"]) == found and written["text"] == templates["text"]


@pytest.mark.slow
def test_builtin_models_run_in_mlflow(registry):
    prompt = mlflow.genai.register_prompt(name="tiny", template="Classify the sentiment.")

    def predict(text):
        system = {"role": "system", "content": prompt.format()}
        return chosen([system, {"role": "user", "content": text}])

    optimizer = RemaskPromptOptimizer(
        max_metric_calls=60,
        labels=LABELS,
        perfect_score=2,  # rounding decides whether the seed is right on all rows
    )
    result = optimise(prompt, predict, optimizer)
    assert 4 < optimizer.improved.runs <= 60
    assert result.final_eval_score >= result.initial_eval_score
