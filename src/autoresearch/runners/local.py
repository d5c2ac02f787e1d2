"""Runs on this machine, in slots. Every slot has a warden: a small process that starts the runs,
watches them and outlives neither them nor us (`_warden.py`)."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TypeVar

from autoresearch.errors import RunnerError
from autoresearch.protocols import RunResult, RunSpec
from autoresearch.store import values
from autoresearch.store.paths import module
from autoresearch.task.model import RunnerSettings

T = TypeVar("T")


def create(settings: RunnerSettings, inherit: Sequence[int] = ()) -> LocalRunner:
    return LocalRunner(settings.slots, inherit)


class LocalRunner:
    """`slots` runs at a time. A free slot is drawn at random, so that a slow core or a hot GPU
    favours nobody."""

    name = "local"

    def __init__(self, slots: int, inherit: Sequence[int] = ()) -> None:
        self.slots = slots
        self._free = list(range(slots))
        self._changed = threading.Condition()
        self._wardens = [_Warden(slot, slots, tuple(inherit)) for slot in range(slots)]

    def run(self, spec: RunSpec) -> RunResult:
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
    """Our end of a warden's pipes: one JSON line out, one back. Started when first needed."""

    def __init__(self, slot: int, slots: int, inherit: tuple[int, ...]) -> None:
        self._slot = slot
        self._cores = _share(sorted(_available_cores()), slot, slots)
        self._gpus = _share(_gpus(), slot, slots)
        self._inherit = inherit
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def run(self, spec: RunSpec) -> RunResult:
        process = self._started()
        assert process.stdin and process.stdout
        request = {field.name: getattr(spec, field.name) for field in fields(spec)}
        request |= {"env": self._environment(spec.env), "slot": self._slot}
        request["confinement"] = spec.confinement and spec.confinement.to_json()
        try:
            process.stdin.write(json.dumps(request, default=str) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except (OSError, ValueError):  # it died, or `close` came first
            answer = ""
        outcome = values.parse(answer, RunResult) if answer.endswith("\n") else None
        return outcome or self._lost(process)

    def _lost(self, process: subprocess.Popen[str]) -> RunResult:
        """The warden died. The next run gets a new one."""
        with self._lock:
            self._process = None
        process.kill()
        _finish(process)
        detail = f"its warden ended: {process.returncode}"
        return RunResult(None, "lost", 0.0, None, None, self._slot, detail)

    def _started(self) -> subprocess.Popen[str]:
        with self._lock:
            if self._process is None:
                cores = ",".join(map(str, self._cores))
                try:
                    self._process = subprocess.Popen(
                        module("autoresearch.runners.warden.main", cores),
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                        pass_fds=self._inherit,
                        start_new_session=True,  # Ctrl-C in the terminal is ours to handle
                    )
                except OSError as error:
                    raise RunnerError(f"cannot start a process: {error}") from error
            return self._process

    def _environment(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """What the run is to have, with this slot's part of the machine."""
        env = dict(wanted)
        if self._cores:
            env.setdefault("OMP_NUM_THREADS", str(len(self._cores)))
            if sys.platform == "darwin":
                env.setdefault("VECLIB_MAXIMUM_THREADS", str(len(self._cores)))
        if self._gpus:  # these are a part of those that `wanted` may name
            env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, self._gpus))
        return env

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
    """Close its input, which ends a warden and the run it watches, and wait for that."""
    assert process.stdin and process.stdout
    try:
        process.stdin.close()
    except OSError:
        pass  # it is gone already
    process.wait()
    process.stdout.close()


def _available_cores() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _gpus() -> list[int | str]:
    """The GPUs this process may use, as CUDA numbers or names; none without NVIDIA's tools."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return list(range(sum(line.startswith("GPU ") for line in listed.stdout.splitlines())))


def _share(things: Sequence[T], slot: int, slots: int) -> Sequence[T]:
    """A slot's part of the cores or GPUs. All of them for a single slot (nothing is pinned); with
    fewer things than slots, they are shared in turn."""
    if slots == 1 or not things:
        return []
    if len(things) < slots:
        return [things[slot % len(things)]]
    return things[slot * len(things) // slots : (slot + 1) * len(things) // slots]
