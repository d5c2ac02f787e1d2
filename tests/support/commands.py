"""Call commands by their command line, in this process or in one of their own."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest

from autoresearch.cli import main as cli
from autoresearch.store.paths import make_module_command

COMMAND = make_module_command("autoresearch")


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def call(where: Path, *words: object) -> Done:
    """Run a command in a folder, in this process: to start one takes a second of CPU time."""
    stdout, stderr = io.StringIO(), io.StringIO()
    arguments = [str(word) for word in words]
    argv, ended = patch.object(sys, "argv", ["", *arguments]), pytest.raises(SystemExit)
    with (
        chdir(where),
        argv,
        redirect_stdout(stdout),
        redirect_stderr(stderr),
        warnings.catch_warnings(),
        ended as info,
    ):
        if "--detach" in words or "wait" in words:  # it leaves a process behind
            warnings.simplefilter("ignore", ResourceWarning)
        cli.main(arguments)
    return Done(int(info.value.code or 0), stdout.getvalue(), stderr.getvalue())


def start_process(where: Path, *words: object) -> subprocess.Popen[str]:
    """Start a command in a folder as a shell does, in a process session of its own."""
    return subprocess.Popen(
        [*COMMAND, *map(str, words)],
        cwd=where,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
