"""The entry point: from arguments to a command, from an error to an exit code."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence

from autoresearch.cli.common import HARNESS_VARIABLE, INTERRUPTED
from autoresearch.cli.parser import make_parser
from autoresearch.errors import AutoresearchError
from autoresearch.formatting import printable


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Exits with 0, with an error's own code, or with 130 after Ctrl-C."""
    _open_streams()
    parser = make_parser()
    if not (sys.argv[1:] if arguments is None else arguments):
        parser.print_help()
        sys.exit(0)
    options = parser.parse_args(arguments)
    if HARNESS_VARIABLE in os.environ and options.command != "terminal.mcp":
        from autoresearch.cli.forwarded import forward

        sys.exit(forward(sys.argv[1:] if arguments is None else arguments))
    sys.exit(carry_out(options))


def _open_streams() -> None:
    """Open the standard streams that the caller has closed (`>&-`): a file or a socket opened later
    would get their numbers, and what is printed would go there."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def carry_out(options: argparse.Namespace) -> int:
    """Carry out a command. Returns the exit code."""
    # `stop` sends SIGTERM, possibly before the session has set its own handler or after it.
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # Imported here: `status` needs 40 modules, `run` needs 400 and 0.7 s of CPU.
        module, _, function = options.command.partition(".")
        command = getattr(importlib.import_module(f"autoresearch.cli.{module}"), function)
        code: int = command(options)
    except AutoresearchError as error:
        if options.json:
            print(json.dumps({"error": type(error).__name__, "message": str(error)}))
        print(f"autoresearch: {printable(str(error))}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:  # `autoresearch log | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    return code
