"""Read new traces from a server that collects them: Langfuse and MLflow, each through its own SDK.

`langfuse:URL` names a server of Langfuse and `mlflow:URI` a tracking server or store of MLflow.
`open_server` gives the traces in parts of a fixed time each, in the form of the server's API, which
data/formats reads like a file. Nothing is remembered here: the caller says from when on to read, and
reads the last days again for what came late.

Keys come from the variables that the SDKs know and are never part of a message. Sources: langfuse
5.0 (api/observations, api/scores; a server of Langfuse 4 or newer), mlflow 3.17 (MlflowClient).
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import urlsplit

from remask.data.parts import Download
from remask.errors import BackendError, ConfigError
from remask.sanitize import hide_credentials, one_line

# Traces of one part are in memory at a time. Its limits are fixed hours, so that a trace that lies
# across one is cut at the same place whenever it is read.
PART = timedelta(hours=6)
PAGE = 100
TRACES_PER_REQUEST = 40  # whose scores are asked for; their ids stand in the URL
RETRIES = 5
TIMEOUT_S = 60.0
LANGFUSE_KEYS = "LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY"
MLFLOW_KEYS = "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
FIELDS = "core,basic,io,model"  # of an observation of Langfuse


class Server(Protocol):
    """A place that gives the traces that began in [start, end)."""

    def read(self, start: datetime, end: datetime) -> Iterator[dict[str, Any]]:
        """Yield the traces as the API has them. Raises BackendError."""

    def close(self) -> None:
        """Close the connections."""


def name_server(place: str) -> str:
    """Return a place without the name and the password in its URL."""
    kind, _, address = place.partition(":")
    return f"{kind}:{hide_credentials(address)}"


def read_server(place: str, experiment: str, since: datetime, until: datetime) -> Iterator[Download]:
    """Yield the traces that began in [since, until), those of each part of a day together.

    Raises ConfigError for a place or a key that is wrong, and BackendError where the server does not
    answer as it should; what was yielded before is complete.
    """
    start = since.replace(hour=since.hour - since.hour % 6, minute=0, second=0, microsecond=0)
    with closing(open_server(place, experiment)) as server:
        while start < until:
            end = start + PART
            if values := list(server.read(start, min(end, until))):
                yield Download(name_server(place), values)
            start = end


def open_server(place: str, experiment: str) -> Server:
    """Return the server of a place; nothing is asked yet. Raises ConfigError and ModuleNotFoundError."""
    kind, _, address = place.partition(":")
    if not address:
        raise ConfigError(f"{place!r} names no server; write {kind}:http://HOST")
    return LangfuseServer(address) if kind == "langfuse" else MlflowServer(address, experiment)


class LangfuseServer:
    """Observations and their scores, put together as traces with both."""

    def __init__(self, url: str) -> None:
        from langfuse.api import LangfuseAPI  # first, so that an error names this package

        keys = [os.environ.get(f"LANGFUSE_{name}_KEY", "") for name in ("PUBLIC", "SECRET")]
        if not all(keys):
            raise ConfigError(
                f"the server {hide_credentials(url)} needs keys; set the variables {LANGFUSE_KEYS}"
            )
        import httpx  # langfuse brings it

        self._name = name_server(f"langfuse:{url}")
        public, secret = keys
        # A redirect may lead to another host, and httpx would send the header of the public key on.
        self._line = httpx.Client(timeout=TIMEOUT_S, follow_redirects=False)
        self._api = LangfuseAPI(
            base_url=url.rstrip("/"), username=public, password=secret, x_langfuse_public_key=public,
            httpx_client=self._line,
        )  # fmt: skip

    def close(self) -> None:
        """Close the connections."""
        self._line.close()

    def read(self, start: datetime, end: datetime) -> Iterator[dict[str, Any]]:
        """Yield {"id", "sessionId", "observations", "scores"}, in the order in which traces began."""
        ask = {"fields": FIELDS, "from_start_time": start, "to_start_time": end}
        traces: dict[str, dict[str, Any]] = {}
        found = self._read_pages(self._api.observations.get_many, ask)
        for row in sorted(found, key=lambda row: (str(row.get("startTime")), str(row.get("id")))):
            id = str(row.get("traceId") or row["id"])
            trace = traces.setdefault(id, {"id": id, "sessionId": None, "observations": [], "scores": []})
            trace["sessionId"] = trace["sessionId"] or row.get("sessionId")
            trace["observations"].append(row)
        ids = list(traces)
        for at in range(0, len(ids), TRACES_PER_REQUEST):
            named = ",".join(ids[at : at + TRACES_PER_REQUEST])
            ask = {"fields": "details,subject", "trace_id": named}
            for score in self._read_pages(self._api.scores.get_many, ask):
                subject = score.get("subject") or {}
                at_observation = subject.get("kind") == "observation"
                id = str(subject.get("traceId") if at_observation else subject.get("id"))
                if id in traces:
                    where = {"observationId": subject.get("id")} if at_observation else {}
                    traces[id]["scores"].append({**score, **where})
        yield from traces.values()

    def _read_pages(self, get_many: Any, ask: dict[str, Any]) -> Iterator[dict[str, Any]]:
        cursor = None
        while True:
            with self._name_failures():
                page = get_many(**ask, limit=PAGE, cursor=cursor, request_options={"max_retries": RETRIES})
            yield from (json.loads(row.json()) for row in page.data)
            cursor = page.meta.cursor
            if not cursor:
                return

    @contextmanager
    def _name_failures(self) -> Iterator[None]:
        import httpx
        from langfuse.api.core.api_error import ApiError
        from pydantic import ValidationError

        try:
            yield
        except ApiError as error:
            place = (error.headers or {}).get("location", "")
            raise _explain(self._name, error.status_code, LANGFUSE_KEYS, place=place) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _explain(self._name, None, "", error) from None
        except (ValidationError, ValueError) as error:  # an answer of another kind of server
            raise _explain(self._name, 200, "", error) from None


class MlflowServer:
    """Traces of one experiment, or of all."""

    def __init__(self, uri: str, experiment: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # remask sends no usage data
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        self._name = name_server(f"mlflow:{uri}")
        try:
            self._client = MlflowClient(uri)
        except MlflowException as error:
            raise ConfigError(f"{self._name} is no place of MLflow ({one_line(str(error), 160)})") from None
        self._experiment = experiment
        self._ids: Sequence[str] | None = None

    def close(self) -> None:
        """Do nothing: MLflow keeps its connections for other clients of the process."""

    def read(self, start: datetime, end: datetime) -> Iterator[dict[str, Any]]:
        """Yield the traces, oldest first."""
        limits = f"trace.timestamp_ms >= {_in_ms(start)} AND trace.timestamp_ms < {_in_ms(end)}"
        token = None
        while True:
            with self._name_failures():
                if self._ids is None:
                    self._ids = self._find_experiments()
                page = self._client.search_traces(
                    locations=list(self._ids), filter_string=limits, max_results=PAGE,
                    order_by=["timestamp_ms ASC"], page_token=token,
                )  # fmt: skip
                values = [json.loads(trace.to_json()) for trace in page]
            yield from values
            token = page.token
            if not token:
                return

    def _find_experiments(self) -> list[str]:
        if not self._experiment:
            return [str(one.experiment_id) for one in self._client.search_experiments()]
        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            names = ", ".join(repr(one.name) for one in self._client.search_experiments())
            raise ConfigError(
                f"{self._name} has no experiment {self._experiment!r}; correct [watch] experiment "
                f"(there are {one_line(names, 200) or 'none'})"
            )
        return [str(found.experiment_id)]

    @contextmanager
    def _name_failures(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        try:
            yield
        except MlflowException as error:
            status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
            raise _explain(self._name, status, MLFLOW_KEYS, error) from None
        except RequestException as error:
            raise _explain(self._name, None, "", error) from None


def _in_ms(time: datetime) -> int:
    return int(time.astimezone(UTC).timestamp() * 1000)


def _explain(
    name: str, status: int | None, keys: str, error: Exception | None = None, place: str = ""
) -> BackendError:
    """Say in one sentence what a server did and what to do about it. The text of `error` is clipped.

    place: where a redirect leads.
    """
    kept = "nothing of this reading was kept, so nothing is lost or counted twice"
    if status in (401, 403):
        return BackendError(f"{name} refuses the key (status {status}); check {keys}; {kept}")
    if status == 404:
        return BackendError(f"{name} does not know this request (status 404); check the URL, and whether "
                            f"the server is new enough for the installed SDK; {kept}")  # fmt: skip
    if status is not None and 300 <= status < 400:
        url = urlsplit(place)
        host = f" to {one_line(f'{url.scheme}://{url.hostname}', 160)}" if url.hostname else ""
        return BackendError(f"{name} redirects{host} (status {status}), and keys are not sent on; write the "
                            f"address that it leads to; {kept}")  # fmt: skip
    why = f"status {status}" if error is None else one_line(f"{type(error).__name__}: {error}", 160)
    return BackendError(f"{name} does not answer as it should ({why}); run the command again later; {kept}")
