"""Log a run of remask to MLflow: settings, scores, spend, and the prompts as artifacts.

`MlflowTracker` is an `on_event` function. A resumed run continues its MLflow run, which a tag
identifies. A failure of MLflow never stops a run of remask: it is logged once, and tracking ends.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from remask.errors import BackendError
from remask.events import Accepted, Event, RoundRejected, Scored, SearchEnded, State, Tested
from remask.runs.budget import Spend
from remask.runs.report.summary import find_validation, list_settings
from remask.runs.result import make_result

try:
    import mlflow
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient
except ImportError as error:
    raise BackendError(
        f"tracking needs mlflow ({error}); install with pip install 'remask[mlflow]'"
    ) from None

LOG = logging.getLogger("remask")
RUN_TAG = "remask.run_dir"


class MlflowTracker:
    """Logs the events of a run to MLflow; pass it as `on_event`.

    uri: of the tracking server or store; "": as MLflow is configured. run_dir: of the run; a
    resumed run finds its MLflow run by it. settings: logged as parameters, with nested keys joined
    by dots and URLs without credentials. The MLflow run ends with the sealed test. `close` or a
    `with` block ends it earlier.
    """

    def __init__(
        self,
        uri: str = "",
        *,
        experiment: str = "remask",
        run_dir: str | Path = "",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._uri, self._experiment = uri, experiment
        self._run_dir = str(Path(run_dir).resolve()) if run_dir else ""
        self._settings = list_settings(settings or {})
        self._client: MlflowClient | None = None
        self._broken = False
        self.run_id = ""  # of the MLflow run; "" before the first event

    def __enter__(self) -> "MlflowTracker":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __call__(self, event: Event, state: State, spend: Spend) -> None:
        """Log one event."""
        if self._broken:
            return
        with self._catch_failures():
            self._log(self._client or self._start_run(), event, state, spend)

    def close(self) -> None:
        """End an MLflow run that had no sealed test yet, with the status KILLED."""
        if self._client is not None and not self._broken:
            with self._catch_failures():
                self._client.set_terminated(self.run_id, "KILLED")
            self._client = None

    @contextmanager
    def _catch_failures(self) -> Iterator[None]:
        """End only the tracking where MLflow, its database or its network raise."""
        try:
            yield
        except Exception as error:
            self._broken = True
            LOG.warning("MLflow tracking ended, the run continues: %s", error)

    def _start_run(self) -> MlflowClient:
        client = MlflowClient(self._uri or mlflow.get_tracking_uri())
        found = client.get_experiment_by_name(self._experiment)
        id = found.experiment_id if found else client.create_experiment(self._experiment)
        earlier: list[Run] = []
        if self._run_dir:
            where = self._run_dir.replace("'", "\\'")
            earlier = client.search_runs([id], f"tags.`{RUN_TAG}` = '{where}'", max_results=1)
        if earlier:
            self.run_id = earlier[0].info.run_id
            client.update_run(self.run_id, status="RUNNING")
        else:
            self.run_id = client.create_run(id, tags={RUN_TAG: self._run_dir}).info.run_id
            for key, value in self._settings:
                client.log_param(self.run_id, key, value)
        self._client = client
        return client

    def _log(self, client: MlflowClient, event: Event, state: State, spend: Spend) -> None:
        def metric(name: str, value: float | None) -> None:
            if value is not None:
                client.log_metric(self.run_id, name, value, step=spend.calls)

        match event:
            case Scored(id=id, split="validation"):
                score = find_validation(state, id)
                metric("validation", score)
                if id == state.baseline:
                    metric("best_validation", score)
                    self._log_prompt(client, "000-baseline", state, id)
            case Accepted(id=id):
                metric("best_validation", find_validation(state, id))
                self._log_prompt(client, f"{len(state.accepted):03}-round-{event.round + 1}", state, id)
            case Tested():
                result = make_result(state, {}, spend, (), "")
                for name in ("baseline", "best", "difference", "low", "high"):
                    metric(f"test_{name}", getattr(result.test, name))
                client.set_tag(self.run_id, "remask.verdict", result.verdict)
                self._log_prompt(client, "best", state, state.incumbent)
        if isinstance(event, Accepted | RoundRejected | SearchEnded | Tested):
            for name, value in asdict(spend).items():
                metric(f"spent_{name}", value)
        if isinstance(event, Tested):
            client.set_terminated(self.run_id)
            self._client, self._broken = None, True  # there are no events after the test

    def _log_prompt(self, client: MlflowClient, name: str, state: State, id: str) -> None:
        client.log_text(self.run_id, state.prompts[id] + "\n", f"prompts/{name}.md")
