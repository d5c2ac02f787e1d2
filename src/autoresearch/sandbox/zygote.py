"""A process that has imported packages and forks itself for each run, which then need not.

    python zygote.py CONTROL MODULE...    # CONTROL: the number of a socket's descriptor

The warden starts it (`runners/warden/zygotes.py`) with the interpreter of the task's runs and the
part of their environment that is the same in all of them. It imports the modules and answers with
one JSON line: `Imported`, or an error. For each run the warden then sends one byte with three
descriptors: the request (JSON), a pipe for the answer of the run's process, and the log. The zygote
forks and answers with the pid. It never reads a request, so its memory holds nothing of any run,
and no run can write to it.

The fork makes itself what a cold start would be: its session, limits, confinement and privileges
hold before it executes anything of the run's tree. `program.py` does the rest.

It refuses modules after whose import a fork would fail or lead from one run to another: those that
start threads, leave descriptors open, share memory, or use a GPU.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the interpreter is the task's, not ours
    import json
    import os

    found = f"{sys.executable} is Python {sys.version.split()[0]}; preload needs 3.11 or later"
    os.write(int(sys.argv[1]), json.dumps({"error": found}).encode() + b"\n")
    sys.exit(1)

import ctypes
import gc
import importlib
import json
import os
import resource
import socket
import time
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn, cast

if __name__ == "__main__":
    # As in `nested.py`: import from this folder alone.
    if not sys.flags.safe_path:
        del sys.path[0]
    for name in ("autoresearch", "autoresearch.sandbox"):
        sys.modules[name] = ModuleType(name)
    sys.modules["autoresearch.sandbox"].__path__ = [str(Path(__file__).resolve().parent)]

from autoresearch.sandbox import forks
from autoresearch.sandbox.landlock import Ruleset, drop_capabilities
from autoresearch.sandbox.program import Program
from autoresearch.sandbox.seccomp import LIBC

if TYPE_CHECKING:
    from autoresearch.protocols import Confinement

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, SIGKILL = 1, 4, 9
SEED = "AUTORESEARCH_SEED"
SEED_PLACE = b"0" * 20
"""The value of SEED at the start, in the last variable. A fork writes its own seed over it, so that
the harness finds a run's processes by the environment that /proc shows."""

READY = b"ready"


class Refused(Exception):
    """The modules cannot be preloaded, for this reason."""


def main() -> Program:
    """Import, and wait for requests. Returns in a fork, with the program to run."""
    control = socket.socket(fileno=int(sys.argv[1]))
    place = _find_seed()
    os.environ.pop(SEED, None)
    _forget_harness()
    try:
        imported = _preload(sys.argv[2:], control.fileno())
    except Refused as refused:
        control.sendall(json.dumps({"error": str(refused)}).encode() + b"\n")
        sys.exit(1)
    LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # only root may trace it
    control.sendall(json.dumps(imported).encode() + b"\n")
    request, answer, log = _serve(control)
    control.detach()  # `_become` closes the descriptor
    return _become(request, answer, log, place)


def _find_seed() -> int:
    """The address of the seed in the environment that /proc shows; 0 if it is not there."""
    entries = ctypes.POINTER(ctypes.c_void_p).in_dll(LIBC, "environ")
    start = f"{SEED}=".encode()
    for at in range(100_000):
        address = entries[at]
        if address is None:
            break
        if ctypes.string_at(address) == start + SEED_PLACE:
            return int(address) + len(start)
    return 0


def _forget_harness() -> None:
    """Let a run import a package of its own with our name."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "autoresearch"]:
        del sys.modules[name]


# ---- importing ---------------------------------------------------------------------------------


def _preload(modules: list[str], control: int) -> dict[str, Any]:
    """Import the modules. Returns the fields of `zygotes.Imported`. Raises `Refused`."""
    for name in modules:
        try:
            importlib.import_module(name)
        except BaseException as error:
            raise Refused(f"cannot import {name}: {type(error).__name__}: {error}") from error
        _end_idle_threads()
        _check(name, control)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):  # the warden has read what the imports printed
        os.dup2(null, descriptor)
    os.close(null)
    gc.collect()
    gc.freeze()  # a collection in a fork would copy every page that it visits
    files = {
        name: os.path.realpath(file)
        for name, module in list(sys.modules.items())
        if isinstance(file := getattr(module, "__file__", None), str)
        and file.startswith("/")  # not so: torch.ops, which is no file
        and module is not sys.modules["__main__"]
    }
    return {
        "cpu_s": time.process_time(),
        "modules": sorted({name.partition(".")[0] for name in files}),
        "folders": sorted({file.rpartition("/")[0] for file in files.values()}),
        "path": sys.path,
    }


def _end_idle_threads() -> None:
    """Fork once: libraries such as OpenBLAS end their threads before a fork, and start them again
    when there is work for them, in a fork too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns of a fork while there are threads
        if (pid := os.fork()) == 0:
            os._exit(0)
    os.waitpid(pid, 0)


def _check(module: str, control: int) -> None:
    """Raise `Refused` if `module` has left something that a fork must not inherit."""
    if (threads := _count_threads()) > 1:
        raise Refused(f"importing {module} starts threads, {threads - 1} still run")
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
        raise Refused(f"importing {module} initialises CUDA, which a fork cannot use")
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are enough
        try:
            target = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
        except OSError:
            continue  # that of the listing itself
        if int(name) > 2 and int(name) != control:
            raise Refused(f"importing {module} leaves {target} open, which all runs would share")
    for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
        _, rights, _, _, _, *what = line.split(maxsplit=5)
        if rights[1] == "w" and rights[3] == "s":
            memory = what[0] if what else "memory"
            raise Refused(f"importing {module} maps {memory} so that all runs would share it")


def _count_threads() -> int:
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208


# ---- forking -----------------------------------------------------------------------------------


def _serve(control: socket.socket) -> list[int]:
    """Fork for each message. Returns in a fork, with its descriptors."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 3)
        if not message or _count_threads() > 1:
            os._exit(0)  # the warden is gone, or has to start another zygote
        try:
            pid = _fork()
        except OSError as error:
            answer: dict[str, Any] = {"error": f"cannot fork: {error.strerror}"}
        else:
            if pid is None:
                return descriptors
            answer = {"pid": pid}
        for descriptor in descriptors:
            os.close(descriptor)
        control.sendall(json.dumps(answer).encode() + b"\n")


def _fork() -> int | None:
    """Fork twice. The process in between ends, so that the warden adopts the second fork. Returns
    its pid, and None in the fork itself."""
    read, write = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            pid = os.fork()
        except OSError:
            os._exit(1)
        if pid == 0:
            return None
        os.write(write, b"%d" % pid)
        os._exit(0)
    os.close(write)
    os.waitpid(middle, 0)
    text = os.read(read, 32)
    os.close(read)
    if not text:
        raise OSError(0, "too little memory, or too many processes")
    return int(text)


# ---- in a fork ---------------------------------------------------------------------------------


def _become(request: int, answer: int, log: int, place: int) -> Program:
    """Set up this process as `ColdLauncher` sets up a run's, and answer that it is ready."""
    with open(request, "rb") as file:
        text = file.read()  # the warden sends it when it has adopted this process
    stage = "start"
    try:
        fields = json.loads(text)
        LIBC.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
        if os.getppid() != fields["parent"]:
            os._exit(1)
        LIBC.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
        os.setsid()
        _connect(log, answer)
        _limit(fields)
        seed = fields["env"].get(SEED, "").encode()
        if place and len(seed) <= len(SEED_PLACE):
            ctypes.memmove(place, seed.ljust(len(SEED_PLACE), b"\0"), len(SEED_PLACE))
        stage = "confine"
        if fields["confinement"] is not None:
            # The class is not in this folder.
            confinement = cast("Confinement", SimpleNamespace(**fields["confinement"]))
            with Ruleset(confinement) as ruleset:
                ruleset.apply()
            drop_capabilities()
        stage = "start"
        program = Program(fields["argv"], fields["env"], fields["path"], _list_pristine())
        program.enter()
        forks.offer(program)
    except BaseException as error:
        _give_up(answer, stage, error)
    os.write(answer, READY)
    os.close(answer)
    return program


def _connect(log: int, answer: int) -> None:
    """Connect input and output, and close all other descriptors but `answer`."""
    null = os.open(os.devnull, os.O_RDONLY)  # its own: flags of an open file are shared
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.closerange(3, answer)
    os.closerange(answer + 1, 1 << 20)


def _limit(fields: dict[str, Any]) -> None:
    os.sched_setaffinity(0, fields["cores"])
    os.umask(fields["umask"])
    os.chdir(fields["cwd"])
    for kind, limit in fields["limits"]:
        resource.setrlimit(kind, (limit, limit))


def _give_up(answer: int, stage: str, error: BaseException) -> NoReturn:
    number = error.errno if isinstance(error, OSError) else None
    os.write(answer, json.dumps({"stage": stage, "errno": number, "error": str(error)}).encode())
    os._exit(1)


def _list_pristine() -> dict[str, Any]:
    """The globals that the interpreter has made for a program, here this one."""
    names = globals()
    return {name: names[name] for name in names if name.startswith("__")}


if __name__ == "__main__":
    main().run()
