"""Call commands by their command line, in this process or in one of their own."""

from __future__ import annotations

import io
import subprocess
import sys
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
    """Run a command in a folder: in this process, as to start one takes a second of CPU time,
    unless the command leaves a process behind."""
    if "--detach" in words or "wait" in words:
        process = start_process(where, *words)
        out, err = process.communicate(timeout=120)
        return Done(process.returncode, out, err)
    stdout, stderr = io.StringIO(), io.StringIO()
    arguments = [str(word) for word in words]
    argv, ended = patch.object(sys, "argv", ["", *arguments]), pytest.raises(SystemExit)
    with chdir(where), argv, redirect_stdout(stdout), redirect_stderr(stderr), ended as info:
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
