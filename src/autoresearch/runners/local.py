"""Runs on this machine, in slots. Every slot has a warden: a small process that starts the runs,
watches them, and ends with them or with the harness (`warden/main.py`)."""

from __future__ import annotations

import json
import random
import subprocess
import threading
from dataclasses import replace
from typing import ClassVar

from autoresearch.errors import RunnerError
from autoresearch.protocols import RunResult, RunSpec, TreeSource
from autoresearch.runners.support import resources
from autoresearch.runners.support.resources import SlotResources
from autoresearch.store import values
from autoresearch.store.paths import make_module_command
from autoresearch.task.model import RunnerSettings


def create(settings: RunnerSettings) -> LocalRunner:
    return LocalRunner(settings.slots)


class LocalRunner:
    """`slots` runs at a time. A free slot is drawn at random, so that no program profits from a
    slow core or a hot GPU more often than another."""

    name = "local"
    warden: ClassVar[str] = "autoresearch.runners.warden.main"  # a module that calls its `main`

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._free = list(range(slots))
        self._changed = threading.Condition()
        self._wardens = [
            _Warden(self.warden, slot, share) for slot, share in enumerate(resources.divide(slots))
        ]

    def hold(self, descriptor: int) -> None:
        """Let the wardens inherit an open file, before the first run: a lock on it is held until
        the last of them, and so the last run, has ended."""
        for warden in self._wardens:
            warden.inherited = (descriptor,)

    def run(self, spec: RunSpec, source: TreeSource | None = None) -> RunResult:
        """See `Runner`. Without a `source`, the tree is there already."""
        if source is not None:
            source.write(spec.tree)
        with self._changed:
            self._changed.wait_for(lambda: self._free)
            slot = self._free.pop(random.randrange(len(self._free)))
        try:
            return self._wardens[slot].run(spec)
        finally:
            with self._changed:
                self._free.append(slot)
                self._changed.notify()

    def interrupt(self) -> None:
        for warden in self._wardens:
            warden.interrupt()

    def close(self) -> None:
        for warden in self._wardens:
            warden.close()


class _Warden:
    """The harness's end of a warden's pipes: one JSON line out, one back. The process is started
    when it is first needed."""

    def __init__(self, module: str, slot: int, share: SlotResources) -> None:
        self.inherited: tuple[int, ...] = ()
        self._module = module
        self._slot = slot
        self._share = share
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def run(self, spec: RunSpec) -> RunResult:
        process = self._start()
        assert process.stdin and process.stdout
        spec = replace(spec, env=self._share.environment(spec.env))
        try:
            process.stdin.write(json.dumps(spec.to_json() | {"slot": self._slot}) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except (OSError, ValueError):  # it died, or `close` came first
            answer = ""
        result = values.parse(answer, RunResult) if answer.endswith("\n") else None
        return result or self._discard(process)

    def _discard(self, process: subprocess.Popen[str]) -> RunResult:
        """Forget a warden that died. The next run gets a new one."""
        with self._lock:
            self._process = None
        process.kill()
        _finish(process)
        detail = f"its warden ended: {process.returncode}"
        return RunResult(None, "lost", 0.0, None, None, self._slot, detail)

    def _start(self) -> subprocess.Popen[str]:
        """The warden's process; started unless it runs already."""
        with self._lock:
            if self._process is None:
                try:
                    self._process = subprocess.Popen(
                        make_module_command(self._module, ",".join(map(str, self._share.cores))),
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                        pass_fds=self.inherited,
                        start_new_session=True,  # the harness handles Ctrl-C in the terminal
                    )
                except OSError as error:
                    raise RunnerError(f"cannot start a process: {error}") from error
            return self._process

    def interrupt(self) -> None:
        process = self._process
        if process and process.stdin:
            try:
                process.stdin.write("\n")
                process.stdin.flush()
            except OSError:
                pass  # it is gone already, and its run with it

    def close(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process:
            _finish(process)


def _finish(process: subprocess.Popen[str]) -> None:
    """Close a warden's input, which ends it and the run it watches, and wait for that."""
    assert process.stdin and process.stdout
    try:
        process.stdin.close()
    except OSError:
        pass  # it is gone already
    process.wait()
    process.stdout.close()
