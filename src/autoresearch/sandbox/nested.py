"""The sandbox within the scorer's: for code that the scorer has to execute and cannot trust.

A scorer may have to call what was submitted (a model's forward pass, a compiled program), while it
alone holds the answers. The harness gives it the beginning of a command line for that, in the
variable `AUTORESEARCH_ASIDE`:

    [*shlex.split(os.environ["AUTORESEARCH_ASIDE"]), sys.executable, "candidate.py"]

What is started so reads the folder it is started in and what is installed; it writes a temporary
folder of its own and the devices it computes on; it has no network. Of the scorer it keeps the
pipes it was given, and cannot signal or trace it; two that are started so cannot reach each other.
The scorer's limits of time, memory and processes count it in.

This file is that command: `python -I -S nested.py CONFINEMENT COMMAND...`, with a `Confinement` as
JSON. It exits with 126 where it cannot confine the command, 127 where there is no such command.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, cast

FOLDER = Path(__file__).resolve().parent  # what a scorer has to be able to read for it

if __name__ == "__main__" and "autoresearch" not in sys.modules:
    # Our own package, from this very folder: nothing of what is installed is looked at, nor the
    # folder above, which may be the user's checkout.
    for name in ("autoresearch", "autoresearch.sandbox"):
        sys.modules[name] = ModuleType(name)
    sys.modules["autoresearch.sandbox"].__path__ = [str(FOLDER)]

from autoresearch.sandbox.landlock import Ruleset  # noqa: E402 - after the lines above

if TYPE_CHECKING:
    from autoresearch.protocols import Confinement

VARIABLE = "AUTORESEARCH_ASIDE"


def prefix(confinement: Confinement) -> str:
    """The value of the variable, for commands that may touch this beside what is their own."""
    given = json.dumps(confinement.to_json())
    return shlex.join([sys.executable, "-I", "-S", str(FOLDER / Path(__file__).name), given])


def main() -> None:
    # A Confinement's fields: its class is not in this folder.
    given = SimpleNamespace(**json.loads(sys.argv[1]))
    own = tempfile.mkdtemp(prefix="aside-")
    given.read = (*given.read, str(Path.cwd()))
    given.write = (*given.write, own)
    confinement = cast("Confinement", given)
    env = {name: value for name, value in os.environ.items() if name != VARIABLE}
    env["TMPDIR"] = own
    try:
        with Ruleset(confinement) as ruleset:
            ruleset.apply()
    except OSError as error:
        print(f"autoresearch: cannot confine {sys.argv[2]}: {error}", file=sys.stderr)
        sys.exit(126)
    try:
        os.execvpe(sys.argv[2], sys.argv[2:], env)
    except OSError as error:
        print(f"autoresearch: cannot start {sys.argv[2]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main()
