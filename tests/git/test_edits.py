"""What is taken from an edited tree, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.repositories import open_repository
from support.sessions import PROGRAM, commit_all, edit, git, linux_only, make_task

from autoresearch.errors import (
    DirtyError,
    Refused,
    TaskError,
)
from autoresearch.git.edits import SEEDING
from autoresearch.git.repository import Repository


def test_uncommitted_editable_files_are_refused(repo: Path) -> None:
    assert open_repository(repo).check_editable() == ["prog.py", "src/a.py", "src/b.py"]
    (repo / "src" / "a.py").write_text("A = 2\n")
    with pytest.raises(DirtyError, match=r"src/a.py has uncommitted changes"):
        open_repository(repo).check_editable()
    git(repo, "add", "src/a.py")
    with pytest.raises(DirtyError):
        open_repository(repo).check_editable()
    git(repo, "reset", "-q", "--hard")
    (repo / "src" / "b.py").unlink()
    with pytest.raises(DirtyError, match=r"src/b.py"):
        open_repository(repo).check_editable()


def test_other_changes_in_the_checkout_do_not_matter(repo: Path) -> None:
    (repo / "data" / "x.txt").write_text("changed\n")
    (repo / "new.txt").write_text("new\n")
    open_repository(repo).check_editable()


def test_a_missing_editable_file_is_refused(repo: Path) -> None:
    with pytest.raises(TaskError, match=r"'model.py' does not exist"):
        open_repository(repo, ("prog.py", "model.py")).check_editable()
    (repo / "model.py").write_text("")
    with pytest.raises(TaskError, match=r"'model.py' is not committed: commit it first"):
        open_repository(repo, ("prog.py", "model.py")).check_editable()


def test_globs_that_match_no_file_are_refused(repo: Path) -> None:
    with pytest.raises(TaskError, match="no file of the last commit matches"):
        Repository(repo, ("*.rs",), lambda path: False).check_editable()


def test_an_editable_link_is_refused(repo: Path) -> None:
    (repo / "prog.py").unlink()
    (repo / "prog.py").symlink_to("src/a.py")
    commit_all(repo)
    with pytest.raises(TaskError, match=r"prog.py is a link"):
        open_repository(repo).check_editable()


@pytest.fixture
def tree(repo: Path, tmp_path: Path) -> Path:
    return tmp_path / "tree"


Edit = Callable[[Path], object]


def collect_edit(repo: Path, tree: Path, change: Edit) -> dict[str, bytes | None]:
    """What is collected after the edit of a pristine tree."""
    repository = open_repository(repo)
    manifest = repository.trees.materialize(repository.head(), tree)
    change(tree)
    return repository.edits.collect(tree, manifest)


def refusal_of(repo: Path, tree: Path, change: Edit) -> str:
    with pytest.raises(Refused) as caught:
        collect_edit(repo, tree, change)
    return f"{caught.value.reason}: {caught.value}"


def test_collect_returns_changed_added_and_deleted_files(repo: Path, tree: Path) -> None:
    def change(tree: Path) -> None:
        edit(tree, VALUE=2.0)
        (tree / "src" / "b.py").unlink()
        (tree / "model.py").write_text("new\n")
        (tree / "noise.log").write_text("ignored by git\n")
        (tree / "__pycache__").mkdir()
        (tree / "__pycache__" / "x.pyc").write_bytes(b"\0")

    changes = collect_edit(repo, tree, change)
    program = PROGRAM.replace("VALUE = 10.0", "VALUE = 2.0").encode()
    assert changes == {"prog.py": program, "src/b.py": None, "model.py": b"new\n"}


def test_what_the_program_writes_is_no_change(repo: Path, tree: Path) -> None:
    """An agent may run the program in its folder, which leaves what the scorer reads there."""
    repository = open_repository(repo)
    manifest = repository.trees.materialize(repository.head(), tree)
    edit(tree, VALUE=2.0)
    (tree / "model.bin").write_bytes(b"weights")
    assert set(repository.edits.collect(tree, manifest, ["model.bin"])) == {"prog.py"}
    with pytest.raises(Refused, match=r"outside `editable`: model\.bin"):
        repository.edits.collect(tree, manifest)
    (tree / "data" / "x.txt").write_text("other\n")
    with pytest.raises(Refused, match=r"outside `editable`: data/x\.txt"):
        repository.edits.collect(tree, manifest, ["data/x.txt", "model.bin"])


def test_the_same_content_written_again_is_no_change(repo: Path, tree: Path) -> None:
    def change(tree: Path) -> None:
        (tree / "prog.py").write_text(PROGRAM)
        (tree / "data" / "x.txt").write_text("x\n")
        (tree / "prog.py").chmod(0o755)

    assert refusal_of(repo, tree, change).startswith("no change")


def test_a_change_that_keeps_the_size_is_seen(repo: Path, tree: Path) -> None:
    def change(tree: Path) -> None:
        (tree / "prog.py").write_text(PROGRAM.replace("10.0", "11.0"))

    assert list(collect_edit(repo, tree, change)) == ["prog.py"]


@pytest.mark.parametrize("what", ["edit", "delete", "add", "link", "fifo", "folder"])
def test_changed_frozen_files_are_refused(repo: Path, tree: Path, what: str) -> None:
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
    assert refusal_of(repo, tree, change) == f"frozen file: changed outside `editable`: {name}"


def test_a_deleted_named_file_is_refused(repo: Path, tree: Path) -> None:
    assert refusal_of(repo, tree, lambda tree: (tree / "prog.py").unlink()) == (
        "deleted: prog.py was deleted"
    )


def test_a_binary_file_is_refused(repo: Path, tree: Path) -> None:
    said = refusal_of(repo, tree, lambda tree: (tree / "prog.py").write_bytes(b"\x7fELF\0\0"))
    assert said == "binary: prog.py is no text any more"


def test_a_huge_file_is_refused(repo: Path, tree: Path) -> None:
    said = refusal_of(repo, tree, lambda tree: (tree / "prog.py").write_text("x" * 3_000_000))
    assert said == "too large: prog.py has 3000000 bytes"


@linux_only
@pytest.mark.parametrize(
    "name", [b"git~1.py", b"a\nb.py", b"\xff.py", b"a\\b.py", "\u202eb.py".encode()]
)
def test_a_name_that_git_or_a_terminal_takes_for_another_is_refused(
    repo: Path, tree: Path, name: bytes
) -> None:
    repository = Repository(repo, ["prog.py"], lambda _: True)
    manifest = repository.trees.materialize(repository.head(), tree)
    (tree / "src" / os.fsdecode(name)).write_text("x = 1\n")
    with pytest.raises(Refused) as caught:
        repository.edits.collect(tree, manifest)
    assert caught.value.reason == "name"
    assert str(caught.value).isprintable()


def test_a_file_in_the_place_of_a_folder_is_committed(repo: Path) -> None:
    repository = open_repository(repo)
    gone: dict[str, bytes | None] = {"src/a.py": None, "src/b.py": None}
    for changes in (gone, gone | {"src": b"a file\n"}):
        commit = repository.commit(repository.head(), changes, "less\n")
        names = git(repo, "ls-tree", "--name-only", commit).split()
        assert ("src" in names) == ("src" in changes)
        assert git(repo, "ls-tree", "-r", "--name-only", commit, "src/") == ""


@pytest.mark.parametrize("what", ["symbolic", "hard", "fifo", "folder above"])
def test_links_are_refused(repo: Path, tree: Path, tmp_path: Path, what: str) -> None:
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

    said = refusal_of(repo, tree, change)
    assert said.startswith("frozen file" if what == "folder above" else "link")
    assert "src" in said


@pytest.mark.parametrize(
    "line",
    [
        "rng = np.random.default_rng({})",
        "r = random.Random({})",
        "key = jax.random.PRNGKey({})",
        "split(x, random_state={})",
        "std::mt19937 gen({});",
    ],
)
def test_a_generator_is_seeded_without_the_word(line: str) -> None:
    assert SEEDING.search(line.format(0))
    assert not SEEDING.search(line.format("n"))
    assert not SEEDING.search("x = random.random(5)")


def test_a_change_of_only_a_seed_is_refused(tmp_path: Path) -> None:
    root = make_task(tmp_path / "repo", "SEED = 1\nLR = 1\n")

    def set_seed(tree: Path) -> None:
        (tree / "prog.py").write_text("SEED = 23\nLR = 1\n")

    def set_both(tree: Path) -> None:
        (tree / "prog.py").write_text("SEED = 23\nLR = 2\n")

    assert refusal_of(root, tmp_path / "one", set_seed).startswith("seed only")
    assert collect_edit(root, tmp_path / "two", set_both) == {"prog.py": b"SEED = 23\nLR = 2\n"}
