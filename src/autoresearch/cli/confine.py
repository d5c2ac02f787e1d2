"""`autoresearch confine -- COMMAND`: start an agent's program in a session's working folder, under
the access rules of headless agents, and carry out the commands that it calls (`forwarded.py`)."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import autoresearch
from autoresearch import agents
from autoresearch.agents.support.headless import Headless
from autoresearch.cli.common import HARNESS_VARIABLE, find_session, load_task
from autoresearch.errors import AgentError, TaskError
from autoresearch.files import remove_tree
from autoresearch.git.repository import Repository
from autoresearch.interactive.command_server import CommandServer
from autoresearch.plugins import AGENTS
from autoresearch.protocols import Confinement
from autoresearch.runners.warden import processes
from autoresearch.runners.warden.launch import PR_SET_PDEATHSIG
from autoresearch.sandbox.agent_policy import make_grants
from autoresearch.sandbox.landlock import Ruleset
from autoresearch.sandbox.run_policy import why_unconfined
from autoresearch.sandbox.seccomp import LIBC
from autoresearch.store.paths import SessionPaths
from autoresearch.task.model import Task

TERMINAL = ("TERM", "COLORTERM", "TERM_PROGRAM", "NO_COLOR", "SHELL", "EDITOR")  # variables
PASSED_ON = (signal.SIGTERM, signal.SIGHUP)
OF_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT)  # they reach the program by themselves


def confine(options: argparse.Namespace) -> int:
    _, paths = find_session(options)
    task = load_task(options)
    if reason := why_unconfined(task, "agent"):
        raise AgentError(f"confine: {reason}, so nothing would confine {options.program[0]}")
    if paths.work.is_symlink():  # it would open the folder that it leads to
        raise TaskError(f"confine: {paths.work} is a link now: remove it")
    if not paths.work.is_dir():
        raise TaskError(f"confine: `autoresearch start --tag {paths.tag}` makes the folder first")
    with ExitStack() as stack:
        temporary = Path(tempfile.mkdtemp(prefix="autoresearch-"))
        stack.callback(remove_tree, temporary)
        server = CommandServer(temporary, paths)
        stack.callback(server.close)
        repository = Repository(task.root, task.editable, task.may_edit)
        env, confinement = _prepare(options, task, paths, repository, temporary)
        env[HARNESS_VARIABLE] = server.address
        stack.enter_context(_restored_terminal())
        pid = _fork_keeper(options.program, paths.work / repository.prefix, env, confinement)
        server.start()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _prepare(
    options: argparse.Namespace,
    task: Task,
    paths: SessionPaths,
    repository: Repository,
    temporary: Path,
) -> tuple[dict[str, str], Confinement]:
    """The program's variables, and its confinement."""
    agent = _find_agent(options, task)
    grants = make_grants(task, repository)
    grants = replace(grants, read=(*grants.read, *_list_harness()))
    env = agent.environment(grants)
    for name in TERMINAL:  # a headless agent has none
        env.pop(name, None)
    env |= {name: os.environ[name] for name in TERMINAL if name in os.environ}
    env |= {"TMPDIR": str(temporary), "GIT_CEILING_DIRECTORIES": str(paths.work.parent)}
    if shutil.which("autoresearch", path=env.get("PATH")) is None:
        folders = filter(None, (env.get("PATH"), str(Path(sys.executable).parent)))
        env["PATH"] = os.pathsep.join(folders)
    confinement = agent.confinement(options.program, paths.work, env, grants)
    assert confinement is not None  # or `why_unconfined` gives a reason
    return env, replace(confinement, write=(*confinement.write, str(temporary)))


def _find_agent(options: argparse.Namespace, task: Task) -> Headless:
    """The agent whose configuration the program may use: `--agent`, else the one of the program's
    name. A program that is no agent of ours is `[agent.command]`."""
    name = options.agent or Path(options.program[0]).name
    if options.agent or name in AGENTS.ours():
        agent = agents.load(name, None, task.agent.options.get(name, {}))
        if isinstance(agent, Headless):
            return agent
        if options.agent:
            raise AgentError(f"--agent {name}: it has no program of its own")
    settings = task.agent.options.get("command", {})
    agent = agents.load("command", shlex.join(options.program), settings)
    assert isinstance(agent, Headless)
    return agent


def _list_harness() -> list[str]:
    """The folder that this package is imported from, which the program reads to call us."""
    folder = Path(autoresearch.__file__).parents[1].resolve()
    return [] if Path.home().resolve().is_relative_to(folder) else [str(folder)]


@contextmanager
def _restored_terminal() -> Iterator[None]:
    """Restore the terminal's settings at the end. Input that nobody has read is dropped: a program
    can make a terminal answer, and the answer would be typed into the user's shell."""
    try:
        settings = termios.tcgetattr(sys.stdin.fileno())
    except (OSError, ValueError, AttributeError, termios.error):  # it is no terminal, or closed
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # or it stops us if we are in the background
        with suppress(termios.error):
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSAFLUSH, settings)


def _fork_keeper(
    argv: Sequence[str], cwd: Path, env: Mapping[str, str], confinement: Confinement
) -> int:
    """Start a process that starts the program, ends with its exit code, and kills whatever of the
    program is left then. It is a process of its own because such leftovers become its children: the
    commands that the program has called are ours. Returns its pid.

    The program is in this terminal, whose signals reach it without us. Others are passed on: they
    wait while there is no process yet to pass them on to.
    """
    for number in OF_THE_TERMINAL:
        signal.signal(number, lambda *_: None)  # a handler: an ignored signal would be inherited
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    try:
        ruleset = Ruleset(confinement)
    except OSError as error:
        raise AgentError(f"confine: {error}") from error
    with ruleset:
        pid = os.fork()
        if pid == 0:
            try:
                code = _keep(argv, cwd, env, ruleset.apply)
            except BaseException as error:
                print(f"autoresearch: confine: cannot start {argv[0]}: {error}", file=sys.stderr)
                code = AgentError.exit_code
            os._exit(code)
    _pass_signals_on(pid)
    return pid


def _keep(
    argv: Sequence[str], cwd: Path, env: Mapping[str, str], confine: Callable[[], None]
) -> int:
    """Start the program, and return its exit code when all its processes are dead."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGHUP, 0, 0, 0)
    processes.adopt_orphans()

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        confine()

    process = subprocess.Popen(argv, cwd=cwd, env=env, preexec_fn=prepare)
    _pass_signals_on(process.pid)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    status, _ = processes.kill_all(process.pid, None, {})
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _pass_signals_on(pid: int) -> None:
    def pass_on(number: int, _: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
