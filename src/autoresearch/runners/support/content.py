"""Trees as content, for runners on machines that do not share the harness's files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from autoresearch.files import files_below
from autoresearch.protocols import TreeFile, TreeManifest

LINK = 0o120000


def write_tree(manifest: TreeManifest, read: Callable[[str], bytes], folder: Path) -> None:
    """Make a run's tree in a new folder. `read` returns the content of a blob. Raises ValueError if
    the content does not match the blob."""
    folder.mkdir(parents=True)
    for path, file in manifest.files.items():
        content = read(file.blob)
        if TreeFile.of(content, file.mode) != file:
            raise ValueError(f"the content of {path} is not the blob {file.blob}")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.mode == LINK:
            target.symlink_to(os.fsdecode(content))
        else:
            target.write_bytes(content)
            target.chmod(file.mode & 0o777)
    for path, source in manifest.links.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).symlink_to(source)


def changed_files(manifest: TreeManifest, folder: Path) -> Iterator[tuple[str, Path]]:
    """The regular files that a run made or changed: (path in the tree, file). Follows no links."""
    for path, entry in files_below(folder):
        if entry.is_file(follow_symlinks=False):
            file, known = Path(entry.path), manifest.files.get(path)
            if known is None or TreeFile.of(file.read_bytes(), known.mode) != known:
                yield path, file
