"""`--agent command:...`, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.sessions import alive, wait_until

from autoresearch import agents
from autoresearch.agents.support import process
from autoresearch.agents.support.headless import Headless
from autoresearch.errors import AgentError, ServiceRefusal
from autoresearch.protocols import Failure, Proposal, Turn

EDIT = "echo LR = 0.2 > train.py"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "worktree"
    tree.mkdir()
    (tree / "train.py").write_text("LR = 0.1\n")
    return tree


def turn_in(tree: Path, briefing: str = "", timeout_s: float = 60.0) -> Turn:
    return Turn(tree, ("train.py",), None, briefing, timeout_s)  # type: ignore[arg-type]


def ask(tree: Path, command: str, options: dict[str, object] | None = None, **turn: Any) -> Any:
    agent = agents.load("command", command, options or {})
    assert isinstance(agent, Headless)
    with closing(agent):
        answer = agent.propose(turn_in(tree, **turn))
    assert [path.name for path in tree.parent.iterdir()] == ["worktree"]  # nothing is left
    return answer


def test_the_last_line_is_the_description(tree: Path) -> None:
    answer = ask(tree, f"{EDIT}; echo thinking; echo '- a **larger** step'; echo")
    assert answer == Proposal("a **larger** step")
    assert (tree / "train.py").read_text() == "LR = 0.2\n"


def test_a_json_line_says_more(tree: Path) -> None:
    line = '{"description": "d", "hypothesis": "h", "notes": "n", "tokens": 7, "usd": 0.5}'
    assert ask(tree, f"{EDIT}; echo '{line}'") == Proposal("d", "h", "n", 7, 0.5)
    assert ask(tree, f"{EDIT}; echo '{{\"metric\": 1}}'") == Proposal('{"metric": 1}')


def test_nothing_is_no_change(tree: Path) -> None:
    answer = ask(tree, "echo I am done")
    assert answer == Failure("no change", "I am done", retry_after_s=0.0)


def test_an_exit_code_counts_only_without_an_edit(tree: Path) -> None:
    answer = ask(tree, "echo broken >&2; exit 3")
    assert answer == Failure("agent failed", "exit code 3: broken")
    assert ask(tree, f"{EDIT}; echo done; exit 3") == Proposal("done")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("no-such-program a b", "the program 'no-such-program' is not installed"),
        ("no-such-program | cat", "the program 'no-such-program' is not installed"),
        ("A=1 no-such-program", "the program 'no-such-program' is not installed"),
        ("/no/such/program a", "there is no program /no/such/program"),
        ("/no/such/program | cat", "there is no program /no/such/program"),
    ],
)
def test_a_program_that_is_not_there_is_refused_at_the_start(command: str, said: str) -> None:
    with pytest.raises(AgentError, match=f"command: {said}"):
        agents.load("command", command)


def test_a_program_without_the_right_to_run_is_refused_at_the_start(tree: Path) -> None:
    with pytest.raises(AgentError, match=r"the program .*train.py is not executable"):
        agents.load("command", f"{tree / 'train.py'} --fast")


@pytest.mark.parametrize(
    "command",
    [
        *("sh a.sh", "./mine.sh", "./mine.sh | cat", "if true; then true; fi", "cd . && true"),
        *("f() { true; }; f", "$HOME/x", "(true)", 'A="b c" no-such-program', "{briefing_file}"),
        *("/bin/sh -c true", "true && exec true", "! true", "python3 -c 'print(1)'"),
    ],
)
def test_what_can_be_there_is_not_refused(command: str) -> None:
    agents.load("command", command)


def test_a_program_that_is_not_there_later(tree: Path) -> None:
    answer = ask(tree, "true; exec no-such-program")
    assert answer.reason == "agent failed" and "no-such-program" in answer.message


def test_the_briefing_is_on_stdin_or_in_the_command(tree: Path) -> None:
    briefing = "the `touch bad` $(touch bad) \"'; touch bad #{briefing_file} objective"
    read = "import sys; open('train.py', 'w').write(sys.argv[1])"
    for command in (
        "cp /dev/stdin train.py",
        'printf "%s" "{briefing}" > train.py',
        "printf %s {briefing} > train.py",
        "cp {briefing_file} train.py",
        f'{sys.executable} -ISc "{read}" {{briefing}}',
    ):
        ask(tree, command, briefing=briefing)
        told = (tree / "train.py").read_text()
        assert " ".join(briefing.split()) in " ".join(told.split()), command
        assert "Edit train.py" in told
    assert [path.name for path in tree.iterdir()] == ["train.py"]


def test_a_briefing_too_long_for_a_command_line_is_cut_there_and_whole_in_the_file(
    tree: Path,
) -> None:
    briefing = "the objective\n" + "é line of source\n" * 20_000
    ask(tree, "printf %s {briefing} > train.py", briefing=briefing)
    told = (tree / "train.py").read_text()
    assert told.startswith("the objective\n") and len(told.encode()) <= 120_000
    assert "(cut here; the whole is in " in told and told.rstrip().endswith("functions or classes.")
    ask(tree, "cp {briefing_file} train.py", briefing=briefing)
    assert (tree / "train.py").read_text().startswith(briefing)


def test_of_many_editable_files_a_few_are_named(tree: Path) -> None:
    turn = Turn(tree, tuple(f"file{n}.py" for n in range(5000)), None, "")  # type: ignore[arg-type]
    agent = agents.load("command", "cp /dev/stdin train.py", {})
    with closing(agent):  # type: ignore[type-var]
        agent.propose(turn)
    told = (tree / "train.py").read_text()
    assert "file0.py or file1.py" in told and "or another editable file there" in told
    assert len(told) < 2000


def test_only_the_standard_set_and_what_was_named_is_passed_on(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "very-secret-1")
    monkeypatch.setenv("UNNAMED_KEY", "very-secret-2")
    ask(tree, "env > train.py", {"env": ["SOME_TOKEN"]})
    seen = dict(line.split("=", 1) for line in (tree / "train.py").read_text().splitlines())
    assert seen["SOME_TOKEN"] == "very-secret-1" and seen["PATH"]
    assert "UNNAMED_KEY" not in seen and not [name for name in seen if name[:6] == "PYTEST"]


def test_secrets_are_taken_out_of_what_it_says(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "very-secret-1")
    options: dict[str, object] = {"env": ["SOME_TOKEN"]}
    assert ask(tree, f"{EDIT}; echo $SOME_TOKEN", options) == Proposal("<SOME_TOKEN>")
    answer = ask(tree, "echo key $SOME_TOKEN >&2; exit 1", options)
    assert answer.message == "exit code 1: key <SOME_TOKEN>"


PASSED_ON = {
    "MY_PROVIDER": "sk-0123456789",  # no name of a secret: it was passed on
    "HTTPS_PROXY": "http://me:proxy-password@127.0.0.1:1",
    "NAMED_DIR": "/tmp/no/such/dir",
    "NAMED_URL": "http://127.0.0.1:8000/v1",
    "NAMED_LIST": "0,1,2,3,4,5,6,7",
    "SHORT_KEY": "1234567",
}


@pytest.fixture
def passed_on(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    for name, value in PASSED_ON.items():
        monkeypatch.setenv(name, value)
    return {"env": list(PASSED_ON)}


def test_what_was_passed_on_is_taken_out_of_what_it_says(
    tree: Path, passed_on: dict[str, object]
) -> None:
    said = " ".join(f"${name}" for name in PASSED_ON)
    answer = ask(tree, f'{EDIT}; echo "{said}"', passed_on)
    plain = [PASSED_ON[name] for name in ("NAMED_DIR", "NAMED_URL", "NAMED_LIST", "SHORT_KEY")]
    assert answer.description == " ".join(["<MY_PROVIDER>", "<HTTPS_PROXY>", *plain])


@pytest.mark.parametrize(
    ("edit", "name"),
    [
        ("echo KEY = $MY_PROVIDER > train.py", "MY_PROVIDER"),
        ("echo proxy-password >> train.py", "HTTPS_PROXY"),
        ("echo $MY_PROVIDER > new.py", "MY_PROVIDER"),
        ("echo 1 > $MY_PROVIDER", "MY_PROVIDER"),
    ],
)
def test_an_edit_that_holds_a_secret_is_refused(
    tree: Path, passed_on: dict[str, object], edit: str, name: str
) -> None:
    answer = ask(tree, f"{edit}; echo done", passed_on)
    message = f"the edit holds the value of {name}, which was passed on to the agent"
    assert answer == Failure("secret", message, 0.0)


def test_what_is_no_secret_or_was_there_may_be_in_an_edit(
    tree: Path, passed_on: dict[str, object]
) -> None:
    (tree / "train.py").write_text(f"KEY = '{PASSED_ON['MY_PROVIDER']}'\n")
    words = "echo $NAMED_DIR $NAMED_URL $NAMED_LIST $SHORT_KEY $HOME >> train.py; echo done"
    assert ask(tree, words, passed_on) == Proposal("done")


@pytest.mark.parametrize(
    "said",
    ["expected 401 columns", "loaded 429 rows", "HTTP 401 Unauthorized", "503 Service Unavailable"],
)
def test_its_free_text_is_no_word_of_a_service(tree: Path, said: str) -> None:
    answer = ask(tree, f"echo {said} >&2; exit 1")
    assert answer == Failure("agent failed", f"exit code 1: {said}")


def test_a_json_line_says_what_failed(tree: Path) -> None:
    line = '{"cause": "%s", "message": "try again in 1m30s", "tokens": 7, "usd": 0.5}'
    answer = ask(tree, f"echo '{line % 'rate limited'}'; exit 1")
    assert answer == Failure("rate limited", "try again in 1m30s", 90.0, 7, 0.5)
    assert ask(tree, f"echo '{line % 'service down'}'; exit 1").retry_after_s == 90.0
    assert ask(tree, f"echo '{line % 'no idea'}'").reason == "agent failed"
    for cause, hint in (("key refused", ""), ("no credit", "Waiting does not help: add credit")):
        with pytest.raises(ServiceRefusal, match=f"command: {cause}: try again.*{hint}") as raised:
            ask(tree, f"echo '{line % cause}'")
        assert (raised.value.tokens, raised.value.usd) == (7, 0.5)


LEAVE_BEHIND = "setsid sleep 600 & echo $! > pid"


def test_a_hang_ends_at_the_deadline_with_all_it_started(tree: Path) -> None:
    began = time.monotonic()
    answer = ask(tree, f"{LEAVE_BEHIND}; {EDIT}; sleep 600", timeout_s=5.0)
    assert answer.reason == "timeout"
    assert time.monotonic() - began < 300
    assert not alive(int((tree / "pid").read_text()))


def test_helpers_left_behind_die_at_a_normal_end(tree: Path) -> None:
    assert ask(tree, f"{LEAVE_BEHIND}; {EDIT}; echo done") == Proposal("done")
    assert not alive(int((tree / "pid").read_text()))


def test_a_flood_of_output_is_stopped(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "STDOUT_BYTES", 1_000_000)
    assert ask(tree, "yes").reason == "log too large"


def test_a_flood_of_errors_keeps_its_end(tree: Path) -> None:
    answer = ask(tree, "yes | head -c 3000000 >&2; echo the end >&2; exit 1")
    assert answer.message.endswith("the end") and len(answer.message) < 700


def test_of_very_much_output_the_last_lines_are_read(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "KEPT_BYTES", 10_000)
    monkeypatch.setattr(process, "LINE_BYTES", 1_000)
    answer = ask(tree, f"{EDIT}; yes | head -c 100000 | tr -d '\\n'; yes | head -c 9998; echo end")
    assert answer == Proposal("end")


def test_an_interrupt_ends_the_turn(tree: Path) -> None:
    agent = agents.load("command", "touch begun; sleep 600")
    assert isinstance(agent, Headless)
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(agent.propose(turn_in(tree))))
    thread.start()
    wait_until((tree / "begun").exists, 60)
    agent.interrupt()
    thread.join(60)
    agent.close()
    assert answers == [Failure("interrupted", "was stopped: interrupted", retry_after_s=0.0)]


def test_it_dies_with_us(tree: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom autoresearch import agents\n"
        "from autoresearch.protocols import Turn\n"
        "agents.load('command', 'echo $$ > pid; sleep 600')"
        ".propose(Turn(Path(sys.argv[1]), (), None, ''))\n"
    )
    ours = subprocess.Popen([sys.executable, "-c", script, str(tree)])
    pid = tree / "pid"
    wait_until(lambda: pid.exists() and pid.read_text().strip(), 60)
    os.kill(ours.pid, signal.SIGKILL)
    ours.wait()
    wait_until(lambda: not alive(int(pid.read_text())), 60)


@pytest.mark.parametrize(
    ("argument", "options", "problem"),
    [
        (None, {}, "expected command:"),
        ("'", {}, "expected command:.*quot"),
        ("true", {"shell": "zsh"}, "unknown option 'shell'; accepted: env, read, write"),
        ("true", {"env": "HOME"}, r'option env: found "HOME" \(not a list\); accepted: a list'),
        ("true", {"env": ["A=1"]}, r'option env: found \["A=1"\]; accepted: .* variables'),
        (
            "true",
            {"read": ["data"]},
            r'read: found \["data"\] \("data": not absolute\); accepted: a list of abs',
        ),
    ],
)
def test_what_is_refused(argument: str | None, options: dict[str, object], problem: str) -> None:
    with pytest.raises(AgentError, match=problem):
        agents.load("command", argument, options)
