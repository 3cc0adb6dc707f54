"""Only the user's own browser comes in: raw requests under foreign names, of foreign pages, without the
key, with strange paths and methods, slow, idle and many (row S4)."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fakes.finished_run import play
from fakes.viewing import Viewing, read_all

SHORT_LIMITS = 2.0, 3.0  # seconds; see GuardedConnection
METHODS = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewing]:
    folder = tmp_path_factory.mktemp("runs")
    play(folder / "one")
    with Viewing(folder, SHORT_LIMITS) as found:
        yield found


def ask(
    server: Viewing, *head: str, method: str = "GET", path: str = "/", host: str | None = None, **given: str
):
    """Send one request with the cookie, and return status, headers and body."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host or f'127.0.0.1:{server.port}'}"]
    if given.get("key", "yes") == "yes":
        lines.append(f"Cookie: {server.cookie}")
    return server.send(
        "\r\n".join([*lines, *(h.format(port=server.port) for h in head), "Connection: close", "", ""])
    )


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LocalHost"])
def test_our_own_names_are_let_in(server: Viewing, name: str) -> None:
    entry = server.send(
        f"GET /open?token={server.token} HTTP/1.1\r\nHost: {name}:{server.port}\r\nConnection: close\r\n\r\n"
    )
    assert entry.status == 303 and entry.headers["location"] == "/"
    assert re.fullmatch(
        r"remask_view_\d+=[\w-]{22}; HttpOnly; Path=/; SameSite=strict", entry.headers["set-cookie"]
    )
    page = ask(server, host=f"{name}:{server.port}")
    assert page.status == 200 and b"Runs" in page.body
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cross-origin-resource-policy"] == "same-origin"
    assert page.headers["cache-control"] == "no-store"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert "access-control-allow-origin" not in page.headers


HOSTS = (
    *("evil.com", "evil.com:{port}", "localhost.evil.com:{port}", "127.0.0.1.evil.com:{port}"),
    *("127.0.0.1", "localhost", "127.0.0.1:1", "localhost:80@evil", "127.0.0.1:{port}@evil"),
    *("127.0.0.1:{port}/", "127.0.0.1:{port}?", "127.0.0.1:{port}#", "user@127.0.0.1:{port}"),
    *("0.0.0.0:{port}", "[::1]:{port}", "127.0.0.2:{port}", "2130706433:{port}", "[::ffff:127.0.0.1]:{port}"),
    *("127.1:{port}", "127.0.0.1:0{port}", "localhost.:{port}", "127.0.0.1:{port},evil.com", "0x7f.1:{port}"),
)


@pytest.mark.parametrize(
    ("method", "host"), [*(("GET", host) for host in HOSTS), *((method, HOSTS[1]) for method in METHODS)]
)
def test_foreign_hosts_are_refused_whatever_the_method(server: Viewing, method: str, host: str) -> None:
    for path in ("/", "/events", f"/open?token={server.token}"):
        answer = ask(server, method=method, path=path, host=host.format(port=server.port))
        assert answer.status in (400, 403)
        assert b"one" not in answer.body and "set-cookie" not in answer.headers


def test_one_host_is_needed(server: Viewing) -> None:
    own = f"127.0.0.1:{server.port}"
    assert ask(server, f"Host: {own}").status in (400, 403)
    for raw in (
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {own}\r\n Host: {own}\r\n\r\n",
        "\x16\x03\x01\r\n\r\n",
    ):
        assert server.send(raw).status in (400, 403)
    # A proxy's form of the address does not make another name ours.
    assert ask(server, path="http://evil.com/").status == 404


FOREIGN = (
    *("Origin: null", "Origin: http://evil.com", "Origin: https://127.0.0.1:{port}", "Origin: "),
    *("Origin: http://127.0.0.1", "Origin: http://localhost:1", "Origin: file://"),
    "Origin: http://localhost:{port}",  # our other name, but not the one of this request
    "Origin: http://127.0.0.1:{port}\r\nOrigin: http://evil.com",
    *("Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Sec-Fetch-Site: x", "Sec-Fetch-Site: "),
)


@pytest.mark.parametrize("path", ["/", "/events", "/style.css", "/open?token={token}"])
@pytest.mark.parametrize("header", FOREIGN)
def test_requests_of_foreign_pages_are_refused(server: Viewing, header: str, path: str) -> None:
    for method in ("GET", "HEAD"):
        answer = ask(server, header, method=method, path=path.format(token=server.token))
        assert answer.status == 403
        assert "access-control-allow-origin" not in answer.headers and "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "header", ["Origin: http://127.0.0.1:{port}", "Sec-Fetch-Site: none", "Sec-Fetch-Site: same-origin"]
)
def test_our_own_pages_are_let_in(server: Viewing, header: str) -> None:
    assert ask(server, header).status == 200


@pytest.mark.parametrize("method", METHODS)
def test_only_reading_is_possible(server: Viewing, method: str) -> None:
    answer = ask(server, method=method)
    assert answer.status in (400, 405)
    assert answer.status == 400 or answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "head", ["Content-Length: 3", "Transfer-Encoding: chunked", "Content-Length: 0\r\nContent-Length: 3"]
)
def test_a_request_has_no_body(server: Viewing, head: str) -> None:
    assert ask(server, head).status == 400


def test_head_has_no_body(server: Viewing) -> None:
    for path in ("/", "/style.css", "/events"):
        answer = ask(server, method="HEAD", path=path)
        assert answer.status == 200 and answer.body == b""


def test_an_upgrade_to_a_websocket_gets_no_socket(server: Viewing) -> None:
    head = ("Upgrade: websocket", "Sec-WebSocket-Key: eA==", "Sec-WebSocket-Version: 13")
    assert ask(server, *head, path="/events", method="HEAD").status == 200  # never 101


@pytest.mark.parametrize(
    "path", ["/", "/events", "/runs/x", "/style.css", "/view.js", "/compare", "/open", "/etc/passwd"]
)
def test_nothing_is_shown_without_the_key(server: Viewing, path: str) -> None:
    answer = ask(server, path=path, key="no")
    assert (
        answer.status == 403
        and b"remask view" in answer.body
        and b"one" not in answer.body.replace(b"</html>", b"")
    )


@pytest.mark.parametrize(
    "cookie",
    [
        "{name}=",
        "{name}={value}x",
        "{name}={start}",
        "other={value}",
        "{value}",
        "{name}={token}",
        "{name}=\xe9",
        '{name}="{value}"',
    ],
)
def test_a_wrong_key_opens_nothing(server: Viewing, cookie: str) -> None:
    name, value = server.cookie.split("=", 1)
    sent = cookie.format(name=name, value=value, start=value[:-1], token=server.token)
    assert ask(server, f"Cookie: {sent}", key="no").status == 403


@pytest.mark.parametrize(
    "query",
    [
        "",
        "token=",
        "token=x",
        "token={token}x",
        "token={token}&token=x",
        "t={token}",
        "token=%00",
        "token=%ff",
    ],
)
def test_a_wrong_token_gets_no_cookie(server: Viewing, query: str) -> None:
    answer = ask(server, path="/open?" + query.format(token=server.token), key="no")
    assert answer.status == 403 and "set-cookie" not in answer.headers


UP = (
    "..",
    "%2e%2e",
    "%2E%2E",
    "%252e%252e",
    "..%00",
    ".%2e",
    "%c0%ae%c0%ae",
    "..;",
    "%u002e%u002e",
    "....",
    "..%5c",
)
PATHS = (
    *(f"/runs/{up}/{up}/{up}/etc/passwd" for up in UP),
    *(f"/{up}%2f{up}%2fetc%2fpasswd" for up in UP),
    *(f"/runs/{up}\\{up}\\etc\\passwd" for up in UP),
    *(
        "//etc/passwd",
        "/etc/passwd",
        "/runs//etc/passwd",
        "/runs/%2fetc%2fpasswd",
        "/runs/one",
        "/one/run.db",
    ),
    *(
        "/runs/file:///etc/passwd",
        "/runs/~root",
        "/runs/C:/x",
        "/run.db",
        "/static/../run.db",
        "/runs/",
        "/runs",
    ),
    *(
        "/compare?run=../one",
        "/compare?run=/etc/passwd",
        "/compare?run=one",
        "/view.js/..",
        "/view.css",
        "/pages.py",
    ),
    *("/runs/" + "a" * 3000, "/?" + "a" * 5000, "/index.html", "/.git/config", "/favicon.ico"),
)


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
def test_there_is_nothing_but_the_pages(server: Viewing, path: str) -> None:
    answer = ask(server, path=path)
    assert answer.status in (400, 404), answer.body
    assert b"root:" not in answer.body and b"SQLite" not in answer.body


def test_a_head_that_never_ends_is_cut_off(server: Viewing) -> None:
    with closing(server.connect()) as slow:
        slow.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n".encode())
        with pytest.raises(OSError):
            for _ in range(300):  # a minute; the limit of this test's server is two seconds
                slow.sendall(b"X-A: b\r\n")
                time.sleep(0.2)
    assert ask(server, "X-Long: " + "a" * 2_000_000).status in (0, 400, 431)


def test_an_idle_connection_is_closed(server: Viewing) -> None:
    with closing(server.connect()) as idle:
        assert read_all(idle) == b""


def test_many_idle_connections_keep_nobody_out(server: Viewing) -> None:
    idle: list[socket.socket] = []
    try:
        for _ in range(300):
            idle.append(server.connect())
            idle[-1].sendall(b"GET / HTTP/1.1\r\n")
        for _ in range(5):
            assert ask(server).status == 200
    finally:
        for one in idle:
            one.close()


def test_streams_are_counted_and_a_browser_that_goes_frees_its_place(server: Viewing) -> None:
    def open_stream() -> tuple[socket.socket, bytes]:
        stream = server.connect()
        head = f"Host: 127.0.0.1:{server.port}\r\nCookie: {server.cookie}\r\n"
        stream.sendall(f"GET /events HTTP/1.1\r\n{head}\r\n".encode())
        return stream, stream.recv(12)

    opened = [open_stream() for _ in range(24)]
    assert all(status.endswith(b"200") for _, status in opened)
    refused, status = open_stream()
    assert status.endswith(b"503")
    for stream in (refused, *(one for one, _ in opened)):
        stream.close()
    end = time.monotonic() + 60
    while True:
        stream, status = open_stream()
        stream.close()
        if status.endswith(b"200"):
            break
        assert time.monotonic() < end
        time.sleep(0.2)


def test_a_stream_that_nobody_reads_is_cut_off(tmp_path: Path) -> None:
    with Viewing(tmp_path, SHORT_LIMITS) as server:
        stuck = server.connect()
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        pipelined = (
            f"GET /view.js HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nCookie: {server.cookie}\r\n\r\n"
        )
        stuck.settimeout(0.5)
        end = time.monotonic() + 60
        with pytest.raises(ConnectionError):
            while time.monotonic() < end:
                try:
                    stuck.sendall(pipelined.encode() * 50)
                except TimeoutError:
                    time.sleep(0.1)
        stuck.close()


def test_every_answer_has_another_nonce(server: Viewing) -> None:
    policies = {ask(server).headers["content-security-policy"] for _ in range(5)}
    assert len(policies) == 5
