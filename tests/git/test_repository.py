"""Git by plumbing: commits, refs, pristine trees, and what is refused of an agent's edit."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.sessions import PROGRAM, commit_all, edit, git, make_task, workspace_of

from autoresearch.errors import (
    DirtyError,
    NotOursError,
    Refused,
    StorageError,
    TaskError,
    WorkspaceError,
)
from autoresearch.files import files_below
from autoresearch.git import repository as module
from autoresearch.git.repository import Manifest, Repository

EDITABLE = {"prog.py", "model.py", "src/a.py", "src/b.py"}


def open_workspace(root: Path, named: tuple[str, ...] = ("prog.py",)) -> Repository:
    return Repository(root, named, lambda path: path in EDITABLE)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    root = make_task(
        tmp_path / "repo",
        files={"src/a.py": "A = 1\n", "src/b.py": "B = 1\n", "data/x.txt": "x\n", "run.sh": "#!\n"},
    )
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("data/x.txt")
    (root / ".gitignore").write_text("*.log\n")
    commit_all(root)
    return root


# ---- what is refused at the start --------------------------------------------------------------


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"is not in a git repository: run `git init"):
        open_workspace(tmp_path)


def test_no_commits(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    with pytest.raises(WorkspaceError, match="has no commits: commit the code first"):
        open_workspace(tmp_path)


def test_a_bare_repository(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare")
    with pytest.raises(WorkspaceError, match="bare"):
        open_workspace(tmp_path)


def test_a_damaged_repository(repo: Path) -> None:
    for file in (repo / ".git" / "objects").glob("??/*"):
        file.chmod(0o644)
        file.write_bytes(b"")
    with pytest.raises(WorkspaceError, match="git:"):
        open_workspace(repo).check_editable()


def test_editable_files(repo: Path) -> None:
    assert open_workspace(repo).check_editable() == ["prog.py", "src/a.py", "src/b.py"]
    (repo / "src" / "a.py").write_text("A = 2\n")
    with pytest.raises(DirtyError, match=r"src/a.py has uncommitted changes"):
        open_workspace(repo).check_editable()
    git(repo, "add", "src/a.py")
    with pytest.raises(DirtyError):
        open_workspace(repo).check_editable()
    git(repo, "reset", "-q", "--hard")
    (repo / "src" / "b.py").unlink()
    with pytest.raises(DirtyError, match=r"src/b.py"):
        open_workspace(repo).check_editable()


def test_other_changes_in_the_checkout_do_not_matter(repo: Path) -> None:
    (repo / "data" / "x.txt").write_text("changed\n")
    (repo / "new.txt").write_text("new\n")
    open_workspace(repo).check_editable()


def test_an_editable_file_that_is_missing(repo: Path) -> None:
    with pytest.raises(TaskError, match=r"'model.py' does not exist"):
        open_workspace(repo, ("prog.py", "model.py")).check_editable()
    (repo / "model.py").write_text("")
    with pytest.raises(TaskError, match=r"'model.py' is not committed: commit it first"):
        open_workspace(repo, ("prog.py", "model.py")).check_editable()


def test_nothing_matches(repo: Path) -> None:
    with pytest.raises(TaskError, match="no file of the last commit matches"):
        Repository(repo, ("*.rs",), lambda path: False).check_editable()


def test_an_editable_link(repo: Path) -> None:
    (repo / "prog.py").unlink()
    (repo / "prog.py").symlink_to("src/a.py")
    commit_all(repo)
    with pytest.raises(TaskError, match=r"prog.py is a link"):
        open_workspace(repo).check_editable()


@pytest.mark.parametrize(
    "tag", ["", "a b", "a/b", "..", "a..b", ".a", "-a", "a.lock", "ä", "x" * 65]
)
def test_tags_that_cannot_be(repo: Path, tag: str) -> None:
    with pytest.raises(NotOursError, match="cannot be a tag"):
        open_workspace(repo).check_tag_name(tag)


def test_branches_that_are_taken(repo: Path) -> None:
    repository = open_workspace(repo)
    repository.check_tag_name("nov23")
    repository.check_branch("nov23")
    git(repo, "branch", "autoresearch/nov23")
    with pytest.raises(NotOursError, match="'autoresearch/nov23' exists"):
        repository.check_branch("nov23")
    git(repo, "branch", "-D", "autoresearch/nov23")
    git(repo, "branch", "autoresearch")
    with pytest.raises(NotOursError, match="'autoresearch' exists"):
        repository.check_branch("nov23")


# ---- trees -------------------------------------------------------------------------------------


def test_a_pristine_tree(repo: Path, tmp_path: Path) -> None:
    (repo / "prog.py").write_text("uncommitted\n")
    (repo / "untracked").write_text("untracked\n")
    repository = open_workspace(repo)
    tree = tmp_path / "tree"
    manifest = repository.materialize(repository.head(), tree)
    found = {path for path, _ in files_below(tree)}
    assert found == set(manifest) == set(git(repo, "ls-files").split())
    assert (tree / "prog.py").read_text() == PROGRAM
    assert os.access(tree / "run.sh", os.X_OK)
    assert not os.access(tree / "prog.py", os.X_OK)
    assert str((tree / "link").readlink()) == "data/x.txt"
    assert not (tree / ".git").exists()


def test_bytes_are_kept_whatever_git_is_told(repo: Path, tmp_path: Path) -> None:
    data = b"one\r\ntwo\n\xff\xfe\r\n$Id$\n"
    (repo / "raw.bin").write_bytes(data)
    commit_all(repo)
    git(repo, "config", "core.autocrlf", "true")
    (repo / ".git" / "info" / "attributes").write_text("* text eol=crlf ident\n")
    repository = open_workspace(repo)
    repository.materialize(repository.head(), tmp_path / "tree")
    assert (tmp_path / "tree" / "raw.bin").read_bytes() == data
    commit = repository.commit(repository.head(), {"prog.py": data}, "raw\n")
    assert repository.editable_files(commit)["prog.py"] == data


# ---- what an agent may change ------------------------------------------------------------------


@pytest.fixture
def tree(repo: Path, tmp_path: Path) -> Path:
    return tmp_path / "tree"


Edit = Callable[[Path], object]


def accepted(repo: Path, tree: Path, change: Edit) -> dict[str, bytes | None]:
    """What is collected after the edit of a pristine tree."""
    repository = open_workspace(repo)
    manifest = repository.materialize(repository.head(), tree)
    change(tree)
    return repository.collect(tree, manifest)


def refused(repo: Path, tree: Path, change: Edit) -> str:
    with pytest.raises(Refused) as caught:
        accepted(repo, tree, change)
    return f"{caught.value.reason}: {caught.value}"


def test_an_edit(repo: Path, tree: Path) -> None:
    def change(tree: Path) -> None:
        edit(tree, VALUE=2.0)
        (tree / "src" / "b.py").unlink()
        (tree / "model.py").write_text("new\n")
        (tree / "noise.log").write_text("ignored by git\n")
        (tree / "__pycache__").mkdir()
        (tree / "__pycache__" / "x.pyc").write_bytes(b"\0")

    changes = accepted(repo, tree, change)
    program = PROGRAM.replace("VALUE = 10.0", "VALUE = 2.0").encode()
    assert changes == {"prog.py": program, "src/b.py": None, "model.py": b"new\n"}


def test_the_same_content_written_again_is_no_change(repo: Path, tree: Path) -> None:
    def change(tree: Path) -> None:
        (tree / "prog.py").write_text(PROGRAM)
        (tree / "data" / "x.txt").write_text("x\n")
        (tree / "prog.py").chmod(0o755)

    assert refused(repo, tree, change).startswith("no change")


def test_the_same_size_and_content_swapped_is_seen(repo: Path, tree: Path) -> None:
    def change(tree: Path) -> None:
        (tree / "prog.py").write_text(PROGRAM.replace("10.0", "11.0"))

    assert list(accepted(repo, tree, change)) == ["prog.py"]


@pytest.mark.parametrize("what", ["edit", "delete", "add", "link", "fifo", "folder"])
def test_frozen_files(repo: Path, tree: Path, what: str) -> None:
    def change(tree: Path) -> None:
        edit(tree, VALUE=2.0)
        file = tree / "data" / "x.txt"
        if what == "edit":
            file.write_text("y\n")
        elif what == "add":
            (tree / "data" / "y.txt").write_text("y\n")
        else:
            file.unlink()
        if what == "link":
            file.symlink_to("/etc/passwd")
        elif what == "fifo":
            os.mkfifo(file)
        elif what == "folder":
            file.mkdir()

    name = "data/y.txt" if what == "add" else "data/x.txt"
    assert refused(repo, tree, change) == f"frozen file: changed outside `editable`: {name}"


def test_a_deleted_file(repo: Path, tree: Path) -> None:
    assert refused(repo, tree, lambda tree: (tree / "prog.py").unlink()) == (
        "deleted: prog.py was deleted"
    )


def test_a_binary_file(repo: Path, tree: Path) -> None:
    said = refused(repo, tree, lambda tree: (tree / "prog.py").write_bytes(b"\x7fELF\0\0"))
    assert said == "binary: prog.py is no text any more"


def test_a_huge_file(repo: Path, tree: Path) -> None:
    said = refused(repo, tree, lambda tree: (tree / "prog.py").write_text("x" * 3_000_000))
    assert said == "too large: prog.py has 3000000 bytes"


@pytest.mark.parametrize("what", ["symbolic", "hard", "fifo", "folder above"])
def test_links_out_of_the_tree(repo: Path, tree: Path, tmp_path: Path, what: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.py").write_text("A = 'secret'\n")

    def change(tree: Path) -> None:
        file = tree / "src" / "a.py"
        file.unlink()
        if what == "symbolic":
            file.symlink_to(outside / "a.py")
        elif what == "hard":
            file.hardlink_to(outside / "a.py")
        elif what == "fifo":
            os.mkfifo(file)
        else:
            (tree / "src" / "b.py").unlink()
            (tree / "src").rmdir()
            (tree / "src").symlink_to(outside)

    said = refused(repo, tree, change)
    assert said.startswith("frozen file" if what == "folder above" else "link")
    assert "src" in said


def test_a_change_of_nothing_but_a_seed(tmp_path: Path) -> None:
    root = make_task(tmp_path / "repo", "SEED = 1\nLR = 1\n")

    def set_seed(tree: Path) -> None:
        (tree / "prog.py").write_text("SEED = 23\nLR = 1\n")

    def set_both(tree: Path) -> None:
        (tree / "prog.py").write_text("SEED = 23\nLR = 2\n")

    assert refused(root, tmp_path / "one", set_seed).startswith("seed only")
    assert accepted(root, tmp_path / "two", set_both) == {"prog.py": b"SEED = 23\nLR = 2\n"}


# ---- commits and refs --------------------------------------------------------------------------


def test_a_commit(repo: Path) -> None:
    repository = open_workspace(repo)
    head = repository.head()
    commit = repository.commit(
        head,
        {"src/a.py": b"A = 2\n", "src/b.py": None, "new/deep/c.py": b"C\n"},
        "subject\n\nbody\n",
    )
    assert git(repo, "diff", "--name-status", head, commit).split("\n") == [
        "A\tnew/deep/c.py",
        "M\tsrc/a.py",
        "D\tsrc/b.py",
    ]
    assert git(repo, "log", "-1", "--format=%s|%an", commit) == "subject|autoresearch"
    assert repository.head() == head
    assert repository.changed_lines(head, commit) == (2, 2)
    assert "+A = 2" in repository.diff(head, commit)
    assert repository.read(commit, "src/a.py") == b"A = 2\n"
    assert repository.read(commit, "src/b.py") is None
    git(repo, "fsck", "--strict")


def test_an_executable_stays_one(tmp_path: Path) -> None:
    root = make_task(tmp_path / "repo")
    (root / "prog.py").chmod(0o755)
    commit_all(root)
    repository = open_workspace(root)
    commit = repository.commit(repository.head(), {"prog.py": b"#\n"}, "x\n")
    assert git(root, "ls-tree", commit, "prog.py").startswith("100755")


def test_rebase(repo: Path) -> None:
    repository = open_workspace(repo)
    head = repository.head()
    one = repository.commit(head, {"src/a.py": b"A = 2\n"}, "one\n")
    two = repository.commit(head, {"src/b.py": b"B = 2\n"}, "two\n")
    other = repository.commit(head, {"src/a.py": b"A = 3\n"}, "other\n")
    moved = repository.rebase(head, two, one)
    assert moved is not None
    assert git(repo, "log", "--format=%s", f"{head}..{moved}") == "two\none"
    assert git(repo, "diff", "--name-only", one, moved) == "src/b.py"
    assert repository.rebase(head, other, one) is None


def test_everything_stays_reachable_and_packed(repo: Path) -> None:
    repository = open_workspace(repo)
    head = repository.head()
    commits = []
    for number in range(70):
        commits.append(repository.commit(head, {"src/a.py": f"A = {number}\n".encode()}, "x\n"))
        repository.keep_reachable("t", number, commits[-1])
        repository.tidy(0)
    assert len(list((repo / ".git" / "objects").glob("??/*"))) < 60
    git(repo, "-c", "gc.auto=0", "gc", "--prune=now", "-q")
    git(repo, "fsck", "--strict")
    for number, commit in enumerate(commits):
        assert git(repo, "rev-parse", f"refs/autoresearch/t/{number}") == commit
        assert repository.read(commit, "src/a.py") == f"A = {number}\n".encode()


def test_other_threads_and_a_pack_of_the_users_at_the_same_time(repo: Path) -> None:
    repository = open_workspace(repo)
    head = repository.head()
    failures: list[BaseException] = []

    def work(slot: int) -> None:
        try:
            for number in range(30):
                data = f"A = {slot * 1000 + number}\n".encode()
                commit = repository.commit(head, {"src/a.py": data}, "x\n")
                repository.keep_reachable("t", slot * 1000 + number, commit)
                assert repository.read(commit, "src/a.py") == data
                repository.tidy(0)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(3)]
    for thread in threads:
        thread.start()
    git(repo, "repack", "-adq")
    for thread in threads:
        thread.join()
    assert failures == []
    git(repo, "fsck", "--strict")


@pytest.mark.parametrize("named", [False, True])
def test_what_git_gc_took_is_written_again(repo: Path, tmp_path: Path, named: bool) -> None:
    """A `git gc --prune=now` sees the refs as they were when it began: a commit made meanwhile is
    garbage to it, whether it has got its ref by now or not."""
    repository = open_workspace(repo)
    files = {"src/a.py": b"A = 5\n", "src/deep/down.py": b"new\n"}
    commit = repository.commit(repository.head(), files, "x\n")
    if named:
        repository.keep_reachable("t", 1, commit)
        git(repo, "update-ref", "-d", "refs/autoresearch/t/1")  # which the collector saw not yet
    git(repo, "prune", "--expire=now")
    git(repo, "gc", "-q", "--prune=now")
    if named:
        path = repo / ".git" / "refs" / "autoresearch" / "t" / "1"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{commit}\n")
    assert repository.changed_lines(repository.head(), commit) == (2, 1)
    repository.keep_reachable("t", 1, commit)
    repository.materialize(commit, tmp_path / "tree")
    assert (tmp_path / "tree" / "src" / "deep" / "down.py").read_bytes() == b"new\n"
    repository.tidy(0)
    git(repo, "fsck", "--strict")
    assert git(repo, "show", f"{commit}:src/a.py") == "A = 5"


def test_git_gc_all_the_time(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits, moves and packs while the user collects garbage again and again."""
    monkeypatch.setattr(module, "PACK_EVERY", 7)
    repository = open_workspace(repo)
    head, done = repository.head(), threading.Event()

    def collect() -> None:
        while not done.is_set():
            command = ["git", "gc", "-q", "--prune=now"]
            subprocess.run(command, cwd=repo, capture_output=True, check=False)

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        for number in range(25):
            data = f"A = {number}\n".encode()
            commit = repository.commit(head, {"src/a.py": data}, "x\n")
            repository.keep_reachable("t", number, commit)
            onto = repository.commit(head, {"src/b.py": data}, "y\n")
            repository.keep_reachable("t", 100 + number, onto)
            moved = repository.rebase(head, commit, onto)
            assert moved is not None
            with repository.held("t", number, moved):
                repository.keep_reachable("t", number, moved)
            assert repository.read(moved, "src/a.py") == data
            repository.tidy(0)
    finally:
        done.set()
        collector.join()
    repository.pack()
    git(repo, "fsck", "--strict")
    for number in range(25):
        assert git(repo, "show", f"refs/autoresearch/t/{number}:src/a.py") == f"A = {number}"


def test_locks_left_by_a_kill(repo: Path) -> None:
    repository = open_workspace(repo)
    head = repository.head()
    repository.keep_reachable("t", 1, head)
    repository.move("t", head, [head])
    refs = repo / ".git" / "refs"
    commit = repository.commit(head, {"src/a.py": b"A = 2\n"}, "x\n")
    for name in ("autoresearch/t/1", "autoresearch/t/best", "heads/autoresearch/t"):
        (refs / f"{name}.lock").touch()
    repository.break_locks("t")
    repository.keep_reachable("t", 1, commit)
    assert repository.move("t", commit, [head]) is None
    assert repository.ref("refs/heads/autoresearch/t") == commit


def test_exclude_leaves_what_is_there(repo: Path) -> None:
    exclude = repo / ".git" / "info" / "exclude"
    exclude.write_text("mine")
    repository = open_workspace(repo)
    repository.exclude(".autoresearch/", "results.tsv")
    repository.exclude(".autoresearch/", "results.tsv")
    assert exclude.read_text() == "mine\n/.autoresearch/\n/results.tsv\n"
    (repo / "results.tsv").touch()
    assert git(repo, "status", "--porcelain") == ""


def test_a_disk_that_is_full(full_disk: Path) -> None:
    root = make_task(full_disk / "repo")
    repository = workspace_of(root)
    head = repository.head()
    with (full_disk / "filler").open("wb") as filler, pytest.raises(OSError):
        while True:
            filler.write(os.urandom(1 << 16))
            filler.flush()
    with pytest.raises(StorageError, match="is full"):
        for number in range(100):
            repository.commit(head, {"prog.py": os.urandom(5000).hex().encode()}, f"{number}\n")
    with pytest.raises(StorageError, match=r"cannot write .*No space left"):
        for number in range(100):
            repository.materialize(head, root / f"tree{number}")


# ---- large trees that are used again -----------------------------------------------------------


@pytest.fixture
def spares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tree counts as a large one."""
    monkeypatch.setattr(module, "SPARE_FILES", 1)
    monkeypatch.setattr(module, "TICK_NS", 0)


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
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


def forged(path: Path) -> None:
    """Other content of the same size, with the old times put back."""
    stat = path.stat()
    path.write_bytes(b"#" * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def swapped(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"#" * path.stat().st_size)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)


def linked_from_outside(path: Path) -> None:
    """So that it could be changed later, through the other name."""
    os.link(path, path.parents[3] / f"outside-{path.name}")


def replaced_by_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    (path / "deep").mkdir(parents=True)


def folder_replaced_by_a_link(path: Path) -> None:
    folder = path.parent
    folder.rename(folder.with_name("away"))
    folder.symlink_to("/tmp")


def left_behind(path: Path) -> None:
    for name in ("sitecustomize.py", ".git/config", "lib/new/x.py", "empty/"):
        there = path.parent.parent / name
        there.parent.mkdir(parents=True, exist_ok=True)
        there.mkdir() if name.endswith("/") else there.write_text("x")


def chmodded(path: Path) -> None:
    path.chmod(0o777)
    path.parent.chmod(0o500)


@pytest.mark.usefixtures("spares")
@pytest.mark.parametrize(
    "tamper",
    [
        forged,
        swapped,
        linked_from_outside,
        replaced_by_a_link,
        replaced_by_a_folder,
        folder_replaced_by_a_link,
        left_behind,
        chmodded,
        Path.unlink,
    ],
    ids=lambda tamper: tamper.__name__,
)
def test_a_tree_used_again_is_as_pristine_as_a_new_one(
    repo: Path, tmp_path: Path, tamper: Callable[[Path], None]
) -> None:
    (repo / "lib").mkdir(exist_ok=True)
    (repo / "lib" / "frozen.py").write_text("x = 1\n")
    (repo / "lib" / "same.py").write_text("y = 1\n")
    (repo / "lib" / "link").symlink_to("same.py")
    git(repo, "add", "--all")
    git(repo, "commit", "-qm", "more")
    repository = Repository(repo, ["prog.py"], lambda path: path == "prog.py")
    new = repository.materialize(repository.head(), tmp_path / "trees" / "new")
    pristine = everything(tmp_path / "trees" / "new")
    untouched = (tmp_path / "trees" / "new" / "lib" / "same.py").stat().st_ino
    tamper(tmp_path / "trees" / "new" / "lib" / "frozen.py")
    repository.put_aside(tmp_path / "trees" / "new", new)
    again = repository.materialize(repository.head(), tmp_path / "trees" / "again")
    assert everything(tmp_path / "trees" / "again") == pristine
    assert list(again) == list(new)
    if tamper is not folder_replaced_by_a_link and new["lib/same.py"].ctime_ns < last_of(new):
        assert (tmp_path / "trees" / "again" / "lib" / "same.py").stat().st_ino == untouched
    repository.put_aside(tmp_path / "trees" / "again", again)
    repository.drop_spares()
    assert not list((tmp_path / "trees").iterdir())


def last_of(manifest: Manifest) -> int:
    return max(entry.ctime_ns for entry in manifest.values())


@pytest.mark.usefixtures("spares")
def test_a_tree_used_again_for_another_commit(repo: Path, tmp_path: Path) -> None:
    repository = Repository(repo, ["prog.py"], lambda path: path == "prog.py")
    head = repository.head()
    commit = repository.commit(head, {"prog.py": b"other\n", "new/x.py": b"x\n"}, "other\n")
    first = repository.materialize(head, tmp_path / "first")
    repository.put_aside(tmp_path / "first", first)
    repository.materialize(commit, tmp_path / "second")
    repository.materialize(commit, tmp_path / "whole", renewed=False)
    assert everything(tmp_path / "second") == everything(tmp_path / "whole")
    assert not (tmp_path / "first").exists()


def test_what_was_written_last_is_not_trusted_to_show_a_change(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of the file system may not have ticked between our write and a run's."""
    monkeypatch.setattr(module, "SPARE_FILES", 1)
    repository = Repository(repo, ["prog.py"], lambda path: path == "prog.py")
    manifest = repository.materialize(repository.head(), tmp_path / "first")
    inodes = {path: entry.inode for path, entry in manifest.items() if entry.inode}
    held = [os.open(tmp_path / "first" / path, os.O_RDONLY) for path in inodes]  # none is reused
    repository.put_aside(tmp_path / "first", manifest)
    again = repository.materialize(repository.head(), tmp_path / "second")
    assert all(again[path].inode != inode for path, inode in inodes.items())
    for descriptor in held:
        os.close(descriptor)
