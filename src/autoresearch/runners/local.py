"""Executes runs on this machine, in slots. Every slot has a warden: a small process that starts
and watches its runs, and ends with the harness (`warden/main.py`)."""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar

from autoresearch.errors import RunnerError
from autoresearch.protocols import NOT_PRELOADED, RunResult, RunSpec, TreeSource
from autoresearch.runners.support.resources import SlotResources, divide_machine, list_cores
from autoresearch.runners.warden import cpu_clock, instructions
from autoresearch.store import values
from autoresearch.store.paths import make_module_command
from autoresearch.task.model import RunnerSettings


def create(settings: RunnerSettings) -> LocalRunner:
    return LocalRunner(settings.slots, settings.cores)


class LocalRunner:
    """Executes `slots` runs at a time. It draws a free slot at random, so that a slow core or a hot
    GPU affects all programs alike."""

    name = "local"
    warden: ClassVar[str] = "autoresearch.runners.warden.main"  # or a module that calls its `main`

    def __init__(self, slots: int, cores: int | None = None) -> None:
        """With `cores`, each slot has so many for itself: this process, and so the agents that it
        starts, leave them. Raises `RunnerError` if there are too few."""
        self.slots = slots
        self._free = list(range(slots))
        self._changed = threading.Condition()
        self._spared_s: float | None = None  # by the latest warm start
        parts = divide_machine(slots, cores)
        self._wardens = [_Warden(self.warden, slot, part) for slot, part in enumerate(parts)]
        self._left = set(list_cores()) if cores else set()  # to go back to
        _move_to(self._left.difference(*(part.cores for part in parts)))

    @property
    def misses_cpu_time(self) -> bool:
        """Whether the CPU time of children that nobody waits for is not counted here."""
        return not cpu_clock.is_available()

    @property
    def counts_instructions(self) -> bool:
        return instructions.is_available()

    def hold(self, descriptor: int) -> None:
        """Let the wardens inherit an open file, before the first run: a lock on it holds until the
        last of them, and so the last run, has ended."""
        for warden in self._wardens:
            warden.inherited = (descriptor,)

    def run(self, spec: RunSpec, source: TreeSource | None = None) -> RunResult:
        """See `Runner`. Without a `source`, the tree exists already."""
        if source is not None:
            source.write(spec.tree)
        with self._changed:
            self._changed.wait_for(lambda: self._free)
            slot = self._free.pop(random.randrange(len(self._free)))
        try:
            return self._run(self._wardens[slot], spec)
        finally:
            with self._changed:
                self._free.append(slot)
                self._changed.notify()

    def _run(self, warden: _Warden, spec: RunSpec) -> RunResult:
        """Raises `RunnerError` if modules cannot be preloaded that have never been. Otherwise the
        machine is short of something: the run starts cold, with the time for its imports."""
        result = warden.run(spec)
        if result.stopped != NOT_PRELOADED:
            self._spared_s = result.spared_s or self._spared_s
            return result
        if self._spared_s is None:
            raise RunnerError(
                f"preload = {json.dumps(spec.preload)}: {result.detail}. Mend it in the task file, "
                "or leave it out"
            )
        limit_s = None if spec.limit_s is None else spec.limit_s + self._spared_s
        cold = warden.run(replace(spec, preload=(), limit_s=limit_s))
        return replace(cold, detail=f"started cold: {result.detail}")

    def interrupt(self) -> None:
        for warden in self._wardens:
            warden.interrupt()

    def close(self) -> None:
        """A later `run` raises `RunnerError`."""
        for warden in self._wardens:
            warden.close()
        cpu_clock.remove_groups()
        _move_to(self._left)


class _Warden:
    """The harness's end of a warden's pipes: one JSON line out, one back. The first run starts the
    process."""

    def __init__(self, module: str, slot: int, resources: SlotResources) -> None:
        self.inherited: tuple[int, ...] = ()
        self._module = module
        self._slot = slot
        self._resources = resources
        self._process: subprocess.Popen[str] | None = None
        self._is_closed = False
        self._lock = threading.Lock()

    def run(self, spec: RunSpec) -> RunResult:
        process = self._start()
        assert process.stdin and process.stdout
        spec = replace(spec, env=self._resources.environment(spec.env))
        if spec.confinement is not None and self._resources.cores:
            spec = replace(spec, confinement=replace(spec.confinement, pinned=True))
        try:
            process.stdin.write(json.dumps(spec.to_json() | {"slot": self._slot}) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except (OSError, ValueError):  # the warden died, or `close` came first
            answer = ""
        result = values.parse(answer, RunResult) if answer.endswith("\n") else None
        return result or self._discard(process)

    def _discard(self, process: subprocess.Popen[str]) -> RunResult:
        """Forget a process that died. The next run starts a new one."""
        with self._lock:
            self._process = None
        process.kill()
        _finish(process)
        detail = f"its warden ended: {process.returncode}"
        return RunResult(None, "lost", 0.0, None, None, self._slot, detail)

    def _start(self) -> subprocess.Popen[str]:
        """Return the warden's process. Start it if there is none."""
        with self._lock:
            if self._is_closed:
                raise RunnerError("the runner is closed")
            if self._process is None:
                try:
                    self._process = subprocess.Popen(
                        make_module_command(
                            self._module, ",".join(map(str, self._resources.cores))
                        ),
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
            with suppress(OSError):  # the warden has ended, and its run with it
                process.stdin.write("\n")
                process.stdin.flush()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            process, self._process = self._process, None
        if process:
            _finish(process)


def _move_to(cores: Collection[int]) -> None:
    """Let this thread, and what it starts, run on these cores; anywhere if there are none."""
    if cores and hasattr(os, "sched_setaffinity"):
        with suppress(OSError):  # a core was switched off
            os.sched_setaffinity(0, cores)


def _finish(process: subprocess.Popen[str]) -> None:
    """Close a warden's input, which ends it and its run, and wait for its end."""
    assert process.stdin and process.stdout
    with suppress(OSError):  # it has ended already
        process.stdin.close()
    process.wait()
    process.stdout.close()
