"""The arguments of every command.

`options.command` names the function that carries the command out, as `module.function` of this
package: `main` imports that module only.
"""

from __future__ import annotations

import argparse
import re

from autoresearch import __version__
from autoresearch.plugins import TASKS

LATEST, HERE = "the latest", "this folder's, or the latest"


def make_parser() -> argparse.ArgumentParser:
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
        name: str, function: str, text: str, *, has_task: bool = True, tag: str = ""
    ) -> argparse.ArgumentParser:
        """Add a command; `tag` is the session it is about without `--tag`."""
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.set_defaults(command=function)
        if has_task:
            _add_task(command)
        command.add_argument("--json", action="store_true", help="print JSON for programs")
        if tag:
            command.add_argument("--tag", help=f"which session ({tag})")
        return command

    text = "copy a ready task into a folder with its own repository"
    command = add("new", "make.new", text, has_task=False)
    command.add_argument("name", metavar="NAME", help=f"one of: {', '.join(TASKS.ours())}")
    command.add_argument("folder", nargs="?", metavar="DIR", help="the new folder (./NAME)")

    text = "write autoresearch.toml and program.md for the code in a folder"
    command = add("init", "make.init", text)
    command.add_argument("--editable", action="append", metavar="FILE", help="what may be edited")
    command.add_argument("--command", dest="run_command", metavar="CMD", help="what a run executes")
    command.add_argument("--metric", metavar="NAME", help="the number the program prints")
    command.add_argument("--goal", choices=("minimize", "maximize"), help="which way is better")
    text = "write AGENTS.md and a skill for coding agents"
    command.add_argument("--agent-files", action="store_true", help=text)

    text = "run the unchanged program a few times: noise, time, cost"
    command = add("check", "session.check", text)
    command.add_argument("--runs", type=int, default=4, metavar="N", help="how many runs (4)")
    command.add_argument("--slots", type=int, metavar="S", help="runs at a time")

    text = "do research until a limit is reached; on an existing tag, go on"
    command = add("run", "session.run", text)
    text = "who proposes: NAME or NAME:ARGUMENT (tuner), or shares: tuner,claude:3"
    command.add_argument("--agent", metavar="A", help=text)
    command.add_argument("--fallback", metavar="A", help="who takes over when no agent can go on")
    _add_session_settings(command)
    command.add_argument("--slots", type=int, metavar="S", help="runs at a time")
    command.add_argument("--usd", type=float, metavar="X", help="dollars the agents may spend")
    command.add_argument("--tokens", type=int, metavar="N", help="tokens the agents may use")
    command.add_argument("--detach", action="store_true", help="go on without this terminal")
    command.add_argument("--plain", action="store_true", help="one line per event, no live view")

    text = "watch a session that runs; Ctrl-C stops watching only"
    add("attach", "session.attach", text, tag=LATEST)
    text = "show sessions on a web page, live: all of one or more tasks"
    command = add("watch", "watch.watch", text, has_task=False)
    text = "folders of tasks, or above them (here)"
    command.add_argument("tasks", nargs="*", metavar="TASK", help=text)
    text = "port of the page; the next one that is free if it is in use (8765)"
    command.add_argument("--port", type=_check_port, default=8765, metavar="N", help=text)
    text = "address to listen on; beyond this machine the page needs a token (127.0.0.1)"
    command.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help=text)
    text = "a further name by which browsers reach the page, such as a proxy's"
    command.add_argument("--name", action="append", metavar="NAME", help=text)
    text = "let the page pause, resume, end a session and leave notes; it needs a token then"
    command.add_argument("--control", action="store_true", help=text)
    text = "ask for a token on this machine too"
    command.add_argument("--token", action="store_true", help=text)
    text = "end a session as Ctrl-C does: finish the open runs"
    command = add("stop", "session.stop", text, tag=LATEST)
    command.add_argument("--now", action="store_true", help="do not wait for the open runs")
    text = "finish the experiments under way, verify the result, then end"
    command.add_argument("--after", action="store_true", help=text)
    text = "let a session begin no further experiment; its time stands still"
    add("pause", "session.pause", text, tag=LATEST)
    text = "let it go on after `pause`, or in spite of `stop --after`"
    add("resume", "session.resume", text, tag=LATEST)

    add("status", "look.status", "show how far a session is", tag=LATEST)
    add("log", "look.log", "list its experiments, one line each", tag=LATEST)
    text = "write report.md, progress.png and results.tsv again"
    command = add("report", "look.report", text, tag=LATEST)
    text = "also write report.html: one file to mail, with the diff of each kept change"
    command.add_argument("--html", action="store_true", help=text)
    text = "first measure the result again, N runs each"
    command.add_argument("--verify", type=int, metavar="N", help=text)
    text = "make a clean branch of the kept changes, one commit each, in your name"
    command = add("finish", "morning.finish", text, tag=LATEST)
    text = "its name (autoresearch/TAG-final)"
    command.add_argument("--branch", metavar="NAME", help=text)
    command.add_argument("--squash", action="store_true", help="one commit for all of them")
    text = "leave a kept change out, by its experiment's number; may be given again"
    command.add_argument("--without", action="append", type=int, metavar="N", help=text)
    text = "list the available agents: installed, keys seen"
    add("agents", "look.agents", text, has_task=False)
    text = "show one experiment: its diff, runs, output, verdict and why"
    command = add("show", "look.show", text, has_task=False, tag=LATEST)
    text = "of the experiment; 0 is the baseline"
    command.add_argument("number", type=int, metavar="N", help=text)
    _add_task(command)

    text = "make a folder to work in, for an agent in a terminal"
    _add_session_settings(add("start", "terminal.start", text))
    text = "measure and judge the files of that folder"
    command = add("try", "terminal.try_change", text, tag=HERE)
    command.add_argument("-m", "--message", metavar="TEXT", help="what was changed, and why")
    command.add_argument("--notes", default="", metavar="TEXT", help="for the agent's later self")
    _add_author(command)
    command.add_argument("--detach", action="store_true", help="do not wait for the verdict")
    command.add_argument("--resume", action="store_true", help="only finish one that was cut off")
    command = add("wait", "terminal.wait", "wait for the verdict of a try", tag=HERE)
    command.add_argument("--timeout", type=float, metavar="S", help="at most so many seconds")
    text = "print an agent's briefing: objective, what was tried, what is left"
    add("brief", "look.brief", text, tag=HERE)
    text = "keep a note for the agent's later self"
    command = add("note", "terminal.note", text, has_task=False, tag=HERE)
    command.add_argument("text", metavar="TEXT", help="one line, or a few")
    _add_task(command)
    _add_author(command)
    text = "start your own agent in a session's folder, under the rules of a headless one"
    command = add("confine", "confine.confine", text, has_task=False, tag=HERE)
    command.set_defaults(task=".")
    text = "whose configuration it may use (the agent of the program's name)"
    command.add_argument("--agent", metavar="NAME", help=text)
    text = "the program and its arguments, after --"
    command.add_argument("program", nargs="+", metavar="COMMAND", help=text)
    text = "the same commands as tools of the Model Context Protocol, on stdio"
    add("mcp", "terminal.mcp", text, tag=HERE)

    text = "does everything agree with the ledger? 0 yes, 1 no"
    command = add("fsck", "look.fsck", text, tag="all of them")
    text = "restore what follows from the ledger"
    command.add_argument("--repair", action="store_true", help=text)
    return top


def _add_task(command: argparse.ArgumentParser) -> None:
    command.add_argument("task", nargs="?", default=".", metavar="TASK", help="its folder (here)")


def _add_author(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--as", dest="name", default="terminal", type=_check_name, metavar="NAME", help="your name"
    )


def _check_port(text: str) -> int:
    """Return a port; 0 means any that is free."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!a}: accepted is a number from 0 to 65535")
    return int(text)


def _check_name(text: str) -> str:
    """Return a word that the ledger, a commit's trailer and a table can hold."""
    if not re.fullmatch(r"[\w.:/-]{1,64}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!a}: accepted are letters, digits and _ . : / -")
    return text


def _add_session_settings(command: argparse.ArgumentParser) -> None:
    """Add the settings of the task file that a start may override."""
    command.add_argument("--tag", help="name of the session and its branch (today, like nov23)")
    command.add_argument("--experiments", type=int, metavar="N", help="in all, over all resumes")
    command.add_argument("--hours", type=float, metavar="H", help="of work, over all resumes")
    command.add_argument("--until", metavar="HH:MM", help="time of day")
    command.add_argument("--patience", type=int, metavar="N", help="experiments without a keep")
    command.add_argument("--target", type=float, metavar="X", help="value of the metric to reach")
    levels = ("fast", "default", "strict")
    command.add_argument("--level", choices=levels, help="how sure a keep is")
