"""A confined agent's commands are carried out outside its sandbox.

Inside, `autoresearch try` sends its words and its output's file descriptors over a socket
(`forward`). The `autoresearch confine` that started the agent answers: it starts this file as a
process with those words. So the record and the checkout stay closed inside.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from collections.abc import Sequence

from autoresearch.cli.common import HARNESS_VARIABLE, INTERRUPTED, LIMITS, OWN_LIMITS
from autoresearch.cli.main import carry_out
from autoresearch.cli.parser import make_parser

COMMANDS = ("start", "try", "scratch", "wait", "brief", "show", "diff", "note")


def forward(words: Sequence[str]) -> int:
    """Let the harness outside carry out a command. Returns its exit code."""
    path, _, key = os.environ[HARNESS_VARIABLE].rpartition(":")
    answer, reason = b"", "it has ended, or refused the command"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            connection.connect(path)
            socket.send_fds(connection, [json.dumps([key, *words]).encode()], [1, 2])
            answer = connection.recv(16)
        except OSError as error:
            reason = str(error)
        except KeyboardInterrupt:  # the closed connection interrupts the command outside
            return INTERRUPTED
    if not answer:
        print(f"autoresearch: no answer from the harness outside: {reason}", file=sys.stderr)
        return 1
    return int(answer)


def main() -> None:
    """Carry out a command outside, in the task's folder: `TAG WORDS...`."""
    tag, *words = sys.argv[1:]
    options = make_parser().parse_args(words)
    if refusal := find_refusal(options, words[0], tag):
        print(f"autoresearch: {refusal}", file=sys.stderr)
        sys.exit(1)
    options.tag = tag
    sys.exit(carry_out(options))


def find_refusal(options: argparse.Namespace, command: str, tag: str) -> str | None:
    """Why a confined agent may not call this command so; None if it may."""
    if command not in COMMANDS or options.task != "." or options.tag not in (None, tag):
        return (
            f"this agent is confined to session {tag}: its commands are {', '.join(COMMANDS)}, "
            "without TASK and without another --tag"
        )
    if any(getattr(options, name, None) is not None for name in (*LIMITS, *OWN_LIMITS, "level")):
        return "a confined agent cannot change the session's limits: call `start` without them"
    return None


if __name__ == "__main__":
    main()
