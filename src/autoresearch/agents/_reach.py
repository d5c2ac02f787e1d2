"""What an agent's process may touch: its worktree, the system, its program, its configuration.

It is an allow-list. Most of it follows from the PATH: what is installed there can be run. What lies
in the home folder or in the user's checkout is not seen, but for an installation that is on the
PATH or holds the program; of a folder directly in the home folder, which is as likely to hold keys
and data (`~/.local/share`, `~/.cargo/credentials.toml`), only what an installation is made of.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from autoresearch import sandbox
from autoresearch.errors import AgentError
from autoresearch.records import Grants
from autoresearch.sandbox import Confinement

SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/proc"),
    *("/sys", "/nix", "/gnu", "/run/current-system", "/run/wrappers", "/var/lib/ca-certificates"),
    *("/run/systemd/resolve", "/run/resolvconf", "/run/nscd", "/etc/resolv.conf"),
)
"""Programs, libraries, certificates, locales and what resolves names. Not `/dev`: its disks are
readable to root."""

DEVICES = (
    *("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"),
    *("/dev/ptmx", "/dev/pts", "/dev/shm"),
)
GIT = ("~/.gitconfig", *(f"${{XDG_CONFIG_HOME:-~/.config}}/git/{n}" for n in ("config", "ignore")))
NAMED = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
ENVIRONMENTS = ("VIRTUAL_ENV", "CONDA_PREFIX")
TOOLS = ("bin", "sbin", "shims")  # a folder called so lies in the folder of its installation
INSTALLED = (
    *("bin", "sbin", "lib", "lib64", "libexec", "include", "shims", "version", "versions"),
    *("plugins", "install", "installs", "tools", "toolchains", "pkg", "pyenv.d", "alias"),
)
INTERPRETERS = 3  # a script's interpreter may be a script
DEFAULT = re.compile(r"\$\{(\w+):-([^}]*)\}")
WORD = re.compile(r"[^\s|&;<>()$`'\"]+")


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
    if not grants.confine or sandbox.abi() == 0:
        return None
    walls = Walls(grants)
    read = [path for name in SYSTEM for path in walls.outside(Path(name))]
    read += walls.installations(env)
    for name in (argv[0], *needs.named):
        read += walls.program(name, worktree, env)
    named = (*needs.named, *(env.get(name, "") for name in NAMED))
    for name in (*GIT, *needs.read, *named, *grants.read):
        read += [walls.checked(path) for path in expanded(name, env)]
    write = [worktree, *map(Path, DEVICES)]
    for name in (*needs.own, *grants.write):
        write += [walls.checked(path, write=True) for path in expanded(name, env, make=True)]
    return Confinement(tuple(dict.fromkeys(map(str, read))), tuple(map(str, write)))


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


def files_named(command: str) -> tuple[str, ...]:
    """The files that a command line of the user's names by absolute paths: a script, say. Not to be
    asked of what an agent is told: anybody's log may be quoted there."""
    words = (word for word in WORD.findall(command) if word.startswith(("/", "~/")))
    return tuple(word for word in dict.fromkeys(words) if _is_file(Path(word).expanduser()))


class Walls:
    """What is not to be seen, and what may be seen beside it."""

    def __init__(self, grants: Grants) -> None:
        self.home = Path.home().resolve()
        self.checkout = grants.checkout and grants.checkout.resolve()
        self.private = tuple(path.resolve() for path in grants.private)
        self._closed = (self.home, *((self.checkout,) if self.checkout else ()), *self.private)

    def outside(self, folder: Path) -> list[Path]:
        """A folder of the system, without what is closed in it. A home folder such as `/` does not
        close the system."""
        real = folder.resolve()
        return sandbox.without(real, tuple(p for p in self._closed if not real.is_relative_to(p)))

    def checked(self, path: Path, write: bool = False) -> Path:
        """A path that was asked for. Raises `AgentError` when it leads to what is private."""
        real = path.resolve()
        closed = self._closed if write else self.private
        for one in closed:
            if one.is_relative_to(real):
                raise AgentError(f"the agent may not use {path}: it holds {one}")
        for one in self.private:
            if real.is_relative_to(one):
                raise AgentError(f"the agent may not use {path}: it is in {one}")
        return path

    def installations(self, env: Mapping[str, str]) -> Iterator[Path]:
        """What is on the PATH, and the libraries and environments that go with it."""
        for folder in _folders(env.get("PATH", "")):
            yield from self.installation(folder)
        for folder in _folders(env.get("LD_LIBRARY_PATH", "")):
            yield from self._open(folder)
        for name in ENVIRONMENTS:
            for folder in _folders(env.get(name, "")):
                yield from self.installation(folder / "bin")
        yield from self.installation(Path(sys.prefix, "bin"))  # ours: a tool may call our Python

    def installation(self, folder: Path) -> Iterator[Path]:
        """A folder of programs with what they need."""
        yield from self._open(folder)
        for prefix in {one.parent.resolve() for one in (folder, folder.resolve()) if _tools(one)}:
            yield from self._prefix(prefix)
            base = _base(prefix)
            if base is not None and base.parent.resolve() != prefix:
                yield from self.installation(base)

    def program(
        self, name: str, cwd: Path, env: Mapping[str, str], depth: int = INTERPRETERS
    ) -> Iterator[Path]:
        """A program with its installation, and with its interpreter's where it is a script."""
        place = cwd / Path(name).expanduser() if "/" in name else None
        found = place or shutil.which(name, path=env.get("PATH"))
        if found is None:
            return
        real = Path(found).resolve()
        if self._may_be_seen(real):
            yield real
        for folder in {Path(found).parent, real.parent}:
            if _tools(folder):
                yield from self.installation(folder)
        if "node_modules" in real.parts:  # packages lie beside each other
            yield from self._open(Path(*real.parts[: real.parts.index("node_modules") + 1]))
        if depth and (interpreter := _interpreter(real)):
            yield from self.program(interpreter, cwd, env, depth - 1)

    def _prefix(self, prefix: Path) -> Iterator[Path]:
        part_only = prefix.parent == self.home and not _is_environment(prefix)
        for part in (prefix / name for name in INSTALLED) if part_only else (prefix,):
            if part.exists():
                yield from self._open(part)

    def _open(self, folder: Path) -> Iterator[Path]:
        """The folder, unless it holds what is closed, or is of the user's checkout: of that, only a
        virtual environment is seen."""
        real = folder.resolve()
        if any(path.is_relative_to(real) for path in self._closed):
            return
        if self._in_checkout(real) and not _is_environment(real):
            return
        if not any(real.is_relative_to(path) for path in self.private):
            yield real

    def _may_be_seen(self, file: Path) -> bool:
        hidden = any(file.is_relative_to(path) for path in self.private)
        return not hidden and not self._in_checkout(file)

    def _in_checkout(self, path: Path) -> bool:
        return self.checkout is not None and path.is_relative_to(self.checkout)


def _folders(listed: str) -> Iterator[Path]:
    for name in listed.split(os.pathsep):
        if name.startswith("/"):
            yield Path(name)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a word too long for a file's name
        return False


def _tools(folder: Path) -> bool:
    return folder.name in TOOLS


def _is_environment(folder: Path) -> bool:
    """A virtual environment of Python's or conda's: it holds packages and nothing else."""
    return (folder / "pyvenv.cfg").is_file() or (folder / "conda-meta").is_dir()


def _base(environment: Path) -> Path | None:
    """The folder of the Python that a virtual environment was made of."""
    try:
        lines = (environment / "pyvenv.cfg").read_text(errors="replace").splitlines()
    except OSError:
        return None
    values = (line.partition("=")[2].strip() for line in lines if re.match(r"home\s*=", line))
    return next((Path(value) for value in values if value.startswith("/")), None)


def _interpreter(script: Path) -> str | None:
    """The program named in the first line of a script; None where it is none."""
    try:
        with script.open("rb") as file:
            line = file.readline(512)
    except OSError:
        return None
    words = line[2:].decode(errors="replace").split() if line.startswith(b"#!") else []
    if words and Path(words[0]).name == "env":
        words = [word for word in words[1:] if not re.match(r"-|\w+=", word)]
    return words[0] if words else None
