"""The arguments of every command.

`options.command` names the function that carries the command out, as `module.function` of this
package: `main` imports that module only.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from autoresearch import __version__
from autoresearch.plugins import EXPORTS, TASKS

LATEST, HERE = "the latest", "this folder's, or the latest"
GROUPS = {
    "make a task": ("new", "init", "check"),
    "run a session": ("run", "attach", "watch", "pause", "resume", "stop"),
    "look at a session": (
        *("status", "log", "show", "diff", "report", "verify", "finish", "export", "import"),
    ),
    "called by an agent in a terminal": (
        *("start", "try", "scratch", "wait", "brief", "note", "mcp", "confine"),
    ),
    "find what is missing or wrong": ("agents", "fsck"),
}
EXAMPLES = (
    ("autoresearch init", "in your repository: write the task file"),
    ("autoresearch check", "is it ready for a night?"),
    ("autoresearch run --hours 8", "do research; the same command goes on"),
    ("autoresearch new tiny_gpt DIR", "or begin with a ready task"),
)
SIMILARITY = 0.6  # of a mistyped word and the one that was meant, as difflib counts it


class Parser(argparse.ArgumentParser):
    """A parser of commands or of one command's arguments. It proposes the nearest known word."""

    def __init__(self, **settings: Any) -> None:
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(**settings, formatter_class=raw, allow_abbrev=False)
        self.commands: dict[str, Parser] = {}

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        words = list(sys.argv[1:] if args is None else args)
        command = self.commands.get(words[0]) if words else None
        if words and command is None and not words[0].startswith("-"):
            self.error(f"unknown command {words[0]!r}{_propose(words[0], self.commands)}")
        options, unknown = self.parse_known_args(words, namespace)
        if unknown:
            parser = command or self
            known = parser._option_string_actions  # argparse has no public name for them
            hint = _propose(unknown[0].partition("=")[0], known)
            parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return options

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}", file=sys.stderr)
        self.exit(2, f"`{self.prog} --help` lists what is accepted\n")

    def format_help(self) -> str:
        if not self.commands:
            return super().format_help()
        groups = [
            f"{group}:\n{_tabulate((name, self.commands[name].description) for name in names)}"
            for group, names in GROUPS.items()
        ]
        parts = [
            f"usage: {self.prog} COMMAND [TASK] [OPTIONS]",
            str(self.description),
            *groups,
            f"start with:\n{_tabulate(EXAMPLES)}",
            f"`{self.prog} COMMAND --help` describes one command and its options.",
        ]
        return "\n\n".join(parts) + "\n"


def _propose(word: str, known: Any) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, known, 1, SIMILARITY)
    return f"; did you mean {near[0]!r}?" if near else ""


def _tabulate(rows: Any) -> str:
    pairs = [(str(name), str(text)) for name, text in rows]
    width = max(6, *(len(name) for name, _ in pairs))
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in pairs)


def make_parser() -> Parser:
    top = Parser(
        prog="autoresearch",
        description="Research while you sleep: an agent has ideas and edits files; the harness\n"
        "runs, measures, decides and records.",
    )
    top.add_argument("--version", action="version", version=f"autoresearch {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str,
        function: str,
        text: str,
        *examples: str,
        has_task: bool = True,
        tag: str = "",
    ) -> Parser:
        """Add a command; `tag` is the session it is about without `--tag`."""
        epilog = "\n".join(["examples:", *(f"  autoresearch {example}" for example in examples)])
        command = commands.add_parser(
            name, help=text, description=text, epilog=epilog if examples else None
        )
        top.commands[name] = command
        command.set_defaults(command=function)
        if has_task:
            _add_task(command)
        command.add_argument("--json", action="store_true", help="print JSON, for programs")
        if tag:
            command.add_argument("--tag", help=f"the session's name (default: {tag})")
        return command

    _add_task_commands(add)
    _add_session_commands(add)
    _add_views(add)
    _add_terminal_commands(add)

    text = "check that branches and files agree with the record; exit code 1 if not"
    command = add("fsck", "look.fsck", text, tag="all sessions")
    text = "make again what can be made from the record"
    command.add_argument("--repair", action="store_true", help=text)
    return top


def _add_task_commands(add: Any) -> None:
    text = "copy a ready task into a new folder with its own repository"
    command = add("new", "make.new", text, "new tiny_gpt", has_task=False)
    command.add_argument("name", metavar="NAME", help=f"one of: {', '.join(TASKS.ours())}")
    command.add_argument("folder", nargs="?", metavar="DIR", help="the folder (default: ./NAME)")

    text = "write the task file, autoresearch.toml, for the code in a folder"
    command = add(
        "init",
        "init.init",
        text,
        "init",
        "init --editable train.py --metric val_loss --goal minimize",
        "init --command './bench --json' --editable 'src/*.c' --metric ops_per_s --goal maximize",
    )
    text = "a file or glob that may be edited; repeat it for more than one"
    command.add_argument("--editable", action="append", metavar="FILE", help=text)
    text = "the command that runs the program once"
    command.add_argument("--command", dest="run_command", metavar="CMD", help=text)
    text = "the name of the number to improve, as the program prints it"
    command.add_argument("--metric", metavar="NAME", help=text)
    text = "whether a lower or a higher number is better"
    command.add_argument("--goal", choices=("minimize", "maximize"), help=text)
    text = "a frozen command that judges what a run leaves behind; its number counts, not the run's"
    command.add_argument("--score", metavar="CMD", help=text)
    text = "a file that a run leaves for --score; repeat it for more"
    command.add_argument("--reads", action="append", metavar="FILE", help=text)
    text = "a file that only --score sees; repeat it for more"
    command.add_argument("--hidden", action="append", metavar="PATH", help=text)
    text = "a file or folder that a run reads and git does not have; repeat it for more"
    command.add_argument("--input", action="append", metavar="PATH", help=text)
    text = "a folder outside that a run may write; repeat it for more"
    command.add_argument("--cache", action="append", metavar="DIR", help=text)
    text = "the time that is told to the program, such as 5m"
    command.add_argument("--budget", metavar="TIME", help=text)
    text = "the time after which a run is killed, such as 10m"
    command.add_argument("--timeout", metavar="TIME", help=text)
    text = "run `autoresearch check` afterwards, without asking"
    command.add_argument("--check", action="store_true", help=text)
    text = "replace a task file that exists"
    command.add_argument("--force", action="store_true", help=text)
    text = "also write AGENTS.md and a skill, for a coding agent in a terminal"
    command.add_argument("--agent-files", action="store_true", help=text)

    text = "measure the unchanged program: its noise, its time, the cost of a night"
    command = add("check", "session.check", text, "check", "check --runs 2")
    text = "how often the program runs (default: 4)"
    command.add_argument("--runs", type=int, default=4, metavar="N", help=text)
    text = "also measure how many runs at a time pay, up to S; `auto`: as many as the machine has"
    command.add_argument("--slots", metavar="S", help=text)
    text = "print everything that was found, such as what is enforced on a run"
    command.add_argument("--verbose", action="store_true", help=text)


def _add_session_commands(add: Any) -> None:
    text = "do research until a limit is reached; the same command resumes a session"
    command = add(
        "run",
        "session.run",
        text,
        "run --hours 8",
        "run --until 07:00 --detach",
        "run --agent claude:3,tuner --experiments 100",
    )
    text = "the agent that proposes changes (default: tuner), or several with their shares, such as"
    text += " claude:3,tuner; `autoresearch agents` lists them"
    command.add_argument("--agent", metavar="A", help=text)
    text = "the agent that takes over when no other can go on"
    command.add_argument("--fallback", metavar="A", help=text)
    _add_session_settings(command)
    text = "how many runs at a time; `auto` measures first how many pay"
    command.add_argument("--slots", metavar="S", help=text)
    text = "let the agent propose the next change while runs go on (default: if it reads briefings)"
    command.add_argument("--ahead", action=argparse.BooleanOptionalAction, help=text)
    text = "how many turns of each coding agent or model may go on at the same time (default: 1)"
    command.add_argument("--at-once", type=int, metavar="N", help=text)
    text = "end when the agents have spent so many dollars"
    command.add_argument("--usd", type=float, metavar="X", help=text)
    text = "end when the agents have used so many tokens"
    command.add_argument("--tokens", type=int, metavar="N", help=text)
    text = "tell of keeps and of the end: a URL to post to, a command, or the word desktop"
    command.add_argument("--notify", action="append", metavar="HOW", help=text)
    text = "also export the session while it works, in this format; repeat it for more"
    command.add_argument("--export", action="append", metavar="FORMAT", help=text)
    text = "go on in the background, without this terminal"
    command.add_argument("--detach", action="store_true", help=text)
    text = "print one line for each event instead of the live view"
    command.add_argument("--plain", action="store_true", help=text)

    text = "watch a session that runs; Ctrl-C ends only the watching"
    add("attach", "session.attach", text, tag=LATEST)
    text = "show the sessions of one or more tasks on a web page, live"
    command = add("watch", "watch.watch", text, has_task=False)
    text = "folders of tasks, or folders above them (default: this folder)"
    command.add_argument("tasks", nargs="*", metavar="TASK", help=text)
    text = "the page's port; the next one that is free if it is in use (default: 8765)"
    command.add_argument("--port", type=_check_port, default=8765, metavar="N", help=text)
    text = "the address to listen on; beyond this machine the page needs a token (default: "
    text += "127.0.0.1)"
    command.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help=text)
    text = "a further name by which browsers reach the page, such as a proxy's"
    command.add_argument("--name", action="append", metavar="NAME", help=text)
    text = "let the page pause, resume and end a session and leave notes; it needs a token then"
    command.add_argument("--control", action="store_true", help=text)
    text = "ask for a token on this machine too"
    command.add_argument("--token", action="store_true", help=text)
    text = "end a session after the runs under way, as Ctrl-C does"
    command = add("stop", "session.stop", text, tag=LATEST)
    text = "end the runs under way too; they are made again on resume"
    command.add_argument("--now", action="store_true", help=text)
    text = "finish the experiments under way, verify the result, then end"
    command.add_argument("--after", action="store_true", help=text)
    text = "let a session begin no further experiment; its time stands still"
    add("pause", "session.pause", text, tag=LATEST)
    text = "let a session go on after `pause`, or in spite of `stop --after`"
    add("resume", "session.resume", text, tag=LATEST)


def _add_views(add: Any) -> None:
    add("status", "look.status", "show the best result so far and what is left", tag=LATEST)
    command = add("log", "look.log", "list the experiments, one line each", tag=LATEST)
    text = "list the scratch runs instead, which decided nothing"
    command.add_argument("--scratch", action="store_true", help=text)
    text = "show one experiment: its diff, runs, output, verdict and the reason"
    command = add("show", "look.show", text, "show 17", "show s3", has_task=False, tag=LATEST)
    text = "the experiment's number, 0 for the baseline; s3 is scratch run 3"
    command.add_argument("number", type=_check_number, metavar="N", help=text)
    _add_task(command)
    text = "print one of the files that its latest run left, if it is text"
    command.add_argument("--file", metavar="PATH", help=text)
    text = "print the difference of the files of two experiments"
    command = add("diff", "look.diff", text, "diff 3 17", "diff 17 s3", has_task=False, tag=LATEST)
    text = "an experiment's number, 0 for the baseline; s3 is scratch run 3"
    command.add_argument("first", type=_check_number, metavar="A", help=text)
    command.add_argument("second", type=_check_number, metavar="B", help="the same")
    _add_task(command)
    text = "write report.md, progress.png and results.tsv again"
    command = add("report", "look.report", text, "report --verify 8", tag=LATEST)
    text = "first do what `verify --runs N` does"
    command.add_argument("--verify", type=int, metavar="N", help=text)
    text = "also write report.html: one file to mail, with the diff of each kept change"
    command.add_argument("--html", action="store_true", help=text)
    text = "measure the baseline and the best again, side by side on fresh seeds"
    command = add("verify", "morning.verify", text, "verify --ablate --hours 2", tag=LATEST)
    text = "of each version, in all (default: as many as the baseline's)"
    command.add_argument("--runs", type=int, metavar="N", help=text)
    text = "count the runs that reach this score, for a search that depends on its seed"
    command.add_argument("--reaches", type=float, metavar="SCORE", help=text)
    text = "also the best without each kept change: which still earn their place?"
    command.add_argument("--ablate", action="store_true", help=text)
    text = "with --ablate: begin no round of runs that would end later"
    command.add_argument("--hours", type=float, metavar="H", help=text)
    text = "with --ablate: least gain worth keeping (default: the noise of one run)"
    command.add_argument("--least", type=float, metavar="X", help=text)
    text = "make a clean branch of the kept changes, one commit each, in your name"
    command = add("finish", "morning.finish", text, "finish --without 17", tag=LATEST)
    text = "the branch's name (default: autoresearch/TAG-final)"
    command.add_argument("--branch", metavar="NAME", help=text)
    text = "make one commit of all kept changes"
    command.add_argument("--squash", action="store_true", help=text)
    text = "leave out the kept change of this experiment; repeat it for more"
    command.add_argument("--without", action="append", type=int, metavar="N", help=text)
    text = "write a session in the format of another tool, from its record"
    examples = ("export csv", "export mlflow --to ~/nights/nov24")
    command = add("export", "morning.export", text, *examples, has_task=False, tag=LATEST)
    text = f"one of: {', '.join(EXPORTS.ours())}; or another package's"
    command.add_argument("format", metavar="FORMAT", help=text)
    _add_task(command)
    text = "a new or empty folder, or an earlier export's (default: in .autoresearch)"
    command.add_argument("--to", metavar="DIR", help=text)
    text = "read an earlier night: results.tsv, or pi-autoresearch's log"
    example = "import results-old.tsv --tag mar08"
    command = add("import", "morning.import_nights", text, example, has_task=False)
    text = "results.tsv, autoresearch.jsonl, .auto/log.jsonl, or the log of a pi session"
    command.add_argument("file", metavar="FILE", help=text)
    _add_task(command)
    text = "the night's name (default: imported, imported-2, ...)"
    command.add_argument("--tag", help=text)
    text = "list the agents: which are installed, and which keys are set"
    add("agents", "look.agents", text, has_task=False)


def _add_terminal_commands(add: Any) -> None:
    text = "start or resume a session, and make the folder to work in"
    command = add("start", "terminal.start", text, "start --experiments 20")
    _add_session_settings(command)
    text = "allow so many scratch runs in all (default: 50)"
    command.add_argument("--scratch", type=int, metavar="N", help=text)
    text = "let the folder hold the files of this kept experiment instead of the incumbent's"
    command.add_argument("--from", dest="origin", type=int, metavar="N", help=text)
    text = "measure and judge the files in the folder to work in"
    example = 'try -m "LR 0.02 -> 0.04: it learns too slowly"'
    command = add("try", "terminal.try_change", text, example, tag=HERE)
    text = "what was changed, and why"
    command.add_argument("-m", "--message", metavar="TEXT", help=text)
    text = "what to remember beside the message; it is shown in later briefings"
    command.add_argument("--notes", default="", metavar="TEXT", help=text)
    _add_author(command)
    text = "return at once; `autoresearch wait` gives the verdict"
    command.add_argument("--detach", action="store_true", help=text)
    text = "build the edit on this kept experiment; the whole is judged against the incumbent"
    command.add_argument("--from", dest="origin", type=int, metavar="N", help=text)
    text = "finish a try that was cut off, and begin no other"
    command.add_argument("--resume", action="store_true", help=text)
    text = "run what the folder holds, once: a number that decides nothing"
    command = add("scratch", "terminal.scratch", text, 'scratch -m "is it faster?"', tag=HERE)
    text = "what is in the folder; `log --scratch` shows it"
    command.add_argument("-m", "--message", default="", metavar="TEXT", help=text)
    _add_author(command)
    text = "return at once; `autoresearch wait` gives the number"
    command.add_argument("--detach", action="store_true", help=text)
    text = "wait for the verdict of a try, or the number of a scratch run"
    command = add("wait", "terminal.wait", text, tag=HERE)
    text = "return after so many seconds at most"
    command.add_argument("--timeout", type=float, metavar="S", help=text)
    text = "print the briefing: the objective, what was tried, what is left"
    add("brief", "look.brief", text, tag=HERE)
    text = "record a note that later briefings show"
    example = 'note "depth does not matter"'
    command = add("note", "terminal.note", text, example, has_task=False, tag=HERE)
    command.add_argument("text", metavar="TEXT", help="one line or a few")
    _add_task(command)
    _add_author(command)
    text = "offer these commands as tools over MCP, on standard input and output"
    add("mcp", "terminal.mcp", text, tag=HERE)
    text = "start your own agent, confined, in the folder to work in"
    example = "confine -- claude"
    command = add("confine", "confine.confine", text, example, has_task=False, tag=HERE)
    command.set_defaults(task=".")
    text = "the agent whose configuration it may use (default: the one of the program's name)"
    command.add_argument("--agent", metavar="NAME", help=text)
    text = "the program and its arguments, after --"
    command.add_argument("program", nargs="+", metavar="COMMAND", help=text)


def _add_task(command: argparse.ArgumentParser) -> None:
    text = "the task's folder or file (default: this folder)"
    command.add_argument("task", nargs="?", default=".", metavar="TASK", help=text)


def _add_author(command: argparse.ArgumentParser) -> None:
    text = "the agent's name in the record (default: terminal)"
    command.add_argument(
        "--as", dest="name", default="terminal", type=_check_name, metavar="NAME", help=text
    )


def _check_name(text: str) -> str:
    """Return a word that the ledger, a commit's trailer and a table can hold."""
    if not re.fullmatch(r"[\w.:/-]{1,64}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!a}: accepted are letters, digits and _ . : / -")
    return text


def _check_number(text: str) -> str:
    """Return the number of an experiment, or of a scratch run, such as s3."""
    if not re.fullmatch(r"s?\d{1,9}", text, re.ASCII):
        raise argparse.ArgumentTypeError(
            f"{text!a}: accepted is an experiment's number, or a scratch run's such as s3"
        )
    return text


def _check_port(text: str) -> int:
    """Return a port; 0 means any that is free."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!a}: accepted is a number from 0 to 65535")
    return int(text)


def _add_session_settings(command: argparse.ArgumentParser) -> None:
    """Add the settings of the task file that a start may override."""
    text = "the name of the session and of its branch autoresearch/TAG (default: the date, like"
    command.add_argument("--tag", help=f"{text} nov23)")
    limits = command.add_argument_group("when to end; without any of these, at Ctrl-C")
    text = "end after so many experiments, counted over all resumes"
    limits.add_argument("--experiments", type=int, metavar="N", help=text)
    text = "end after so many hours of work, counted over all resumes"
    limits.add_argument("--hours", type=float, metavar="H", help=text)
    text = "end at this time of day, local time"
    limits.add_argument("--until", metavar="HH:MM", help=text)
    text = "end after so many experiments without a keep"
    limits.add_argument("--patience", type=int, metavar="N", help=text)
    text = "end when the metric reaches this value"
    limits.add_argument("--target", type=float, metavar="X", help=text)
    text = "how sure a keep has to be: fast measures least, strict errs least (default: as in the"
    levels = ("fast", "default", "strict")
    command.add_argument("--level", choices=levels, help=f"{text} task file)")
