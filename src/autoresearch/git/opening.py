"""Open a repository as git itself would: who owns it, and which formats it has.

libgit2 knows fewer formats than git, and fewer ways to say that a repository of another user is
trusted. Formats that it could read but does not know by name are allowed here. Git itself is asked
whether it trusts the owner. For any other format, the error names the command that helps.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pygit2
from pygit2.enums import Option

from autoresearch.errors import WorkspaceError

HARMLESS = ["partialclone", "relativeworktrees"]  # extensions that change nothing we read
PRIVATE = {  # git must neither fetch, nor ask, nor write, nor look elsewhere
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "LC_ALL": "C",
}
ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY")
GIT_TIMEOUT_S = 60

COPY_SHA256 = (
    "git init --object-format=sha1 ../copy && git fast-export --all | "
    "git -C ../copy fast-import && git -C ../copy checkout {branch}"
)


def open_repository(root: Path) -> pygit2.Repository:
    """Open the repository that holds the folder `root`. Raises `WorkspaceError`."""
    pygit2.option(Option.SET_EXTENSIONS, HARMLESS, len(HARMLESS))
    pygit2.option(Option.SET_OWNER_VALIDATION, False)  # `_check_owner` asks git instead
    path = pygit2.discover_repository(str(root))
    if path is None:
        link = next((p / ".git" for p in (root, *root.parents) if (p / ".git").is_file()), None)
        if link is not None:
            raise WorkspaceError(
                f"{link} names a repository that is gone ({link.read_text().strip()}): if it "
                "was moved, `git worktree repair` there mends the link"
            )
        raise WorkspaceError(
            f"{root} is not in a git repository: "
            "run `git init && git add -A && git commit -m start` there first"
        )
    _check_owner(root, Path(path))
    try:
        return pygit2.Repository(path)
    except (pygit2.GitError, ValueError) as error:
        raise WorkspaceError(_explain(root, str(error))) from error


def ask_git(folder: Path, *arguments: str) -> str | None:
    """What the program `git` prints in this folder; None if it fails or is not installed."""
    env = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    try:
        answer = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=env | PRIVATE,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _check_owner(root: Path, git_folder: Path) -> None:
    """Raise `WorkspaceError` for a repository of another user that git does not trust."""
    above = [folder / ".git" for folder in (root, *root.parents)]
    link = next((path for path in above if path.exists()), git_folder)
    owners = {path.stat().st_uid for path in (link.parent, link, git_folder)}
    if owners == {os.geteuid()} or ask_git(root, "rev-parse", "--git-dir") is not None:
        return
    raise WorkspaceError(
        f"{link.parent} belongs to another user (number {max(owners - {os.geteuid()})}), and git "
        "does not trust it. If you do, run "
        f"`git config --global --add safe.directory {link.parent}`"
    )


def _explain(root: Path, error: str) -> str:
    """Why libgit2 refuses a repository, and the command that helps."""
    if "sha256" in error:
        branch = ask_git(root, "symbolic-ref", "--short", "HEAD") or "BRANCH"
        return (
            f"{root}: this repository names its objects by SHA-256, which libgit2 cannot read yet. "
            f"Work in a copy that names them by SHA-1: `{COPY_SHA256.format(branch=branch)}`"
        )
    if "refstorage" in error:
        return (
            f"{root}: this repository stores its refs as a reftable, which libgit2 cannot read "
            "yet. Store them as files: `git refs migrate --ref-format=files` (git 2.46 or later)"
        )
    if "extension" in error:
        return (
            f"{root}: this repository uses a format that libgit2 cannot read ({error}). Work in a "
            "plain clone: `git clone . ../copy`"
        )
    return f"git: {error}"


def explain_missing_object(repo: pygit2.Repository, oid: str) -> str:
    """Why an object of a repository is not there, and the command that helps."""
    top = repo.workdir or repo.path
    if any(Path(repo.path, "objects", "pack").glob("*.promisor")):
        return (
            f"{top} is a partial clone, and an object of its last commit ({oid}) was not fetched "
            f"yet. Fetch them all: `git -C {top} archive --output=/dev/null HEAD`"
        )
    return f"the object {oid} is missing in {top}: `git -C {top} fsck` says more"
