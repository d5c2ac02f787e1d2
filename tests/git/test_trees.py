"""Pristine trees: new, and large ones that are used again."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.repositories import open_repository
from support.sessions import PROGRAM, commit_all, git, linux_only

from autoresearch.files import files_below
from autoresearch.git import trees
from autoresearch.git.repository import Repository
from autoresearch.git.trees import Manifest


def test_a_tree_holds_exactly_the_committed_files(repo: Path, tmp_path: Path) -> None:
    (repo / "prog.py").write_text("uncommitted\n")
    (repo / "untracked").write_text("untracked\n")
    repository = open_repository(repo)
    tree = tmp_path / "tree"
    manifest = repository.trees.materialize(repository.head(), tree)
    found = {path for path, _ in files_below(tree)}
    assert found == set(manifest) == set(git(repo, "ls-files").split())
    assert (tree / "prog.py").read_text() == PROGRAM
    assert os.access(tree / "run.sh", os.X_OK)
    assert not os.access(tree / "prog.py", os.X_OK)
    assert str((tree / "link").readlink()) == "data/x.txt"
    assert not (tree / ".git").exists()


def test_files_are_written_byte_for_byte_despite_git_filters(repo: Path, tmp_path: Path) -> None:
    data = b"one\r\ntwo\n\xff\xfe\r\n$Id$\n"
    (repo / "raw.bin").write_bytes(data)
    commit_all(repo)
    git(repo, "config", "core.autocrlf", "true")
    (repo / ".git" / "info" / "attributes").write_text("* text eol=crlf ident\n")
    repository = open_repository(repo)
    repository.trees.materialize(repository.head(), tmp_path / "tree")
    assert (tmp_path / "tree" / "raw.bin").read_bytes() == data
    commit = repository.commit(repository.head(), {"prog.py": data}, "raw\n")
    assert repository.editable_files(commit)["prog.py"] == data


def test_a_restored_folder_holds_the_commits_files_whatever_was_in_it(
    repo: Path, tmp_path: Path
) -> None:
    (repo / "lib").mkdir(exist_ok=True)
    (repo / "lib" / "frozen.py").write_text("x = 1\n")
    commit_all(repo)
    repository, tree = open_repository(repo), tmp_path / "tree"
    manifest = repository.trees.materialize(repository.head(), tree)
    for name in (b"\xff new", b"__pycache__", b"closed"):
        folder = tree / os.fsdecode(name)
        folder.mkdir()
        (folder / os.fsdecode(b"\xff\xfe half")).touch()
    (tree / "lib" / "frozen.py").write_text("x = 2\n")
    for folder in (tree / "closed", tree / "lib", tree):
        folder.chmod(0)
    repository.trees.restore(manifest, tree)
    assert {path for path, _ in files_below(tree)} == set(manifest)
    assert (tree / "lib" / "frozen.py").read_text() == "x = 1\n"


@pytest.fixture
def keep_small_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tree counts as a large one."""
    monkeypatch.setattr(trees, "SPARE_FILES", 1)
    monkeypatch.setattr(trees, "TICK_NS", 0)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Path -> mode and content (or target), folders too."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mode,
            os.fsencode(path.readlink())
            if path.is_symlink()
            else path.read_bytes()
            if path.is_file()
            else b"",
        )
        for path in sorted(folder.rglob("*"))
    }


def forge(path: Path) -> None:
    """Other content of the same size, with the old times put back."""
    stat = path.stat()
    path.write_bytes(b"#" * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def swap(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"#" * path.stat().st_size)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)


def link_from_outside(path: Path) -> None:
    """So that it could be changed later, through the other name."""
    os.link(path, path.parents[3] / f"outside-{path.name}")


def replace_by_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def replace_by_a_folder(path: Path) -> None:
    path.unlink()
    (path / "deep").mkdir(parents=True)


def replace_folder_by_a_link(path: Path) -> None:
    folder = path.parent
    folder.rename(folder.with_name("away"))
    folder.symlink_to("/tmp")


def add_files(path: Path) -> None:
    for name in ("sitecustomize.py", ".git/config", "lib/new/x.py", "empty/"):
        there = path.parent.parent / name
        there.parent.mkdir(parents=True, exist_ok=True)
        there.mkdir() if name.endswith("/") else there.write_text("x")


def chmod(path: Path) -> None:
    path.chmod(0o777)
    path.parent.chmod(0o500)


@pytest.mark.usefixtures("keep_small_trees")
@pytest.mark.parametrize(
    "tamper",
    [
        forge,
        swap,
        link_from_outside,
        replace_by_a_link,
        replace_by_a_folder,
        replace_folder_by_a_link,
        add_files,
        chmod,
        Path.unlink,
    ],
    ids=lambda tamper: tamper.__name__,
)
def test_a_reused_tree_equals_a_new_one(
    repo: Path, tmp_path: Path, tamper: Callable[[Path], None]
) -> None:
    (repo / "lib").mkdir(exist_ok=True)
    (repo / "lib" / "frozen.py").write_text("x = 1\n")
    (repo / "lib" / "same.py").write_text("y = 1\n")
    (repo / "lib" / "link").symlink_to("same.py")
    git(repo, "add", "--all")
    git(repo, "commit", "-qm", "more")
    repository = Repository(repo, ["prog.py"], lambda path: path == "prog.py")
    new = repository.trees.materialize(repository.head(), tmp_path / "trees" / "new")
    pristine = snapshot(tmp_path / "trees" / "new")
    untouched = (tmp_path / "trees" / "new" / "lib" / "same.py").stat().st_ino
    tamper(tmp_path / "trees" / "new" / "lib" / "frozen.py")
    repository.trees.put_aside(tmp_path / "trees" / "new", new)
    again = repository.trees.materialize(repository.head(), tmp_path / "trees" / "again")
    assert snapshot(tmp_path / "trees" / "again") == pristine
    assert list(again) == list(new)
    if tamper is not replace_folder_by_a_link and new["lib/same.py"].ctime_ns < last_write_ns(new):
        assert (tmp_path / "trees" / "again" / "lib" / "same.py").stat().st_ino == untouched
    repository.trees.put_aside(tmp_path / "trees" / "again", again)
    repository.trees.drop_spares()
    assert not list((tmp_path / "trees").iterdir())


@linux_only
@pytest.mark.usefixtures("keep_small_trees")
def test_a_reused_tree_remembers_no_reading_and_nothing_of_its_folders(
    repo: Path, tmp_path: Path
) -> None:
    repository = Repository(repo, ["prog.py"], lambda path: path == "prog.py")
    commit = repository.commit(
        repository.head(), {"lib/a.py": b"x\n", "lib/b.py": b"x\n", "z.py": b"x\n"}, "more\n"
    )
    used, again = tmp_path / "used", tmp_path / "again"
    manifest = repository.trees.materialize(commit, used)
    os.utime(used / "lib" / "a.py", ns=(9, manifest["lib/a.py"].mtime_ns))  # as by reading it
    stat = (used / "lib" / "a.py").stat()
    manifest["lib/a.py"] = replace(manifest["lib/a.py"], ctime_ns=stat.st_ctime_ns)
    manifest["z.py"] = replace(manifest["z.py"], ctime_ns=stat.st_ctime_ns + 1)  # written last
    os.setxattr(used / "lib", "user.memory", b"x")
    repository.trees.put_aside(used, manifest)
    repository.trees.materialize(commit, again)
    assert (again / "lib" / "a.py").stat().st_ino == stat.st_ino
    assert (again / "lib" / "a.py").stat().st_atime_ns == manifest["lib/a.py"].atime_ns
    assert os.listxattr(again / "lib") == []


def last_write_ns(manifest: Manifest) -> int:
    return max(entry.ctime_ns for entry in manifest.values())


@pytest.mark.usefixtures("keep_small_trees")
def test_a_reused_tree_can_hold_another_commit(repo: Path, tmp_path: Path) -> None:
    repository = Repository(repo, ["prog.py"], lambda path: path == "prog.py")
    head = repository.head()
    commit = repository.commit(head, {"prog.py": b"other\n", "new/x.py": b"x\n"}, "other\n")
    first = repository.trees.materialize(head, tmp_path / "first")
    repository.trees.put_aside(tmp_path / "first", first)
    repository.trees.materialize(commit, tmp_path / "second")
    repository.trees.materialize(commit, tmp_path / "whole", renewed=False)
    assert snapshot(tmp_path / "second") == snapshot(tmp_path / "whole")
    assert not (tmp_path / "first").exists()


def test_files_written_last_are_written_again(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of the file system may not have ticked between our write and a run's."""
    monkeypatch.setattr(trees, "SPARE_FILES", 1)
    repository = Repository(repo, ["prog.py"], lambda path: path == "prog.py")
    manifest = repository.trees.materialize(repository.head(), tmp_path / "first")
    inodes = {path: entry.inode for path, entry in manifest.items() if entry.inode}
    held = [os.open(tmp_path / "first" / path, os.O_RDONLY) for path in inodes]  # none is reused
    repository.trees.put_aside(tmp_path / "first", manifest)
    again = repository.trees.materialize(repository.head(), tmp_path / "second")
    assert all(again[path].inode != inode for path, inode in inodes.items())
    for descriptor in held:
        os.close(descriptor)
