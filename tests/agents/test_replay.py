from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from autoresearch import agents
from autoresearch.errors import AgentError
from autoresearch.protocols import Agent, Failure, Proposal, Turn
from autoresearch.records import Experiment, Metric

SOURCE = b"import torch\n\nDEPTH = 4\nLR = 0.1\n\nprint(DEPTH)\n"

PATCH = b"""\
From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001
From: A <a@example.org>
Date: Sun, 23 Nov 2025 10:00:00 +0000
Subject: [PATCH 2/7] A deeper model =?UTF-8?q?f=C3=BCr?=
 the night

Because why not.
---
 train.py | 2 +-
 1 file changed, 1 insertion(+), 1 deletion(-)

diff --git a/train.py b/train.py
--- a/train.py
+++ b/train.py
@@ -3,2 +3,2 @@
-DEPTH = 4
+DEPTH = 6
 LR = 0.1
--\x20
2.39.5
"""
BARE = PATCH[PATCH.index(b"diff --git") : PATCH.index(b"--\x20\n")]


@dataclass
class Past:
    done: list[Experiment] = field(default_factory=list)
    running: list[Experiment] = field(default_factory=list)
    metric: Metric = field(default_factory=lambda: Metric("val_bpb"))
    noise_sd: float | None = None

    def baseline(self) -> Experiment:
        raise AssertionError("a replay looks at notes only")

    def incumbent(self) -> Experiment:
        raise AssertionError("a replay looks at notes only")

    def incumbent_score(self) -> float | None:
        raise AssertionError("a replay looks at notes only")

    def editable_files(self, commit: str) -> dict[str, bytes]:
        raise AssertionError("a replay looks at notes only")

    def finished(self, after: int = 0) -> list[Experiment]:
        return self.done[after:]

    def in_flight(self) -> list[Experiment]:
        return self.running


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "train.py").write_bytes(SOURCE)
    return tree


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "changes"
    folder.mkdir()
    return folder


def ask(agent: Agent, tree: Path, past: Past | None = None) -> Proposal | Failure | None:
    return agent.propose(Turn(tree, ("train.py",), past or Past(), ""))


def described(said: Proposal | Failure | None) -> str:
    assert isinstance(said, Proposal), said
    return said.description


def test_patches_are_applied_in_the_order_of_their_names(folder: Path, tree: Path):
    (folder / "0002-b.patch").write_bytes(BARE.replace(b"DEPTH = 6", b"DEPTH = 8"))
    (folder / "0001-a.patch").write_bytes(PATCH)
    (folder / "notes.txt").write_text("not a patch")
    agent = agents.load("replay", str(folder))
    assert described(ask(agent, tree)) == "A deeper model für the night"
    assert (tree / "train.py").read_bytes() == SOURCE.replace(b"= 4", b"= 6")
    (tree / "train.py").write_bytes(SOURCE)
    assert described(ask(agent, tree)) == "0002-b"
    assert (tree / "train.py").read_bytes() == SOURCE.replace(b"= 4", b"= 8")
    assert ask(agent, tree) is None
    assert ask(agent, tree) is None


@pytest.mark.parametrize(
    ("head", "description"),
    [
        (b"", "x"),
        (b"Try depth six\n\nmore\n", "Try depth six"),
        (
            b"commit 01234567890\nAuthor: A <a@b>\nDate:   Sun\n\n    Try depth six\n\n",
            "Try depth six",
        ),
        (b"Subject: [PATCH] [rfc] Try depth six\n\n", "Try depth six"),
    ],
)
def test_the_description_is_the_first_line_said_about_it(
    folder: Path, tree: Path, head: bytes, description: str
):
    (folder / "x.diff").write_bytes(head + BARE)
    assert described(ask(agents.load("replay", str(folder)), tree)) == description


def test_a_patch_that_does_not_apply_is_a_failure_and_changes_nothing(folder: Path, tree: Path):
    (folder / "a.patch").write_bytes(BARE)
    (folder / "b.patch").write_bytes(b"no patch at all\n")
    other = SOURCE.replace(b"LR = 0.1", b"LR = 0.2")
    (tree / "train.py").write_bytes(other)
    agent = agents.load("replay", str(folder))
    for name in ("a.patch", "b.patch"):
        said = ask(agent, tree)
        assert isinstance(said, Failure)
        assert said.reason == "does not apply"
        assert name in said.message
    assert (tree / "train.py").read_bytes() == other
    assert ask(agent, tree) is None


def test_patches_apply_within_a_folder_of_a_repository(folder: Path, tree: Path):
    subprocess.run(["git", "init", "-q", str(tree.parent)], check=True)
    (folder / "a.patch").write_bytes(BARE)
    ask(agents.load("replay", str(folder)), tree)
    assert b"DEPTH = 6" in (tree / "train.py").read_bytes()


def test_patches_leave_line_ends_alone_whatever_the_user_configured(
    folder: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = tmp_path / "gitconfig"
    config.write_text("[core]\n\tautocrlf = true\n[apply]\n\twhitespace = fix\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    crlf = SOURCE.replace(b"\n", b"\r\n")
    (tree / "train.py").write_bytes(crlf)
    head, lines = BARE.split(b"@@\n", 1)
    (folder / "a.patch").write_bytes(head + b"@@\n" + lines.replace(b"\n", b"\r\n"))
    described(ask(agents.load("replay", str(folder)), tree))
    assert (tree / "train.py").read_bytes() == crlf.replace(b"= 4", b"= 6")


def test_a_patch_cannot_leave_the_worktree(folder: Path, tree: Path):
    (tree.parent / "train.py").write_bytes(SOURCE)
    (folder / "a.patch").write_bytes(BARE.replace(b"/train.py", b"/../train.py"))
    assert isinstance(ask(agents.load("replay", str(folder)), tree), Failure)
    assert (tree.parent / "train.py").read_bytes() == SOURCE


def test_snapshots_replace_whole_files(folder: Path, tree: Path):
    first, second = folder / "1", folder / "2"
    (first / "lib").mkdir(parents=True)
    (first / "train.py").write_bytes(b"a\r\n")
    (first / "lib" / "new.py").write_bytes(b"b")
    (first / "description.txt").write_text("Start over\nwith more words\n")
    second.mkdir()
    (second / "train.py").write_bytes(b"c")
    agent = agents.load("replay", str(folder))
    assert described(ask(agent, tree)) == "Start over"
    assert (tree / "train.py").read_bytes() == b"a\r\n"
    assert (tree / "lib" / "new.py").read_bytes() == b"b"
    assert not (tree / "description.txt").exists()
    assert described(ask(agent, tree)) == "2"


def test_the_changes_of_an_earlier_session(tree: Path):
    proposals = [("deeper", {"train.py": b"x"}), ("gone", {"train.py": None})]
    agent = agents.load("replay", "session:nov22", {"proposals": proposals})
    assert described(ask(agent, tree)) == "deeper"
    assert (tree / "train.py").read_bytes() == b"x"
    assert described(ask(agent, tree)) == "gone"
    assert not (tree / "train.py").exists()
    assert ask(agent, tree) is None


def test_a_resumed_session_skips_what_was_measured(folder: Path, tree: Path):
    for name in "abc":
        (folder / name).mkdir()
        (folder / name / "train.py").write_bytes(name.encode())
    first = agents.load("replay", str(folder))
    said = [ask(first, tree), ask(first, tree)]
    notes = [p.notes for p in said if isinstance(p, Proposal)]
    past = Past(
        done=[Experiment(1, 0, "c1", "replay", "a", notes=notes[0], order=1)],
        running=[Experiment(2, 0, "c2", "replay", "b", notes=notes[1])],
    )
    again = agents.load("replay", str(folder))
    assert described(ask(again, tree, past)) == "c"
    assert ask(again, tree, past) is None


def test_what_cannot_be_replayed_is_refused_at_once(folder: Path):
    with pytest.raises(AgentError, match=r"no \*\.patch"):
        agents.load("replay", str(folder))
    with pytest.raises(AgentError, match="is no folder"):
        agents.load("replay", str(folder / "missing"))
    for argument in (None, "session:nov22"):
        with pytest.raises(AgentError, match="replay:FOLDER or replay:session:TAG"):
            agents.load("replay", argument)
    with pytest.raises(AgentError, match="unknown option 'x'"):
        agents.load("replay", str(folder), {"x": 1})
    for path in ("../x", "/etc/passwd", ""):
        with pytest.raises(AgentError, match="outside the worktree"):
            agents.load("replay", None, {"proposals": [("x", {path: b""})]})
