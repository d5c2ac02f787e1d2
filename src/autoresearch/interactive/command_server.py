"""The harness's end of a confined agent's commands (`forwarded.py`)."""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from autoresearch.interactive.trial import CONFINED_VARIABLE
from autoresearch.interactive.verdict import AGENT_VARIABLE
from autoresearch.store.paths import SessionPaths, make_module_command

THREADS = 16  # so many commands at a time; others wait
REQUEST_BYTES = 1_000_000
REQUEST_S = 10.0  # for a request to arrive
SECOND_SIGNAL_S, KILL_S = 1.0, 10.0  # at the end


class CommandServer:
    """Carries out the commands that arrive at a socket, each as a process of its own.

    A request is a JSON list of texts, a key and then a command's words, with two file descriptors
    for its output. The answer is the exit code. A run may be able to connect to the socket, but
    does not know the key.
    """

    def __init__(self, folder: Path, paths: SessionPaths) -> None:
        path, self._key = folder / "harness", secrets.token_hex()
        self.address = f"{path}:{self._key}"
        self._paths = paths
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(str(path))
        self._socket.listen(THREADS)
        self._socket.setblocking(False)  # of several threads that are woken, one accepts
        self._stopped, self._stop = os.pipe()  # the first can be read when the server ends
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Serve from now on, in threads. A process must be forked before."""
        self._threads = [threading.Thread(target=self._serve) for _ in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the commands under way; what they have begun is finished by a later one."""
        os.write(self._stop, b"\0")
        for thread in self._threads:
            thread.join()
        self._socket.close()
        os.close(self._stop)
        os.close(self._stopped)

    def _serve(self) -> None:
        files = [self._socket.fileno(), self._stopped]
        while self._stopped not in select.select(files, [], [])[0]:
            with suppress(OSError, ValueError):  # whatever it sends, the next one is served
                connection, _ = self._socket.accept()
                with connection:
                    self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(REQUEST_S)
        with ExitStack() as stack:
            message, fds, _, _ = socket.recv_fds(connection, REQUEST_BYTES, 2)
            for fd in fds:
                stack.callback(os.close, fd)
            stdout, stderr = fds
            texts = json.loads(message)
            is_list = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
            if not is_list or texts[:1] != [self._key]:
                return
            code = self._carry_out(texts[1:], connection, stdout, stderr)
            connection.send(str(code).encode())

    def _carry_out(
        self, words: Sequence[str], connection: socket.socket, stdout: int, stderr: int
    ) -> int:
        """Returns the exit code of the command."""
        with subprocess.Popen(
            [*make_module_command("autoresearch.cli.forwarded", self._paths.tag), *words],
            cwd=self._paths.root,
            env={**os.environ, CONFINED_VARIABLE: "1", AGENT_VARIABLE: "1"},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        ) as process:
            self._wait(process, connection)
            return process.wait()

    def _wait(self, process: subprocess.Popen[bytes], connection: socket.socket) -> None:
        """Wait for the end of a command. It is interrupted as by Ctrl-C when its caller is gone,
        and a second time when the server ends."""
        end = os.pidfd_open(process.pid)
        try:
            files = [end, self._stopped]
            if end in select.select([*files, connection.fileno()], [], [])[0]:
                return
            process.send_signal(signal.SIGINT)
            if end in select.select(files, [], [])[0]:
                return
            if end not in select.select([end], [], [], SECOND_SIGNAL_S)[0]:
                process.send_signal(signal.SIGINT)
            if end not in select.select([end], [], [], KILL_S)[0]:
                process.kill()  # the runs end with it, and are made again
        finally:
            os.close(end)
