"""Find an agent, a runner, an export or a task by the name that a user gives, in this order:

1. ours: a file of `autoresearch/agents/`, `autoresearch/runners/` or `autoresearch/exports/`, a
   folder of `autoresearch/tasks/`; entry points, which take time, are not read for it
2. an entry point of an installed package, in the group `autoresearch.agents`,
   `autoresearch.runners`, `autoresearch.exports` or `autoresearch.tasks`
3. a dotted path of a module, such as `mypkg.agents.halve`

A plug-in that cannot be imported is an error; none is skipped.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from autoresearch.errors import (
    AgentError,
    AutoresearchError,
    ExportError,
    RunnerError,
    TaskError,
)

TASK_FILE = "autoresearch.toml"


@dataclass(frozen=True, slots=True)
class Plugins:
    """All plug-ins of one kind, ours and other packages'."""

    kind: str
    error: type[AutoresearchError]
    list_ours: Callable[[str], list[str]]

    @property
    def group(self) -> str:
        """The group of entry points, and the package or folder of ours."""
        return f"autoresearch.{self.kind}s"

    def names(self) -> list[str]:
        """Ours and those of entry points, sorted. Raises for a name that two packages claim."""
        return sorted({*self.ours(), *self._entry_points()})

    def ours(self) -> list[str]:
        return sorted(self.list_ours(self.group))

    def find(self, name: str) -> str:
        """Return the dotted path of the plug-in's module or folder; hyphens count as underscores.
        Raises the kind's error for a name that is unknown, with the nearest one that is known."""
        ours = name.replace("-", "_")
        if ours in self.ours():
            return f"{self.group}.{ours}"
        if (entry := self._entry_points().get(name)) is not None:
            return entry
        if "." in name and all(part.isidentifier() for part in name.split(".")):
            return name
        accepted = self.names()
        near = difflib.get_close_matches(ours, accepted, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise self.error(
            f"no {self.kind} {name!r}.{hint} There are: {', '.join(accepted)}; "
            f"or a module's dotted path, such as mypkg.{self.kind}s.mine"
        )

    def load(self, name: str) -> ModuleType:
        """Import the plug-in's module. Raises the kind's error if that fails, for whatever reason,
        or if it defines no `create`."""
        path = self.find(name)
        try:
            module = importlib.import_module(path)
        except Exception as error:
            raise self._broken(name, path, error) from error
        if not callable(getattr(module, "create", None)):
            raise self.error(
                f"{self.kind} {name!r}: the module {path} defines no function `create`"
            )
        return module

    def folder(self, name: str) -> Path:
        """Return the folder of a ready task. Raises the kind's error if it holds no task file."""
        path = self.find(name)
        try:
            spec = importlib.util.find_spec(path)
        except Exception as error:  # of a package that the path goes through
            raise self._broken(name, path, error) from error
        places = list(spec.submodule_search_locations or ()) if spec else []
        folders = [Path(place) for place in places if (Path(place) / TASK_FILE).is_file()]
        if not folders:
            raise self.error(f"{self.kind} {name!r}: {path} is no folder with {TASK_FILE}")
        return folders[0]

    def _entry_points(self) -> dict[str, str]:
        """Map names to dotted paths, of every installed package."""
        from importlib.metadata import entry_points  # 20 ms that most commands do without

        paths: dict[str, str] = {}
        for entry in entry_points(group=self.group):
            if (other := paths.setdefault(entry.name, entry.value)) != entry.value:
                raise self.error(
                    f"{self.kind} {entry.name!r} is in two installed packages: {other} and "
                    f"{entry.value}; uninstall one of them"
                )
        return paths

    def _broken(self, name: str, path: str, error: Exception) -> AutoresearchError:
        where = "" if path in (name, f"{self.group}.{name}") else f" ({path})"
        return self.error(
            f"{self.kind} {name!r}{where} cannot be imported: {type(error).__name__}: {error}"
        )


def _list_files(package: str, pattern: str) -> list[Path]:
    """Files in the folders of one of our packages, which is not imported for it."""
    is_imported = sys.modules.get(package)
    folders = (
        is_imported.__path__ if is_imported else [Path(__file__).with_name(package.split(".")[1])]
    )
    return [file for folder in folders for file in Path(folder).glob(pattern)]


def _list_modules(package: str) -> list[str]:
    return [file.stem for file in _list_files(package, "*.py") if file.stem != "__init__"]


def _list_tasks(package: str) -> list[str]:
    return [file.parent.name for file in _list_files(package, f"*/{TASK_FILE}")]


AGENTS = Plugins("agent", AgentError, _list_modules)
RUNNERS = Plugins("runner", RunnerError, _list_modules)
EXPORTS = Plugins("export", ExportError, _list_modules)
TASKS = Plugins("task", TaskError, _list_tasks)
