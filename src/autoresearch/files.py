"""Walk and remove folders, whatever they hold. Read the end of a file; replace a file at once."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from autoresearch.errors import StorageError

LEFT = ".left-"  # and a number: ends the name of a folder that could not be removed
READ_BYTES = 1_000_000  # of a log, from its end: where a program says how it went


def remove_tree(folder: Path) -> None:
    """Delete a folder, links not followed; missing is fine. A folder that a program has made hard
    to remove (by permissions, attributes, or thousands of levels) is removed by the system's
    tools. Raises `OSError` if it is still there."""
    if not (folder.is_symlink() or folder.exists()):
        return
    is_folder = folder.is_dir() and not folder.is_symlink()
    with suppress(OSError, RecursionError):
        if is_folder:
            shutil.rmtree(folder)
        else:
            folder.unlink()
        return
    tools = [["chmod", "-R", "u+rwx"], ["chattr", "-R", "-f", "-i", "-a"], ["rm", "-rf"]]
    for command in tools:
        if is_folder and shutil.which(command[0]):  # chmod would follow a link
            subprocess.run([*command, "--", folder], check=False, capture_output=True)
    if folder.is_symlink() or folder.exists():
        raise OSError(errno.EPERM, "cannot be removed", str(folder))


def clear_path(folder: Path) -> None:
    """Free a path for something new: remove the folder there, or move it aside to `NAME.left-N` if
    it cannot be removed, as with files of another user (a container's root, say). Raises `OSError`
    if neither works."""
    try:
        remove_tree(folder)
    except OSError:
        names = (folder.with_name(f"{folder.name}{LEFT}{number}") for number in count(1))
        folder.rename(next(name for name in names if not os.path.lexists(name)))


def files_below(folder: Path, *, unlock: bool = False) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """(path relative to `folder`, entry) of every file and link but those in `.git` at the top.
    Skip folders that cannot be read, or whose path is too long. With `unlock`, folders whose mode
    forbids it are made readable."""
    todo = [(str(folder), "")]
    while todo:
        where, prefix = todo.pop()
        if unlock and not os.access(where, os.R_OK | os.W_OK | os.X_OK):
            with suppress(OSError):  # it belongs to another user
                Path(where).chmod(0o755)
        try:
            entries = list(os.scandir(where))
        except OSError:
            continue
        for entry in entries:
            path = prefix + entry.name
            if path == ".git":
                continue
            if entry.is_dir(follow_symlinks=False):
                todo.append((entry.path, f"{path}/"))
            else:
                yield path, entry


def copy_file(source: Path, target: Path) -> None:
    """Copy the content of a regular file. Holes stay holes: a program makes one of any size, and
    its zeros would fill the disk."""
    with source.open("rb") as old, target.open("wb") as new:
        for begin, end in find_data(old.fileno()):
            old.seek(begin)
            new.seek(begin)
            while begin < end and (data := old.read(min(1 << 20, end - begin))):
                begin += new.write(data)
        new.truncate(os.fstat(old.fileno()).st_size)


def find_data(fd: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are no holes, as (begin, end)."""
    end = 0
    while True:
        try:
            begin = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # that is the end of the file
                raise
            return
        end = os.lseek(fd, begin, os.SEEK_HOLE)
        yield begin, end


def tail(path: Path, size: int = READ_BYTES) -> str:
    """The end of a file as text; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def replace_file(path: Path, data: bytes, *, is_durable: bool = True) -> None:
    """Write beside `path`, then move onto it: a reader sees the old file or the new one. A durable
    file also survives a power cut; waiting for the disk takes milliseconds. Raises
    `StorageError`."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with draft.open("wb") as file:
                file.write(data)
                if is_durable:
                    file.flush()
                    os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


def read_text(path: Path) -> str:
    """The content of a text file; empty if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
