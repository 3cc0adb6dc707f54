"""A server of Langfuse on the loopback, as its SDK asks it: observations (v2) and scores (v3).

Known answer: what was given to it. It pages by a cursor, newest first, filters by time and by trace,
sends only the groups of fields that were asked for, and refuses other keys than pk and sk.
"""

import base64
import json
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEYS = ("pk-1", "sk-very-secret")
IO = ("input", "output")
SUBJECT, DETAILS = ("subject",), ("comment", "metadata")


class LangfuseServer:
    """Use in a with statement. `breaks` says of a request, from 1, whether the line is cut, and
    `refuses` the status and the headers that it gets in place of an answer; 0: it is answered."""

    def __init__(self, breaks: Callable[[int], bool] = lambda _: False) -> None:
        self.observations: list[dict[str, Any]] = []
        self.scores: list[dict[str, Any]] = []
        self.asked: list[tuple[str, dict[str, str]]] = []  # (path, query)
        self.breaks = breaks
        self.refuses: Callable[[int], tuple[int, dict[str, str]]] = lambda _: (0, {})
        self.headers: list[dict[str, str]] = []  # of the requests
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner.answer(self)

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> "LangfuseServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def tell(
        self, number: int, at: datetime, answer: str = "grey", trace: str = "", **more: Any
    ) -> dict[str, Any]:
        """A call of a model in a trace, as the application logged it."""
        system = {"role": "system", "content": "Name it. Be brief."}
        call = {
            "id": f"obs-{number}", "traceId": trace or f"trace-{number}", "projectId": "p",
            "type": "GENERATION", "name": "chat", "environment": "default", "model": "m",
            "startTime": at.astimezone(UTC).isoformat(), "endTime": None, "parentObservationId": None,
            "level": "DEFAULT", "statusMessage": None, "sessionId": None,
            "input": json.dumps([system, {"role": "user", "content": f"item {number}"}]),
            "output": json.dumps({"role": "assistant", "content": answer}), **more,
        }  # fmt: skip
        self.observations.append(call)
        return call

    def score(self, call: dict[str, Any], value: bool, comment: str = "", whole: bool = True) -> None:
        """A thumb for a trace, or for one observation of it."""
        at_trace = {"kind": "trace", "id": call["traceId"]}
        at_call = {"kind": "observation", "id": call["id"], "traceId": call["traceId"]}
        now = datetime.now(UTC).isoformat()
        self.scores.append({
            "id": f"score-{len(self.scores)}", "projectId": "p", "name": "thumbs", "value": value,
            "dataType": "BOOLEAN", "source": "ANNOTATION", "timestamp": now, "environment": "default",
            "createdAt": now, "updatedAt": now, "comment": comment or None, "metadata": {},
            "subject": at_trace if whole else at_call,
        })  # fmt: skip

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        place = urlsplit(request.path)
        query = {key: values[0] for key, values in parse_qs(place.query).items()}
        self.asked.append((place.path, query))
        self.headers.append({key.lower(): value for key, value in request.headers.items()})
        if self.breaks(len(self.asked)):
            request.close_connection = True
            return
        status, headers = self.refuses(len(self.asked))
        if status:
            send(request, status, {"message": "refused"}, headers)
            return
        pair = base64.b64encode(":".join(KEYS).encode()).decode()
        if request.headers["authorization"] != f"Basic {pair}":
            send(request, 401, {"message": f"wrong key {request.headers['authorization']}"})
        elif place.path == "/api/public/v2/observations":
            send(request, 200, self._list_observations(query))
        elif place.path == "/api/public/v3/scores":
            send(request, 200, self._list_scores(query))
        else:
            send(request, 404, {"message": "Not found"})

    def _list_observations(self, query: dict[str, str]) -> dict[str, Any]:
        start, end = (datetime.fromisoformat(query[f"{key}StartTime"]) for key in ("from", "to"))
        found = [row for row in self.observations if start <= datetime.fromisoformat(row["startTime"]) < end]
        found.sort(key=lambda row: row["startTime"], reverse=True)
        hidden = () if "io" in query["fields"].split(",") else IO
        return page([{k: v for k, v in row.items() if k not in hidden} for row in found], query, 1000)

    def _list_scores(self, query: dict[str, str]) -> dict[str, Any]:
        traces = query["traceId"].split(",")
        found = [s for s in self.scores if s["subject"].get("traceId", s["subject"]["id"]) in traces]
        groups = query.get("fields", "").split(",")
        hidden = (() if "subject" in groups else SUBJECT) + (() if "details" in groups else DETAILS)
        return page([{k: v for k, v in row.items() if k not in hidden} for row in found], query, 100)


def page(rows: list[dict[str, Any]], query: dict[str, str], most: int) -> dict[str, Any]:
    start = int(base64.b64decode(query["cursor"])) if "cursor" in query else 0
    limit = int(query["limit"])
    assert limit <= most
    after = start + limit
    meta = {"limit": limit}
    more = {"cursor": base64.b64encode(str(after).encode()).decode()} if after < len(rows) else {}
    return {"data": rows[start:after], "meta": meta | more}


def send(
    request: BaseHTTPRequestHandler, status: int, value: object, headers: Mapping[str, str] | None = None
) -> None:
    content = json.dumps(value).encode()
    request.send_response(status)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(content)))
    for name, header in (headers or {}).items():
        request.send_header(name, header)
    request.end_headers()
    request.wfile.write(content)
