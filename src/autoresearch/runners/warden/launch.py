"""Start a run's first process. `main` in `main.py` accepts another `Launcher`."""

from __future__ import annotations

import resource
import signal
import subprocess
from contextlib import AbstractContextManager, nullcontext
from typing import BinaryIO, Protocol

from autoresearch.protocols import RunSpec
from autoresearch.runners.warden.limits import list_limits, max_threads
from autoresearch.runners.warden.processes import LINUX
from autoresearch.runners.warden.requests import Requests
from autoresearch.sandbox.landlock import Ruleset
from autoresearch.sandbox.seccomp import LIBC

PR_SET_PDEATHSIG = 1


class NotConfined(Exception):
    """The run's confinement cannot be enforced. Nothing of the run has been executed."""


class NotPreloaded(Exception):
    """The modules that a run's task wants preloaded cannot be."""


class ForkLost(Exception):
    """A zygote has ended, or its fork before the program began. Nothing was executed: prepare and
    start the run again."""


class Process(Protocol):
    """A process, which the warden reaps."""

    pid: int


class Launcher(Protocol):
    """Starts the first process of each of a warden's runs, one at a time, in its only thread.

    `prepare` is called before a run's time begins. It makes what serves several runs, and returns
    the run's spec, perhaps with another limit. `spared_s` then has the CPU seconds of imports that
    the run is spared, None for a cold start, and `detail` why it starts cold though it should not.
    Raises `NotPreloaded`, and `Interrupted` if the harness has interrupted the run meanwhile.

    The process must be a child of the warden (a forked grandchild whose parent has ended becomes
    one, on Linux), lead a session of its own, have no input, and write stdout and stderr to `log`.
    Its confinement and limits hold before it executes anything of the program, and it dies with the
    warden. Raises OSError or ValueError if there is no such program, `NotConfined` if the
    confinement cannot be enforced, `ForkLost`.
    """

    spared_s: float | None
    detail: str

    def prepare(self, spec: RunSpec, requests: Requests) -> RunSpec: ...
    def start(self, spec: RunSpec, log: BinaryIO) -> Process: ...


class ColdLauncher:
    """Forks the warden and executes the command."""

    spared_s: float | None = None
    detail = ""

    def prepare(self, spec: RunSpec, requests: Requests) -> RunSpec:
        return spec

    def start(self, spec: RunSpec, log: BinaryIO) -> Process:
        limits = list_limits(spec.file_bytes, max_threads(spec.processes))
        with _make_ruleset(spec) as ruleset:

            def prepare() -> None:  # called in the child, between fork and exec
                if LINUX:
                    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                for kind, limit in limits:
                    resource.setrlimit(kind, (limit, limit))
                if ruleset is not None:
                    ruleset.apply()

            try:
                return subprocess.Popen(
                    spec.argv,
                    cwd=spec.tree / spec.directory,
                    env=spec.env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=prepare,
                )
            except subprocess.SubprocessError as error:  # from `prepare`: the child has ended
                raise NotConfined("the kernel refused it (Landlock)") from error


def _make_ruleset(spec: RunSpec) -> AbstractContextManager[Ruleset | None]:
    if spec.confinement is None:
        return nullcontext()
    try:
        return Ruleset(spec.confinement)
    except OSError as error:
        raise NotConfined(str(error)) from error
