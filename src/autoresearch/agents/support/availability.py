"""List the agents: which are installed, in which version, and whether a key or a login is seen.

Only the names of keys and logins are given, never their values. An agent's module describes itself
by `ABOUT`, or by the `Spec` of a coding agent; without either it counts as built in. The first
sentence of its docstring says what the agent is.
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
from dataclasses import dataclass, field, replace
from pathlib import Path

from autoresearch import agents
from autoresearch.agents.support.headless import Spec
from autoresearch.agents.support.process import Output, Program, environment
from autoresearch.agents.support.secrets import SECRET_NAME
from autoresearch.plugins import AGENTS
from autoresearch.runners.local import LocalRunner

VERSION_TIMEOUT_S = 10.0  # the slowest programs take 2 s on an idle machine
NUMBER = re.compile(r"(?<!\d)\d+\.\d+[\w.+-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class About:
    """What an agent's module says about it."""

    what: str = ""
    program: str | None = None  # on the PATH
    library: str | None = None  # an importable module; neither: the agent is built in
    install: str = ""  # a command, for people
    login: str = ""
    keys: tuple[str, ...] = ()  # variables that hold a key
    logins: tuple[str, ...] = ()  # files of a login; the first whose variables are set counts
    env: Mapping[str, str] = field(default_factory=dict)  # what its program needs


@dataclass(frozen=True, slots=True)
class AgentAvailability:
    """What was found of an agent on this machine."""

    name: str
    what: str
    installed: bool
    built_in: bool
    version: str | None  # None: not installed, or not known, and `problem` says why
    problem: str
    credentials: tuple[str, ...]  # variables that are set and files that are there, by name
    wants_credentials: bool
    install: str
    login: str


def list_availability(timeout_s: float = VERSION_TIMEOUT_S) -> list[AgentAvailability]:
    """Every agent, sorted by name. Each program gets `timeout_s` to print its version, all at the
    same time. Raises `AgentError` for a module that cannot be imported."""
    names = agents.names()
    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(lambda name: _check_agent(name, timeout_s), names))


def describe(name: str) -> About:
    """What the module of an agent says about it."""
    module = AGENTS.load(name)
    about = getattr(module, "ABOUT", None)
    if not isinstance(about, About):
        spec = getattr(module.create, "spec", None)
        about = About() if spec is None else _from_spec(spec)
    if about.what:
        return about
    sentence = re.split(r"\.\s", f"{module.__doc__ or ''} ".lstrip(), maxsplit=1)[0]
    return replace(about, what=" ".join(sentence.split()))


def _from_spec(spec: Spec) -> About:
    return About(
        program=spec.program,
        install=spec.install,
        login=spec.login,
        keys=tuple(key for key in spec.keys if SECRET_NAME.search(key)),
        logins=spec.logins,
        env=spec.env,
    )


def _check_agent(name: str, timeout_s: float) -> AgentAvailability:
    about = describe(name)
    installed, version, problem = _find_version(about, timeout_s)
    return AgentAvailability(
        name=name,
        what=about.what,
        installed=installed,
        built_in=about.program is None and about.library is None,
        version=version,
        problem=problem,
        credentials=(*(key for key in about.keys if os.environ.get(key)), *_find_login(about)),
        wants_credentials=bool(about.keys or about.logins),
        install=about.install,
        login=about.login,
    )


def _find_login(about: About) -> list[str]:
    """The file of its login, if it exists."""
    places = {name: os.path.expandvars(name.replace("~", "$HOME", 1)) for name in about.logins}
    known = [name for name, place in places.items() if "$" not in place]
    return [name for name in known[:1] if Path(places[name]).is_file()]


# --------------------------------------------------------------------------------------------
# Versions


def _find_version(about: About, timeout_s: float) -> tuple[bool, str | None, str]:
    """(installed, version, why there is none)."""
    if about.library is not None:
        return _find_library_version(about.library)
    if about.program is None:
        return True, None, ""
    if shutil.which(about.program) is None:
        return False, None, ""
    output = _run_version(about, timeout_s)
    if output.stopped == "timeout":
        return True, None, f"`{about.program} --version` did not end within {timeout_s:g} s"
    printed = " ".join([*output.lines, output.stderr])
    if output.exit_code != 0 or output.stopped:
        why = output.stopped or f"exit code {output.exit_code}"
        return True, None, f"`{about.program} --version` failed: {why}"
    if (number := NUMBER.search(printed)) is None:
        return True, None, f"`{about.program} --version` said no version"
    return True, number[0][:40], ""


def _find_library_version(name: str) -> tuple[bool, str | None, str]:
    if importlib.util.find_spec(name) is None:
        return False, None, ""
    try:
        return True, importlib.metadata.version(name), ""
    except importlib.metadata.PackageNotFoundError:
        return True, None, f"{name} does not say its version"


def _run_version(about: About, timeout_s: float) -> Output:
    """Run the program with `--version`, as in a turn but without any key."""
    assert about.program is not None
    with (
        tempfile.TemporaryDirectory(prefix="autoresearch-") as folder,
        closing(LocalRunner(1)) as runner,
        Program(Path(folder) / "version", runner) as program,
    ):
        cwd = Path(folder) / "empty"
        cwd.mkdir()
        env = environment(()) | dict(about.env)
        return program.run((about.program, "--version"), cwd, env, timeout_s)
