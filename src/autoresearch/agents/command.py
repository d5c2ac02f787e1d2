"""Any program. `--agent command:"python my_agent.py"`.

It runs in the worktree and edits the files. It reads the briefing from stdin, or from its command
line: `{briefing}` is replaced by the text, as one word, and `{briefing_file}` by a path. Its last
line is the description, or a JSON object with `description` and perhaps `hypothesis`, `notes`,
`tokens` and `usd`, or one with `cause` (of `CAUSES`) and `message`. Other output never means that a
service failed.

    [agent.command]
    env = ["MY_TOKEN"]    # variables beside the standard set
    read = ["~/models"]   # paths beside the program and the files that the command names
    write = ["~/.cache"]
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from autoresearch.agents.support.events import Cause, TurnResult, events, sum_dollars, sum_tokens
from autoresearch.agents.support.headless import SERVICE, Ask, Headless, Settings, Spec
from autoresearch.errors import AgentError
from autoresearch.sandbox.installed import files_named
from autoresearch.task.tables import read_options
from autoresearch.task.values import shell_words

MARK = re.compile(r"\{(briefing|briefing_file)\}")
FIRST_WORD = re.compile(r"""\s*(?:\w+=[\w./:-]*\s+)*([\w./+@:-]+)(?=[\s|&;<>]|$)""")
QUOTED_MARK = re.compile(rf'"{MARK.pattern}"|{MARK.pattern}')
CAUSES = {
    str(cause): cause for cause in SERVICE
}  # "rate limited", "service down", "key refused", ...
PARAMETERS = {"briefing": '"$1"', "briefing_file": '"$2"'}


class Command(Headless):
    probes = False  # it may know only the task at hand


def create(argument: str | None, options: Mapping[str, object], seed: int) -> Command:
    settings = read_options(Settings, "command", options)
    command = argument or ""
    try:
        [_, *_] = _words(command, "", "")
    except ValueError as error:
        raise AgentError(f'command: expected command:"PROGRAM ARGUMENTS": {error}') from error
    if problem := _find_problem(command):
        raise AgentError(f"command: {problem}")

    def argv(ask: Ask) -> Sequence[str]:
        return _words(command, ask.prompt, str(ask.prompt_file))

    spec = Spec(
        program="command",
        argv=argv,
        read_events=read_events,
        named=files_named(command),
        reads_stderr=False,
    )
    return Command(spec, settings)


def _find_problem(command: str) -> str | None:
    """Return why the program cannot start, or None if it may: a relative path is one of the
    worktree, and only a shell can read some lines."""
    plain = MARK.sub(r"\1", command)
    words = shell_words(plain)
    needs_shell = words == ("/bin/sh", "-c", plain)
    match = FIRST_WORD.match(plain)
    word = (match[1] if match else "") if needs_shell else words[0]
    if word.startswith("/"):
        if not Path(word).is_file():
            return f"there is no program {word}"
        return None if os.access(word, os.X_OK) else f"the program {word} is not executable"
    if not word or "/" in word or MARK.match(command.lstrip()) or shutil.which(word):
        return None
    if needs_shell and _is_shell_word(word):
        return None
    return f"the program {word!r} is not installed, or not on the PATH"


def _is_shell_word(word: str) -> bool:
    """Whether it is a builtin of the shell or a word of its language, such as `if`."""
    argv = ("/bin/sh", "-c", 'command -v "$1"', "sh", word)
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def _words(command: str, briefing: str, briefing_file: str) -> Sequence[str]:
    """Return the words to execute. A shell gets the briefing as a parameter and never executes
    it."""
    plain = MARK.sub(r"\1", command)
    if shell_words(plain) == ("/bin/sh", "-c", plain):
        script = QUOTED_MARK.sub(lambda mark: PARAMETERS[mark[1] or mark[2]], command)
        return ("/bin/sh", "-c", script, "sh", briefing, briefing_file)
    values = {"briefing": briefing, "briefing_file": briefing_file}
    return [MARK.sub(lambda mark: values[mark[1]], word) for word in shlex.split(command)]


def read_events(lines: Sequence[str]) -> TurnResult:
    """The last line, as it is or as JSON."""
    if not lines:
        return TurnResult()
    report = next(iter(events(lines[-1:])), {})
    cause, description = report.get("cause"), report.get("description")
    result = TurnResult(tokens=sum_tokens(report.get("tokens")), usd=sum_dollars(report.get("usd")))
    if isinstance(cause, str):
        message = str(report.get("message") or cause)
        return replace(result, cause=CAUSES.get(cause, Cause.FAILED), message=message)
    if not isinstance(description, str):
        return TurnResult(lines[-1])
    hypothesis, notes = (str(report.get(key) or "") for key in ("hypothesis", "notes"))
    return replace(result, text=description, hypothesis=hypothesis, notes=notes)
