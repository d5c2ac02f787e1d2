"""Fills the generated parts of README.md and docs/: what code or a measurement already says is not
written twice.

    python scripts/docs.py            # write
    python scripts/docs.py --check    # exit with 1 if something is out of date (tests do this)

A part lies between `<!-- NAME: ... -->` and `<!-- end -->`; the names are the functions in PARTS.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path

from autoresearch.agents import llm
from autoresearch.cli.parser import make_parser
from autoresearch.core.events import Event
from autoresearch.task import reading, values
from autoresearch.task.tables import keys_of

MEANINGS = {
    "objective": "what the agent is to do: a file, or the text itself",
    "editable": "the files that an agent may change; all others are frozen",
    "run.command": "runs the program once, and prints the metric",
    "run.budget": "the time of one run, told to the program and enforced",
    "run.budget_clock": "the clock of the budget: CPU time of all processes, or wall time",
    "run.timeout": "the wall time after which a run is killed; with a budget, by default ten times "
    "that and a minute",
    "run.inputs": "files and folders that a run reads and git does not have",
    "run.caches": "folders outside the tree that runs may write and share",
    "run.env": "variables of yours that a run gets beside the standard set",
    "run.setup": "runs once for a session, before the baseline, with the network",
    "run.build": "builds the program before the clock of its runs, once for each content",
    "run.build_timeout": "the wall time after which a build is killed",
    "run.allowance": "start-up and evaluation beyond the budget; by default as the baseline needs",
    "run.preload": "modules that are imported once for all runs ([warm starts](#warm-starts))",
    "run.stop_doomed": "whether runs that print NaN or diverge end at once "
    "([doomed runs](#doomed-runs))",
    "run.exit_codes": "the exit codes with which a run counts",
    "metric.name": "the name of the number, as it is printed",
    "metric.goal": "whether a lower or a higher number is better",
    "metric.pattern": "finds the number in other output",
    "metric.json": "the path of the number in JSON",
    "metric.file": "the file with that JSON; without it, the output",
    "metric.measure": "the harness measures the metric ([speed](#speed-as-the-metric))",
    "metric.repeats": "repetitions of the program in each run; by default 5, or 1 of instructions",
    "metric.relative": "whether the unchanged program runs in turns with it, and the metric is the "
    "ratio; by default for times",
    "score.command": "judges what a run left behind; only its output counts",
    "score.reads": "files that a run must leave for the scorer",
    "score.hidden": "files that neither agents nor runs see",
    "score.preload": "the same for scorers as `preload` of [run]",
    "second.name": "a second number that every run prints, for the report "
    "([how](judge.md#a-second-number))",
    "second.goal": "whether a lower or a higher one is better",
    "holdout.command": "a second score, which decides nothing",
    "holdout.hidden": "files that only this command sees",
    "judge.level": "how sure a keep has to be ([levels](judge.md))",
    "judge.deterministic": "whether one run is exact; by default the baseline tells",
    "judge.baseline_runs": "how often the unchanged program is measured at first",
    "judge.least": "by how much, in metric units, a keep has to be better ([rule](judge.md))",
    "judge.simplify": "how much worse, in metric units, simpler code may be in a session",
    "judge.quarantine": "a gain so many times the usual one is flagged",
    "judge.combine": "whether near misses are tried together",
    "limits.experiments": "ends a session after so many, over all resumes",
    "limits.hours": "ends it after so many hours of work, over all resumes",
    "limits.until": "ends it at this time of day, local time",
    "limits.patience": "ends it after so many experiments without a keep",
    "limits.target": "ends it when the metric reaches this value",
    "limits.usd": "ends it when the agents have spent so many dollars",
    "limits.tokens": "ends it when the agents have used so many tokens",
    "limits.gpu_hours": "ends it after so many hours of runs, added up over the slots",
    "limits.scratch": "so many [scratch runs](terminal.md#scratch-runs) in all; it ends nothing",
    "notify.command": "gets news as JSON on stdin ([being told](watch.md#being-told))",
    "notify.webhook": "news are posted there as JSON",
    "notify.desktop": "shows news on this machine's desktop",
    "notify.on": "which news",
    "export.formats": "in which the session is exported while it works ([exports](exports.md))",
    "agent.name": "the agents, with their shares ([agents](agents.md))",
    "agent.timeout": "the time after which a turn is ended",
    "agent.env": "variables of yours that agents get",
    "agent.read": "further files and folders that agents may read",
    "agent.write": "further files and folders that agents may write",
    "agent.confine": "whether agents are confined",
    "agent.fallback": "takes over when no other agent can go on",
    "agent.probe": "whether coding agents take a small turn first",
    "agent.ahead": "whether the next change is proposed while runs go on "
    "([proposals ahead](#proposals-ahead)); by default if an agent reads briefings",
    "agent.at_once": "how many turns of each agent that reads briefings may go on at the same time "
    "([side by side](agents.md#side-by-side))",
    "agent.memory": "whether the briefing tells what earlier sessions of the task learned",
    "agent.briefing": "the most that a briefing has, without the source",
    "runner.name": "where runs are executed",
    "runner.slots": "how many runs at a time",
    "runner.cores": "cores that each slot has for itself (the runner `local`); 1 with `measure`",
    "runner.memory": "the most memory of one run; more is a crash",
    "runner.network": "whether runs have the network",
    "runner.confine": "whether runs are confined",
    "runner.keep_outputs": "room for the files that runs leave; the oldest go first",
    "runner.log_limit": "the most that one run prints",
    "runner.file_limit": "the most that one file of a run holds",
    "runner.processes": "how many processes and threads one run has at a time",
}
"""What each key of the task file decides, for docs/task-file.md."""

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
TASKS = ROOT / "src" / "autoresearch" / "tasks"
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "gallery").glob("*.md")),
    *sorted(TASKS.glob("*/README.md")),
]
PART = re.compile(r"(<!-- (\w+): [^>]* -->\n).*?(<!-- end -->)", re.DOTALL)


def commands() -> str:
    """Every command with its arguments, as the parser knows them."""
    top = make_parser()
    [subparsers] = [one for one in top._actions if isinstance(one, argparse._SubParsersAction)]
    shown = []
    for name, one in subparsers.choices.items():
        actions = [action for action in one._actions if action.dest != "help"]
        given = [action for action in actions if not action.option_strings]
        words = [f"[{a.metavar}]" if a.nargs == "?" else str(a.metavar) for a in given]
        options = " [OPTIONS]" if len(actions) > len(given) else ""
        shown += [f"## `autoresearch {' '.join([name, *words])}{options}`", ""]
        shown += [
            f"{str(one.description)[0].upper()}{str(one.description)[1:]}.",
            "",
            "| | |",
            "|---|---|",
        ]
        shown += [f"| {spelled(action)} | {action.help} |" for action in actions]
        if one.epilog:
            examples = [line.strip() for line in str(one.epilog).splitlines()[1:]]
            shown += ["", "```sh", *examples, "```"]
        shown.append("")
    return "\n".join(shown)


def spelled(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{action.metavar}`"
    value = action.metavar or ("{" + ",".join(action.choices) + "}" if action.choices else "")
    takes = "" if action.nargs == 0 else f" {value or action.dest.upper()}"
    return f"`{', '.join(action.option_strings)}{takes}`"


def events() -> str:
    """Every kind of event with its fields."""
    lines = ["| `event` | meaning | fields |", "|---|---|---|"]
    # A class with slots is made twice, and the first one may still be listed.
    for kind in {kind.kind(): kind for kind in Event.__subclasses__()}.values():
        names = ", ".join(f"`{field.name}`" for field in fields(kind)) or "none"
        lines.append(f"| `{kind.kind()}` | {' '.join(str(kind.__doc__).split())} | {names} |")
    return "\n".join(lines) + "\n"


def keys() -> str:
    """Every key of the task file, as the validation knows it."""
    lines = ["| key | meaning | accepted | default |", "|---|---|---|---|"]
    for table, known in reading.KEYS.items():
        for name, key in known.items():
            where = f"`[{table}]` `{name}`" if table else f"`{name}`"
            meaning = MEANINGS[f"{table}.{name}" if table else name]
            accepts = key.kind.accepts.replace("|", r"\|")
            default = "needed" if key.default is MISSING else default_text(key.default)
            lines.append(f"| {where} | {meaning} | {accepts} | {default} |")
    lines.append(
        "| `[guards]` `NAME` | a bound on a number that every run must print | "
        '`"<= 60000"` (<=, <, >=, >, ==), or a list of such | none |'
    )
    lines.append(
        "| `[guards.commands]` `NAME` | a test of each change that passed the screen | "
        f"{values.GUARD_COMMAND.accepts}; it must exit with 0 within that time, by default "
        "`[run]` `timeout` | none |"
    )
    return "\n".join(lines) + "\n"


def llm_keys() -> str:
    """Every key of `[agent.llm]`, as the agent knows it."""
    keys = keys_of(llm.Settings)
    lines = [f"| `{name}` | {key.kind.accepts} |" for name, key in keys.items()]
    return "\n".join(["| key | accepted |", "|---|---|", *lines]) + "\n"


def default_text(value: object) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        first = value[0]
        value = first[0] if isinstance(first, tuple) else list(value)  # an agent has a weight
    if isinstance(value, (str, bool, list)):
        return f"`{json.dumps(value)}`"
    return f"{value:g}" if isinstance(value, float) else f"{value:,}"


def measured(name: str) -> Callable[[], str]:
    """What a benchmark printed."""
    return lambda: f"```text\n{(RESULTS / f'{name}.txt').read_text().strip()}\n```\n"


def found(path: Path) -> Callable[[], str]:
    """What a session of the gallery found, but not how: an agent on the task may read it."""

    def cut() -> str:
        head = path.read_text().partition("\n\nkept")[0]
        return f"```text\n{head.strip()}\n```\n"

    return cut


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "events": events,
    "keys": keys,
    "llm_keys": llm_keys,
    **{path.stem: measured(path.stem) for path in RESULTS.glob("*.txt")},
    **{f"found_{path.stem[8:]}": found(path) for path in RESULTS.glob("gallery_*.txt")},
}


def fill(text: str) -> str:
    return PART.sub(lambda part: f"{part[1]}{PARTS[part[2]]()}{part[3]}", text)


def main() -> None:
    check = "--check" in sys.argv[1:]
    stale = []
    for page in PAGES:
        text = page.read_text()
        if fill(text) != text:
            stale.append(page.relative_to(ROOT))
            if not check:
                page.write_text(fill(text))
    if check and stale:
        sys.exit(f"out of date: {', '.join(map(str, stale))}; run python scripts/docs.py")


if __name__ == "__main__":
    main()
