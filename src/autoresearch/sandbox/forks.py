"""Starts code that a scorer cannot trust in a fork of the scorer, behind the same walls as
`nested.py`, so that it need not import the preloaded modules again.

A scorer that was forked from a zygote can import `autoresearch_aside`, and start

    subprocess.Popen(
        [*shlex.split(os.environ["AUTORESEARCH_ASIDE"]), sys.executable, "candidate.py"],
        cwd=folder, env=env, preexec_fn=partial(autoresearch_aside.become, ["candidate.py"], env),
    )

Without the `preexec_fn`, the same line starts an interpreter.
"""

from __future__ import annotations

import atexit
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import NoReturn

from autoresearch.sandbox.landlock import drop_capabilities
from autoresearch.sandbox.nested import PREFIX_VARIABLE, confine
from autoresearch.sandbox.program import Program

MODULE = "autoresearch_aside"


def offer(scorer: Program) -> None:
    """Make the module for this process if it is a scorer's."""
    if PREFIX_VARIABLE in scorer.env:
        module = ModuleType(MODULE)
        module.become = partial(become, scorer)  # type: ignore[attr-defined]
        sys.modules[MODULE] = module


def become(scorer: Program, arguments: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Execute `python ARGUMENTS` in this process, which has just been forked from the scorer.

    Its memory is a copy of the scorer's: the scorer must start it before it reads anything that the
    code must not know.
    """
    try:
        os.closerange(3, 1 << 20)  # tells `Popen` that it has started
        env = dict(env)
        confine(shlex.split(os.environ[PREFIX_VARIABLE])[-1], env, arguments)
        drop_capabilities()
        atexit._clear()  # the scorer's own: they would remove its files
        _forget_modules(scorer.folder)
        program = Program([scorer.argv[0], *arguments], env, scorer.path, scorer.pristine)
        program.enter()
    except SystemExit as end:  # not confined
        os._exit(int(str(end.code)))
    except BaseException as error:
        os.write(2, f"autoresearch: cannot start {arguments[0]}: {error}\n".encode())
        os._exit(126)
    program.run()


def _forget_modules(folder: str) -> None:
    """Forget the modules that the scorer has imported from its own folder."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name == MODULE or file.startswith(f"{folder}/"):
            del sys.modules[name]
    sys.path_importer_cache.pop(folder, None)
