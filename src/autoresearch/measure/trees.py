"""The tree of one command: a commit's files, without some and with others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.files import clear_path, copy_file, remove_tree
from autoresearch.protocols import TreeFile, TreeManifest

if TYPE_CHECKING:  # `agents` needs no git
    from autoresearch.git.repository import Repository
    from autoresearch.git.trees import Manifest
    from autoresearch.measure.builds import Build


@dataclass
class CommitTree:
    """A `TreeSource`. Paths in the tree are relative to its top, not to the task's folder."""

    repository: Repository
    commit: str
    hidden: Collection[str] = ()  # files and folders to leave out
    links: Mapping[str, Path] = field(default_factory=dict)  # to add where the commit has no file
    copies: Mapping[str, Path] = field(default_factory=dict)  # files to replace the commit's
    may_reuse: bool = True  # may use untouched files of an earlier tree
    built: Build | None = None  # files to add, and to replace the commit's
    written: Manifest | None = field(default=None, init=False)  # what no run made, after `write`

    def write(self, folder: Path) -> None:
        clear_path(folder)
        self.written = self.repository.trees.materialize(
            self.commit, folder, renewed=self.may_reuse
        )
        for name in self.hidden:
            remove_tree(folder / name)
        if self.built is not None:
            self.written |= self.built.copy_into(folder)
        for name, source in self.links.items():
            target = folder / name
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source)
        for name, source in self.copies.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_file(source, target)

    def manifest(self) -> TreeManifest:
        files = {
            path: TreeFile(str(entry.blob), int(entry.mode))
            for path, entry in self.repository.trees.manifest(self.commit).items()
            if not any(_is_at(path, name) for name in self.hidden)
        }
        files |= self.built.manifest() if self.built else {}
        links = {
            name: str(source)
            for name, source in self.links.items()
            if not any(_is_at(path, name) for path in files)
        }
        files |= {name: TreeFile.of(path.read_bytes()) for name, path in self.copies.items()}
        return TreeManifest(self.commit, files, links)

    def read(self, blob: str) -> bytes:
        """Raises KeyError for a blob that is not in the manifest: a runner must not see others."""
        content = self._blobs[blob]
        return self.repository.read_blob(blob) if content is None else content

    @cached_property
    def _blobs(self) -> dict[str, bytes | None]:
        """The content of the copies by blob; None for a file in git."""
        in_git = dict.fromkeys(file.blob for file in self.manifest().files.values())
        copies = (path.read_bytes() for path in self.copies.values())
        built = self.built.contents() if self.built else {}
        return in_git | built | {TreeFile.of(content).blob: content for content in copies}


def _is_at(path: str, name: str) -> bool:
    """Whether a file has this name, or lies in the folder of this name."""
    return path == name or path.startswith(f"{name}/")
