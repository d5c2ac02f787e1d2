"""What is installed on this machine, as a list of paths: what a confined process may read.

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
from collections.abc import Iterator, Mapping
from pathlib import Path

from autoresearch.sandbox import landlock

SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/proc"),
    *("/sys", "/nix", "/gnu", "/run/current-system", "/run/wrappers", "/var/lib/ca-certificates"),
    *("/run/systemd/resolve", "/run/resolvconf", "/run/nscd", "/etc/resolv.conf"),
)
"""Programs, libraries, certificates, locales and what resolves names. Not `/dev`: its disks are
readable to root."""

ENVIRONMENTS = ("VIRTUAL_ENV", "CONDA_PREFIX")
TOOLS = ("bin", "sbin", "shims")  # a folder called so lies in the folder of its installation
INSTALLED = (
    *("bin", "sbin", "lib", "lib64", "libexec", "include", "shims", "version", "versions"),
    *("plugins", "install", "installs", "tools", "toolchains", "pkg", "pyenv.d", "alias"),
)
INTERPRETERS = 3  # a script's interpreter may be a script
WORD = re.compile(r"[^\s|&;<>()$`'\"]+")


class AccessRules:
    """What is not to be seen, and what may be seen beside it."""

    def __init__(self, checkout: Path | None, private: tuple[Path, ...]) -> None:
        self.paths = Path.home().resolve()
        self.checkout = checkout and checkout.resolve()
        self.private = tuple(path.resolve() for path in private)
        self._closed = (self.paths, *((self.checkout,) if self.checkout else ()), *self.private)

    def outside(self, folder: Path) -> list[Path]:
        """A folder of the system, without what is closed in it. A home folder such as `/` does not
        close the system."""
        real = folder.resolve()
        return landlock.without(real, tuple(p for p in self._closed if not real.is_relative_to(p)))

    def system(self) -> Iterator[Path]:
        for name in SYSTEM:
            yield from self.outside(Path(name))

    def refusal(self, path: Path, write: bool = False) -> str | None:
        """Why a path that was asked for cannot be granted: it leads to what is private."""
        real = path.resolve()
        closed = self._closed if write else self.private
        for one in closed:
            if one.is_relative_to(real):
                return f"it holds {one}"
        for one in self.private:
            if real.is_relative_to(one):
                return f"it is in {one}"
        return None

    def installations(self, env: Mapping[str, str]) -> Iterator[Path]:
        """What is on the PATH, and the libraries and environments that go with it."""
        for folder in _folders(env.get("PATH", "")):
            yield from self.installation(folder)
        for folder in _folders(env.get("LD_LIBRARY_PATH", "")):
            yield from self.opened(folder)
        for name in ENVIRONMENTS:
            for folder in _folders(env.get(name, "")):
                yield from self.installation(folder / "bin")
        yield from self.installation(Path(sys.prefix, "bin"))  # ours: a tool may call our Python

    def installation(self, folder: Path) -> Iterator[Path]:
        """A folder of programs with what they need."""
        yield from self.opened(folder)
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
            yield from self.opened(Path(*real.parts[: real.parts.index("node_modules") + 1]))
        if depth and (interpreter := _interpreter(real)):
            yield from self.program(interpreter, cwd, env, depth - 1)

    def _prefix(self, prefix: Path) -> Iterator[Path]:
        part_only = prefix.parent == self.paths and not _is_environment(prefix)
        for part in (prefix / name for name in INSTALLED) if part_only else (prefix,):
            if part.exists():
                yield from self.opened(part)

    def opened(self, folder: Path) -> Iterator[Path]:
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


def files_named(command: str) -> tuple[str, ...]:
    """The files that a command line of the user's names by absolute paths: a script, say. Not to be
    asked of what an agent is told: anybody's log may be quoted there."""
    words = (word for word in WORD.findall(command) if word.startswith(("/", "~/")))
    return tuple(word for word in dict.fromkeys(words) if _is_file(Path(word).expanduser()))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a word too long for a file's name
        return False
