"""A sandbox within the scorer's, for code that the scorer must execute and cannot trust.

A scorer may have to call the submitted code (a model's forward pass, a compiled program) while it
holds the answers. The variable `AUTORESEARCH_ASIDE` has the words to put before that command:

    [*shlex.split(os.environ["AUTORESEARCH_ASIDE"]), sys.executable, "candidate.py"]

The process reads its working folder and the installed software; it writes a temporary folder of
its own and the devices for computing; it has no network. It keeps the pipes from the scorer, but
cannot signal or trace it. Two such processes cannot reach each other. They count towards the
scorer's limits of time, memory and processes.

A scorer that was started warm can do the same by a fork (`forks.py`).

This file is that command: `python -I -S nested.py CONFINEMENT COMMAND...`, with a `Confinement` as
JSON. It exits with 126 if it cannot confine the command, and with 127 if there is no such command.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, cast

FOLDER = Path(__file__).resolve().parent  # a scorer must be able to read it

if __name__ == "__main__" and "autoresearch" not in sys.modules:
    # Import from this folder alone: not from installed packages, nor from the folder above, which
    # may be the user's checkout.
    for name in ("autoresearch", "autoresearch.sandbox"):
        sys.modules[name] = ModuleType(name)
    sys.modules["autoresearch.sandbox"].__path__ = [str(FOLDER)]

from autoresearch.sandbox.landlock import Ruleset  # noqa: E402 - after the lines above

if TYPE_CHECKING:
    from autoresearch.protocols import Confinement

PREFIX_VARIABLE = "AUTORESEARCH_ASIDE"


def make_prefix(confinement: Confinement) -> str:
    """The value of the variable. The command may use its own folders beside `confinement`."""
    file, text = FOLDER / Path(__file__).name, json.dumps(confinement.to_json())
    return shlex.join([sys.executable, "-I", "-S", str(file), text])


def main() -> None:
    command = sys.argv[2:]
    env = dict(os.environ)
    confine(sys.argv[1], env, command)
    try:
        os.execvpe(command[0], command, env)
    except OSError as error:
        print(f"autoresearch: cannot start {command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


def confine(confinement: str, env: dict[str, str], command: Sequence[str]) -> None:
    """Confine this process, and change `env` for the command. Exits if that fails."""
    fields = json.loads(confinement)
    temporary = tempfile.mkdtemp(prefix="aside-")
    fields["read"].append(str(Path.cwd()))
    fields["write"].append(temporary)
    env.pop(PREFIX_VARIABLE, None)
    env["TMPDIR"] = temporary
    try:
        with Ruleset(cast("Confinement", SimpleNamespace(**fields))) as ruleset:  # no class here
            ruleset.apply()
    except OSError as error:
        print(f"autoresearch: cannot confine {command[0]}: {error}", file=sys.stderr)
        sys.exit(126)


if __name__ == "__main__":
    main()
