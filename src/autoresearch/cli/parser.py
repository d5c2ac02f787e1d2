"""The arguments of every command.

`options.command` names the function that carries the command out, as `module.function` of this
package: `main` imports that module only.
"""

from __future__ import annotations

import argparse
import re

from autoresearch import __version__
from autoresearch.plugins import TASKS


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="autoresearch",
        description="Research while you sleep: an agent has ideas and edits files; the harness "
        "runs, measures, decides and records.",
        epilog="Start with: autoresearch new tiny_gpt DIR, or in your own repository: "
        "autoresearch init, check, run. An agent in a terminal calls: start, try.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"autoresearch {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str, function: str, text: str, *, has_task: bool = True
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(command=function)
        if has_task:
            _add_task(command)
        command.add_argument("--json", action="store_true", help="print JSON for programs")
        return command

    command = add(
        "new", "make.new", "copy a ready task into a folder with its own repository", has_task=False
    )
    command.add_argument("name", metavar="NAME", help=f"one of: {', '.join(TASKS.ours())}")
    command.add_argument("folder", nargs="?", metavar="DIR", help="the new folder (./NAME)")

    command = add(
        "init", "make.init", "write autoresearch.toml and program.md for the code in a folder"
    )
    command.add_argument("--editable", action="append", metavar="FILE", help="what may be edited")
    command.add_argument("--command", dest="run_command", metavar="CMD", help="what a run executes")
    command.add_argument("--metric", metavar="NAME", help="the number the program prints")
    command.add_argument("--goal", choices=("minimize", "maximize"), help="which way is better")
    command.add_argument(
        "--agent-files", action="store_true", help="write AGENTS.md and a skill for coding agents"
    )

    command = add(
        "check", "session.check", "run the unchanged program a few times: noise, time, cost"
    )
    command.add_argument("--runs", type=int, default=4, metavar="N", help="how many runs (4)")
    command.add_argument("--slots", type=int, metavar="S", help="runs at a time")

    command = add(
        "run", "session.run", "do research until a limit is reached; on an existing tag, go on"
    )
    command.add_argument(
        "--agent",
        metavar="A",
        help="who proposes: NAME or NAME:ARGUMENT (tuner), or shares: tuner,claude:3",
    )
    command.add_argument("--fallback", metavar="A", help="who takes over when no agent can go on")
    _add_session_settings(command)
    command.add_argument("--slots", type=int, metavar="S", help="runs at a time")
    command.add_argument("--usd", type=float, metavar="X", help="dollars the agents may spend")
    command.add_argument("--tokens", type=int, metavar="N", help="tokens the agents may use")
    command.add_argument("--detach", action="store_true", help="go on without this terminal")
    command.add_argument("--plain", action="store_true", help="one line per event, no live view")

    command = add(
        "attach", "session.attach", "watch a session that runs; Ctrl-C stops watching only"
    )
    _add_tag(command, "the latest")
    command = add("stop", "session.stop", "end a session as Ctrl-C does: finish the open runs")
    _add_tag(command, "the latest")
    command.add_argument("--now", action="store_true", help="do not wait for the open runs")

    _add_tag(add("status", "look.status", "where a session stands"), "the latest")
    _add_tag(add("log", "look.log", "its experiments, one line each"), "the latest")
    command = add("report", "look.report", "write report.md, progress.png and results.tsv again")
    _add_tag(command, "the latest")
    command.add_argument(
        "--verify", type=int, metavar="N", help="first measure the result again, N runs each"
    )
    add("agents", "look.agents", "the available agents: installed, keys seen", has_task=False)
    command = add(
        "show",
        "look.show",
        "one experiment: its diff, runs, output, verdict and why",
        has_task=False,
    )
    command.add_argument(
        "number", type=int, metavar="N", help="of the experiment; 0 is the baseline"
    )
    _add_task(command)
    _add_tag(command, "the latest")

    _add_session_settings(
        add("start", "terminal.start", "make a folder to work in, for an agent in a terminal")
    )
    command = add("try", "terminal.try_change", "measure and judge what that folder holds now")
    command.add_argument("-m", "--message", metavar="TEXT", help="what was changed, and why")
    command.add_argument("--notes", default="", metavar="TEXT", help="for the agent's later self")
    _add_author(command)
    command.add_argument("--detach", action="store_true", help="do not wait for the verdict")
    command.add_argument("--resume", action="store_true", help="only finish one that was cut off")
    command = add("wait", "terminal.wait", "wait for the verdict of a try")
    _add_tag(command)
    command.add_argument("--timeout", type=float, metavar="S", help="at most so many seconds")
    _add_tag(
        add("brief", "look.brief", "what an agent is told: objective, what was tried, what is left")
    )
    command = add("note", "terminal.note", "keep a note for the agent's later self", has_task=False)
    command.add_argument("text", metavar="TEXT", help="one line, or a few")
    _add_task(command)
    _add_author(command)
    _add_tag(
        add(
            "mcp",
            "terminal.mcp",
            "the same commands as tools of the Model Context Protocol, on stdio",
        )
    )

    command = add("fsck", "look.fsck", "does everything agree with the ledger? 0 yes, 1 no")
    _add_tag(command, "all of them")
    command.add_argument(
        "--repair", action="store_true", help="restore what follows from the ledger"
    )
    return top


def _add_task(command: argparse.ArgumentParser) -> None:
    command.add_argument("task", nargs="?", default=".", metavar="TASK", help="its folder (here)")


def _add_tag(
    command: argparse.ArgumentParser, default: str = "this folder's, or the latest"
) -> None:
    command.add_argument("--tag", help=f"which session ({default})")


def _add_author(command: argparse.ArgumentParser) -> None:
    _add_tag(command)
    command.add_argument(
        "--as", dest="name", default="terminal", type=_name, metavar="NAME", help="who you are"
    )


def _name(text: str) -> str:
    """A word that the ledger, a commit's trailer and a table can hold."""
    if not re.fullmatch(r"[\w.:/-]{1,64}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!a}: accepted are letters, digits and _ . : / -")
    return text


def _add_session_settings(command: argparse.ArgumentParser) -> None:
    """The settings of the task file that a start may override."""
    command.add_argument("--tag", help="name of the session and its branch (today, like nov23)")
    command.add_argument("--experiments", type=int, metavar="N", help="in all, over all resumes")
    command.add_argument("--hours", type=float, metavar="H", help="of work, over all resumes")
    command.add_argument("--until", metavar="HH:MM", help="time of day")
    command.add_argument("--patience", type=int, metavar="N", help="experiments without a keep")
    command.add_argument("--target", type=float, metavar="X", help="value of the metric to reach")
    command.add_argument(
        "--level", choices=("fast", "default", "strict"), help="how sure a keep is"
    )
