"""A runner whose processes share no folder with the harness.

It shows that the contract in `protocols.py` is enough for a runner on other machines. The far
process has a `RemoteSlot`, as a worker of a cluster has. Calls and answers travel through its pipes
as pickles; each call is carried out in a thread of its own.
"""

from __future__ import annotations

import base64
import pickle
import queue
import subprocess
import sys
import threading
from concurrent.futures import Future, wait
from itertools import count
from typing import Any

from autoresearch.errors import RunnerError
from autoresearch.protocols import RunResult, RunSpec, TreeSource
from autoresearch.runners.support.remote_slot import RemoteSlot
from autoresearch.runners.support.shipping import (
    InputPacker,
    follow_log,
    make_shipment,
    receive,
)

FOLLOW_S = 0.1  # between two looks at the output of a run


class FarRunner:
    """The harness's end: a far process for each slot."""

    name = "far"

    def __init__(self, slots: int, mounted: tuple[str, ...] = ("/",), limit_bytes: int = 0) -> None:
        self.slots = slots
        self._packer = InputPacker(mounted, limit_bytes, "Mount them.")
        self._far = [_Far(slot) for slot in range(slots)]
        self._free: queue.Queue[_Far] = queue.Queue()
        self._is_closed = False
        for far in self._far:
            self._free.put(far)

    def run(self, spec: RunSpec, source: TreeSource) -> RunResult:
        if self._is_closed:
            raise RunnerError("the runner is closed")
        far = self._free.get()
        try:
            return far.run(spec, source, self._packer)
        finally:
            self._free.put(far)

    def interrupt(self) -> None:
        for far in self._far:
            if far.number is not None:
                far.call("interrupt", far.number)

    def close(self) -> None:
        self._is_closed = True
        for far in self._far:
            far.close()


class _Far:
    def __init__(self, slot: int) -> None:
        self.number: int | None = None  # of the run under way
        self._slot = slot
        self._known: set[str] = set()  # blobs
        self._inputs: set[str] = set()
        self._numbers = count()
        self._calls: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
        )
        self._reader = threading.Thread(target=self._read_answers)
        self._reader.start()

    def call(self, method: str, *arguments: object) -> Future[Any]:
        assert self._process.stdin
        future: Future[Any] = Future()
        with self._lock:
            self._calls[number := next(self._numbers)] = future
            try:
                self._process.stdin.write(to_line((number, method, arguments)))
                self._process.stdin.flush()
            except (OSError, ValueError) as error:
                future.set_exception(EOFError(str(error)))
        return future

    def _read_answers(self) -> None:
        assert self._process.stdout
        with self._process.stdout as stdout:
            for line in stdout:
                number, value = from_line(line)
                future = self._calls.pop(number)
                if isinstance(value, Exception):
                    future.set_exception(value)
                else:
                    future.set_result(value)
        for future in list(self._calls.values()):
            if not future.done():
                future.set_exception(EOFError("the far process ended"))

    def _read(self, path: str, begin: int, end: int) -> bytes:
        content: bytes = self.call("read", path, begin, end).result()
        return content

    def run(self, spec: RunSpec, source: TreeSource, packer: InputPacker) -> RunResult:
        inputs = packer.pack(set(source.manifest().links.values()))
        number = next(self._numbers)
        shipment = make_shipment(number, spec, source, self._known, inputs)
        spec.log.write_bytes(b"")
        try:
            for packed in inputs.values():
                if packed.name not in self._inputs:
                    for part in packed.chunks():
                        self.call("add_input", packed.name, part, False).result()
                    self.call("add_input", packed.name, {}, True).result()
                    self._inputs.add(packed.name)
            self.number = number
            running = self.call("run", shipment)
            self._known = {file.blob for file in shipment.manifest.files.values()}
            while not wait([running], FOLLOW_S).done:
                follow_log(spec, self._read)
            return receive(spec, running.result(), self._read, self._slot)
        except EOFError as error:
            return RunResult(None, "lost", 0.0, None, None, self._slot, str(error))
        finally:
            self.number = None

    def close(self) -> None:
        assert self._process.stdin
        with self._lock:
            self._process.stdin.close()
        self._process.wait()
        self._reader.join()


# ---- the far process ---------------------------------------------------------------------------


def main() -> None:
    slot = RemoteSlot()
    lock = threading.Lock()
    threads = []

    def carry_out(number: int, method: str, arguments: tuple[object, ...]) -> None:
        try:
            value = getattr(slot, method)(*arguments)
        except Exception as error:
            value = error
        with lock:
            sys.stdout.buffer.write(to_line((number, value)))
            sys.stdout.buffer.flush()

    for line in sys.stdin.buffer:
        threads.append(threading.Thread(target=carry_out, args=from_line(line), daemon=True))
        threads[-1].start()
    slot.close()
    for thread in threads:
        thread.join(10)


def to_line(value: object) -> bytes:
    return base64.b64encode(pickle.dumps(value)) + b"\n"


def from_line(line: bytes) -> Any:
    return pickle.loads(base64.b64decode(line))


if __name__ == "__main__":
    main()
