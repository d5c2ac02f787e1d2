"""Run a coding agent's command line program as an agent: one turn edits the worktree.

Programs differ in their `Spec`: the command line, and how their output is read. A turn's result is
taken from the events that a program prints. Its exit code counts only when it edited nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from stat import S_ISREG
from typing import Any

from autoresearch.agents.support.events import (
    LONGEST_WAIT_S,
    MESSAGE_LENGTH,
    Cause,
    Ended,
    cause_of,
    complaint,
    retry_after_s,
)
from autoresearch.agents.support.process import Output, Program, environment
from autoresearch.agents.support.secrets import leaked, secrets_in
from autoresearch.errors import AgentError, ServiceRefusal
from autoresearch.files import files_below
from autoresearch.git.edits import EDIT_LIMIT_BYTES
from autoresearch.protocols import SERVICE_REASONS, Agent, Failure, Grants, Proposal, Turn
from autoresearch.runners.local import LocalRunner
from autoresearch.sandbox.agent_policy import Needs, make_confinement
from autoresearch.sandbox.installed import files_named

DESCRIPTION_LENGTH = 200
NAMED_FILES = 20  # editable ones, in the prompt
ARGUMENT_BYTES = 120_000  # Linux takes a word of 131,072 bytes, its end included
FATAL = (Cause.KEY_REFUSED, Cause.UNKNOWN_MODEL, Cause.NO_CREDIT)  # going on is pointless
SERVICE = (Cause.RATE_LIMITED, Cause.SERVICE_DOWN, *FATAL)
PAY = "Waiting does not help: add credit to the account, or take another agent or a fallback"
MARKUP = re.compile(r"^[#*\->`\s]+|[#*\-`\s]+$")  # at the end `>` closes a mask: <SOME_TOKEN>
VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
TASK = """
## Your turn

You are in the folder of the program. Edit {editable} there, now: one change, complete and ready to
run. Do not run, measure, commit or log it: that is done for you. Nobody will answer questions. End
with one line that says what you changed and why; name the constants, functions or classes.
"""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a command line is made of."""

    model: str | None
    prompt: str  # as one word of it: of a very long one, the beginning and the end
    prompt_file: Path  # the whole, for who cannot read it from stdin
    folder: Path  # for files of its own; gone after the turn
    editable: tuple[str, ...]
    usd_left: float | None = None  # what the turn may spend; None without a limit


@dataclass(frozen=True, slots=True)
class Spec:
    name: str
    program: str
    install: str  # how to, for people
    argv: Callable[[Ask], Sequence[str]]
    read_events: Callable[[Sequence[str]], Ended]
    login: str = ""  # how to show it a key, for people
    keys: tuple[str, ...] = ()  # variables passed on when set: keys, and where its files are
    logins: tuple[str, ...] = ()  # the file of its login; the first whose variables are set counts
    env: Mapping[str, str] = field(default_factory=dict)  # variables it needs
    report: str | None = None  # a file in the turn's folder that counts instead of stdout
    skip: str | None = None  # how lines begin that say nothing new, and are many
    temporary: tuple[str, ...] = ()  # variables beside TMPDIR that name a folder for such files
    needs: Needs = field(default_factory=Needs)  # the files it uses beside the system's
    free: bool = False  # what its stderr says means nothing: it is any program's


@dataclass(frozen=True, slots=True)
class Settings:
    """`[agent.NAME]`. `env`, `read` and `write` add to those of `[agent]`."""

    env: tuple[str, ...] = ()  # names of further variables to pass on
    read: tuple[str, ...] = ()  # absolute paths the program needs beside its own, perhaps with ~
    write: tuple[str, ...] = ()
    args: tuple[str, ...] = ()  # further words of its command line
    model: str | None = None


def settings(name: str, options: Mapping[str, object], accepted: Sequence[str]) -> Settings:
    """Raises `AgentError` with the key, what was found and what is accepted."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        if key not in accepted:
            raise AgentError(f"{name}: unknown option {key!r}; accepted: {', '.join(accepted)}")
        words = [value] if key == "model" else value
        if not isinstance(words, list | tuple) or not all(isinstance(w, str) and w for w in words):
            wanted = "text" if key == "model" else "a list of texts"
            raise AgentError(f"{name}: option {key} = {value!r}; accepted: {wanted}")
        for word in words:
            if key == "env" and not VARIABLE.fullmatch(word):
                raise AgentError(f"{name}: option env: {word!r} is no name of a variable")
            if key in ("read", "write") and not word.startswith(("/", "~/")):
                raise AgentError(f"{name}: option {key}: {word!r} is not absolute")
        found[key] = words[0] if key == "model" else tuple(words)
    return Settings(**found)


@dataclass(frozen=True, slots=True)
class Creator:
    """The `create` of a named agent: its argument is the model."""

    spec: Spec

    def __call__(self, argument: str | None, options: Mapping[str, object], seed: int) -> Agent:
        spec = self.spec
        chosen = settings(spec.name, options, ("env", "read", "write", "args", "model"))
        if shutil.which(spec.program) is None:
            raise AgentError(
                f"{spec.name}: the program {spec.program!r} is not installed, or not on the PATH. "
                f"Install it with: {spec.install}"
            )
        return Headless(spec, chosen, argument)


class Headless:
    wants_briefing = True
    probes = True

    def __init__(self, spec: Spec, chosen: Settings, model: str | None = None) -> None:
        self._spec = spec
        self._settings = chosen
        self._model = model or chosen.model
        self._runner: LocalRunner | None = None  # of all turns; started by the first
        # Two models of one agent can compete in a session: the ledger tells them apart.
        self.name = f"{spec.name}:{self._model}" if self._model else spec.name

    def propose(self, turn: Turn) -> Proposal | Failure | None:
        spec = self._spec
        grants = self._granted(turn.grants)
        before = _state(turn.worktree)
        names = (*spec.keys, *grants.env)
        env = environment(names) | dict(spec.env)
        secrets = secrets_in(env, names)
        old = _contents(turn.worktree, before) if secrets else []
        if self._runner is None:
            self._runner = LocalRunner(1)
        folder = turn.worktree.with_name(f"{turn.worktree.name}-turn")
        with Program(folder, self._runner) as program:
            argv = self._argv(turn, program)
            env |= dict.fromkeys(spec.temporary, str(program.temporary))
            output = program.run(
                argv,
                cwd=turn.worktree,
                env=env,
                timeout_s=turn.timeout_s,
                stdin=_prompt(turn),
                report=spec.report,
                skip=spec.skip,
                confinement=make_confinement(argv, turn.worktree, env, self._needs(), grants),
                secrets=secrets,
            )
        ended = spec.read_events(output.lines)
        after = _state(turn.worktree)
        edited = after != before
        changed = [path for path in after if after[path] != before.get(path)] if secrets else []
        if name := leaked(secrets, old, _contents(turn.worktree, changed)):
            message = f"the edit holds the value of {name}, which was passed on to the agent"
            return Failure("secret", message, 0.0, ended.tokens, ended.usd)
        return self._failure(output, ended, edited) or Proposal(
            description=first_line(ended.text),
            hypothesis=ended.hypothesis,
            notes=ended.notes,
            tokens=ended.tokens,
            usd=ended.usd,
        )

    def interrupt(self) -> None:
        """Kill the turn under way, from another thread; it ends as a `Failure`."""
        if (runner := self._runner) is not None:
            runner.interrupt()

    def close(self) -> None:
        """End what watches the turns. A later turn starts it again."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()

    def _granted(self, grants: Grants) -> Grants:
        """What the task grants every agent, and what it grants this one."""
        mine = self._settings
        return replace(
            grants,
            env=(*grants.env, *mine.env),
            read=(*grants.read, *mine.read),
            write=(*grants.write, *mine.write),
        )

    def _needs(self) -> Needs:
        needs = self._spec.needs
        named = (name for word in self._settings.args for name in files_named(word))
        return replace(needs, named=(*needs.named, *named))

    def _argv(self, turn: Turn, program: Program) -> Sequence[str]:
        file = program.folder / "stdin"
        ask = Ask(
            model=self._model,
            prompt=_argument(turn, file),
            prompt_file=file,
            folder=program.temporary,
            editable=turn.editable,
            usd_left=turn.usd_left,
        )
        return (*self._spec.argv(ask), *self._settings.args)

    def _failure(self, output: Output, ended: Ended, edited: bool) -> Failure | None:
        cause, message = _blame(output, ended, edited, self._spec.free)
        if cause is None:
            return None
        if cause in FATAL:
            hint = PAY if cause is Cause.NO_CREDIT else self._spec.login
            raise ServiceRefusal(
                f"{self.name}: {cause}: {message.rstrip('. ')}. {hint}".strip(),
                tokens=ended.tokens,
                usd=ended.usd,
            )
        wait_s = retry_after_s(message) if cause in SERVICE_REASONS else None
        if ended.resets_at is not None:
            wait_s = ended.resets_at - time.time()
        if wait_s is not None:  # at least a second: 0 means that waiting mends nothing
            wait_s = min(max(1.0, wait_s), LONGEST_WAIT_S)
        if cause in ("interrupted", "no change"):
            wait_s = 0.0  # nothing that waiting would mend
        return Failure(str(cause), message, wait_s, ended.tokens, ended.usd)


def first_line(text: str) -> str:
    """The first line of a final text, without its markup."""
    lines = (" ".join(MARKUP.sub("", line).split()) for line in text.splitlines())
    return next((line for line in lines if line), "")[:DESCRIPTION_LENGTH]


def _prompt(turn: Turn) -> str:
    return turn.briefing + _task(turn)


def _task(turn: Turn) -> str:
    few = turn.editable[:NAMED_FILES]
    others = ("another editable file",) if len(turn.editable) > len(few) else ()
    return TASK.format(editable=" or ".join((*few, *others)) or "the editable files")


def _argument(turn: Turn, file: Path) -> str:
    """The prompt as one word of a command line, which must not be too long."""
    whole = _prompt(turn)
    if len(whole.encode(errors="replace")) <= ARGUMENT_BYTES:
        return whole
    task = f"\n\n(cut here; the whole is in {file})\n{_task(turn)}"
    room = ARGUMENT_BYTES - len(task.encode(errors="replace"))
    return whole.encode(errors="replace")[: max(0, room)].decode(errors="ignore") + task


def _blame(output: Output, ended: Ended, edited: bool, free: bool) -> tuple[str | None, str]:
    """(why the turn failed, or None; in which words). `free`: no cause is read from stderr."""
    cause, message = ended.cause, ended.message[:MESSAGE_LENGTH]
    said = complaint(output.stderr)
    named = None if free else cause_of(said)
    if output.stopped == "timeout":
        hint = cause if cause in SERVICE else named
        return hint or "timeout", f"did not end in time. {said or message}".strip()
    if output.stopped is not None:
        return output.stopped, f"was stopped: {output.stopped} {output.detail}".rstrip()
    if cause in (Cause.FAILED, Cause.UNKNOWN_EVENTS) and named:
        return named, said
    if cause is Cause.UNKNOWN_EVENTS and not output.lines:
        return Cause.FAILED, f"it said nothing; exit code {output.exit_code}: {said}"
    if cause is not None:
        return cause, message
    if output.exit_code != 0 and not edited:
        return named or Cause.FAILED, f"exit code {output.exit_code}: {said}"
    return (None, "") if edited else ("no change", ended.text[:MESSAGE_LENGTH] or "said nothing")


def _contents(worktree: Path, paths: Iterable[str]) -> list[bytes]:
    """The paths and contents of these files, as far as they are regular ones that an edit may be,
    and no part of a repository."""
    found = []
    for path in paths:
        file = worktree / path
        found.append(os.fsencode(path))
        stat = file.lstat()
        if S_ISREG(stat.st_mode) and stat.st_size <= EDIT_LIMIT_BYTES:
            with suppress(OSError):  # one that cannot be read is refused later
                found.append(file.read_bytes())
    return found


def _state(worktree: Path) -> dict[str, tuple[int, int, int]]:
    """What an edit changes: the inode, size and time of every file."""
    state = {}
    for path, entry in files_below(worktree):
        stat = os.lstat(entry.path)
        state[path] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return state
