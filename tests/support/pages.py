"""The page of `watch`, served on a loopback port, and requests to it without a browser."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from autoresearch.store.ledger import Ledger
from autoresearch.web.app import make_app
from autoresearch.web.places import find_places
from autoresearch.web.security import OWN_HEADER, Rules
from autoresearch.web.serve import open_socket

HOSTILE = '<script>alert(1)</script>\t\x1b[31mred\x1b[0m\n"quoted" \U0001f600 ' + "x" * 1_000_000


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    text: str


@dataclass(frozen=True)
class PageServer:
    port: int
    rules: Rules

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers)

    def post(self, path: str, body: str = "", **headers: str) -> Answer:
        own = {OWN_HEADER: "1", "Content-Type": "application/json"}
        return self.ask("POST", path, own | headers, body)

    def ask(self, method: str, path: str, headers: dict[str, str], body: str = "") -> Answer:
        """Ask as told: header names with `_` for `-`. Redirects are not followed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body or None, names)
            response = connection.getresponse()
            text = response.read().decode()
            return Answer(response.status, response.headers, text)
        finally:
            connection.close()

    @contextmanager
    def stream(self, path: str) -> Iterator[Iterator[str]]:
        """The lines of a stream of events."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            yield (line.decode().rstrip("\n") for line in response)
        finally:
            connection.close()


@contextmanager
def serve_pages(
    *folders: Path, token: str | None = None, has_control: bool = False, is_loopback: bool = True
) -> Iterator[PageServer]:
    listener = open_socket("127.0.0.1", 0)
    rules = Rules(token, is_loopback, listener.getsockname()[1])
    app = make_app(
        find_places(folders), rules, has_control=has_control, is_ending=lambda: server.should_exit
    )
    config = uvicorn.Config(
        app, lifespan="off", ws="none", log_level="critical", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield PageServer(rules.port, rules)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def make_ledger(folder: Path) -> Ledger:
    (folder / ".autoresearch").mkdir(parents=True)
    return Ledger(folder / ".autoresearch" / "ledger.sqlite")
