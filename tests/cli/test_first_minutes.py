"""The first five minutes at the command line: help, mistyped words, colours, the progress of
`check`."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from support.commands import COMMAND, call
from support.screens import run_on_terminal
from support.sessions import (
    PROGRAM,
    TASK,
    ScriptedAgent,
    change,
    commit_all,
    make_task,
    run_session,
)

from autoresearch.cli.parser import GROUPS, make_parser
from autoresearch.commands.readiness import POWER, final_error_sd, recognised_gain_sd


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session with a keep, a discard and a crash."""
    root = make_task(tmp_path_factory.mktemp("night") / "task")
    run_session(root, ScriptedAgent(change(VALUE=5.0), change(VALUE=20.0), change(VALUE="1 / 0")))
    return root


# ---- help --------------------------------------------------------------------------------------


def test_without_arguments_the_help_is_shown() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout == make_parser().format_help()


def test_the_help_has_every_command_once_and_fits_a_terminal() -> None:
    text, parser = make_parser().format_help(), make_parser()
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(parser.commands)
    for name in parser.commands:
        assert len(re.findall(rf"^  {name} ", text, re.MULTILINE)) == 1
    assert max(map(len, text.splitlines())) <= 82


def test_examples_parse(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the commands are in docs/commands.md, whose blocks are parsed by test_docs."""
    for line in re.findall(r"^  autoresearch (.*?)  ", make_parser().format_help(), re.MULTILINE):
        make_parser().parse_args(line.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["chek"], "autoresearch: unknown command 'chek'; did you mean 'check'?"),
        (["stauts", "--json"], "unknown command 'stauts'; did you mean 'status'?"),
        (["xyzzy"], "autoresearch: unknown command 'xyzzy'\n"),
        (["run", "--experimets", "3"], "autoresearch run: unrecognized arguments: --experimets"),
        (["run", "--experimets", "3"], "; did you mean '--experiments'?"),
        (["log", "--zzz"], "autoresearch log: unrecognized arguments: --zzz\n"),
        (["show"], "autoresearch show: the following arguments are required: N"),
    ],
)
def test_a_mistyped_word(words: list[str], message: str, tmp_path: Path) -> None:
    done = call(tmp_path, *words)
    assert done.returncode == 2 and message in done.stderr
    assert "--help` lists what is accepted" in done.stderr


# ---- colours -----------------------------------------------------------------------------------


def test_verdicts_differ_in_colour_on_a_terminal(night: Path) -> None:
    _, log = run_on_terminal(night, "log")
    styles = {
        word: re.findall(rf"^(\x1b\[[\d;]*m)?\s*\d+ .* {word} ", log, re.MULTILINE)[-1]
        for word in ("keep", "discard", "crash")
    }
    assert len(set(styles.values())) == 3
    _, status = run_on_terminal(night, "status")
    assert re.search(r"gain\s+\x1b\[0m\x1b\[1;32m", status)


def test_no_colour_where_nobody_wants_it(night: Path) -> None:
    for command, variable in (("log", {"NO_COLOR": "1"}), ("status", {"TERM": "dumb"})):
        piped = call(night, command).stdout
        assert "\x1b" not in piped and run_on_terminal(night, command, **variable)[1] == piped


# ---- check -------------------------------------------------------------------------------------


def test_check_shows_progress_and_ends_with_four_lines(tmp_path: Path) -> None:
    slow = "import time\nprint('epoch 3 of 9', flush=True)\ntime.sleep(0.8)\n"
    build = 'build = "echo compiling; sleep 0.8"'
    toml = TASK.replace("[run]\n", f"[run]\n{build}\n")
    root = make_task(tmp_path / "task", slow + PROGRAM, toml)
    code, shown = run_on_terminal(root, "check", "--runs", 2)
    assert code == 0
    assert re.search(r"build, \d[\d.]* s: compiling", shown)
    assert re.search(r"run 1 of 2, \d[\d.]* s: epoch 3 of 9", shown)
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown)
    labels = [line.split()[0] for line in plain.rstrip().splitlines()[-4:]]
    assert labels == ["works", "night", "protected", "ready"], plain
    assert "enforced" not in plain


def test_check_tells_all_when_asked_and_what_to_mend_first(tmp_path: Path) -> None:
    root = make_task(tmp_path / "task", "print('score: 1')\n")
    done = call(root, "check", "--runs", 2, "--verbose")
    assert "enforced   the whole tree of processes" in done.stdout
    tail = done.stdout[done.stdout.index("mend first") :]
    assert "1. every seed gave the same number" in tail
    assert "2. the tuner found no constants in prog.py" in tail
    assert "ready" not in tail


def test_the_tuner_refuses_before_anything_is_measured(tmp_path: Path) -> None:
    root = make_task(tmp_path / "task", "print('score: 1')\n")
    done = call(root, "run", "--agent", "tuner")
    assert done.returncode == 5 and "the tuner found no constants" in done.stderr
    assert "baseline" not in done.stdout and not list(root.glob(".autoresearch/*/runs/*"))
    with_constant = make_task(tmp_path / "other", "LR = 0.1\nprint('score: 1')\n")
    (with_constant / "prog.py").write_text("LR = 0.1\nprint('score:', LR)\n")
    commit_all(with_constant)
    done = call(with_constant, "run", "--agent", "tuner", "--experiments", 1)
    assert done.returncode == 0, done.stderr


def test_a_recognised_gain_is_kept_four_times_of_five() -> None:
    """`strict` needs the largest gain, `fast` the smallest; more runs make the end more certain."""
    fast, default, strict = (recognised_gain_sd(name, 6) for name in ("fast", "default", "strict"))
    assert 1.5 < fast < default < strict < 4
    assert default == pytest.approx(3.1, abs=0.4) and POWER == 0.8
    assert final_error_sd(8) < final_error_sd(6) == pytest.approx(1.286, abs=0.01)


def test_init_says_that_the_task_file_exists(tmp_path: Path) -> None:
    root = make_task(tmp_path / "task")
    done = call(root, "init")
    assert done.returncode == 2
    assert "autoresearch.toml exists" in done.stderr and "--force" in done.stderr
