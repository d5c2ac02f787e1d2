"""Binds a port and serves the page until Ctrl-C."""

from __future__ import annotations

import errno
import ipaddress
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import uvicorn

from autoresearch.errors import TaskError
from autoresearch.web.app import make_app
from autoresearch.web.places import Place
from autoresearch.web.security import Rules

PORTS_TRIED = 20
END_S = 1  # until an open stream is cut when the server ends


@dataclass(frozen=True, slots=True)
class Address:
    """Where the page is. `notes` are for people: what is to be known of it."""

    url: str
    port: int
    notes: Sequence[str]


def serve(
    places: Sequence[Place],
    *,
    host: str,
    port: int,
    names: Sequence[str],
    has_control: bool,
    needs_token: bool,
    announce: Callable[[Address], None],
) -> None:
    """Serve until SIGINT or SIGTERM. The page needs a token if it can be reached from elsewhere, if
    it has control, or if `needs_token`. Raises `TaskError` if the address cannot be used."""
    listener = open_socket(host, port)
    with listener:
        bound = listener.getsockname()
        is_loopback = ipaddress.ip_address(bound[0].partition("%")[0]).is_loopback
        token = None
        if needs_token or has_control or not is_loopback:
            token = secrets.token_urlsafe(24)
        own = {name.lower().rstrip(".") for name in names}
        if not is_loopback:
            own |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        rules = Rules(token, is_loopback, bound[1], frozenset(own))
        server = _Server(
            uvicorn.Config(
                make_app(places, rules, has_control=has_control, is_ending=lambda: ending()),
                lifespan="off",
                ws="none",
                log_level="critical",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=END_S,
            )
        )

        def ending() -> bool:
            return server.should_exit

        announce(_describe(bound, host, port, rules))
        server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends without raising the signal again: the command has nothing more to do."""

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            super().run(sockets=sockets)
        except KeyboardInterrupt:
            pass


def _describe(bound: tuple[str, int], host: str, wanted: int, rules: Rules) -> Address:
    port, notes = bound[1], []
    if wanted not in (0, port):
        notes.append(f"port {wanted} is in use: this is {port}")
    shown = host
    if bound[0] in ("0.0.0.0", "::"):
        shown = socket.gethostname()
    if not rules.is_loopback:
        notes.append(
            "everybody who can read the traffic can read the page: an SSH tunnel to a page on "
            "127.0.0.1 is encrypted, this is not"
        )
    query = f"?{urlencode({'token': rules.token})}" if rules.token else ""
    name = f"[{shown}]" if ":" in shown else shown
    return Address(f"http://{name}:{port}/{query}", port, notes)


def open_socket(host: str, port: int) -> socket.socket:
    """Listen on the first free port from `port` on. Raises `TaskError`."""
    last = port if port == 0 else min(port + PORTS_TRIED, 65536) - 1
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise TaskError(f"--host {host}: {error.strerror or error}") from None
    for candidate in range(port, last + 1):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((place[0], candidate, *place[2:]))
            listener.listen(64)
            return listener
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise TaskError(f"cannot listen on {host}:{candidate}: {error.strerror}") from None
    raise TaskError(f"ports {port} to {last} are all in use: choose another --port")
