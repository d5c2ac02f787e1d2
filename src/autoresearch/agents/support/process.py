"""Run a coding agent's program for one turn, with limits on its time, output and environment.

The runner's warden (`runners/warden`) starts the program. It kills the program and its children at
the deadline, at the program's end, and when the harness dies.

In the turn's folder the program may write only `tmp`, `stdout` and `stderr`. Else it could put a
link there, through which the harness would read or write.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from autoresearch.files import clear_path, tail
from autoresearch.measure.execution import STANDARD_ENV
from autoresearch.protocols import Confinement, RunSpec
from autoresearch.runners.local import LocalRunner
from autoresearch.sandbox.secrets import Secret, mask

NETWORK_ENV = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
)
"""Variables that a program needs, beside the standard set, to reach a service."""

PLAIN_ENV = {"NO_COLOR": "1", "TERM": "dumb"}
STDOUT_BYTES = 256_000_000  # a program that prints more is stopped
KEPT_BYTES = 32_000_000  # the last lines of the output
LINE_BYTES = 4_000_000  # a longer line counts as several
STDERR_BYTES = 65_536  # the end of stderr
FILE_BLOCKS = 2**21  # of 512 bytes: no file, stderr among them, grows beyond 1 GiB
DEFAULT_TIMEOUT_S = 86_400.0
SHELL = f'ulimit -f {FILE_BLOCKS}; exec "$@" <"$0/stdin" 2>"$0/stderr"'


@dataclass(frozen=True, slots=True)
class Output:
    """The output of a program. `stopped` is None when it ended by itself."""

    lines: tuple[str, ...]  # of stdout, or of the report that counts instead
    stderr: str  # the end of it
    exit_code: int | None  # negative: that signal
    stopped: str | None  # "timeout", "log too large", "interrupted", "lost", "not confined"
    detail: str = ""


def environment(names: Iterable[str]) -> dict[str, str]:
    """Return the variables of the standard set and of `names` that are set. No others are passed
    on."""
    allowed = (*STANDARD_ENV, *NETWORK_ENV, *names)
    return {name: os.environ[name] for name in allowed if name in os.environ} | PLAIN_ENV


class Program:
    """Runs a program in `folder`, which exists only within a `with` statement."""

    def __init__(self, folder: Path, runner: LocalRunner) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"  # for temporary files
        self._runner = runner

    def run(
        self,
        argv: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        timeout_s: float | None = None,
        stdin: str = "",
        report: str | None = None,
        skip: str | None = None,
        confinement: Confinement | None = None,
        secrets: Sequence[Secret] = (),
    ) -> Output:
        """Run `argv` and return its output when all its processes are dead.

        `report` names a file in `temporary` that counts instead of stdout. Lines that begin with
        `skip` do not count. `secrets` are masked in the output.
        """
        (self.folder / "stdin").write_text(stdin, encoding="utf-8")
        (self.folder / "stderr").touch()
        spec = RunSpec(
            argv=("/bin/sh", "-c", SHELL, str(self.folder), *argv),
            tree=cwd,
            log=self.folder / "stdout",
            outcome=self.folder / "outcome.json",
            # A `git` called in the folder must not walk up to the user's repository.
            env={
                **env,
                "GIT_CEILING_DIRECTORIES": str(cwd.parent),
                "TMPDIR": str(self.temporary),
            },
            timeout_s=timeout_s or DEFAULT_TIMEOUT_S,
            log_bytes=STDOUT_BYTES,
            confinement=confinement and self._allow_folder(confinement),
        )
        outcome = self._runner.run(spec)
        lines = _read_lines(self.temporary / report if report else spec.log, skip)
        return Output(
            lines=tuple(mask(line.decode(errors="replace").rstrip(), secrets) for line in lines),
            stderr=mask(tail(self.folder / "stderr", STDERR_BYTES), secrets).strip(),
            exit_code=outcome.exit_code,
            stopped=outcome.stopped,
            detail=outcome.detail,
        )

    def _allow_folder(self, confinement: Confinement) -> Confinement:
        write = (str(self.folder / name) for name in ("tmp", "stdout", "stderr"))
        return replace(
            confinement,
            read=(*confinement.read, str(self.folder)),
            write=(*confinement.write, *write),
        )

    def __enter__(self) -> Program:
        clear_path(self.folder)
        self.temporary.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        clear_path(self.folder)


def _read_lines(path: Path, skip: str | None) -> Iterable[bytes]:
    """Return the last lines of a file that are not empty. Read only a regular file: the program may
    have put a link or a pipe in its place."""
    kept: deque[bytes] = deque()
    size = 0
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return kept
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return kept
        for line in iter(partial(file.readline, LINE_BYTES), b""):
            if line.isspace() or (skip and line.startswith(skip.encode())):
                continue
            kept.append(line)
            size += len(line)
            while size > KEPT_BYTES:
                size -= len(kept.popleft())
    return kept
