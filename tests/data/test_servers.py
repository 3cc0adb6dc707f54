"""Traces of servers, read through their own SDKs: each once, late ones too, and nothing by halves."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from fakes import ENV
from fakes.langfuse_server import KEYS, LangfuseServer
from remask.data.servers import read_server
from remask.data.trace_reader import read_records
from remask.data.trace_record import Record
from remask.errors import BackendError, ConfigError

NOW = datetime(2026, 3, 10, 3, 30, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGFUSE_PUBLIC_KEY", KEYS[0])
    monkeypatch.setenv("LANGFUSE_SECRET_KEY", KEYS[1])


def read(
    place: str, since: datetime = NOW - DAY, until: datetime = NOW, experiment: str = ""
) -> list[Record]:
    parts = read_server(place, experiment, since, until)
    found = [item for part in parts for item in read_records([part])]
    assert all(isinstance(item, Record) for item in found), found
    return found  # type: ignore[return-value]


# --- Langfuse


@pytest.fixture
def langfuse() -> Iterator[LangfuseServer]:
    pytest.importorskip("langfuse")
    with LangfuseServer() as server:
        yield server


def test_langfuse_gives_every_trace_of_the_time_once_in_order(langfuse: LangfuseServer) -> None:
    for i in range(230):  # three pages of one part, and parts before and after it
        langfuse.tell(i, NOW - timedelta(hours=9) + timedelta(minutes=i))
    langfuse.tell(1000, NOW - 2 * DAY)
    langfuse.tell(1001, NOW + DAY)
    found = read(f"langfuse:{langfuse.url}")
    assert [record.id for record in found] == [f"obs-{i}" for i in range(230)]
    assert found[0].system == "Name it. Be brief." and found[0].turns[-1].text == "grey"
    assert found[0].source.format == "langfuse"


def test_langfuse_scores_of_traces_and_of_calls_are_ratings(langfuse: LangfuseServer) -> None:
    calls = [langfuse.tell(i, NOW - timedelta(minutes=200 - i)) for i in range(130)]
    for call in calls[:120]:
        langfuse.score(call, False, "Colours!")
    langfuse.score(calls[125], True, whole=False)
    found = {record.id: record.ratings for record in read(f"langfuse:{langfuse.url}")}
    assert all(found[f"obs-{i}"][0].comment == "Colours!" for i in range(120))
    assert [rating.value for rating in found["obs-125"]] == [True]
    assert not found["obs-124"]


def test_langfuse_call_that_wraps_another_and_its_session_are_known(langfuse: LangfuseServer) -> None:
    at = NOW - timedelta(minutes=5)
    outer = langfuse.tell(1, at, trace="t", sessionId="s")
    langfuse.tell(2, at + timedelta(seconds=1), trace="t", parentObservationId=outer["id"], sessionId="s")
    (record,) = read(f"langfuse:{langfuse.url}")
    assert (record.id, record.session) == ("obs-2", "s")


def test_langfuse_that_refuses_the_key_is_named_without_the_key(
    langfuse: LangfuseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGFUSE_SECRET_KEY", "sk-other")
    with pytest.raises(BackendError) as error:
        read(f"langfuse:http://me:password@{langfuse.url.removeprefix('http://')}")
    said = str(error.value)
    assert "refuses the key (status 401); check LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY" in said
    assert not any(secret in said for secret in ("sk-other", "password", "Basic")) and "\n" not in said


@pytest.mark.parametrize(
    ("path", "said"),
    [("/elsewhere", "does not know this request .status 404.; check the URL"), ("", "does not answer")],
)
def test_langfuse_that_answers_otherwise_is_an_error_in_one_sentence(
    langfuse: LangfuseServer, path: str, said: str
) -> None:
    langfuse.tell(1, NOW - timedelta(minutes=1))
    if not path:
        langfuse.breaks = lambda number: number == 2
    with pytest.raises(BackendError, match=said):
        read(f"langfuse:{langfuse.url}{path}")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_langfuse_that_redirects_gets_no_key_sent_on(langfuse: LangfuseServer, status: int) -> None:
    with LangfuseServer() as other:
        place = f"http://me:password@localhost:{other.url.rpartition(':')[2]}/path"
        langfuse.refuses = lambda _: (status, {"Location": place})
        with pytest.raises(BackendError) as error:
            read(f"langfuse:{langfuse.url}")
        assert not other.asked
    said = str(error.value)
    assert f"redirects to http://localhost (status {status}), and keys are not sent on; write the" in said
    assert not any(secret in said for secret in (*KEYS, "password")) and "\n" not in said


@pytest.mark.parametrize("status", [429, 500, 503])
def test_langfuse_that_refuses_for_a_moment_is_asked_again(langfuse: LangfuseServer, status: int) -> None:
    for i in range(230):
        langfuse.tell(i, NOW - timedelta(hours=9) + timedelta(minutes=i))
    whole = [record.id for record in read(f"langfuse:{langfuse.url}")]
    langfuse.asked.clear()
    langfuse.refuses = lambda number: (status if number == 2 else 0, {"Retry-After": "1"})
    since = time.monotonic()
    assert [record.id for record in read(f"langfuse:{langfuse.url}")] == whole
    assert time.monotonic() - since >= 1


def test_langfuse_that_refuses_for_good_is_named(
    langfuse: LangfuseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remask.data.servers.RETRIES", 1)
    langfuse.refuses = lambda _: (429, {"Retry-After": "1"})
    with pytest.raises(BackendError, match=r"does not answer as it should \(status 429\); run the"):
        read(f"langfuse:{langfuse.url}")
    assert len(langfuse.asked) == 2


def test_langfuse_that_is_not_there_or_empty(langfuse: LangfuseServer) -> None:
    assert read(f"langfuse:{langfuse.url}") == []
    with pytest.raises(BackendError, match=r"langfuse:http://127\.0\.0\.1:9 does not answer as it should"):
        read("langfuse:http://127.0.0.1:9")


def test_times_of_other_zones_are_the_same_moments(langfuse: LangfuseServer) -> None:
    zone = timezone(timedelta(hours=5, minutes=45))
    for i in range(20):
        langfuse.tell(i, NOW - timedelta(minutes=i))
    found = [record.id for record in read(f"langfuse:{langfuse.url}")]
    assert len(found) == 19  # the one at NOW belongs to the next reading
    there = read(f"langfuse:{langfuse.url}", (NOW - DAY).astimezone(zone), NOW.astimezone(zone))
    assert [record.id for record in there] == found


@pytest.mark.parametrize("name", ["LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"])
def test_langfuse_without_keys_asks_for_both(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("langfuse")
    monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match="set the variables LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY"):
        read("langfuse:http://127.0.0.1:9")


# --- MLflow

LOG = """
import json, sys
import mlflow
from mlflow.entities import AssessmentSource
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("bot")
for i in range(int(sys.argv[2]), int(sys.argv[3])):
    with mlflow.start_span("chat", span_type="CHAT_MODEL") as span:
        system = {"role": "system", "content": "Name it. Be brief."}
        span.set_inputs({"messages": [system, {"role": "user", "content": f"item {i}"}]})
        span.set_outputs({"choices": [{"message": {"role": "assistant", "content": "grey"}}]})
mlflow.flush_trace_async_logging()
source = AssessmentSource("HUMAN", "ann")
id = mlflow.get_last_active_trace_id()
mlflow.log_feedback(trace_id=id, name="thumbs", value=False, rationale="Colours!", source=source)
"""


def log_traces(uri: str, first: int, end: int) -> None:
    """Log conversations with MLflow itself, in a process of its own."""
    subprocess.run([sys.executable, "-c", LOG, uri, str(first), str(end)], env=ENV, check=True)


def read_now(place: str, experiment: str = "bot") -> list[Record]:
    now = datetime.now(UTC) + timedelta(minutes=1)
    return read(place, now - DAY, now, experiment)


@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_mlflow_names_its_experiments_where_one_is_not_there(mlflow_uri: str) -> None:
    assert read_now(f"mlflow:{mlflow_uri}", "") == []
    with pytest.raises(ConfigError, match=r"has no experiment 'no'; correct .*'Default'"):
        read_now(f"mlflow:{mlflow_uri}", "no")
    with pytest.raises(ConfigError, match="is no place of MLflow"):
        read_now("mlflow:nonsense://there")


@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_mlflow_that_redirects_gets_no_key_sent_on(
    langfuse: LangfuseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is no MLflow; all that it does is to send whoever asks to another host."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret-token")
    with LangfuseServer() as other:
        place = f"http://localhost:{other.url.rpartition(':')[2]}/path"
        langfuse.refuses = lambda _: (307, {"Location": place})
        with pytest.raises(BackendError) as error:
            read_now(f"mlflow:{langfuse.url}")
        assert not any("secret-token" in str(headers) for headers in other.headers)
    assert "secret-token" in str(langfuse.headers) and "secret-token" not in str(error.value)


class Gate:
    """A line to another server that is cut from some request on, or asks for a key."""

    def __init__(self, port: int) -> None:
        self.cut_from, self.status, self.requests = 10**9, 0, 0
        gate = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one(self) -> None:
                gate.requests += 1
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                if gate.requests >= gate.cut_from:
                    self.close_connection = True
                    return
                if gate.status:
                    self.send_error(gate.status)
                    return
                line = HTTPConnection("127.0.0.1", port)
                kept = {"content-type": self.headers.get("content-type") or "application/json"}
                line.request(self.command, self.path, body, kept)
                answer = line.getresponse()
                content = answer.read()
                line.close()
                self.send_response(answer.status)
                self.send_header("content-type", answer.headers["content-type"])
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = handle_one

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = Thread(target=self.http.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self) -> "Gate":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[int]:
    """The port of MLflow's own tracking server."""
    pytest.importorskip("mlflow")
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as free:
        port = int(free.server_address[1])
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(
        [*command, "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"],
        env=ENV, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        for _ in range(600):
            try:
                line = HTTPConnection("127.0.0.1", port, timeout=5)
                line.request("GET", "/health")
                if line.getresponse().status == 200:
                    break
            except OSError:
                time.sleep(0.2)
            finally:
                line.close()
        yield port
    finally:
        os.killpg(process.pid, 15)
        process.wait()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_mlflow_server_is_read_page_by_page_and_its_failures_are_named(
    mlflow_server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    log_traces(f"http://127.0.0.1:{mlflow_server}", 0, 130)
    with Gate(mlflow_server) as gate:
        found = read_now(f"mlflow:{gate.url}")
        assert sorted(record.turns[0].text for record in found) == sorted(f"item {i}" for i in range(130))
        (rated,) = (record for record in found if record.ratings)
        assert (rated.turns[0].text, rated.system) == ("item 129", "Name it. Be brief.")
        assert (rated.ratings[0].comment, rated.ratings[0].kind) == ("Colours!", "human")
        asked, gate.requests = gate.requests, 0
        gate.cut_from = asked - 1  # in the middle of the pages
        with pytest.raises(BackendError, match="does not answer as it should"):
            read_now(f"mlflow:{gate.url}")
        gate.cut_from = 10**9
        for status in (401, 403):
            gate.status = status
            said = rf"refuses the key \(status {status}\); check MLFLOW_TRACKING_TOKEN"
            with pytest.raises(BackendError, match=said):
                read_now(f"mlflow:{gate.url}")
