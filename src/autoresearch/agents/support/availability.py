"""List the agents: which are installed, in which version, and which have a key or a login.

Only the names of keys and logins are given, never their values. An agent's module describes itself
by `ABOUT`, or by the `Spec` of a coding agent; without either it counts as built in.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from autoresearch import agents
from autoresearch.agents.support.headless import About
from autoresearch.agents.support.process import Output, Program, environment
from autoresearch.plugins import AGENTS
from autoresearch.runners.local import LocalRunner
from autoresearch.sandbox.secrets import SECRET_NAME

VERSION_TIMEOUT_S = 10.0  # the slowest programs take 2 s on an idle machine
NUMBER = re.compile(r"(?<!\d)\d+\.\d+[\w.+-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class AgentAvailability:
    """An agent on this machine."""

    name: str
    what: str
    installed: bool
    built_in: bool
    version: str | None  # None: not installed, or not known, and `problem` says why
    problem: str
    credentials: tuple[str, ...]  # names of the variables that are set and the files that exist
    wants_credentials: bool
    install: str
    login: str


def list_availability(timeout_s: float = VERSION_TIMEOUT_S) -> list[AgentAvailability]:
    """Check every agent, sorted by name. Each program gets `timeout_s` to print its version, all
    at the same time. Raises `AgentError` for a module that cannot be imported."""
    names = agents.names()
    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(lambda name: _check_agent(name, timeout_s), names))


def describe(name: str) -> About:
    """Return an agent's description of itself, from its module."""
    module = AGENTS.load(name)
    candidates = (getattr(module, "ABOUT", None), module.create, About())
    about = next(candidate for candidate in candidates if isinstance(candidate, About))
    if about.what:
        return about
    sentence = re.split(r"\.\s", f"{module.__doc__ or ''} ".lstrip(), maxsplit=1)[0]
    return replace(about, what=" ".join(sentence.split()))


def _check_agent(name: str, timeout_s: float) -> AgentAvailability:
    about = describe(name)
    keys = [key for key in about.keys if SECRET_NAME.search(key) and os.environ.get(key)]
    installed, version, problem = _find_version(about, timeout_s)
    return AgentAvailability(
        name=name,
        what=about.what,
        installed=installed,
        built_in=about.program is None and about.library is None,
        version=version,
        problem=problem,
        credentials=(*keys, *_find_login(about)),
        wants_credentials=bool(about.keys or about.logins),
        install=about.install,
        login=about.login,
    )


def _find_login(about: About) -> list[str]:
    """Return the name of the login's file, if it exists."""
    paths = {name: os.path.expandvars(name.replace("~", "$HOME", 1)) for name in about.logins}
    known = [name for name, path in paths.items() if "$" not in path]
    return [name for name in known[:1] if Path(paths[name]).is_file()]


def _find_version(about: About, timeout_s: float) -> tuple[bool, str | None, str]:
    """Return (is it installed, its version, why the version is not known)."""
    if about.library is not None:
        return _find_library_version(about.library)
    if about.program is None:
        return True, None, ""
    if shutil.which(about.program) is None:
        return False, None, ""
    command = f"`{about.program} --version`"
    output = _run_version(about.program, about.env, timeout_s)
    if output.stopped == "timeout":
        return True, None, f"{command} did not end within {timeout_s:g} s"
    if output.exit_code != 0 or output.stopped:
        return True, None, f"{command} failed: {output.stopped or f'exit code {output.exit_code}'}"
    if (number := NUMBER.search(" ".join([*output.lines, output.stderr]))) is None:
        return True, None, f"{command} said no version"
    return True, number[0][:40], ""


def _find_library_version(name: str) -> tuple[bool, str | None, str]:
    if importlib.util.find_spec(name) is None:
        return False, None, ""
    try:
        return True, importlib.metadata.version(name), ""
    except importlib.metadata.PackageNotFoundError:
        return True, None, f"{name} does not say its version"


def _run_version(name: str, env: Mapping[str, str], timeout_s: float) -> Output:
    """Run the program with `--version`, as in a turn but without any key."""
    with (
        tempfile.TemporaryDirectory(prefix="autoresearch-") as folder,
        closing(LocalRunner(1)) as runner,
        Program(Path(folder) / "version", runner) as program,
    ):
        cwd = Path(folder) / "empty"
        cwd.mkdir()
        return program.run((name, "--version"), cwd, environment(()) | dict(env), timeout_s)
