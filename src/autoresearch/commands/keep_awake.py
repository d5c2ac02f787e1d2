"""Keep the machine from going to sleep while a session works."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def keep_awake() -> Iterator[None]:
    """Ask systemd or macOS not to sleep until the block ends or this process dies. Do nothing where
    neither is there or it refuses: a server does not go to sleep anyway."""
    command = None
    if shutil.which("caffeinate"):
        command = ["caffeinate", "-i", "-w", str(os.getpid())]
    elif shutil.which("systemd-inhibit"):
        # `cat` ends when our end of its pipe is closed, which our death does too.
        why = ["--what=sleep:idle", "--who=autoresearch", "--why=research is under way"]
        command = ["systemd-inhibit", *why, "--mode=block", "cat"]
    helper = None
    if command is not None:
        with suppress(OSError):
            helper = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
    try:
        yield
    finally:
        if helper is not None:
            assert helper.stdin
            helper.stdin.close()
            helper.terminate()
            helper.wait()
