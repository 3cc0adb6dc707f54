"""Only programs on this machine come in: raw requests under foreign names and of foreign pages."""

import json
from collections.abc import Iterator

import pytest

from remask.errors import ConfigError
from remask.serve.door import loopback
from serve.served import Bytes, asking, exchange, request, serving

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT")
CHAT = "/v1/chat/completions"
TARGET = Bytes()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with serving(TARGET) as port:
        yield port


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LocalHost"])
def test_our_own_names_are_let_in(port: int, name: str) -> None:
    status, headers, body = exchange(port, request(port, host=f"{name}:{port}"))
    assert status == 200
    assert json.loads(body)["data"][0]["id"] == "embedded"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers


HOSTS = (
    *("evil.com", "evil.com:{port}", "localhost.evil.com:{port}", "127.0.0.1.evil.com:{port}"),
    *("127.0.0.1", "localhost", "127.0.0.1:1", "localhost:80@evil", "127.0.0.1:{port}@evil"),
    *("127.0.0.1:{port}/", "127.0.0.1:{port}?", "127.0.0.1:{port}#", "user@127.0.0.1:{port}"),
    *("0.0.0.0:{port}", "[::1]:{port}", "127.0.0.2:{port}", "2130706433:{port}"),
    *("127.1:{port}", "127.0.0.1:0{port}", "localhost.:{port}", "127.0.0.1:{port},evil.com"),
)


@pytest.mark.parametrize(
    ("method", "host"),
    [*(("GET", host) for host in HOSTS), *((method, HOSTS[1]) for method in METHODS)],
)
def test_foreign_hosts_are_refused_whatever_the_method(port: int, method: str, host: str) -> None:
    status, _, body = exchange(port, request(port, method, host=host.format(port=port)))
    assert status in (400, 403)
    if method != "HEAD" and status == 403:
        assert json.loads(body)["error"]["code"] == "foreign_host"


def test_one_host_is_needed(port: int) -> None:
    own = f"127.0.0.1:{port}"
    two = request(port, more=[f"Host: {own}"])
    none = b"GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n"
    old = b"GET /v1/models HTTP/1.0\r\n\r\n"
    for raw in (two, none, old, b"\x16\x03\x01\r\n\r\n"):
        assert exchange(port, raw)[0] in (400, 403)
    # A proxy's form of the address does not make another name ours.
    assert exchange(port, request(port, path="http://evil.com/v1/models"))[0] == 404


FOREIGN = (
    *("Origin: null", "Origin: http://evil.com", "Origin: https://127.0.0.1:{port}", "Origin: "),
    *("Origin: http://127.0.0.1", "Origin: http://localhost:1", "Origin: file://"),
    *("Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Sec-Fetch-Site: x"),
)


@pytest.mark.parametrize(
    ("method", "header"),
    [*(("POST", header) for header in FOREIGN), *((method, FOREIGN[1]) for method in METHODS)],
)
def test_requests_of_foreign_pages_are_refused(port: int, method: str, header: str) -> None:
    before = TARGET.written
    more = [header.format(port=port)]
    status, headers, _ = exchange(port, request(port, method, CHAT, asking("hi"), more=more))
    assert status == 403
    assert "access-control-allow-origin" not in headers
    assert TARGET.written == before


@pytest.mark.parametrize("header", ["Origin: http://127.0.0.1:{port}", "Sec-Fetch-Site: none"])
def test_our_own_origin_is_let_in(port: int, header: str) -> None:
    assert exchange(port, request(port, more=[header.format(port=port)]))[0] == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "a"])
def test_what_a_form_can_send_is_refused(port: int, kind: str) -> None:
    before = TARGET.written
    status, _, body = exchange(port, request(port, "POST", CHAT, asking("hi"), kind=kind))
    assert status == 415
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert TARGET.written == before


def test_an_upgrade_to_a_websocket_gets_no_socket(port: int) -> None:
    more = ["Upgrade: websocket", "Sec-WebSocket-Key: eA==", "Sec-WebSocket-Version: 13"]
    assert exchange(port, request(port, path=CHAT, more=more))[0] == 405


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/v1", "/v1/models/", "/v1/models/..%2f..%2fetc%2fpasswd", "/../../etc/passwd"),
        *("/v1/models/%2e%2e/%2e%2e", "/static/x", "//v1/models", "/v1/models/embedded/x"),
    ],
)
def test_there_is_nothing_but_the_endpoints(port: int, path: str) -> None:
    status, _, body = exchange(port, request(port, path=path))
    assert status == 404
    assert json.loads(body)["error"]["message"]
    assert b"root:" not in body


def test_ipv6_loopback_has_its_own_name() -> None:
    import socket

    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with serving(Bytes(), "::1") as port:
        for host, expected in ((f"[::1]:{port}", 200), (f"127.0.0.1:{port}", 403)):
            with socket.create_connection(("::1", port), timeout=20) as connection:
                connection.sendall(request(port, host=host))
                assert int(connection.recv(65536).split()[1]) == expected


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.0.1", "example.com", "", "127.0.0.1:80"]
)
def test_only_loopback_addresses_are_bound(host: str) -> None:
    with pytest.raises(ConfigError, match="no loopback address"):
        loopback(host)


def test_localhost_is_a_loopback_address() -> None:
    assert [loopback(h) for h in ("localhost", "127.0.0.1", "127.0.0.2", "::1")] == [
        *("127.0.0.1", "127.0.0.1", "127.0.0.2", "::1")
    ]
