"""A server of `remask view` in a thread of the test, and raw requests to it."""

import re
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from remask.view import server as view_server
from remask.view.library import Library
from remask.view.server import GuardedConnection, open_server


@dataclass(frozen=True)
class Answer:
    """An answer; status 0: the connection was closed without one."""

    status: int
    headers: dict[str, str]
    body: bytes


class Viewing:
    """Serves a folder while it is entered. limits: see GuardedConnection."""

    def __init__(self, folder: Path, limits: tuple[float, float] = (20.0, 30.0)) -> None:
        self.folder, self._limits = folder, limits

    def __enter__(self) -> Self:
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(GuardedConnection, "limits", self._limits)
        self._patch.setattr(view_server, "MAX_CONNECTIONS", 60)
        self._opened = open_server(Library(self.folder), 0)
        self._server, self.address = self._opened.__enter__()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/open\?token=([\w-]{22})", self.address)
        assert found is not None
        self.port, self.token = int(found[1]), found[2]
        self._thread = threading.Thread(target=self._server.serve_until_stopped, daemon=True)
        self._thread.start()
        end = time.monotonic() + 60
        while not self._server.started:
            assert time.monotonic() < end
            time.sleep(0.02)
        host = f"Host: 127.0.0.1:{self.port}\r\nConnection: close\r\n"
        entry = self.send(f"GET /open?token={self.token} HTTP/1.1\r\n{host}\r\n")
        self.cookie = entry.headers["set-cookie"].partition(";")[0]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(60)
        self._opened.__exit__(None, None, None)
        self._patch.undo()
        assert not self._thread.is_alive()

    def connect(self) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def send(self, raw: str) -> Answer:
        """Send bytes and read until the server closes."""
        connection = self.connect()
        try:
            connection.sendall(raw.encode("latin-1"))
            data = read_all(connection)
        except ConnectionError:
            return Answer(0, {}, b"")
        finally:
            connection.close()
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1]) if lines[0] else 0
        pairs = (line.split(": ", 1) for line in lines[1:])
        return Answer(status, {name.lower(): value for name, value in pairs}, body)


def read_all(connection: socket.socket) -> bytes:
    """Read until the other side closes."""
    found = b""
    while data := connection.recv(1 << 16):
        found += data
    return found
