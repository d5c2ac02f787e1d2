"""Run a coding agent's command line program as an agent: one turn edits the worktree.

Each program has a `Spec`: its command line, and how its output is read. The result of a turn comes
from the events that the program prints. Its exit code counts only when it edited nothing.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from stat import S_ISREG

from autoresearch.agents.support.events import (
    LONGEST_WAIT_S,
    MESSAGE_LENGTH,
    Cause,
    TurnResult,
    cause_of,
    find_complaint,
    retry_after_s,
)
from autoresearch.agents.support.process import Output, Program, environment
from autoresearch.errors import AgentError, ServiceRefusal
from autoresearch.files import files_below
from autoresearch.protocols import EDIT_LIMIT_BYTES, Confinement, Failure, Grants, Proposal, Turn
from autoresearch.records import SERVICE_REASONS
from autoresearch.runners.local import LocalRunner
from autoresearch.sandbox.agent_policy import Needs, make_confinement
from autoresearch.sandbox.installed import files_named
from autoresearch.sandbox.secrets import find_leak, secrets_in
from autoresearch.task.tables import read_options
from autoresearch.task.values import Places, Text, Texts, Variables

DESCRIPTION_LENGTH = 200
NAMED_FILES = 20  # editable ones, in the prompt
ARGUMENT_BYTES = 120_000  # Linux takes a word of 131,072 bytes, its end included
FATAL = (Cause.KEY_REFUSED, Cause.UNKNOWN_MODEL, Cause.NO_CREDIT)  # further turns are pointless
SERVICE = (Cause.RATE_LIMITED, Cause.SERVICE_DOWN, *FATAL)
PAY = "Waiting does not help: add credit to the account, or take another agent or a fallback"
TASK = """
## Your turn

You are in the folder of the program. Edit {editable} there, now: one change, complete and ready to
run. Do not run, measure, commit or log it: that is done for you. Nobody will answer questions. End
with one line that says what you changed and why; name the constants, functions or classes.
"""


@dataclass(frozen=True, slots=True)
class Ask:
    """The values from which a command line is made."""

    model: str | None
    prompt: str  # as one word; of a very long prompt, the beginning and the end
    prompt_file: Path  # the whole prompt
    folder: Path  # for temporary files; removed after the turn
    editable: tuple[str, ...]
    usd_left: float | None = None  # the limit of the turn's cost; None without a limit

    def model_option(self, flag: str) -> tuple[str, ...]:
        """The words that choose the model; none for the program's own choice."""
        return (flag, self.model) if self.model else ()


@dataclass(frozen=True, slots=True)
class Settings:
    """`[agent.NAME]`. `env`, `read` and `write` add to those of `[agent]`."""

    env: Variables = ()
    read: Places = ()
    write: Places = ()


@dataclass(frozen=True, slots=True)
class ModelSettings(Settings):
    args: Texts = ()  # further words of the command line
    model: Text | None = None


@dataclass(frozen=True, slots=True)
class About:
    """How people install an agent and give it a key."""

    what: str = ""  # by default the first sentence of the module's docstring
    program: str | None = None  # on the PATH
    library: str | None = None  # an importable module. With neither, the agent is built in
    install: str = ""  # a command
    login: str = ""
    keys: tuple[str, ...] = ()  # variables passed on when set: keys, addresses, folders
    logins: tuple[str, ...] = ()  # files of a login; the first whose variables are set counts
    env: Mapping[str, str] = field(default_factory=dict)  # variables that the program needs


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec(About):
    """A coding agent's program. A call of the spec makes the agent; the argument is the model."""

    argv: Callable[[Ask], Sequence[str]]
    read_events: Callable[[Sequence[str]], TurnResult]
    report: str | None = None  # a file in the turn's folder that counts instead of stdout
    skip: str | None = None  # beginning of lines without information, of which there are many
    temporary: tuple[str, ...] = ()  # variables beside TMPDIR that name a temporary folder
    own: tuple[str, ...] = ()  # files that it reads and writes, see `Needs`
    read: tuple[str, ...] = ()  # files that it reads
    named: tuple[str, ...] = ()  # files of the user's command line
    reads_stderr: bool = True  # False: stderr may be any text and tells no cause

    def __call__(self, argument: str | None, options: Mapping[str, object], seed: int) -> Headless:
        name = self.program or ""
        settings = read_options(ModelSettings, name, options)
        if shutil.which(name) is None:
            raise AgentError(
                f"{name}: the program {name!r} is not installed, or not on the PATH. "
                f"Install it with: {self.install}"
            )
        return Headless(self, settings, argument or settings.model, settings.args)


class Headless:
    wants_briefing = True
    probes = True

    def __init__(
        self, spec: Spec, settings: Settings, model: str | None = None, args: Sequence[str] = ()
    ) -> None:
        self._spec = spec
        self._settings = settings
        self._model = model
        self._args = args
        self._runner: LocalRunner | None = None  # of all turns; started by the first
        # Two models of one agent can compete in a session: the ledger tells them apart.
        self.name = f"{spec.program}:{model}" if model else f"{spec.program}"

    def propose(self, turn: Turn) -> Proposal | Failure | None:
        spec = self._spec
        before = _file_states(turn.worktree)
        env = self.environment(turn.grants)
        secrets = secrets_in(env, self._variables(turn.grants))
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
                stdin=turn.briefing + _task(turn),
                report=spec.report,
                skip=spec.skip,
                confinement=self.confinement(argv, turn.worktree, env, turn.grants),
                secrets=secrets,
            )
        result = spec.read_events(output.lines)
        after = _file_states(turn.worktree)
        changed = [path for path in after if after[path] != before.get(path)] if secrets else []
        if name := find_leak(secrets, old, _contents(turn.worktree, changed)):
            message = f"the edit holds the value of {name}, which was passed on to the agent"
            return Failure("secret", message, 0.0, result.tokens, result.usd)
        return self._failure(output, result, after != before) or Proposal(
            description=first_line(result.text),
            hypothesis=result.hypothesis,
            notes=result.notes,
            tokens=result.tokens,
            usd=result.usd,
        )

    def environment(self, grants: Grants) -> dict[str, str]:
        """The variables that the program gets."""
        return environment(self._variables(grants)) | dict(self._spec.env)

    def _variables(self, grants: Grants) -> tuple[str, ...]:
        return (*self._spec.keys, *self._add_settings(grants).env)

    def confinement(
        self, argv: Sequence[str], worktree: Path, env: Mapping[str, str], grants: Grants
    ) -> Confinement | None:
        """See `make_confinement`."""
        return make_confinement(argv, worktree, env, self._needs(), self._add_settings(grants))

    def interrupt(self) -> None:
        """Kill the turn under way, from another thread; it ends as a `Failure`."""
        if (runner := self._runner) is not None:
            runner.interrupt()

    def close(self) -> None:
        """End the runner. A later turn starts another."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()

    def _add_settings(self, grants: Grants) -> Grants:
        """Add this agent's own settings to the task's grants for every agent."""
        own = self._settings
        return replace(
            grants,
            env=(*grants.env, *own.env),
            read=(*grants.read, *own.read),
            write=(*grants.write, *own.write),
        )

    def _needs(self) -> Needs:
        spec = self._spec
        named = (name for word in self._args for name in files_named(word))
        return Needs(spec.own, spec.read, (*spec.named, *named))

    def _argv(self, turn: Turn, program: Program) -> Sequence[str]:
        file = program.folder / "stdin"
        ask = Ask(
            model=self._model,
            prompt=_one_word(turn, file),
            prompt_file=file,
            folder=program.temporary,
            editable=turn.editable,
            usd_left=turn.usd_left,
        )
        return (*self._spec.argv(ask), *self._args)

    def _failure(self, output: Output, result: TurnResult, is_edited: bool) -> Failure | None:
        cause, message = _find_cause(output, result, is_edited, self._spec.reads_stderr)
        if cause is None:
            return None
        if cause in FATAL:
            hint = PAY if cause is Cause.NO_CREDIT else self._spec.login
            raise ServiceRefusal(
                f"{self.name}: {cause}: {message.rstrip('. ')}. {hint}".strip(),
                tokens=result.tokens,
                usd=result.usd,
            )
        wait_s = retry_after_s(message) if cause in SERVICE_REASONS else None
        if result.resets_at is not None:
            wait_s = result.resets_at - time.time()
        if wait_s is not None:  # at least a second, because 0 means that waiting does not help
            wait_s = min(max(1.0, wait_s), LONGEST_WAIT_S)
        if cause in ("interrupted", "no change"):
            wait_s = 0.0
        return Failure(str(cause), message, wait_s, result.tokens, result.usd)


def first_line(text: str) -> str:
    """Return the first line of a final text, without its markup."""
    # At the end, `>` is no markup: it closes the name of a secret, <SOME_TOKEN>.
    lines = (" ".join(line.split()).lstrip("#*->` ").rstrip("#*-` ") for line in text.splitlines())
    return next((line for line in lines if line), "")[:DESCRIPTION_LENGTH]


def _task(turn: Turn) -> str:
    names = turn.editable[:NAMED_FILES]
    others = ("another editable file",) if len(turn.editable) > len(names) else ()
    return TASK.format(editable=" or ".join((*names, *others)) or "the editable files")


def _one_word(turn: Turn, file: Path) -> str:
    """Return the prompt, cut to the length that one word of a command line may have."""
    task = _task(turn)
    whole = (turn.briefing + task).encode(errors="replace")
    if len(whole) <= ARGUMENT_BYTES:
        return turn.briefing + task
    end = f"\n\n(cut here; the whole is in {file})\n{task}"
    room = ARGUMENT_BYTES - len(end.encode(errors="replace"))
    return whole[: max(0, room)].decode(errors="ignore") + end


def _find_cause(
    output: Output, result: TurnResult, is_edited: bool, reads_stderr: bool
) -> tuple[str | None, str]:
    """Return why the turn failed, or None, and the message."""
    cause, message = result.cause, result.message[:MESSAGE_LENGTH]
    complaint = find_complaint(output.stderr)
    stderr_cause = cause_of(complaint) if reads_stderr else None
    if output.stopped == "timeout":
        hint = cause if cause in SERVICE else stderr_cause
        return hint or "timeout", f"did not end in time. {complaint or message}".strip()
    if output.stopped is not None:
        return output.stopped, f"was stopped: {output.stopped} {output.detail}".rstrip()
    if cause in (Cause.FAILED, Cause.UNKNOWN_EVENTS) and stderr_cause:
        return stderr_cause, complaint
    if cause is Cause.UNKNOWN_EVENTS and not output.lines:
        return Cause.FAILED, f"it said nothing; exit code {output.exit_code}: {complaint}"
    if cause is not None:
        return cause, message
    if output.exit_code != 0 and not is_edited:
        return stderr_cause or Cause.FAILED, f"exit code {output.exit_code}: {complaint}"
    if is_edited:
        return None, ""
    return "no change", result.text[:MESSAGE_LENGTH] or "said nothing"


def _contents(worktree: Path, paths: Iterable[str]) -> list[bytes]:
    """Return the paths themselves, and the contents of those files that an edit may change."""
    contents = []
    for path in paths:
        file = worktree / path
        contents.append(os.fsencode(path))
        stat = file.lstat()
        if S_ISREG(stat.st_mode) and stat.st_size <= EDIT_LIMIT_BYTES:
            with suppress(OSError):  # a file that cannot be read is refused later
                contents.append(file.read_bytes())
    return contents


def _file_states(worktree: Path) -> dict[str, tuple[int, int, int]]:
    """Return the inode, size and time of every file: an edit changes one of them."""
    state = {}
    for path, entry in files_below(worktree):
        stat = os.lstat(entry.path)
        state[path] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return state
