"""The system and the installed software as paths that a confined process may read.

The list is an allow-list, and most of it follows from the PATH. The home folder and the user's
checkout stay closed, except for an installation that is on the PATH or holds the program. A folder
directly in the home folder may as well hold keys and data (`~/.local/share`,
`~/.cargo/credentials.toml`): of such an installation only the parts in `PARTS` can be read.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from autoresearch.files import read_text

SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/proc"),
    *("/sys", "/nix", "/gnu", "/run/current-system", "/run/wrappers", "/var/lib/ca-certificates"),
    *("/run/systemd/resolve", "/run/resolvconf", "/run/nscd", "/etc/resolv.conf"),
)
"""Programs, libraries, certificates, locales and name resolution. Not `/dev`: root can read its
disks."""

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/shm")
ENVIRONMENTS = ("VIRTUAL_ENV", "CONDA_PREFIX")
PROGRAM_FOLDERS = ("bin", "sbin", "shims")  # their parent is the folder of the installation
PARTS = (
    *("bin", "sbin", "lib", "lib64", "libexec", "include", "shims", "version", "versions"),
    *("plugins", "install", "installs", "tools", "toolchains", "pkg", "pyenv.d", "alias"),
)
INTERPRETERS = 3  # the interpreter of a script may be a script
WORD = re.compile(r"[^\s|&;<>()$`'\"]+")


class AccessRules:
    """The closed paths, and the readable paths beside them."""

    def __init__(self, checkout: Path | None, private: tuple[Path, ...]) -> None:
        self._home = Path.home().resolve()
        self._checkout = checkout and checkout.resolve()
        self._private = tuple(path.resolve() for path in private)
        self._closed = (self._home, *filter(None, (self._checkout,)), *self._private)

    def list_system(self) -> Iterator[Path]:
        """The folders of the system, without the closed paths in them. A closed folder above one,
        such as the home folder `/`, does not close it."""
        for name in SYSTEM:
            folder = Path(name).resolve()
            yield from subtract(folder, [p for p in self._closed if not folder.is_relative_to(p)])

    def refusal(self, path: Path, write: bool = False) -> str | None:
        """Why the user cannot grant a path: it leads to private files. None if it can be granted.
        Nobody may write the home folder or the checkout as a whole."""
        real = path.resolve()
        for closed in self._closed if write else self._private:
            if closed.is_relative_to(real):
                return f"it holds {closed}"
        for private in self._private:
            if real.is_relative_to(private):
                return f"it is in {private}"
        return None

    def list_installations(
        self, env: Mapping[str, str], variables: Iterable[str] = ENVIRONMENTS
    ) -> Iterator[Path]:
        """The programs on the PATH, the libraries, and the installations that variables name."""
        for folder in _split(env.get("LD_LIBRARY_PATH", "")):
            yield from self.list_readable(folder)
        prefixes = [env[name] for name in variables if env.get(name)]
        prefixes.append(sys.prefix)  # ours: a tool may call our Python
        for folder in (*_split(env.get("PATH", "")), *(Path(name, "bin") for name in prefixes)):
            yield from self._list_installation(folder)

    def _list_installation(self, folder: Path) -> Iterator[Path]:
        """A folder of programs, and the installation that it belongs to."""
        yield from self.list_readable(folder)
        for prefix in {p.parent.resolve() for p in (folder, folder.resolve()) if _has_programs(p)}:
            has_other_files = prefix.parent == self._home and not _is_environment(prefix)
            for part in [prefix / name for name in PARTS] if has_other_files else [prefix]:
                if part.exists():
                    yield from self.list_readable(part)
            base = _find_base_python(prefix)
            if base is not None and base.parent.resolve() != prefix:
                yield from self._list_installation(base)

    def list_program(
        self, name: str, cwd: Path, env: Mapping[str, str], depth: int = INTERPRETERS
    ) -> Iterator[Path]:
        """A program and its installation; for a script, also those of its interpreter."""
        place = cwd / Path(name).expanduser() if "/" in name else None
        path = place or shutil.which(name, path=env.get("PATH"))
        if path is None:
            return
        real = Path(path).resolve()
        if not self._is_private(real) and not self._is_in_checkout(real):
            yield real
        for folder in filter(_has_programs, {Path(path).parent, real.parent}):
            yield from self._list_installation(folder)
        if "node_modules" in real.parts:  # packages lie beside each other
            yield from self.list_readable(Path(*real.parts[: real.parts.index("node_modules") + 1]))
        if depth and (interpreter := _read_interpreter(real)):
            yield from self.list_program(interpreter, cwd, env, depth - 1)

    def list_readable(self, folder: Path) -> Iterator[Path]:
        """The folder itself, or nothing if it holds or is a closed path, or lies in a private
        folder. Only a virtual environment is readable in the checkout."""
        real = folder.resolve()
        is_hidden = any(path.is_relative_to(real) for path in self._closed)
        is_users = self._is_in_checkout(real) and not _is_environment(real)
        if not is_hidden and not is_users and not self._is_private(real):
            yield real

    def _is_private(self, path: Path) -> bool:
        return any(path.is_relative_to(private) for private in self._private)

    def _is_in_checkout(self, path: Path) -> bool:
        return self._checkout is not None and path.is_relative_to(self._checkout)


def subtract(folder: Path, closed: list[Path]) -> list[Path]:
    """A folder as a list of paths that leave out the closed ones: itself, or entries in it. All
    paths are resolved."""
    if any(folder.is_relative_to(path) for path in closed):
        return []
    if not any(path.is_relative_to(folder) for path in closed):
        return [folder]
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    return [p for entry in entries if not entry.is_symlink() for p in subtract(entry, closed)]


def _split(variable: str) -> list[Path]:
    return [Path(name) for name in variable.split(os.pathsep) if name.startswith("/")]


def _has_programs(folder: Path) -> bool:
    return folder.name in PROGRAM_FOLDERS


def _is_environment(folder: Path) -> bool:
    """Whether it is a virtual environment of Python or conda: it holds nothing but packages."""
    return (folder / "pyvenv.cfg").is_file() or (folder / "conda-meta").is_dir()


def _find_base_python(environment: Path) -> Path | None:
    """The folder of the Python that a virtual environment was made with."""
    lines = read_text(environment / "pyvenv.cfg").splitlines()
    values = (line.partition("=")[2].strip() for line in lines if re.match(r"home\s*=", line))
    return next((Path(value) for value in values if value.startswith("/")), None)


def _read_interpreter(script: Path) -> str | None:
    """The program named in the first line of a script; None if there is none."""
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
    """The files that a command line names by absolute paths, such as a script, also within a quoted
    program. Only for the user's own command lines: a prompt may quote any path from a log."""
    words = (word for word in WORD.findall(command) if word.startswith(("/", "~/")))
    # Unlike Path.is_file, this accepts a word that is too long for a file's name.
    return tuple(w for w in dict.fromkeys(words) if os.path.isfile(Path(w).expanduser()))  # noqa: PTH113
