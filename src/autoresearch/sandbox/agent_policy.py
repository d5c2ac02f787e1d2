"""What an agent's process may touch: its worktree, the system, its program, its configuration.

The system and what is installed are as for a run (`installed.py`); the rest is said here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from autoresearch.errors import AgentError
from autoresearch.protocols import Confinement, Grants
from autoresearch.sandbox import landlock
from autoresearch.sandbox.installed import AccessRules

DEVICES = (
    *("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"),
    *("/dev/ptmx", "/dev/pts", "/dev/shm"),
)
GIT = ("~/.gitconfig", *(f"${{XDG_CONFIG_HOME:-~/.config}}/git/{n}" for n in ("config", "ignore")))
NAMED = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
DEFAULT = re.compile(r"\$\{(\w+):-([^}]*)\}")


@dataclass(frozen=True, slots=True)
class Needs:
    """What an agent's program uses beside the system. `~` is the home folder and `${NAME:-OTHER}`
    the value of a variable, or OTHER; a folder to be made when it is missing ends in `/`."""

    own: tuple[str, ...] = ()  # its configuration and what it remembers: read and written
    read: tuple[str, ...] = ()
    named: tuple[str, ...] = ()  # files of the user's command line, perhaps programs


def reach(
    argv: Sequence[str], worktree: Path, env: Mapping[str, str], needs: Needs, grants: Grants
) -> Confinement | None:
    """What `argv` may touch when started in `worktree`; None when nothing confines it, because the
    task says so or because this system cannot.

    Raises `AgentError` when a folder of the agent's own holds what it must not see.
    """
    if not grants.confine or landlock.abi() == 0:
        return None
    rules = AccessRules(grants.checkout, grants.private)
    read = [*rules.system(), *rules.installations(env)]
    for name in (argv[0], *needs.named):
        read += rules.program(name, worktree, env)
    named = (*needs.named, *(env.get(name, "") for name in NAMED))
    for name in (*GIT, *needs.read, *named, *grants.read):
        read += [_granted(rules, path) for path in expanded(name, env)]
    write = [worktree, *map(Path, DEVICES)]
    for name in (*needs.own, *grants.write):
        write += [_granted(rules, path, write=True) for path in expanded(name, env, make=True)]
    return Confinement(tuple(dict.fromkeys(map(str, read))), tuple(map(str, write)))


def _granted(rules: AccessRules, path: Path, write: bool = False) -> Path:
    if why := rules.refusal(path, write):
        raise AgentError(f"the agent may not use {path}: {why}")
    return path


def expanded(text: str, env: Mapping[str, str], make: bool = False) -> list[Path]:
    """The paths that a text of `Needs` stands for."""
    text = DEFAULT.sub(lambda found: env.get(found[1]) or found[2], text)
    if not text.startswith(("/", "~")):
        return []
    path = Path(text).expanduser()
    if make and text.endswith("/"):
        with suppress(OSError):  # its program will say what it misses
            path.mkdir(parents=True, exist_ok=True)
    return list(path.parent.glob(path.name)) if "*" in path.name else [path]
