"""Any program. `--agent command:"python my_agent.py"`.

It runs in the worktree and finds the briefing on stdin, or where the command says `{briefing}` (the
text, as one word) or `{briefing_file}`. It edits the files. Its last line is the description, or is
a JSON object with `description` and, if it likes, `hypothesis`, `notes`, `tokens` and `usd`; or
with `cause`, one of `CAUSES`, and `message`. No other words of it mean that a service failed.

    [agent.command]
    env = ["MY_TOKEN"]    # variables it gets beside the standard set
    read = ["~/models"]   # what it needs beside its program and the files its command names
    write = ["~/.cache"]
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoresearch.agents.support.events import Cause, Ended, dollars, events, total
from autoresearch.agents.support.headless import SERVICE, Ask, Headless, Spec, settings
from autoresearch.errors import AgentError
from autoresearch.sandbox.agent_policy import Needs
from autoresearch.sandbox.installed import files_named
from autoresearch.task.values import shell_words

MARK = re.compile(r"\{(briefing|briefing_file)\}")
FIRST = re.compile(r"""\s*(?:\w+=[\w./:-]*\s+)*([\w./+@:-]+)(?=[\s|&;<>]|$)""")  # word of a line
QUOTED_MARK = re.compile(rf'"{MARK.pattern}"|{MARK.pattern}')
CAUSES = {str(one): one for one in SERVICE}  # "rate limited", "service down", "key refused", ...
PARAMETERS = {"briefing": '"$1"', "briefing_file": '"$2"'}


class Command(Headless):
    probes = False  # it may be made for the one task at hand


def create(argument: str | None, options: Mapping[str, object], seed: int) -> Command:
    chosen = settings("command", options, ("env", "read", "write"))
    try:
        [program, *_] = _words(argument or "", "", "")
    except ValueError as error:
        raise AgentError(f'command: expected command:"PROGRAM ARGUMENTS": {error}') from error

    if why := _missing(argument or ""):
        raise AgentError(f"command: {why}")

    def argv(ask: Ask) -> Sequence[str]:
        return _words(argument or "", ask.prompt, str(ask.prompt_file))

    needs = Needs(named=files_named(argument or ""))
    spec = Spec("command", program, "", argv, read_events, needs=needs, free=True)
    return Command(spec, chosen)


def _missing(command: str) -> str | None:
    """Why its program cannot be started, as far as that can be told here: a relative path is one of
    the worktree, and what a shell makes of a line is the shell's."""
    plain = MARK.sub(r"\1", command)
    shell = shell_words(plain) == ("/bin/sh", "-c", plain)
    first = FIRST.match(plain) if shell else None
    word = (first[1] if first else "") if shell else shell_words(plain)[0]
    if word.startswith("/"):
        if not Path(word).is_file():
            return f"there is no program {word}"
        return None if os.access(word, os.X_OK) else f"the program {word} is not executable"
    if not word or "/" in word or MARK.match(command.lstrip()) or shutil.which(word):
        return None
    if shell and _of_the_shell(word):
        return None
    return f"the program {word!r} is not installed, or not on the PATH"


def _of_the_shell(word: str) -> bool:
    """A builtin or a word of the language, such as `if`."""
    asked = ("/bin/sh", "-c", 'command -v "$1"', "sh", word)
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def _words(command: str, briefing: str, briefing_file: str) -> Sequence[str]:
    """What to execute. A shell gets the briefing as a parameter: nothing in it is ever executed."""
    plain = MARK.sub(r"\1", command)
    if shell_words(plain) == ("/bin/sh", "-c", plain):
        script = QUOTED_MARK.sub(lambda mark: PARAMETERS[mark[1] or mark[2]], command)
        return ("/bin/sh", "-c", script, "sh", briefing, briefing_file)
    values = {"briefing": briefing, "briefing_file": briefing_file}
    return [MARK.sub(lambda mark: values[mark[1]], word) for word in shlex.split(command)]


def read_events(lines: Sequence[str]) -> Ended:
    """The last line, as it is or as JSON."""
    if not lines:
        return Ended()
    said = next(iter(events(lines[-1:])), {})
    spent: dict[str, Any] = {
        "tokens": total(said.get("tokens")),
        "usd": dollars(said.get("usd")),
    }
    if isinstance(cause := said.get("cause"), str):
        message = str(said.get("message") or cause)
        return Ended(cause=CAUSES.get(cause, Cause.FAILED), message=message, **spent)
    if not isinstance(said.get("description"), str):
        return Ended(text=lines[-1])
    return Ended(
        text=said["description"],
        **spent,
        hypothesis=str(said.get("hypothesis") or ""),
        notes=str(said.get("notes") or ""),
    )
