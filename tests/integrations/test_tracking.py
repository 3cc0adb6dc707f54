import logging

import pytest

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own, of pydantic, alembic and sqlite
mlflow = pytest.importorskip("mlflow")

import remask  # noqa: E402
from fakes import Cut, write_lines  # noqa: E402
from fakes.command import remask as command  # noqa: E402
from fakes.small_programs import DENOISER, ROWS, SEED  # noqa: E402
from remask.events import Accepted, RoundRejected  # noqa: E402
from remask.integrations.tracking import MlflowTracker  # noqa: E402

DATA = [
    {"input": f"{text} ({split} {i})", "label": label, "split": split}
    for split in ("train", "validation", "test")
    for i in range(3)
    for text, label in ROWS
]


def kind(messages):
    asked = messages[-1]["content"].rsplit(" (", 1)[0]
    return dict(ROWS)[asked] if "kind" in messages[0]["content"].lower() else "neither"


def optimise(run_dir, on_event):
    return remask.optimize(
        SEED,
        remask.Dataset(DATA, split="split"),
        target=kind,
        metric="contains",
        denoiser=DENOISER,
        max_calls=500,
        run_dir=run_dir,
        on_event=on_event,
    )


def test_tracker_continues_the_mlflow_run_of_a_resumed_run(mlflow_uri, here):
    run_dir = here / "run"
    settings = {"a": {"b": 1, "base_url": "http://me:secret@host/v1"}}
    with pytest.raises(Cut), MlflowTracker(mlflow_uri, run_dir=run_dir, settings=settings) as first:

        def cut(event, state, spend):
            first(event, state, spend)
            if isinstance(event, Accepted | RoundRejected):
                raise Cut

        optimise(run_dir, cut)
    client = mlflow.tracking.MlflowClient(mlflow_uri)
    assert client.get_run(first.run_id).info.status == "KILLED"
    with MlflowTracker(mlflow_uri, run_dir=run_dir) as second:
        result = remask.resume(run_dir, target=kind, denoiser=DENOISER, data=DATA, on_event=second)
    assert second.run_id == first.run_id
    run = client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"a.b": "1", "a.base_url": "http://host/v1"}
    assert run.data.tags["remask.verdict"] == result.verdict == "improved"
    assert run.data.metrics["test_best"] == run.data.metrics["best_validation"] == 1
    assert run.data.metrics["spent_calls"] == result.spend.calls
    names = {file.path for file in client.list_artifacts(first.run_id, "prompts")}
    assert {"prompts/000-baseline.md", "prompts/best.md"} <= names
    best = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/prompts/best.md")
    assert "kind" in best.lower()


@pytest.mark.parametrize("store", ["nonsense://nowhere", "sqlite:///{}/no.db"])
def test_tracker_failure_never_stops_a_run(tmp_path, monkeypatch, store):
    heard, warned = [], []
    # Not caplog: where Inspect has run in this process, it has taken the root logger over.
    monkeypatch.setattr(logging.getLogger("remask"), "warning", lambda text, *a: warned.append(text % a))
    (tmp_path / "no.db").write_text("This is no database.")

    def both(event, state, spend):
        broken(event, state, spend)
        heard.append(event)

    broken = MlflowTracker(store.format(tmp_path))
    result = optimise(tmp_path / "run", both)
    assert result.verdict == "improved" and type(heard[-1]).__name__ == "Tested"
    (line,) = warned
    assert line.startswith("MLflow tracking ended, the run continues: ")


def test_track_refuses_unknown_trackers(here):
    (here / "prompt.md").write_text(SEED)
    write_lines(here / "rows.jsonl", *DATA)
    flags = ("--data", "rows.jsonl", "--split", "split", "--track", "wandb")
    refused = command("optimize", "prompt.md", *flags)
    assert refused.exit_code == 2 and "is unknown; give mlflow or mlflow:URI" in refused.output
    assert not (here / "runs").exists()
