"""What coding agents do that they were not asked to: each costs nothing but its turn."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest
from support.sessions import Night, alive, git, run_session, side

from autoresearch import agents
from autoresearch.protocols import Proposal, Turn

GOOD = "sed 's/VALUE = 10.0/VALUE = 8.0/' prog.py > new; cat new > prog.py; rm new"
GIT = "git -c user.name=a -c user.email=a@localhost"

REFUSED = {
    "thousands of lines": ("seq 1 6000 | sed 's/^/X = /' >> prog.py", "too large"),
    "deletes everything": ("rm -rf -- *", "deleted"),
    "empties the file": ("echo > prog.py", "deleted"),
    "writes binary": ("head -c 100 /dev/zero > prog.py", "binary"),
    "links out of the tree": ("rm prog.py; ln -s /etc/hostname prog.py", "link"),
    "edits a frozen file": (f"{GOOD}; echo >> autoresearch.toml", "frozen file"),
    "edits and takes it back": (f"{GOOD}; {GIT} checkout -q prog.py", "no change"),
    "hides the edit in a stash": (f"{GOOD}; {GIT} stash -q", "no change"),
}
HARMLESS = {
    "commits": f"{GOOD}; {GIT} commit -qam mine",
    "switches branches": f"{GIT} checkout -qb other; {GOOD}; {GIT} commit -qam mine",
    "deletes .git": f"{GOOD}; rm -rf .git",
    "rewrites history": f"{GOOD}; {GIT} commit -q --amend -am mine; {GIT} gc -q --prune=now",
    "installs hooks": f"{GOOD}; echo exit 1 > .git/hooks/pre-commit; chmod +x .git/hooks/*",
    "pushes": f"{GOOD}; {GIT} remote add origin /nowhere; {GIT} push -q origin main",
    "leaves bytecode behind": f"{GOOD}; mkdir __pycache__; echo 1 > __pycache__/x.pyc",
    "takes the file's rights away": f"{GOOD}; chmod 0400 prog.py",
}


def turns_of(root: Path, script: str) -> Night:
    """One turn that runs `script`, then nothing more."""
    side(root).mkdir(exist_ok=True)
    options = {"write": [str(side(root))]}
    command = agents.load("command", f"sh -c {shlex.quote(script + '; echo did it')}", options)

    class Once:
        name, wants_briefing, left = "unruly", True, 1

        def propose(self, turn: Turn) -> Proposal | None:
            self.left -= 1
            return command.propose(turn) if self.left >= 0 else None  # type: ignore[return-value]

        def close(self) -> None:
            command.close()  # type: ignore[attr-defined]

    return run_session(root, Once())


def checkout(root: Path) -> tuple[str, str, str]:
    return git(root, "rev-parse", "HEAD"), git(root, "status", "--porcelain"), git(root, "branch")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_costs_a_turn_and_no_run(root: Path, name: str) -> None:
    script, reason = REFUSED[name]
    found = turns_of(root, script)
    assert found.verdicts == []
    assert {run.experiment for run in found.runs} == {0}
    assert any(f"came to nothing: {reason}" in line for line in found.lines), found.lines


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_no_harm_is_measured(root: Path, name: str) -> None:
    """Only the files count: the agent's repository is its own, and is thrown away."""
    head, _, _ = checkout(root)
    found = turns_of(root, HARMLESS[name])
    assert found.verdicts == [("keep", None)]
    assert checkout(root)[:2] == (head, "")
    assert git(root, "log", "-1", "--format=%an", found.branch()) == "autoresearch"
    assert "mine" not in git(root, "log", "--all", "--format=%s")


def test_processes_left_behind_are_gone_before_the_run(root: Path) -> None:
    pid = side(root) / "pid"
    code = "import os, time; os.fork() and os._exit(0); os.setsid(); os.fork() and os._exit(0); "
    code += f"open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    script = f"{GOOD}; {sys.executable} -c {shlex.quote(code)} & "
    script += f"while [ ! -s {pid} ]; do sleep 0.02; done"
    found = turns_of(root, script)
    assert found.verdicts == [("keep", None)]
    assert not alive(int(pid.read_text()))


def test_the_users_repository_is_out_of_its_reach_by_git(root: Path) -> None:
    """A `git` without a repository of its own must not walk up to the user's."""
    before = checkout(root)
    found = turns_of(root, f"rm -rf .git; {GIT} commit -qam mine; {GIT} checkout -qb mine; {GOOD}")
    assert found.verdicts == [("keep", None)]
    assert checkout(root)[:2] == before[:2]
    assert "mine" not in git(root, "branch")
    assert os.environ.get("GIT_DIR") is None
