"""The confinement of an agent's process: its worktree, the system, its program, its configuration.

The system and the installed software are the same as for a run (`installed.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.errors import AgentError
from autoresearch.protocols import Confinement, Grants
from autoresearch.sandbox import landlock
from autoresearch.sandbox.installed import DEVICES, AccessRules
from autoresearch.sandbox.run_policy import find_checkout
from autoresearch.task.checks import private_paths
from autoresearch.task.model import Task

if TYPE_CHECKING:  # `agents` needs no git
    from autoresearch.git.repository import Repository

TERMINALS = ("/dev/tty", "/dev/ptmx", "/dev/pts")
GIT = ("~/.gitconfig", *(f"${{XDG_CONFIG_HOME:-~/.config}}/git/{n}" for n in ("config", "ignore")))
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
DEFAULT = re.compile(r"\$\{(\w+):-([^}]*)\}")


@dataclass(frozen=True, slots=True)
class Needs:
    """The files that an agent's program uses beside the system. `~` is the home folder;
    `${NAME:-OTHER}` is the value of a variable, or OTHER. A missing folder is made if it ends in
    `/`."""

    own: tuple[str, ...] = ()  # its configuration and memory: read and written
    read: tuple[str, ...] = ()
    named: tuple[str, ...] = ()  # files in the user's command line, perhaps programs


def make_grants(task: Task, repository: Repository) -> Grants:
    """What the task lets an agent's program use, and what it must never see."""
    given, checkout = task.agent, find_checkout(repository)
    return Grants(given.env, given.read, given.write, given.confine, checkout, private_paths(task))


def make_confinement(
    argv: Sequence[str], worktree: Path, env: Mapping[str, str], needs: Needs, grants: Grants
) -> Confinement | None:
    """The confinement of `argv`, started in `worktree`; None if the task asks for none or this
    system has no Landlock.

    Raises `AgentError` if a granted path leads to files that the agent must not see.
    """
    if not grants.confine or landlock.abi() == 0:
        return None
    rules = AccessRules(grants.checkout, grants.private)
    read = [*rules.list_system(), *rules.list_installations(env)]
    for name in (argv[0], *needs.named):
        read += rules.list_program(name, worktree, env)
    certificates = (env.get(name, "") for name in CERTIFICATES)
    for name in (*GIT, *needs.read, *needs.named, *certificates, *grants.read):
        read += [_grant(rules, path) for path in _expand(name, env)]
    write = [worktree, *map(Path, (*DEVICES, *TERMINALS))]
    for name in (*needs.own, *grants.write):
        write += [_grant(rules, path, write=True) for path in _expand(name, env, make=True)]
    return Confinement(tuple(dict.fromkeys(map(str, read))), tuple(map(str, write)))


def _grant(rules: AccessRules, path: Path, write: bool = False) -> Path:
    if why := rules.refusal(path, write):
        raise AgentError(f"the agent may not use {path}: {why}")
    return path


def _expand(text: str, env: Mapping[str, str], make: bool = False) -> list[Path]:
    """The paths of one text in `Needs` or `Grants`; none for a text that is not absolute."""
    text = DEFAULT.sub(lambda match: env.get(match[1]) or match[2], text)
    if not text.startswith(("/", "~")):
        return []
    path = Path(text).expanduser()
    if make and text.endswith("/"):
        with suppress(OSError):  # the program will report the missing folder
            path.mkdir(parents=True, exist_ok=True)
    return list(path.parent.glob(path.name)) if "*" in path.name else [path]
