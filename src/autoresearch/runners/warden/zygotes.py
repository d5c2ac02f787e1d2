"""Starts runs warm: a process that has imported what the task names is forked for each run.

A run starts warm if its task names modules to preload and its command is `python FILE ...` or
`python -m MODULE ...`. All others start cold. The zygote itself is `sandbox/zygote.py`.
"""

from __future__ import annotations

import array
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from autoresearch.protocols import Confinement, RunSpec
from autoresearch.runners.warden import processes
from autoresearch.runners.warden.launch import (
    PR_SET_PDEATHSIG,
    ColdLauncher,
    ForkLost,
    NotConfined,
    NotPreloaded,
    Process,
)
from autoresearch.runners.warden.limits import list_limits, max_threads
from autoresearch.runners.warden.requests import Requests
from autoresearch.sandbox.seccomp import LIBC

PROGRAM = Path(__file__).parents[2] / "sandbox" / "zygote.py"
INTERPRETER = re.compile(r"python(3(\.\d+)?)?")
SEED, SEED_PLACE = "AUTORESEARCH_SEED", "0" * 20  # as in zygote.py
READY = b"ready"
OF_ONE_RUN = (SEED, "TMPDIR", "AUTORESEARCH_ASIDE", "PYTHONPATH")  # variables
SUFFIXES = (".py", ".pyc", ".so")  # of files that hold a module
FORK_TIMEOUT_S = 60.0  # a fork takes milliseconds
LOST_LIMIT = 2  # forks that are lost running: then the run starts cold
OUTPUT_BYTES = 64_000  # of what imports print; it goes into the log of every run


class Cold(Exception):
    """A run starts cold, for this reason."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What a zygote says when it has imported its modules."""

    cpu_s: float
    modules: frozenset[str]  # top-level names of all modules that have a file
    folders: tuple[str, ...]  # the real folders of those files
    path: tuple[str, ...]  # sys.path
    wall_s: float


class Key(NamedTuple):
    """Runs with the same key can share a zygote."""

    executable: str
    name: str  # as the command calls it
    modules: tuple[str, ...]
    env: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Fork:
    pid: int


class WarmLauncher:
    """Forks the runs for which that is possible, and starts the others cold."""

    def __init__(self) -> None:
        self.spared_s: float | None = None
        self.detail = ""
        self._cold = ColdLauncher()
        self._zygotes: dict[Key, Zygote] = {}
        self._known: dict[Key, Imported] = {}  # of the latest zygote of each key
        self._chosen: Key | None = None  # of the run that is to start; None: cold
        self._lost = 0

    def prepare(self, spec: RunSpec, requests: Requests) -> RunSpec:
        self.spared_s, self.detail, self._chosen = None, "", None
        if not spec.preload:
            return spec
        key = None
        try:
            key = make_key(spec)
            self._chosen = self._choose(key, spec, requests)
        except Cold as reason:
            self.detail = f"started cold: {reason}"
            return self._with_time_for_imports(spec, key)
        self.spared_s = self._known[key].cpu_s
        return spec

    def start(self, spec: RunSpec, log: BinaryIO) -> Process:
        if self._chosen is None:
            return self._cold.start(spec, log)
        zygote = self._zygotes[self._chosen]
        try:
            fork = zygote.fork(spec, log)
        except (OSError, ForkLost) as error:
            self._lost += 1
            self._zygotes.pop(self._chosen).close()
            raise ForkLost(str(error)) from error
        self._lost = 0
        return fork

    def _choose(self, key: Key, spec: RunSpec, requests: Requests) -> Key:
        """Make the zygote if it is not there, or is no longer what a cold start would import.
        Raises `Cold`, `NotPreloaded` and `Interrupted`."""
        zygote = self._zygotes.get(key)
        if zygote is not None and not zygote.is_current():
            self._zygotes.pop(key).close()
            zygote = None
        if zygote is None:
            if self._lost >= LOST_LIMIT:
                raise Cold("the process to fork from has ended twice")
            try:
                zygote = Zygote(key, spec.timeout_s, requests)
            except NotPreloaded as error:
                if key in self._known:  # it worked before: the machine is short of something
                    raise Cold(str(error)) from error
                raise
            self._zygotes[key] = zygote
            self._known[key] = zygote.imported
        zygote.check_folders(spec.confinement)
        shadow = find_shadow(_import_folders(spec), zygote.imported.modules)
        if shadow is not None:
            raise Cold(f"{shadow} has the name of a preloaded module")
        return key

    def _with_time_for_imports(self, spec: RunSpec, key: Key | None) -> RunSpec:
        """Raise the limit of a cold run by what its imports took in the zygote: the limit was
        learned from warm runs."""
        known = self._known.get(key) if key else None
        if known is None or spec.limit_s is None:
            return spec
        imports_s = known.cpu_s if spec.limit_clock == "cpu" else known.wall_s
        return replace(spec, limit_s=spec.limit_s + imports_s)


# ---- which runs --------------------------------------------------------------------------------


def make_key(spec: RunSpec) -> Key:
    """Raises `Cold` if the run's command cannot start warm."""
    if not processes.LINUX:
        raise Cold("only Linux can start runs warm")
    executable = _find_interpreter(spec)
    arguments = spec.argv[1:]
    is_module = len(arguments) > 1 and arguments[0] == "-m"
    if not is_module:
        if not arguments or arguments[0].startswith("-"):
            raise Cold("only `python FILE` and `python -m MODULE` start warm")
        if not (spec.tree / spec.directory / arguments[0]).is_file():
            raise Cold(f"{arguments[0]} is no file")
    env = {name: value for name, value in spec.env.items() if _is_shared(name, value, spec)}
    if outside := _python_path(spec, in_tree=False):
        env["PYTHONPATH"] = os.pathsep.join(outside)
    return Key(executable, spec.argv[0], spec.preload, tuple(sorted(env.items())))


def _find_interpreter(spec: RunSpec) -> str:
    """The file that the run's command would execute. Raises `Cold` unless it is a Python that no
    change can replace."""
    name = spec.argv[0]
    if not INTERPRETER.fullmatch(name.rpartition("/")[2]):
        raise Cold("only `python FILE` and `python -m MODULE` start warm")
    for folder in spec.env.get("PATH", os.defpath).split(os.pathsep):
        if not (folder if "/" not in name else name).startswith("/"):
            raise Cold(f"{name} may lie in the run's tree")
        if path := shutil.which(name, path=folder):
            if Path(path).is_relative_to(spec.tree):
                raise Cold(f"{name} lies in the run's tree")
            return path
    raise Cold(f"there is no {name} on the PATH")


def _is_shared(name: str, value: str, spec: RunSpec) -> bool:
    """Whether a variable is the same in all runs of a task."""
    of_this_run = filter(None, (str(spec.tree), spec.env.get("TMPDIR")))
    return name not in OF_ONE_RUN and not any(path in value for path in of_this_run)


def _python_path(spec: RunSpec, *, in_tree: bool) -> list[str]:
    """The folders of the run's PYTHONPATH in its tree, or the others."""
    folders = filter(None, spec.env.get("PYTHONPATH", "").split(os.pathsep))
    return [path for path in folders if Path(path).is_relative_to(spec.tree) == in_tree]


def _import_folders(spec: RunSpec) -> list[Path]:
    """The folders that a run imports from before those of its interpreter, as far as a change can
    reach them."""
    place = spec.tree / spec.directory
    first = place if spec.argv[1] == "-m" else (place / spec.argv[1]).resolve().parent
    return [first, *map(Path, _python_path(spec, in_tree=True))]


def find_shadow(folders: Iterable[Path], modules: frozenset[str]) -> str | None:
    """A file or folder that a cold start would import instead of one of `modules`."""
    for folder in folders:
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.partition(".")[0] in modules and _is_module(entry):
                    return entry.name
    return None


def _is_module(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(SUFFIXES) or any(Path(entry.path).glob("__init__.*"))


# ---- the process -------------------------------------------------------------------------------


class Zygote:
    """A process that has imported the modules of a key. It ends with the warden."""

    def __init__(self, key: Key, timeout_s: float, requests: Requests) -> None:
        """Wait until it has imported them. Raises `NotPreloaded`, and `Interrupted`."""
        self._key = key
        self._stamp: object = None
        self._checked: set[tuple[str, ...]] = set()
        self._control, theirs = socket.socketpair()
        began = time.monotonic()
        with theirs, tempfile.TemporaryFile() as output:
            try:
                self._process = subprocess.Popen(
                    [key.name, str(PROGRAM), str(theirs.fileno()), *key.modules],
                    executable=key.executable,
                    cwd="/",
                    env=dict(key.env) | {SEED: SEED_PLACE},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    preexec_fn=_die_with_parent,
                )
            except OSError as error:
                raise NotPreloaded(f"cannot start {key.executable}: {error.strerror}") from error
            processes.spared.add(self._process.pid)
            theirs.close()
            try:
                answer = self._receive(timeout_s, requests)
            except BaseException:
                self.close()
                raise
            output.seek(0)
            self._output = output.read(OUTPUT_BYTES)
        if "error" in answer:
            self.close()
            raise NotPreloaded(f"{answer['error']} (python is {key.executable})")
        self.imported = Imported(
            answer["cpu_s"],
            frozenset(answer["modules"]),
            tuple(answer["folders"]),
            tuple(answer["path"]),
            time.monotonic() - began,
        )
        self._stamp = self._make_stamp()

    def is_current(self) -> bool:
        """Whether it lives, and no package was installed or removed since its imports."""
        return self._process.poll() is None and self._stamp == self._make_stamp()

    def check_folders(self, confinement: Confinement | None) -> None:
        """Raise `NotPreloaded` if a module came from a folder that a run may not read, such as the
        user's checkout: a cold start would not import that file."""
        if confinement is None or confinement.read in self._checked:
            return
        for folder in self.imported.folders:
            if not any(Path(folder).is_relative_to(path) for path in confinement.read):
                raise NotPreloaded(f"a module comes from {folder}, which a run may not read")
        self._checked.add(confinement.read)

    def fork(self, spec: RunSpec, log: BinaryIO) -> Fork:
        """Start a run. Raises OSError, `NotConfined` and `ForkLost`."""
        log.write(self._output)
        log.flush()
        request, request_end = os.pipe()
        answer_end, answer = os.pipe()
        with open(request_end, "wb") as to_fork, open(answer_end, "rb") as from_fork:  # noqa: PTH123
            try:
                descriptors = array.array("i", [request, answer, log.fileno()])
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)
                self._control.sendmsg([b"f"], [rights])
            finally:
                os.close(request)
                os.close(answer)
            forked = self._receive(FORK_TIMEOUT_S)
            if "pid" not in forked:
                raise ForkLost(forked["error"])
            with suppress(BrokenPipeError):  # killed already
                to_fork.write(self._make_request(spec))
                to_fork.close()
            text = from_fork.read()
        if text != READY:
            os.waitpid(forked["pid"], 0)
            raise _make_error(text)
        return Fork(forked["pid"])

    def _make_request(self, spec: RunSpec) -> bytes:
        outside = _python_path(spec, in_tree=False)
        listed = spec.env.get("PYTHONPATH", "").split(os.pathsep)
        rest = [path for path in self.imported.path if path not in outside]
        umask = os.umask(0)
        os.umask(umask)
        fields = {
            "parent": os.getpid(),
            "argv": spec.argv,
            "env": dict(spec.env),
            "cwd": str(spec.tree / spec.directory),
            "path": list(dict.fromkeys([*filter(None, listed), *rest])),
            "limits": list_limits(spec.file_bytes, max_threads(spec.processes)),
            "umask": umask,
            "cores": sorted(os.sched_getaffinity(0)),
            "confinement": spec.confinement and spec.confinement.to_json(),
        }
        return json.dumps(fields).encode()

    def _receive(self, timeout_s: float, requests: Requests | None = None) -> dict[str, Any]:
        """The next line from the zygote. With `requests`, its end is an answer with an error."""
        data, deadline = b"", time.monotonic() + timeout_s
        while not data.endswith(b"\n"):
            left_s = max(0.0, deadline - time.monotonic())
            self._control.settimeout(left_s or 0.001)
            if requests is not None and not requests.wait(self._control.fileno(), left_s):
                return {"error": f"importing takes more than {timeout_s:g} s"}
            try:
                more = self._control.recv(1 << 16)
            except TimeoutError:
                raise ForkLost(f"no fork within {timeout_s:g} s") from None
            if not more:
                if requests is None:
                    raise ForkLost("the process to fork from has ended")
                return {"error": f"importing {', '.join(self._key.modules)} ends the process"}
            data += more
        answer: dict[str, Any] = json.loads(data)
        return answer

    def _make_stamp(self) -> object:
        """Changes when packages are installed or removed, as the environment's fingerprint does."""
        return [_stat(path) for path in (self._key.executable, *self.imported.path)]

    def close(self) -> None:
        self._control.close()
        self._process.kill()
        self._process.wait()
        processes.spared.discard(self._process.pid)


def _die_with_parent() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _stat(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _make_error(text: bytes) -> Exception:
    """The error of a fork that did not become its run."""
    if not text:
        return ForkLost("the fork was killed before its program began")
    failure: Mapping[str, Any] = json.loads(text)
    if failure["stage"] == "confine":
        return NotConfined(failure["error"])
    return OSError(failure["errno"] or 0, failure["error"])
