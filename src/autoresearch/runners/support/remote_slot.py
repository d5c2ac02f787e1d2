"""A slot on another machine. A runner makes it in a process there, and calls its methods.

It has a folder of its own, in which it makes each run's tree from content, and the warden of the
runner `local`, which confines and counts the run as it does at home. Nothing of the harness's disk
is needed; programs, caches and mounted inputs must be on the machine, under the same paths.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from autoresearch import __version__
from autoresearch.files import clear_path, find_data, remove_tree
from autoresearch.measure.fingerprint import find_cpu_model
from autoresearch.protocols import Confinement, RunResult, RunSpec, TreeManifest
from autoresearch.runners.local import LocalRunner
from autoresearch.runners.support.content import changed_files, write_tree
from autoresearch.runners.support.resources import SlotResources
from autoresearch.runners.support.shipping import Ended, Segments, Shipment
from autoresearch.runners.warden import cpu_clock
from autoresearch.sandbox.run_policy import list_devices

FOLDER = "autoresearch-slot-"  # and what makes it unique: a slot's folder
INLINE_BYTES = 1_000_000  # of small files, which travel with the answer
OF_AN_ENVIRONMENT = ("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "UV_PROJECT_ENVIRONMENT")
NEW_S = 60.0  # a folder that is younger may not be locked yet
REPEAT_S = 0.1  # an interrupt is repeated: the run may be about to begin


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run's number depends on, apart from its commit and its inputs."""

    host: str
    cpu: str
    gpu: str  # "" without NVIDIA's tools
    python: str
    packages: str  # a digest of the names and versions of all installed packages
    version: str  # of this package
    counts_cpu_time: bool  # of processes that nobody waits for

    @property
    def facts(self) -> dict[str, str]:
        """What must be equal on two machines whose numbers are compared."""
        own = {"CPU": self.cpu, "GPU": self.gpu, "python": self.python, "packages": self.packages}
        return {f"node {name}": fact for name, fact in own.items() if fact}

    @property
    def kind(self) -> str:
        """The facts in a line."""
        parts = (self.gpu, self.cpu, f"Python {self.python}", f"packages {self.packages}")
        return ", ".join(filter(None, parts))


def describe_machine() -> Machine:
    """The facts of the machine and the Python that this process has."""
    names = sorted(
        f"{it.metadata['Name']} {it.version}" for it in importlib.metadata.distributions()
    )
    return Machine(
        platform.node(),
        find_cpu_model(),
        _find_gpu_model(),
        platform.python_version(),
        hashlib.sha256("\n".join(names).encode()).hexdigest()[:8],
        __version__,
        cpu_clock.is_available(),
    )


def _find_gpu_model() -> str:
    """The models of the GPUs with their driver, such as "NVIDIA H100 (driver 550.54.14)"."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    models = {line.partition(", ") for line in done.stdout.splitlines()}
    return " and ".join(sorted(f"{model} (driver {driver})" for model, _, driver in models))


class RemoteSlot:
    """Executes one run at a time. Its methods may be called from several threads."""

    def __init__(self, cpus: int | None = None, gpus: Sequence[str] | None = None) -> None:
        """`cpus` is the number of threads that libraries start; `gpus` are those that a run sees.
        None: as on the harness's machine."""
        self._cpus = cpus
        self._gpus = gpus
        self._folder = _make_folder()
        self._lock = _lock(self._folder)
        self._blobs = self._folder / "blobs"
        self._inputs = self._folder / "inputs"
        self._blobs.mkdir()
        self._inputs.mkdir()
        self._runner = LocalRunner(1)
        self._state = threading.Lock()
        self._current: int | None = None
        self._interrupted = -1  # the number of the latest run that was interrupted

    def describe(self) -> Machine:
        return describe_machine()

    def add_input(self, name: str, contents: Mapping[str, bytes], is_last: bool) -> None:
        """Take a part of an input's files, by path; "" is the path of an input that is a file."""
        draft, done = self._inputs / f"{name}.part", self._inputs / name
        for path, content in contents.items():
            target = draft / path if path else draft
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        if is_last:
            if not draft.exists():
                draft.mkdir()  # an empty folder
            draft.rename(done)

    def run(self, shipment: Shipment) -> Ended:
        """Execute a run. Raises `RunnerError` if modules cannot be preloaded."""
        folder = self._folder / "run"
        clear_path(folder)
        (folder / "tmp").mkdir(parents=True)
        inputs = {path: str(self._inputs / name) for path, name in shipment.inputs.items()}
        manifest = shipment.manifest
        links = {path: inputs.get(source, source) for path, source in manifest.links.items()}
        spec = self._adapt(shipment.spec.moved(folder, inputs), shipment.python)
        self._make_tree(replace(manifest, links=links), shipment.contents, spec.tree)
        (spec.tree / spec.directory).mkdir(parents=True, exist_ok=True)
        with self._state:
            if self._interrupted == shipment.number:
                return Ended(RunResult(None, "interrupted", 0.0, 0.0, None), 0, {}, {})
            self._current = shipment.number
        try:
            result = self._runner.run(spec)
        finally:
            with self._state:
                self._current = None
        return self._make_answer(result, manifest, spec)

    def _make_tree(
        self, manifest: TreeManifest, contents: Mapping[str, bytes], folder: Path
    ) -> None:
        """Make a tree, and keep its contents alone for the next one."""
        for blob, content in contents.items():
            (self._blobs / blob).write_bytes(content)
        write_tree(manifest, lambda blob: (self._blobs / blob).read_bytes(), folder)
        needed = {file.blob for file in manifest.files.values()}
        for file in self._blobs.iterdir():
            if file.name not in needed:
                file.unlink()

    def _adapt(self, spec: RunSpec, python: str | None) -> RunSpec:
        """The spec for this machine: its devices, its GPUs, its own Python if it has not that of
        the harness's machine, and the folders that the run may write."""
        env = dict(spec.env)
        if self._cpus is not None:
            env.setdefault("OMP_NUM_THREADS", str(self._cpus))
        if self._gpus is not None:
            env = SlotResources(gpus=tuple(self._gpus)).environment(env)
            if not self._gpus:
                env["CUDA_VISIBLE_DEVICES"] = ""  # one that did not ask must not disturb others
        read: tuple[str, ...] = ()
        if python is not None and not Path(python).exists():
            env = {name: env[name] for name in env if name not in OF_AN_ENVIRONMENT}
            own = str(Path(sys.executable).parent)
            env["PATH"] = os.pathsep.join(filter(None, [own, env.get("PATH")]))
            read = (sys.prefix, sys.base_prefix, own)
        if spec.confinement is None:
            return replace(spec, env=env)
        for name in map(Path, spec.confinement.write):  # its caches
            if not any(name.is_relative_to(own) for own in ("/dev", self._folder)):
                with suppress(OSError):  # it exists as a file, or the run will say what it misses
                    name.mkdir(parents=True, exist_ok=True)
        return replace(spec, env=env, confinement=_adapt_confinement(spec.confinement, read))

    def _make_answer(self, result: RunResult, manifest: TreeManifest, spec: RunSpec) -> Ended:
        small: dict[str, bytes] = {}
        large: dict[str, Segments] = {}
        room = INLINE_BYTES
        for path, file in changed_files(manifest, spec.tree):
            with file.open("rb") as content:
                size = os.fstat(content.fileno()).st_size
                if size <= room:
                    small[path] = content.read()
                    room -= size
                else:
                    large[path] = Segments(size, list(find_data(content.fileno())))
        log_bytes = spec.log.stat().st_size if spec.log.exists() else 0
        return Ended(result, log_bytes, small, large)

    def read(self, path: str, begin: int, end: int) -> bytes:
        """A part of a file of the current or the latest run; empty if it is not there (yet)."""
        try:
            with (self._folder / "run" / path).open("rb") as file:
                file.seek(begin)
                return file.read(end - begin)
        except FileNotFoundError:
            return b""

    def interrupt(self, number: int) -> None:
        """End the run with this number, now or as soon as it begins. Return when it has ended."""
        with self._state:
            self._interrupted = number
        while self._current == number:
            self._runner.interrupt()
            time.sleep(REPEAT_S)

    def close(self) -> None:
        """End the run under way, and leave nothing behind."""
        self._runner.close()
        with suppress(OSError):
            remove_tree(self._folder)
        self._lock.close()


def _adapt_confinement(confinement: Confinement, read: Sequence[str]) -> Confinement:
    """With this machine's devices."""
    write = dict.fromkeys((*confinement.write, *map(str, list_devices())))
    has_cuda = confinement.proc or Path("/dev/nvidiactl").exists()
    return replace(confinement, read=(*confinement.read, *read), write=tuple(write), proc=has_cuda)


# ---- folders -----------------------------------------------------------------------------------


def _make_folder() -> Path:
    """Make a slot's folder, and remove those of slots that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER}*"):
        with suppress(OSError):  # it is in use
            status = folder.lstat()
            is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
            if is_ours and time.time() - status.st_mtime > NEW_S:
                _lock(folder).close()
                shutil.rmtree(folder)
    return Path(tempfile.mkdtemp(prefix=FOLDER))


def _lock(folder: Path) -> IO[str]:
    """Hold a folder's lock as long as the returned file is open. Raises OSError if another process
    holds it."""
    file = (folder / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file
