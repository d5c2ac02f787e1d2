"""An agent in a terminal calls the harness: real command lines, real processes, a real client."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.commands import call, start_process
from support.sessions import (
    PROGRAM,
    TASK,
    Night,
    alive,
    commit_all,
    edit,
    git,
    make_task,
    night,
    task_of,
    wait_until,
)

from autoresearch.commands.fsck import audit
from autoresearch.commands.start import open_session
from autoresearch.git.trees import Manifest, PristineTrees
from autoresearch.interactive import instructions, trial
from autoresearch.interactive.folder import WorkFolder
from autoresearch.interactive.verdict import AGENT_VARIABLE
from autoresearch.store.ledger import Ledger
from autoresearch.store.lock import find_owner
from autoresearch.store.paths import SessionPaths, enclosing


def answer(where: Path, *words: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(call(where, *words, "--json").stdout)
    return facts


def wait_for_verdict(work: Path) -> dict[str, Any]:
    report = answer(work, "wait")
    session = enclosing(work)
    assert session is not None and find_owner(session) is None, "the next try need not wait"
    return report


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The task after `start`; not to be changed."""
    root = make_task(tmp_path_factory.mktemp("started") / "task")
    answer(root, "start", "--tag", "t", "--experiments", "20")
    return root


@pytest.fixture
def work(root: Path, started: Path) -> Path:
    """The folder of a started session: a task's folder may be moved with all that is in it."""
    shutil.rmtree(root)
    shutil.copytree(started, root, symlinks=True)
    return paths(root).work


def paths(root: Path) -> SessionPaths:
    return SessionPaths(root, "t")


def read(root: Path) -> Night:
    return night(root, "t")


def test_start_gives_a_folder_and_a_briefing(root: Path) -> None:
    begun = answer(root, "start", "--tag", "t")
    work = Path(begun["worktree"])
    assert work == root / ".autoresearch" / "t" / "work"
    assert (work / "prog.py").read_bytes() == (root / "prog.py").read_bytes()
    assert git(work, "log", "--format=%s") == "incumbent"
    assert git(work, "status", "--porcelain") == ""
    assert "lower the score" in begun["briefing"] and str(work) in begun["briefing"]
    assert read(root).experiments[0].status == "keep"


def test_start_again_leaves_an_edit_alone(root: Path, work: Path) -> None:
    edit(work, VALUE=8.0)
    runs = len(read(root).runs)
    answer(root, "start", "--tag", "t", "--experiments", "20")
    assert "VALUE = 8.0" in (work / "prog.py").read_text()
    assert len(read(root).runs) == runs, "the baseline is measured once"


def test_a_keep_moves_the_branch_and_the_folder(root: Path, work: Path) -> None:
    edit(work, VALUE=8.0)
    report = answer(work, "try", "-m", "a lower value", "--as", "me")
    assert (report["status"], report["experiment"], report["incumbent"]) == ("keep", 1, 1)
    assert report["metric"] == pytest.approx(8.0, abs=0.1)
    after = read(root)
    assert after.branch() == after.experiments[1].commit
    assert after.experiments[1].agent == "me"
    assert git(root, "show", f"{after.branch()}:prog.py") + "\n" == (work / "prog.py").read_text()
    assert [row[4] for row in after.results[1:]] == ["baseline", "a lower value"]
    assert git(work, "status", "--porcelain") == ""
    assert (root / "progress.png").exists(), "a keep is worth a new picture"


def test_a_discard_brings_the_incumbent_back(root: Path, work: Path) -> None:
    (work / "prog.py").chmod(0o600)
    (work / "__pycache__").mkdir()
    (work / "__pycache__" / "x.pyc").write_bytes(b"1")
    edit(work, VALUE=12.0)
    report = answer(work, "try", "-m", "a higher value")
    assert (report["status"], report["reason"], report["incumbent"]) == ("discard", "worse", 0)
    assert (work / "prog.py").read_bytes() == (root / "prog.py").read_bytes()


def test_a_shell_that_stands_in_the_folder_stays_there(work: Path) -> None:
    before = work.stat().st_ino
    edit(work, VALUE=12.0)
    assert answer(work, "try", "-m", "higher")["status"] == "discard"
    assert work.stat().st_ino == before


def test_a_task_below_the_top_of_its_repository(tmp_path: Path) -> None:
    top = tmp_path / "repo"
    inner = top / "inner"
    make_task(inner)
    shutil.rmtree(inner / ".git")
    (top / "other.txt").write_text("outside\n")
    git(top, "init", "-q", "--initial-branch=main")
    commit_all(top)
    work = Path(answer(inner, "start", "--tag", "t")["worktree"])
    assert work == inner / ".autoresearch" / "t" / "work" / "inner"
    edit(work, VALUE=8.0)
    assert answer(work, "try", "-m", "lower")["status"] == "keep"
    (work.parent / "other.txt").write_text("changed\n")
    edit(work, VALUE=7.0)
    assert answer(work, "try", "-m", "and the frozen one")["reason"] == "frozen file"


def test_a_crash_shows_the_end_of_the_output(work: Path) -> None:
    (work / "prog.py").write_text("print('x' * 999)\nraise ValueError('boom \\x1b[31m')\n")
    done = call(work, "try", "-m", "broken")
    assert done.returncode == 1
    assert "broken" not in done.stderr, "the verdict is printed once"
    assert "crash experiment 1 (exit code 1)" in done.stdout
    assert "    | ValueError: boom" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 300


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda work: None, "no change"),
        (lambda work: (work / "prog.py").unlink(), "deleted"),
        (lambda work: (work / "prog.py").write_bytes(b"\0"), "binary"),
        (lambda work: (work / "autoresearch.toml").write_text(""), "frozen file"),
        (lambda work: (work / "new.txt").write_text(""), "frozen file"),
    ],
)
def test_a_refused_try_costs_no_run_and_leaves_the_folder(
    root: Path, work: Path, harm: Any, reason: str
) -> None:
    runs = len(read(root).runs)
    harm(work)
    there = sorted(path.name for path in work.iterdir())
    done = call(work, "try", "-m", "x", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["status"], report["reason"]) == (1, "refused", reason)
    assert len(read(root).runs) == runs
    assert sorted(path.name for path in work.iterdir()) == there


def test_links_out_of_the_folder_are_removed_not_followed(root: Path, work: Path) -> None:
    outside = root.parent / "precious"
    outside.mkdir()
    (outside / "prog.py").write_text("mine")
    (work / "prog.py").unlink()
    (work / "prog.py").symlink_to(outside / "prog.py")
    assert answer(work, "try", "-m", "a link")["reason"] == "link"
    git(work, "checkout", "prog.py")
    (work / "__pycache__").symlink_to(outside)
    edit(work, VALUE=12.0)
    answer(work, "try", "-m", "worse, with a link beside it")
    assert (outside / "prog.py").read_text() == "mine"
    assert not (work / "__pycache__").is_symlink()


def test_an_agent_that_destroys_its_repository_loses_nothing(root: Path, work: Path) -> None:
    shutil.rmtree(work / ".git")
    edit(work, VALUE=12.0)
    assert answer(work, "try", "-m", "without .git")["status"] == "discard"
    assert git(work, "log", "--format=%s") == "incumbent"


def test_a_folder_that_is_deleted_is_made_again(root: Path, work: Path) -> None:
    edit(work, VALUE=12.0)
    shutil.rmtree(work)
    report = answer(root, "try", "--tag", "t", "-m", "what is not there any more")
    assert (report["status"], report["reason"]) == ("refused", "no change")
    edit(work, VALUE=12.0)
    assert answer(work, "try", "-m", "once more")["status"] == "discard"
    shutil.rmtree(work.parent)  # with what it was made from
    assert Path(answer(root, "start", "--tag", "t")["worktree"]) == work
    edit(work, VALUE=13.0)
    assert answer(work, "try", "-m", "and on")["status"] == "discard"
    assert {finding.what for finding in audit(task_of(root))} == {
        "run folder"
    }  # of the runs before


def test_a_message_is_needed(work: Path) -> None:
    done = call(work, "try")
    assert done.returncode == 2
    assert 'autoresearch try -m "..."' in done.stderr


def test_there_has_to_be_a_session(root: Path) -> None:
    done = call(root, "try", "-m", "x")
    assert done.returncode == 2
    assert "no session was started here" in done.stderr


def test_limits_of_the_start_hold_and_the_result_is_measured_again(root: Path) -> None:
    work = Path(answer(root, "start", "--tag", "t", "--experiments", "1")["worktree"])
    edit(work, VALUE=8.0)
    report = answer(work, "try", "-m", "lower")
    assert report["limit"] == "1 experiment done"
    assert len([run for run in read(root).runs if run.role == "verify"]) == 3
    edit(work, VALUE=12.0)
    assert answer(work, "try", "-m", "more") == {
        "status": "limit",
        "description": "more",
        "incumbent": 1,
        "score": report["score"],
        "limit": "1 experiment done",
    }
    assert "VALUE = 12.0" in (work / "prog.py").read_text(), "the edit is left alone"
    assert len(read(root).experiments) == 2
    done = call(root, "start", "--tag", "t", "--experiments", "2")
    assert done.returncode == 0
    assert answer(work, "try", "-m", "more")["status"] == "discard"


def test_detach_and_wait(root: Path, work: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    edit(work, VALUE=8.0, WAIT_A=str(gate))
    report = answer(work, "try", "--detach", "-m", "slow")
    assert (report["status"], report["experiment"]) == ("running", 1)
    assert answer(work, "wait", "--timeout", "0.3")["status"] == "running"
    busy = call(work, "try", "-m", "another meanwhile", "--detach")
    assert busy.returncode == 3
    gate.touch()
    report = wait_for_verdict(work)
    assert (report["status"], report["incumbent"]) == ("keep", 1)
    assert answer(work, "wait") == report, "asked again, it says the same"


def test_an_edit_made_meanwhile_is_left_and_moved_onto_the_new_incumbent(
    root: Path, work: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    edit(work, VALUE=8.0, WAIT_A=str(gate))
    answer(work, "try", "--detach", "-m", "slow")
    git(work, "checkout", "prog.py")
    edit(work, BONUS=1.0)
    gate.touch()
    report = wait_for_verdict(work)
    assert report["status"] == "keep" and report["edited"]
    assert "BONUS = 1.0" in (work / "prog.py").read_text()
    report = answer(work, "try", "-m", "a bonus")
    assert report["status"] == "keep"
    text = (work / "prog.py").read_text()
    assert "VALUE = 8.0" in text and "BONUS = 1.0" in text


def test_a_conflict_can_be_left(root: Path, work: Path, tmp_path: Path) -> None:
    """An edit on top of a change that was discarded meanwhile does not fit. Begun again from the
    folder's own commit, it does."""
    gate = tmp_path / "gate"
    edit(work, VALUE=12.0, WAIT_A=str(gate))
    answer(work, "try", "--detach", "-m", "slow")
    edit(work, VALUE=8.0)
    gate.touch()
    assert wait_for_verdict(work)["status"] == "discard"
    done = call(work, "try", "-m", "on top of it")
    assert done.returncode == 1 and "refused (conflict)" in done.stdout
    assert "onto the incumbent, experiment 0" in done.stdout and "way out" in done.stdout
    git(work, "checkout", ".")
    edit(work, VALUE=8.0)
    assert answer(work, "try", "-m", "begun again")["status"] == "keep"


@pytest.mark.parametrize("again", ["wait", "try"])
def test_a_killed_try_is_finished_by_the_next_call(
    root: Path, work: Path, tmp_path: Path, again: str
) -> None:
    gate = tmp_path / "gate"
    edit(work, VALUE=8.0, WAIT_A=str(gate))
    answer(work, "try", "--detach", "-m", "slow")
    wait_until(lambda: len(read(root).runs) > 3)
    pid = find_owner(paths(root))
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: find_owner(paths(root)) is None and not alive(pid))
    gate.touch()
    report = answer(work, "wait") if again == "wait" else answer(work, "try", "-m", "slow")
    assert (report["status"], report["experiment"], report["incumbent"]) == ("keep", 1, 1)
    assert len(read(root).experiments) == 2


def test_ctrl_c_leaves_the_try_to_be_finished(root: Path, work: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    edit(work, VALUE=12.0, WAIT_A=str(gate))
    process = start_process(work, "try", "-m", "slow", "--json")
    wait_until(lambda: len(read(root).runs) > 3)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "finishing the runs under way" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(out)["status"] == "interrupted"
    gate.touch()
    assert wait_for_verdict(work)["status"] == "discard"


def test_several_tries_at_once(root: Path, work: Path) -> None:
    """One is measured; the others are refused: the session is owned, or the change is a copy."""
    edit(work, VALUE=12.0)
    tries = [start_process(work, "try", "-m", f"{n}", "--json") for n in range(4)]
    reports = [json.loads(process.communicate(timeout=120)[0]) for process in tries]
    assert sum(report.get("status") == "discard" for report in reports) == 1
    others = [report for report in reports if "experiment" not in report]
    reasons = {report.get("error") or report.get("reason") for report in others}
    assert reasons <= {"BusyError", "no change", "duplicate"}
    assert len(read(root).experiments) == 2
    assert audit(task_of(root)) == []


def test_notes_come_back_in_the_briefing(root: Path, work: Path) -> None:
    assert call(work, "note", "deeper models diverge").stdout == "noted\n"
    assert "deeper models diverge" in answer(work, "brief")["briefing"]
    assert call(work, "note", " ").returncode == 2


def test_the_session_goes_on_with_another_agent(root: Path, work: Path) -> None:
    edit(work, VALUE=12.0)
    answer(work, "try", "-m", "higher")
    done = call(root, "run", "--tag", "t", "--agent", "tuner", "--experiments", "3", "--plain")
    assert done.returncode == 0, done.stderr
    assert [experiment.agent for experiment in read(root).experiments[1:]] == [
        "terminal",
        "tuner",
        "tuner",
    ]


def test_a_changed_task_is_noticed(root: Path, work: Path) -> None:
    toml = root / "autoresearch.toml"
    toml.write_text(toml.read_text().replace("prog.py", "prog.py", 1).replace('"90s"', '"80s"'))
    toml.write_text(toml.read_text().replace('name = "score"', 'name = "other"'))
    edit(work, VALUE=8.0)
    done = call(work, "try", "-m", "x")
    assert done.returncode == 2 and "[metric]" in done.stderr


def test_the_result_is_measured_again_when_asked_to(root: Path, work: Path) -> None:
    edit(work, VALUE=8.0)
    answer(work, "try", "-m", "lower")
    verification = answer(root, "report", "--verify", "3")["verification"]
    assert verification["new_runs"] == verification["old_runs"] == 3
    assert verification["gain"] == pytest.approx(2.0, abs=0.2)
    assert answer(root, "report", "--verify", "5")["verification"]["new_runs"] == 5
    assert len([run for run in read(root).runs if run.role == "verify"]) == 5
    assert call(root, "report", "--verify", "1").returncode == 2


# ---- edits and calls at the wrong time -----------------------------------------------------------


def test_a_change_discarded_meanwhile_is_not_in_the_next_try(
    root: Path, work: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    edit(work, SPREAD=9.0, VALUE=12.0, WAIT_A=str(gate))
    answer(work, "try", "--detach", "-m", "worse")
    edit(work, BONUS=1.0)
    gate.touch()
    assert wait_for_verdict(work)["status"] == "discard"
    assert answer(work, "try", "-m", "a bonus")["status"] == "keep"
    diff = git(root, "diff", "HEAD", read(root).branch(), "--", "prog.py")
    changed = [line for line in diff.splitlines() if line.startswith("+") and "prog" not in line]
    assert changed == ["+BONUS = 1.0"]


def test_an_edit_beside_a_change_kept_meanwhile_is_not_lost(work: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    program = (work / "prog.py").read_text().replace("VALUE = 10.0\n\nBONUS", "VALUE = 8.0\nBONUS")
    (work / "prog.py").write_text(program.replace('WAIT_A = ""', f"WAIT_A = {str(gate)!r}"))
    answer(work, "try", "--detach", "-m", "lower")
    edit(work, BONUS=1.0)
    gate.touch()
    assert wait_for_verdict(work)["status"] == "keep"
    assert answer(work, "try", "-m", "the line beside it")["status"] == "keep"


def test_from_the_work_folder_the_session_goes_on(root: Path, work: Path) -> None:
    begun = answer(work, "start")
    assert begun["tag"] == "t" and begun["worktree"] == str(work)
    assert not (work / ".autoresearch").exists()
    assert len(read(root).experiments) == 1


def test_start_again_keeps_the_limits_that_are_not_named(root: Path) -> None:
    answer(root, "start", "--tag", "t", "--hours", "8", "--experiments", "3")
    answer(root, "start", "--tag", "t")
    assert read(root).record.limits == {"hours": 8.0, "experiments": 3, "scratch": 50}
    answer(root, "start", "--experiments", "4")
    assert read(root).record.limits == {"hours": 8.0, "experiments": 4, "scratch": 50}


def test_until_is_the_same_morning_for_every_try(root: Path) -> None:
    work = Path(answer(root, "start", "--tag", "t", "--until", "07:00")["worktree"])
    ledger = Ledger(paths(root).ledger)
    row = ledger.session("t")
    ledger.update_session(row, limits={**row.limits, "deadline": time.time() - 60})
    ledger.close()
    edit(work, VALUE=12.0)
    assert answer(work, "try", "-m", "too late")["limit"] == "it is 07:00"
    answer(root, "start", "--tag", "t")
    assert read(root).record.limits["deadline"] < time.time()
    answer(root, "start", "--tag", "t", "--until", "07:00")
    assert read(root).record.limits["deadline"] > time.time()
    assert answer(work, "try", "-m", "in time")["status"] == "discard"


def test_a_file_in_the_folder_is_no_module_of_ours(root: Path, work: Path) -> None:
    for folder in (root, work):
        for name in ("json.py", "statistics.py", "signal.py"):
            (folder / name).write_text("raise SystemExit('SHADOWED')\n")
    git(root, "status")
    process = start_process(root, "run", "--tag", "u", "--agent", "tuner", "--experiments", "1")
    out, err = process.communicate(timeout=120)
    assert "SHADOWED" not in out + err and process.returncode == 0, err
    edit(work, VALUE=8.0)
    assert answer(work, "try", "--detach", "-m", "lower")["reason"] == "frozen file"


def test_a_link_in_the_place_of_the_folder_is_not_followed(root: Path, work: Path) -> None:
    precious = root.parent / "precious"
    precious.mkdir()
    (precious / "notes.txt").write_text("mine")
    work.rename(root.parent / "elsewhere")
    work.symlink_to(precious)
    edit(root.parent / "elsewhere", VALUE=8.0)
    for words in (("try", "-m", "x"), ("start", "--tag", "t")):
        done = call(root, *words)
        assert done.returncode == 2 and "is a link" in done.stderr
    assert [path.name for path in precious.iterdir()] == ["notes.txt"]


def test_after_a_run_the_folder_holds_the_incumbent(root: Path, work: Path) -> None:
    agent = "replay:" + str(root.parent / "patches")
    (root.parent / "patches").mkdir()
    changed = (root / "prog.py").read_text().replace("VALUE = 10.0", "VALUE = 8.0")
    (root.parent / "patches" / "1").mkdir()
    (root.parent / "patches" / "1" / "prog.py").write_text(changed)
    done = call(root, "run", "--tag", "t", "--agent", agent, "--experiments", "1", "--plain")
    assert done.returncode == 0, done.stdout + done.stderr
    assert read(root).verdicts == [("keep", None)]
    answer(root, "start", "--tag", "t", "--experiments", "9")
    assert (work / "prog.py").read_text() == changed


def test_two_detached_tries_at_once_report_their_own(
    root: Path, work: Path, tmp_path: Path
) -> None:
    edit(work, VALUE=8.0, WAIT_A=str(tmp_path / "gate"))
    names = ("first", "second")
    tries = [start_process(work, "try", "--detach", "--json", "-m", name) for name in names]
    reports = [json.loads(process.communicate(timeout=60)[0]) for process in tries]
    (tmp_path / "gate").touch()
    statuses = sorted(report.get("status", "-") for report in reports)
    assert statuses in (["-", "running"], ["refused", "running"])
    [running] = [report for report in reports if report.get("status") == "running"]
    assert running["description"] == names[reports.index(running)]
    answer(work, "wait")


def test_words_that_are_no_utf_8(root: Path, work: Path) -> None:
    odd = os.fsdecode(b"half \xff")
    assert start_process(work, "note", odd).communicate()[0] == "noted\n"
    assert "half \\udcff" in answer(work, "brief")["briefing"]
    edit(work, VALUE=12.0)
    for name in (odd, "", "a\tb", "x" * 65):
        assert call(work, "try", "-m", "x", "--as", name).returncode == 2
    assert answer(work, "try", "-m", odd, "--as", "codex:gpt-5")["status"] == "discard"


def test_measuring_again_keeps_why_it_stopped(root: Path) -> None:
    work = Path(answer(root, "start", "--tag", "t", "--experiments", "1")["worktree"])
    edit(work, VALUE=8.0)
    answer(work, "try", "-m", "lower")
    answer(root, "report", "--verify", "4")
    assert read(root).record.stopped == "1 experiment done"


# ---- MCP ---------------------------------------------------------------------------------------


def tools(root: Path, *calls: tuple[str, dict[str, Any]]) -> Sequence[Any]:
    """Call tools one after another, as a client would. Returns their answers."""
    from mcp import Client, StdioServerParameters, stdio_client

    async def talk() -> list[Any]:
        words = ["-m", "autoresearch", "mcp", "--tag", "t", str(root)]
        params = StdioServerParameters(command=sys.executable, args=words, env=dict(os.environ))
        async with Client(stdio_client(params)) as client:
            assert "nothing confines an agent" in (client.instructions or "")
            assert {tool.name for tool in (await client.list_tools()).tools} == {
                *("start", "try", "scratch", "wait", "brief", "show", "diff", "note")
            }
            return [await client.call_tool(name, given) for name, given in calls]

    return asyncio.run(talk())


def test_the_same_over_mcp(root: Path) -> None:
    [begun] = tools(root, ("start", {"experiments": 5}))
    work = Path(begun.structured_content["worktree"])
    edit(work, VALUE=8.0)
    tried, noted, briefed, refused, ran, shown, diff = tools(
        root,
        ("try", {"message": "-m looks like an option", "notes": "for later"}),
        ("note", {"text": "--odd"}),
        ("brief", {}),
        ("try", {"message": "nothing"}),
        ("scratch", {"message": "again"}),
        ("show", {"experiment": "1"}),
        ("diff", {"first": "0", "second": "s1"}),
    )
    assert tried.structured_content["status"] == "keep"
    assert read(root).experiments[1].description == "-m looks like an option"
    assert read(root).experiments[1].agent == "mcp"
    assert noted.structured_content == {"noted": "--odd"}
    assert "--odd" in briefed.structured_content["briefing"]
    assert refused.structured_content["reason"] == "no change"
    assert ran.structured_content["status"] == "scratch" and ran.structured_content["left"] == 49
    assert shown.structured_content["status"] == "keep"
    assert diff.structured_content["diff"] == shown.structured_content["diff"]


def test_an_error_over_mcp_is_an_error(root: Path) -> None:
    [waited] = tools(root, ("wait", {}))
    assert waited.is_error
    assert "no session was started here" in waited.content[0].text


# ---- the files for agents ----------------------------------------------------------------------


def test_agent_files(root: Path) -> None:
    done = call(root, "init", "--agent-files")
    assert done.returncode == 0, done.stderr
    assert (root / "AGENTS.md").read_text() == instructions.TEXT
    skill = (root / instructions.SKILL).read_text()
    assert skill.startswith("---\nname: autoresearch\n") and skill.endswith(instructions.TEXT)
    (root / "AGENTS.md").write_text("mine")
    done = call(root, "init", "--agent-files")
    assert (root / "AGENTS.md").read_text() == "mine"
    assert "left as it is" in done.stdout and instructions.SKILL in done.stdout


def test_agent_files_of_a_folder_without_a_task(tmp_path: Path) -> None:
    (tmp_path / "fit.py").write_text("SEED = 1\nprint('METRIC loss=1')\n")
    done = call(
        tmp_path,
        "init",
        "--agent-files",
        "--editable",
        "fit.py",
        "--command",
        "python fit.py",
        "--metric",
        "loss",
    )
    assert done.returncode == 0, done.stderr
    for name in ("autoresearch.toml", "program.md", "AGENTS.md", instructions.SKILL):
        assert (tmp_path / name).exists()


def test_the_commands_in_the_text_exist() -> None:
    import re
    import shlex

    from autoresearch.cli import main

    for line in re.findall(r"`(autoresearch [^`]*)`", instructions.TEXT):
        main.make_parser().parse_args(shlex.split(line)[1:])


@pytest.mark.parametrize("has_hidden", [True, False])
def test_output_of_the_scorer_is_not_shown_to_the_agent(
    tmp_path: Path, has_hidden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hold hidden data; `show`, for people, has it. Without hidden files it is shown. The
    same holds for numbers that the scorer prints beside the metric."""
    scorer = (
        "print('the answer is', open('hidden').read())\nif float(open('out').read()) < 6: 1 / 0\n"
    )
    root = make_task(
        tmp_path / "task",
        PROGRAM + "open('out', 'w').write(str(score))\n",
        TASK
        + '[score]\ncommand = "python -S -E score.py"\nreads = ["out"]\n'
        + ('hidden = ["hidden"]\n' if has_hidden else ""),
        {
            "score.py": scorer + "print('---\\nscore:', open('out').read(), '\\nclass_9: 0.42')\n",
            "hidden": "forty-two",
        },
    )
    work = Path(answer(root, "start", "--tag", "t", "--experiments", "5")["worktree"])
    edit(work, VALUE=5.0)
    done = call(work, "try", "-m", "lower")
    assert "score: exit code 1" in done.stdout
    assert ("forty-two" in done.stdout + done.stderr) == (not has_hidden)
    assert ("| score:" in done.stdout) == has_hidden  # what the run itself printed
    shown = call(root, "show", "1", "--tag", "t").stdout
    assert "score.log)" in shown and "ZeroDivisionError" in shown
    edit(work, VALUE=9.0)
    answer(work, "scratch", "-m", "nine")
    looks = [("show", "0"), ("show", "s1"), ("log", "--scratch")]
    assert all("class_9" in call(root, *words, "--json").stdout for words in looks)
    monkeypatch.setenv(AGENT_VARIABLE, "1")  # as for a confined agent, and over MCP
    for words in looks:
        told = call(root, *words, "--json").stdout
        assert '"metric"' in told
        assert [name in told for name in ("class_9", '"holdout_reason"')] == [not has_hidden] * 2
    shown = call(root, "show", "1", "--tag", "t").stdout
    assert ("forty-two" in shown) == (not has_hidden) and ("is withheld" in shown) == has_hidden


def test_an_edit_while_the_folder_is_brought_to_the_incumbent_is_an_edit(
    root: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is neither taken for the incumbent's file nor overwritten later."""
    restore = PristineTrees.restore

    def restored(self: PristineTrees, manifest: Manifest, folder: Path) -> None:
        restore(self, manifest, folder)
        edit(work, VALUE=12.0)  # by an agent that did not wait

    monkeypatch.setattr(PristineTrees, "restore", restored)
    with open_session(task_of(root), "t", lambda line: None, trial.Terminal("terminal")) as session:
        WorkFolder(session).restore()
        monkeypatch.undo()
        WorkFolder(session).update()
    assert "VALUE = 12.0" in (work / "prog.py").read_text()
    assert "VALUE = 10.0" in git(work, "show", "HEAD:prog.py")
    assert git(work, "status", "--porcelain") == "M prog.py"
    assert answer(work, "try", "-m", "that edit")["status"] == "discard"
