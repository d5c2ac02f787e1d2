"""The harness's requests to its warden."""

from __future__ import annotations

import os
import select


class Interrupted(Exception):
    """The harness has interrupted the run, or has gone."""


class Requests:
    """Lines from the harness. It reads the descriptor without Python's buffers, which `select`
    does not see."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.closed = False
        self._buffer = b""

    def next(self) -> str | None:
        """Wait for the next line and return it; None when the harness is gone."""
        while b"\n" not in self._buffer:
            if self.closed:
                return None
            self._read()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def read_interrupt(self) -> bool:
        """Read from `fd`, which is readable, during a run. True for an empty line, or the end."""
        self._read()
        return self.take_interrupt()

    def take_interrupt(self) -> bool:
        """Take an interrupt that was read already, perhaps together with its request."""
        is_interrupt = self.closed or b"\n" in self._buffer
        self._buffer = self._buffer.lstrip(b"\n")
        return is_interrupt

    def _read(self) -> None:
        data = os.read(self.fd, 1 << 16)
        self.closed = not data
        self._buffer += data

    def wait(self, fd: int, seconds: float) -> bool:
        """Wait until `fd` is readable. False if it is not in time. Raises `Interrupted`."""
        if not self.take_interrupt():
            ready, _, _ = select.select([fd, self.fd], [], [], seconds)
            if self.fd not in ready or not self.read_interrupt():
                return fd in ready
        raise Interrupted
