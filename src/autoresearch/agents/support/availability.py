"""What agents there are and how they stand here: installed, in which version, with which keys.

Of a key or a login only the name is ever told, never the value. A module says of its agent what it
likes, as `ABOUT`; a named coding agent's `Spec` says the same, and one that says nothing is built
in. What an agent is, is the first sentence of its module.
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
from types import ModuleType

from autoresearch import agents
from autoresearch.agents.support.headless import Spec
from autoresearch.agents.support.process import Output, Program, environment
from autoresearch.agents.support.secrets import SECRET_NAME
from autoresearch.plugins import AGENTS
from autoresearch.runners.local import LocalRunner

VERSION_TIMEOUT_S = 10.0  # the slowest of them take two, on a machine that is not busy
NUMBER = re.compile(r"\d+\.\d+[\w.+-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class About:
    """What there is to know of an agent before it is asked anything."""

    what: str = ""
    program: str | None = None  # what it needs: a program on the PATH,
    library: str | None = None  # or an importable module. Neither: it is built in
    install: str = ""  # how to, for people
    login: str = ""
    keys: tuple[str, ...] = ()  # variables that hold one
    logins: tuple[str, ...] = ()  # files that do; the first whose variables are set counts
    env: Mapping[str, str] = field(default_factory=dict)  # what its program needs


@dataclass(frozen=True, slots=True)
class AgentAvailability:
    """How an agent stands on this machine."""

    name: str
    what: str
    installed: bool
    built_in: bool
    version: str | None  # None: it is not installed, or did not say, and `problem` says why
    problem: str
    credentials: tuple[str, ...]  # variables that are set and files that are there, by name
    wants_credentials: bool
    install: str
    login: str


def standings(timeout_s: float = VERSION_TIMEOUT_S) -> list[AgentAvailability]:
    """Every agent, sorted by name. The programs are asked at the same time, each for at most
    `timeout_s`. Raises `AgentError` for a module that cannot be imported."""
    names = agents.names()
    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(lambda name: _standing(name, timeout_s), names))


def about(name: str) -> About:
    """What the module of an agent says."""
    module = AGENTS.load(name)
    said = getattr(module, "ABOUT", None)
    if not isinstance(said, About):
        spec = getattr(module.create, "spec", None)
        said = About() if spec is None else _from_spec(spec)
    return said if said.what else _described(said, module)


def _described(said: About, module: ModuleType) -> About:
    sentence = re.split(r"\.\s", f"{module.__doc__ or ''} ".lstrip(), maxsplit=1)[0]
    return replace(said, what=" ".join(sentence.split()))


def _from_spec(spec: Spec) -> About:
    return About(
        program=spec.program,
        install=spec.install,
        login=spec.login,
        keys=tuple(key for key in spec.keys if SECRET_NAME.search(key)),
        logins=spec.logins,
        env=spec.env,
    )


def _standing(name: str, timeout_s: float) -> AgentAvailability:
    one = about(name)
    installed, version, problem = _version(one, timeout_s)
    return AgentAvailability(
        name=name,
        what=one.what,
        installed=installed,
        built_in=one.program is None and one.library is None,
        version=version,
        problem=problem,
        credentials=(*(key for key in one.keys if os.environ.get(key)), *_login(one)),
        wants_credentials=bool(one.keys or one.logins),
        install=one.install,
        login=one.login,
    )


def _login(one: About) -> list[str]:
    """The file of its login, if it is there."""
    places = {name: os.path.expandvars(name.replace("~", "$HOME", 1)) for name in one.logins}
    known = [name for name, place in places.items() if "$" not in place]
    return [name for name in known[:1] if Path(places[name]).is_file()]


# --------------------------------------------------------------------------------------------
# Versions


def _version(one: About, timeout_s: float) -> tuple[bool, str | None, str]:
    """(installed, version, why there is none)."""
    if one.library is not None:
        return _library_version(one.library)
    if one.program is None:
        return True, None, ""
    if shutil.which(one.program) is None:
        return False, None, ""
    output = _asked(one, timeout_s)
    if output.stopped == "timeout":
        return True, None, f"`{one.program} --version` did not end within {timeout_s:g} s"
    said = " ".join([*output.lines, output.stderr])
    if output.exit_code != 0 or output.stopped:
        why = output.stopped or f"exit code {output.exit_code}"
        return True, None, f"`{one.program} --version` failed: {why}"
    if (number := NUMBER.search(said)) is None:
        return True, None, f"`{one.program} --version` said no version"
    return True, number[0][:40], ""


def _library_version(name: str) -> tuple[bool, str | None, str]:
    if importlib.util.find_spec(name) is None:
        return False, None, ""
    try:
        return True, importlib.metadata.version(name), ""
    except importlib.metadata.PackageNotFoundError:
        return True, None, f"{name} does not say its version"


def _asked(one: About, timeout_s: float) -> Output:
    """What a program says to `--version`: as in a turn, but without any key."""
    assert one.program is not None
    with (
        tempfile.TemporaryDirectory(prefix="autoresearch-") as folder,
        closing(LocalRunner(1)) as runner,
        Program(Path(folder) / "version", runner) as program,
    ):
        cwd = Path(folder) / "empty"
        cwd.mkdir()
        env = environment(()) | dict(one.env)
        return program.run((one.program, "--version"), cwd, env, timeout_s)
