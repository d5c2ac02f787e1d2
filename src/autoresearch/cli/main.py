"""Arguments to objects, nothing else. Every command's work is in the module it calls."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autoresearch import __version__
from autoresearch.agents.support.availability import list_availability
from autoresearch.cli import fsck, terminal
from autoresearch.cli.common import (
    INTERRUPTED,
    asked,
    existing,
    plain,
    print_json,
    print_line,
    read_summary,
    root_of,
    session_settings,
    signals,
    today,
    write_report,
)
from autoresearch.commands.check import Checked, check
from autoresearch.commands.keep_awake import awake
from autoresearch.commands.start import opened
from autoresearch.core.loop import Loop
from autoresearch.core.session import Session
from autoresearch.errors import (
    AgentError,
    AutoresearchError,
    BusyError,
    NotOursError,
    StorageError,
    TaskError,
)
from autoresearch.files import remove_tree
from autoresearch.git.repository import Repository
from autoresearch.interactive import instructions
from autoresearch.measure.output import tail
from autoresearch.plugins import TASKS
from autoresearch.records import Run
from autoresearch.report import availability, collect, live, page, summary, text
from autoresearch.store import results
from autoresearch.store.ledger import Ledger
from autoresearch.store.paths import SessionPaths, module, owner, running
from autoresearch.task.agent_names import parse_agents
from autoresearch.task.model import TASK_FILE, Task
from autoresearch.task.reading import load, override
from autoresearch.task.scaffold import scaffold
from autoresearch.task.seeds import seed_patch


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. Exits with 0, with an error's own code, or with 130 after Ctrl-C."""
    options = parser().parse_args(arguments)
    # `stop` sends this one, perhaps before a session listens or when it listens no more.
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = options.command(options)
    except AutoresearchError as error:
        if getattr(options, "json", False):
            print(json.dumps({"error": type(error).__name__, "message": str(error)}))
        print(f"autoresearch: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:  # `autoresearch log | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


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
        name: str, command: Callable[[argparse.Namespace], int], text: str, *, task: bool = True
    ) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        one.set_defaults(command=command)
        if task:
            one.add_argument(
                "task", nargs="?", default=".", metavar="TASK", help="its folder (here)"
            )
        one.add_argument("--json", action="store_true", help="print JSON for programs")
        return one

    one = add(
        "new", new, "copy a ready task into a folder with a repository of its own", task=False
    )
    one.add_argument("name", metavar="NAME", help=f"one of: {', '.join(TASKS.ours())}")
    one.add_argument("folder", nargs="?", metavar="DIR", help="where to (./NAME)")

    one = add("init", init, "write autoresearch.toml and program.md for the code in a folder")
    one.add_argument("--editable", action="append", metavar="FILE", help="what may be edited")
    one.add_argument("--command", dest="run_command", metavar="CMD", help="what a run executes")
    one.add_argument("--metric", metavar="NAME", help="the number the program prints")
    one.add_argument("--goal", choices=("minimize", "maximize"), help="which way is better")
    one.add_argument(
        "--agent-files", action="store_true", help="write AGENTS.md and a skill for coding agents"
    )

    one = add("check", check_task, "run the unchanged program a few times: noise, time, cost")
    one.add_argument("--runs", type=int, default=4, metavar="N", help="how often (4)")
    one.add_argument("--slots", type=int, metavar="S", help="runs at a time")

    one = add("run", run, "do research until a limit is reached; on an existing tag, go on")
    one.add_argument(
        "--agent",
        metavar="A",
        help="who proposes: NAME or NAME:ARGUMENT (tuner), or shares: tuner,claude:3",
    )
    one.add_argument("--fallback", metavar="A", help="who takes over when no agent can go on")
    session_settings(one)
    one.add_argument("--slots", type=int, metavar="S", help="runs at a time")
    one.add_argument("--usd", type=float, metavar="X", help="dollars the agents may spend")
    one.add_argument("--tokens", type=int, metavar="N", help="that the agents may use")
    one.add_argument("--detach", action="store_true", help="go on without this terminal")
    one.add_argument("--plain", action="store_true", help="one line per event, no live view")

    for name, command, what in (
        ("attach", attach, "watch a session that runs; Ctrl-C stops watching only"),
        ("stop", stop, "end a session as Ctrl-C does: finish the runs under way"),
        ("status", status, "where a session stands"),
        ("log", log, "its experiments, one line each"),
        ("report", report, "write report.md, progress.png and results.tsv again"),
    ):
        one = add(name, command, what)
        one.add_argument("--tag", help="which session (the latest)")
        if name == "stop":
            one.add_argument("--now", action="store_true", help="do not wait for runs under way")
        if name == "report":
            one.add_argument(
                "--verify",
                type=int,
                metavar="N",
                help="first measure the result again, N runs each",
            )
    add("agents", list_agents, "the agents there are: installed, keys seen", task=False)
    one = add("show", show, "one experiment: its diff, runs, output, verdict and why", task=False)
    one.add_argument("number", type=int, metavar="N", help="of the experiment; 0 is the baseline")
    one.add_argument("task", nargs="?", default=".", metavar="TASK", help="its folder (here)")
    one.add_argument("--tag", help="which session (the latest)")
    terminal.add_commands(add)
    fsck.add_commands(add)
    return top


# ---- making a task -----------------------------------------------------------------------------


def new(options: argparse.Namespace) -> int:
    source = TASKS.folder(options.name)
    folder = Path(options.folder or options.name)
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise NotOursError(f"{folder} exists and is not empty: choose another folder")
    was_there = folder.exists()
    try:
        _copy_task(source, folder)
    except BaseException:
        for path in folder.iterdir() if was_there else [folder]:
            if path.is_dir():
                remove_tree(path)
            else:
                path.unlink(missing_ok=True)
        raise
    prepare = ["python prepare.py"] if (folder / "prepare.py").exists() else []
    steps = [f"cd {folder}", *prepare, "autoresearch check", "autoresearch run"]
    if options.json:
        print(json.dumps({"folder": str(folder.resolve()), "next": steps}))
    else:
        print(f"{folder} is a repository of its own now. Next:\n")
        print("\n".join(f"    {step}" for step in steps))
    return 0


def _copy_task(source: Path, folder: Path) -> None:
    ignored = shutil.ignore_patterns("data", "__pycache__", ".autoresearch")
    try:
        shutil.copytree(source, folder, ignore=ignored, dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        raise StorageError(f"cannot make {folder}: {error}") from error
    git = ["git", "-c", "user.name=autoresearch", "-c", "user.email=autoresearch@localhost"]
    subject = f"Start from autoresearch's {source.name}"
    for arguments in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "--all"],
        ["-c", "commit.gpgsign=false", "commit", "--quiet", "--no-verify", f"--message={subject}"],
    ):
        try:
            subprocess.run([*git, *arguments], cwd=folder, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise TaskError(f"git {arguments[0]} failed in {folder}: {error}") from error


def init(options: argparse.Namespace) -> int:
    root = root_of(options)
    written, patches = list[str](), list[str]()
    if not (options.agent_files and (root / TASK_FILE).exists()):
        written = _scaffolded(root, options)
        named = [root / name for name in load(root).editable if (root / name).is_file()]
        patches = [patch for patch in map(seed_patch, named) if patch]
    for_agents, left = instructions.write(root) if options.agent_files else ([], [])
    written += for_agents
    if options.json:
        print(json.dumps({"written": sorted(written), "left": left, "seed_patches": patches}))
        return 0
    if written:
        print(f"written: {', '.join(sorted(written))}. Look at them, then: autoresearch check")
    for name in left:
        print(f"{name} is there already, and is left as it is")
    if instructions.FILE in left:
        print(
            f'Unless it says so already, add to it: "For research here, read {instructions.SKILL}"'
        )
    for patch in patches:
        print("\nThe program sets a seed of its own. To measure the noise, let it take ours:\n")
        print(patch)
    return 0


def _scaffolded(root: Path, options: argparse.Namespace) -> list[str]:
    files = scaffold(
        root,
        editable=options.editable,
        command=options.run_command,
        metric=options.metric,
        goal=options.goal,
    )
    for name in files:
        if (root / name).exists():
            raise NotOursError(f"{root / name} exists already, and is left as it is")
    try:
        for name, content in files.items():
            (root / name).write_text(content)
    except OSError as error:
        for name in files:
            (root / name).unlink(missing_ok=True)
        raise StorageError(f"cannot write {error.filename}: {error.strerror}") from error
    return list(files)


def check_task(options: argparse.Namespace) -> int:
    if options.runs < 2:
        raise TaskError(f"--runs {options.runs}: at least 2, as one tells nothing of the noise")
    task = override(load(root_of(options)), **{"runner.slots": options.slots})
    found = check(task, options.runs, (lambda event: None) if options.json else print)
    print(json.dumps(found.to_json()) if options.json else checked_text(found))
    return 0


def checked_text(found: Checked) -> str:
    """What `check` prints for people."""
    memory = f", {found.peak_memory_bytes / 2**20:.0f} MB" if found.peak_memory_bytes else ""
    lines = [
        "",
        f"it works   {found.metric} {found.mean:.6g} in {len(found.values)} runs, each "
        f"{found.wall_s:.1f} s ({found.cpu_s:.1f} s CPU{memory})",
        f"python     {found.python or 'not found on PATH'}",
    ]
    if found.deterministic:
        lines.append(
            "noise      none: every seed gave the same. Either the program ignores "
            "AUTORESEARCH_SEED, or the task is deterministic ([judge] deterministic = true)"
        )
        if found.seed_patch:
            lines.append(f"           this lets it take the seed:\n\n{found.seed_patch}")
    else:
        lines.append(
            f"noise      sd {found.sd:.3g} ({100 * found.sd / abs(found.mean):.2g} %)"
            if found.mean
            else f"noise      sd {found.sd:.3g}"
        )
    if found.holdout:
        lines.append(
            "holdout    sealed: scored for the baseline and keeps, told in the report alone"
        )
    night = f"cost       about {found.seconds_per_experiment:.3g} s an experiment"
    if found.duration_s is not None:
        night += (
            f"; about {found.experiments} experiments in {found.duration_s / 3600:.2g} h, "
            f"until {found.ends_at}"
        )
    else:
        night += "; no limit is set: it would go on until you stop it (--experiments, --hours)"
    lines.append(night)
    lines += [f"enforced   {line}" for line in found.enforced]
    lines += [f"NOT so     {line}" for line in found.not_enforced]
    return "\n".join(lines)


# ---- a session ---------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> int:
    task = override(
        asked(options),
        **{
            "agent.name": options.agent and parse_agents(options.agent),
            "agent.fallback": options.fallback,
            "limits.usd": options.usd,
            "limits.tokens": options.tokens,
            "runner.slots": options.slots,
        },
    )
    tag = options.tag or today()
    if options.detach:
        return detach(task, tag, options)
    watched = sys.stdout.isatty() and not options.plain and not options.json
    listener = print_json if options.json else print_line
    with opened(task, tag, lambda event: listener(event)) as session, awake(), signals(session):
        with _view(session) if watched else _nothing() as view:
            if view is not None:
                listener = view.note
            try:
                reason = Loop(session).run()
            except AgentError:
                if session.ledger.has_baseline(session.record):
                    write_report(session.ledger, session.paths, task)
                raise
        written = write_report(session.ledger, session.paths, task)
        found = read_summary(session.ledger, session.paths, task)
    if options.json:
        print(json.dumps({"stopped": reason, **summary.to_json(found)}))
    else:
        print(f"\n{reason}.\n{plain(page.headline(found))}\n")
        print("\n".join(written))
        if session.stopping:
            print(f"To go on: autoresearch run --tag {tag}")
    return INTERRUPTED if session.stopping else 0


@contextmanager
def _nothing() -> Iterator[None]:
    yield None


@contextmanager
def _view(session: Session) -> Iterator[live.LiveView]:
    """The live view of a session of this process, reading the ledger as anybody would."""
    reader = Ledger(session.paths.ledger, readonly=True)

    def read() -> summary.Summary:
        return collect.summarise(
            reader,
            session.record.tag,
            time.time(),
            task=session.task.root.name,
            agent=session.scheduler.names,
            elapsed_s=session.elapsed_s(),
        )

    try:
        with live.LiveView(read) as view:
            yield view
    finally:
        reader.close()


def detach(task: Task, tag: str, options: argparse.Namespace) -> int:
    """Start the same command in a session of its own, and see it get going."""
    Repository(task.root, task.editable, task.may_edit).check_tag_name(tag)
    paths = SessionPaths(task.root, tag)
    if owner(paths) is not None:
        raise BusyError(f"session {tag!r} is running already: autoresearch attach --tag {tag}")
    paths.folder.mkdir(parents=True, exist_ok=True)
    arguments = [word for word in sys.argv[1:] if word != "--detach"]
    if options.tag is None:
        arguments += ["--tag", tag]
    with paths.log.open("ab") as file:
        started = file.tell()
        process = subprocess.Popen(
            module("autoresearch", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    while process.poll() is None and owner(paths) != process.pid:
        time.sleep(0.05)
    with suppress(subprocess.TimeoutExpired):  # most of what can be refused is by then
        process.wait(timeout=1.0)
    if process.poll():
        with paths.log.open("rb") as file:
            file.seek(started)
            error = AutoresearchError(complaint(file.read().decode(errors="replace")))
        error.exit_code = process.returncode
        raise error
    if options.json:
        print(json.dumps({"tag": tag, "pid": process.pid, "log": str(paths.log)}))
    else:
        print(f"session {tag} goes on without this terminal (pid {process.pid}, log {paths.log})")
        print(f"watch: autoresearch attach --tag {tag}    end: autoresearch stop --tag {tag}")
    return 0


def complaint(words: str) -> str:
    """The error that a command ended with, out of all that it said."""
    for line in words.splitlines():
        if line.startswith('{"error": '):
            return str(json.loads(line)["message"])
    before, _, message = f"\n{words}".partition("\nautoresearch: ")
    return (message or before).strip() or "it ended without a word"


def attach(options: argparse.Namespace) -> int:
    ledger, paths, task = existing(options)

    def read() -> summary.Summary:
        return read_summary(ledger, paths, task)

    try:
        if sys.stdout.isatty() and not options.json:
            with live.LiveView(read):
                while owner(paths) is not None:
                    time.sleep(0.5)
        else:
            for line in _said(paths):
                event = options.json and not line.startswith("{")
                print(json.dumps({"text": line}) if event else line, flush=True)
    except KeyboardInterrupt:
        if not options.json:
            print(f"\nno longer watching; session {paths.tag} goes on")
        return 0
    if options.json:
        print(json.dumps({"running": False, **summary.to_json(read())}))
    else:
        print(text.status_text(read(), running=False), end="")
    return 0


def _said(paths: SessionPaths) -> Iterator[str]:
    """The lines that a detached session says, until it ends."""
    position, begun = 0, b""
    while True:
        running = owner(paths) is not None
        if paths.log.exists():
            with paths.log.open("rb") as file:
                file.seek(position)
                *lines, begun = (begun + file.read()).split(b"\n")
                position = file.tell()
            yield from (line.decode(errors="replace") for line in lines)
        if not running:
            break
        time.sleep(0.5)
    if begun:
        yield begun.decode(errors="replace")


def stop(options: argparse.Namespace) -> int:
    ledger, paths, _ = existing(options)
    ledger.close()
    pid = owner(paths)
    if pid is None:
        raise NotOursError(f"session {paths.tag!r} is not running")
    with suppress(ProcessLookupError):  # it has just ended by itself
        os.kill(pid, signal.SIGTERM)  # a script's `&` leaves it deaf to SIGINT
        if options.now:
            time.sleep(0.2)
            os.kill(pid, signal.SIGTERM)
    while owner(paths) is not None:
        time.sleep(0.1)
    print(json.dumps({"stopped": paths.tag}) if options.json else f"session {paths.tag} has ended")
    return 0


# ---- looking -----------------------------------------------------------------------------------


def status(options: argparse.Namespace) -> int:
    ledger, paths, task = existing(options)
    found = read_summary(ledger, paths, task)
    running = owner(paths) is not None
    if options.json:
        print(json.dumps({"running": running, **summary.to_json(found)}))
    else:
        print(text.status_text(found, running), end="")
    return 0


def log(options: argparse.Namespace) -> int:
    ledger, paths, _ = existing(options)
    row = ledger.session(paths.tag)
    if options.json:
        print(json.dumps([_experiment_json(one) for one in ledger.all_experiments(row)]))
    else:
        print(text.log_text(ledger.all_experiments(row), row.metric), end="")
    return 0


def _experiment_json(one: Any) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__slots__}


def _run_json(run: Run) -> dict[str, Any]:
    """Without the sealed holdout, which is for the report alone."""
    facts = _experiment_json(run) | {"numbers": dict(run.numbers)}
    del facts["holdout"]
    return facts


def _failure_log(paths: SessionPaths, run: Run) -> str:
    """The end of the log that says how the run went: the scorer's, if the scorer failed."""
    scored = (run.reason or "").startswith("score: ")
    log = paths.runs / run.name / ("score.log" if scored else "log")
    return (f"({log})\n" if scored else "") + tail(log, 4000)


def show(options: argparse.Namespace) -> int:
    ledger, paths, task = existing(options)
    row = ledger.session(paths.tag)
    one = ledger.experiment(row, options.number)
    runs = ledger.runs(row, one.number)
    repository = Repository(task.root, task.editable, task.may_edit)
    base = ledger.experiment(row, one.base)
    diff = repository.diff(base.commit, one.commit) if one.number else ""
    its_own = [run for run in runs if run.commit == one.commit]  # others: what it was held against
    end = _failure_log(paths, its_own[-1]) if its_own else ""
    if options.json:
        made = [_run_json(run) for run in runs]
        print(json.dumps({**_experiment_json(one), "runs": made, "diff": diff, "output": end}))
    else:
        print(text.show_text(one, runs, diff, end, row.metric), end="")
    return 0


def report(options: argparse.Namespace) -> int:
    ledger, paths, task = existing(options)
    ledger.close()
    if options.verify is not None:
        terminal.verify(task, paths.tag, options.verify)
    ledger = Ledger(paths.ledger)
    row = ledger.session(paths.tag)
    if running(paths.root) is None:  # a session that works writes it itself
        results.ResultsFile(paths.results, ledger, row).prepare()
    written = write_report(ledger, paths, task)
    found = read_summary(ledger, paths, task, open_holdout=True)
    if options.json:
        print(json.dumps(summary.to_json(found)))
    else:
        print("\n".join([f"{plain(page.headline(found))}\n", *written]))
    return 0


def list_agents(options: argparse.Namespace) -> int:
    found = list_availability()
    if options.json:
        print(json.dumps([asdict(one) for one in found]))
    else:
        print(availability.standing_text(found), end="")
    return 0
