"""The tree of one command as content: a commit's files, with some left out and others added."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.files import remove_tree
from autoresearch.protocols import TreeFile, TreeManifest

if TYPE_CHECKING:  # `agents` needs no git
    from autoresearch.git.repository import Repository
    from autoresearch.git.trees import Manifest


@dataclass
class CommitTree:
    """A `TreeSource`. Paths in the tree are relative to its top, not to the task's folder."""

    repository: Repository
    commit: str
    hidden: Collection[str] = ()  # files and folders that are left out
    links: Mapping[str, Path] = field(default_factory=dict)  # where the commit has nothing
    copies: Mapping[str, Path] = field(default_factory=dict)  # files put in place of the commit's
    may_reuse: bool = True  # files of an earlier tree, where they are untouched
    written: Manifest | None = field(default=None, init=False)  # what `write` wrote of the commit
    _blobs: dict[str, bytes | None] | None = field(default=None, init=False)  # None: in git

    def write(self, folder: Path) -> None:
        remove_tree(folder)
        self.written = self.repository.trees.materialize(
            self.commit, folder, renewed=self.may_reuse
        )
        for name in self.hidden:
            remove_tree(folder / name)
        for name, source in self.links.items():
            target = folder / name
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source)
        for name, source in self.copies.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def manifest(self) -> TreeManifest:
        files = {
            path: TreeFile(str(entry.blob), int(entry.mode))
            for path, entry in self.repository.trees.manifest(self.commit).items()
            if not any(_is_at(path, name) for name in self.hidden)
        }
        links = {
            name: str(source)
            for name, source in self.links.items()
            if not any(_is_at(path, name) for path in files)
        }
        files |= {name: TreeFile.of(path.read_bytes()) for name, path in self.copies.items()}
        return TreeManifest(self.commit, files, links)

    def read(self, blob: str) -> bytes:
        """Raises KeyError for a blob that is not in the manifest: a runner must not see others."""
        if self._blobs is None:
            self._blobs = dict.fromkeys(file.blob for file in self.manifest().files.values())
            copies = (path.read_bytes() for path in self.copies.values())
            self._blobs |= {TreeFile.of(content).blob: content for content in copies}
        content = self._blobs[blob]
        return self.repository.read_blob(blob) if content is None else content


def _is_at(path: str, name: str) -> bool:
    """Whether a file is `name`, or lies in the folder of that name."""
    return path == name or path.startswith(f"{name}/")
