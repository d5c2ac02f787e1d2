"""A run's own home folder: empty and writable, with links to what the run may use of the user's.

Tools write settings and caches into the home folder, and many stop if they cannot. So a run has one
in its temporary folder, which is removed after it: no run finds what another one left. Folders that
it may read or write lie there under their usual names. The user's settings and keys do not
(`~/.netrc`, `~/.npmrc`, `~/.cargo/credentials.toml`, `~/.cache/huggingface/token`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from autoresearch.files import read_text

NAME = "home"  # in a run's temporary folder


@dataclass(frozen=True, slots=True)
class Toolchain:
    """What a tool has downloaded or compiled into the home folder, and a run may read."""

    folder: str  # in the home folder
    variable: str | None  # names another folder
    parts: tuple[str, ...]  # globs in it; all else in it stays closed


TOOLCHAINS = (
    Toolchain(".rustup", "RUSTUP_HOME", ("toolchains", "settings.toml")),
    Toolchain(".cargo", "CARGO_HOME", ("bin", "registry", "git", "config.toml", "config")),
    Toolchain("go", "GOPATH", ("bin", "pkg/mod")),
    Toolchain(".nvm", "NVM_DIR", ("versions", "alias", "nvm.sh")),
    Toolchain(".pyenv", "PYENV_ROOT", ("bin", "libexec", "plugins", "shims", "version*")),
    Toolchain(".local/share/uv/python", "UV_PYTHON_INSTALL_DIR", ("*",)),
    Toolchain(".cache/huggingface", "HF_HOME", ("hub",)),  # not the token beside it
    Toolchain(".cache/matplotlib", None, ("fontlist-*.json",)),  # or each run looks for all fonts
)
SETTINGS = ("config.toml", "config")  # they stay closed if they hold a secret
SECRET = re.compile(r"token|password|secret", re.IGNORECASE)
XDG = {"XDG_CACHE_HOME": ".cache", "XDG_CONFIG_HOME": ".config"}


def find_toolchains(env: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """(path in a home folder, the user's file or folder) of what a run may read. `env` is the
    user's environment."""
    home = Path.home()
    for tool in TOOLCHAINS:
        own = env.get(tool.variable) if tool.variable else None
        folder = Path(own) if own and own.startswith("/") else home / tool.folder
        for part in tool.parts:
            for path in _glob(folder, part):
                if path.name not in SETTINGS or not SECRET.search(read_text(path)):
                    yield f"{tool.folder}/{path.relative_to(folder)}", path


def _glob(folder: Path, pattern: str) -> list[Path]:
    """The sorted paths; none in a folder of another user's that is closed."""
    try:
        return sorted(folder.glob(pattern))
    except PermissionError:
        return []


def make_links(granted: Iterable[Path], env: Mapping[str, str]) -> dict[str, str]:
    """The links in a run's home folder, by their paths in it: to the toolchains, and to the
    `granted` paths that lie in the user's home folder or cache folder."""
    links = {name: str(path) for name, path in find_toolchains(env)}
    paths = {form for path in granted for form in (path, path.resolve())}
    places = [(env[name], f"{folder}/") for name, folder in XDG.items() if name in env]
    for place, prefix in (*places, (str(Path.home()), "")):
        for folder in {Path(place), Path(place).resolve()} - {Path("/")}:
            links |= {
                f"{prefix}{path.relative_to(folder)}": str(path)
                for path in paths
                if path != folder and path.is_relative_to(folder)
            }
    return {
        name: links[name]
        for name in sorted(links)
        if not any(str(parent) in links for parent in Path(name).parents)
    }


def make_home(home: Path, links: Mapping[str, str]) -> None:
    """Make a run's home folder. Called on the machine on which the run will start."""
    home.mkdir(mode=0o700, exist_ok=True)
    for name, target in links.items():
        link = home / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(target)
