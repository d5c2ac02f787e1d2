"""What an agent's program can touch: a real session, a real program that tries, the real kernel."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.sessions import TASK, Night, make_task, run_session

from autoresearch import agents
from autoresearch.agents.support.events import TurnResult
from autoresearch.agents.support.headless import Headless, Settings, Spec
from autoresearch.agents.support.process import Program
from autoresearch.commands.check import enforced, not_enforced
from autoresearch.errors import AgentError, TaskError
from autoresearch.protocols import Grants, Proposal, Turn
from autoresearch.runners.local import LocalRunner
from autoresearch.sandbox import installed, landlock
from autoresearch.sandbox.agent_policy import Needs, make_confinement
from autoresearch.sandbox.installed import files_named
from autoresearch.task.reading import load

ABI = landlock.abi()
needs_landlock = pytest.mark.skipif(ABI == 0, reason="this kernel has no Landlock")

SCORED = (
    TASK
    + """\
[score]
command = "python -S -E score.py"
hidden = ["holdout/"]
[agent]
read = [{read}]
write = [{write}]
env = ["PROBE_LEVEL"]
"""
)
SCORE = (
    "import os\nnoise = int(os.environ['AUTORESEARCH_SEED']) * 2654435761 % 2**32 / 2**32\n"
    "open('holdout/answer').read()\nprint('score:', 10 + 0.1 * noise)\n"
)

PROBE = """\
import errno, json, os, signal, socket, subprocess, sys, tempfile

told = json.load(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "told.json")))
found = {}


def attempt(name, action):
    if told["timid"] and name.split()[0] in ("write", "signal", "replace", "link"):
        return  # nothing would stop it
    try:
        found[name] = action() or "ok"
    except OSError as error:
        found[name] = errno.errorcode[error.errno]


def write(path, text="x"):
    open(path, "w").write(text)


def call(*argv):
    done = subprocess.run(argv, capture_output=True, text=True)
    return "ok" if done.returncode == 0 else done.stderr or str(done.returncode)


turn = os.path.dirname(os.environ["TMPDIR"])
for name, path in told["read"].items():
    attempt("read " + name, lambda: (open(path).read() or "") and None)
for name, path in told["list"].items():
    attempt("list " + name, lambda: os.listdir(path) and None)
for name, path in told["write"].items():
    attempt("write " + name, lambda: write(path))
attempt("signal the harness", lambda: os.kill(told["pid"], signal.SIGCONT))
attempt("signal its warden", lambda: os.kill(os.getppid(), signal.SIGCONT))
attempt("the harness's variables", lambda: open("/proc/%d/environ" % told["pid"]).read() and None)
attempt("replace its own output", lambda: os.unlink(turn + "/stdout"))
draft = f"{turn}/.outcome.json.{os.getppid()}.tmp"
attempt("link the outcome", lambda: os.symlink(told["write"]["home"], draft))
attempt("connect", lambda: socket.create_connection(("127.0.0.1", told["port"])) and None)
attempt("tmp", lambda: tempfile.NamedTemporaryFile().write(b"x") and None)
attempt("edit", lambda: write("prog.py", open("prog.py").read().replace("10.0", "5.0")))
attempt("python", lambda: call("python", "-c", "import json, ssl"))
who = ("-c", "user.name=x", "-c", "user.email=x")
attempt("git", lambda: call("git", *who, "commit", "-qam", "x"))
attempt("null", lambda: write("/dev/null"))
attempt("shell", lambda: call("/bin/sh", "-c", "echo x > /dev/stdout; cat /etc/hosts"))
found["level"] = os.environ.get("PROBE_LEVEL")
found["prefix"] = sys.prefix
write(told["write"]["granted"] + ".report", json.dumps(found))
print("tried everything")
"""


@dataclass
class Probed:
    night: Night
    found: Mapping[str, Any]
    checkout: Path


class Probe:
    """A checkout, a home folder, and a program beside both that tries what it should not."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.tools = folder / "home", folder / "tools"
        self.granted, self.checkout = folder / "granted", folder / "work" / "checkout"
        for made in (self.home, self.tools, self.granted / "models"):
            made.mkdir(parents=True)
        for name in (".secret", ".bashrc"):
            (self.home / name).write_text("x")
        (self.granted / "models" / "weights").write_text("x")
        monkeypatch.setenv("HOME", str(self.home))
        monkeypatch.setenv("PROBE_LEVEL", "7")
        toml = SCORED.format(
            read=f'"{self.granted / "models"}"', write=f'"{self.tools}", "{self.granted}"'
        )
        files = {"score.py": SCORE, "holdout/answer": "42", "data/huge": "x"}
        make_task(self.checkout, toml=toml, files=files)

    def run(self, port: int = 9, timid: bool = False, **settings: Any) -> Probed:
        state = self.checkout / ".autoresearch"
        told = {
            "pid": os.getpid(),
            "timid": timid,
            "port": port,
            "read": {
                "ledger": state / "ledger.sqlite",
                "hidden": self.checkout / "holdout" / "answer",
                "checkout": self.checkout / "data" / "huge",
                "log": state / "t" / "runs" / "0000" / "00001" / "log",
                "home": self.home / ".secret",
                "granted": self.granted / "models" / "weights",
            },
            "list": {
                "checkout": self.checkout,
                "runs": state / "t" / "runs",
                "home": self.home,
                "root": "/",
            },
            "write": {
                "checkout": self.checkout / "new",
                "program": self.checkout / "prog.py",
                "ledger": state / "ledger.sqlite",
                "home": self.home / ".bashrc",
                "granted": self.granted / "new",
            },
        }
        (self.tools / "told.json").write_text(json.dumps(told, default=str))
        script = self.tools / "probe.py"
        script.write_text(PROBE)
        agent = agents.load("command", f"python {script}")
        night = run_session(self.checkout, agent, limits__experiments=1, **settings)
        report = self.granted / "new.report"
        return Probed(night, json.loads(report.read_text()), self.checkout)


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Probe:
    return Probe(tmp_path, monkeypatch)


REFUSED = (
    *("read ledger", "read hidden", "read checkout", "read log", "read home"),
    *("list checkout", "list runs", "list home", "list root"),
    *("write checkout", "write program", "write ledger", "write home"),
    *("the harness's variables", "replace its own output", "link the outcome"),
)
ERRORS = {"EACCES", "EROFS", "EBUSY"}  # by Landlock, on a read-only mount, and of a mount itself
ALLOWED = (
    *("read granted", "write granted", "connect", "tmp", "edit", "python", "git", "null", "shell"),
)


@needs_landlock
def test_an_agent_touches_what_it_may_and_nothing_else(probe: Probe) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        probed = probe.run(server.getsockname()[1])
    found = dict(probed.found)
    assert {name: found[name] for name in REFUSED if found[name] not in ERRORS} == {}
    assert {name: found[name] for name in ALLOWED} == dict.fromkeys(ALLOWED, "ok")
    signals = [found["signal the harness"], found["signal its warden"]]
    assert signals == ["EPERM" if ABI >= 6 else "ok"] * 2
    assert found["level"] == "7"  # a variable of [agent] env

    assert probed.night.experiments[1].description == "tried everything"
    assert not (probed.checkout / "new").exists()
    assert (probe.home / ".bashrc").read_text() == "x"
    assert not any("confined" in warning for warning in probed.night.record.warnings)


@needs_landlock
def test_an_environment_in_the_checkout_is_seen_and_no_more_of_it(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = probe.checkout / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    monkeypatch.setenv("PATH", f"{venv / 'bin'}:{os.environ['PATH']}")
    found = probe.run().found
    assert found["prefix"] == str(venv)
    assert found["python"] == "ok"
    assert {found[name] for name in REFUSED} <= ERRORS


@needs_landlock
def test_unconfined_is_said(probe: Probe) -> None:
    probed = probe.run(timid=True, agent__confine=False)
    assert probed.found["read hidden"] == probed.found["list checkout"] == "ok"
    [warning] = [one for one in probed.night.record.warnings if "confined" in one]
    assert "[agent] confine = false" in warning
    assert f"warning: {warning}" in probed.night.lines


def test_without_landlock_the_turn_goes_on_with_a_warning(
    probe: Probe, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    probed = probe.run(timid=True)
    assert probed.found["read hidden"] == "ok"
    assert probed.night.experiments[1].description == "tried everything"
    said = [one for one in probed.night.lines if "agent's program" in one and "no Landlock" in one]
    assert len(said) == 1 and "can read and write what you can" in said[0]
    task = load(root)
    assert not any("an agent's program" in line for line in enforced(task))
    assert any("no Landlock" in line for line in not_enforced(task))


def test_check_says_what_holds_here(root: Path) -> None:
    program = "an agent's program: "
    task = load(root)
    free = replace(task, agent=replace(task.agent, confine=False))
    files = f"{program}files outside its folders"
    assert any(line.startswith(files) for line in enforced(task)) == (ABI > 0)
    assert not any(line.startswith(files) for line in enforced(free))
    assert f"{program}reads and writes what you can" in not_enforced(free)
    assert f"{program}it uses the network" in not_enforced(task)


SMALL = """\
exec >{granted}/seen
echo level $PROBE_LEVEL
for file in {granted}/models/weights {home}/.secret {hidden} {ledger}
do head -c 1 $file >/dev/null && echo saw $file; done
"""


def seen_at_first(probe: Probe, **settings: Any) -> list[str]:
    """What an agent sees in its first small turn, where it edits nothing: that ends the session."""
    places = {
        "granted": probe.granted,
        "home": probe.home,
        "hidden": probe.checkout / "holdout" / "answer",
        "ledger": probe.checkout / ".autoresearch" / "ledger.sqlite",
    }
    script = probe.tools / "small.sh"
    script.write_text(SMALL.format(**places))
    agent = agents.load("command", f"sh {script}")
    agent.probes = True  # type: ignore[attr-defined]
    with pytest.raises(AgentError, match="failed its first small turn"):
        run_session(probe.checkout, agent, **settings)
    lines = (probe.granted / "seen").read_text().splitlines()
    paths = {f"saw {path}": name for name, path in places.items()}
    paths |= {f"saw {probe.granted}/models/weights": "granted", f"saw {probe.home}/.secret": "home"}
    return [paths.get(line, line) for line in lines]


@needs_landlock
def test_the_first_small_turn_has_the_same_grants_and_walls(
    probe: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seen_at_first(probe) == ["level 7", "granted"]
    monkeypatch.setattr(installed, "SYSTEM", (*installed.SYSTEM, str(tmp_path / "work")))
    assert seen_at_first(probe) == ["level 7", "granted"]  # a task below a system folder
    free = seen_at_first(probe, agent__confine=False)
    assert free == ["level 7", "granted", "home", "hidden", "ledger"]


# ---- one turn ----------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tree, home = tmp_path / "worktree", tmp_path / "home"
    tree.mkdir()
    home.mkdir()
    (home / "secret").write_text("the secret\n")
    (tree / "train.py").write_text("LR = 0.1\n")
    monkeypatch.setenv("HOME", str(home))
    return tree


def turn_in(tree: Path, briefing: str = "", grants: Grants | None = None) -> Turn:
    return Turn(tree, ("train.py",), None, briefing, 60.0, grants or Grants())  # type: ignore[arg-type]


@needs_landlock
def test_a_path_in_the_briefing_grants_nothing(tree: Path) -> None:
    """The briefing quotes what programs print, and so may name any file."""
    secret = tree.parent / "home" / "secret"
    command = "cat $(echo {briefing} | head -1) > train.py; echo done"
    answer = taken(agents.load("command", command), turn_in(tree, f"{secret}\n"))
    assert isinstance(answer, Proposal)
    assert (tree / "train.py").read_text() == ""
    named = agents.load("command", f"cat {secret} > train.py; echo done")
    assert taken(named, turn_in(tree)) == Proposal("done")
    assert (tree / "train.py").read_text() == "the secret\n"


def taken(agent: Any, turn: Turn) -> object:
    """One turn of an agent, and what watched it ended."""
    with closing(agent):
        return agent.propose(turn)


def says(tree: Path, needs: Needs, script: str, grants: Grants | None = None) -> object:
    def read_events(lines: Any) -> TurnResult:
        return TurnResult(text="\n".join(lines))

    spec = Spec(
        program="fake",
        argv=lambda _: ("sh", "-c", script),
        read_events=read_events,
        own=needs.own,
        read=needs.read,
        named=needs.named,
    )
    return taken(Headless(spec, Settings()), turn_in(tree, grants=grants))


@needs_landlock
def test_its_own_configuration_is_made_and_kept(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tree.parent / "home"
    (home / ".fake.json").write_text("old")
    needs = Needs(own=("${FAKE_HOME:-~/.fake}/", "~/.fake.json", "~/.fake-*", "~/.missing"))
    (home / ".fake-a").mkdir()
    script = (
        "echo x > ~/.fake/log && echo new > ~/.fake.json && echo x > ~/.fake-a/y;"
        "echo x > ~/.other; echo x > ~/.missing; echo x >> train.py; echo done"
    )
    assert says(tree, needs, script) == Proposal("done")
    assert (home / ".fake" / "log").read_text() == "x\n"
    assert (home / ".fake.json").read_text() == "new\n"
    assert (home / ".fake-a" / "y").exists()
    assert not (home / ".other").exists() and not (home / ".missing").exists()


@needs_landlock
def test_a_program_cannot_make_us_read_through_its_report(tree: Path, tmp_path: Path) -> None:
    secret = tmp_path / "home" / "secret"
    confinement = make_confinement(("sh",), tree, {"PATH": os.environ["PATH"]}, Needs(), Grants())
    assert confinement is not None
    for trick in (f"ln -s {secret} $TMPDIR/report", "mkfifo $TMPDIR/report"):
        with closing(LocalRunner(1)) as runner, Program(tmp_path / "turn", runner) as program:
            env = {"PATH": os.environ["PATH"]}
            argv = ("sh", "-c", trick)
            output = program.run(argv, tree, env, report="report", confinement=confinement)
            assert (output.exit_code, output.lines) == (0, ())
        assert secret.exists()


def test_a_turn_that_cannot_be_confined_is_a_failed_turn(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ABI == 0:
        pytest.skip("this kernel has no Landlock")
    paths = [Path(name) for name in (*installed.SYSTEM, "/proc/self/ns/net")]
    monkeypatch.setattr(installed.AccessRules, "list_system", lambda _: paths)
    answer = says(tree, Needs(), "echo x >> train.py; echo done")
    assert getattr(answer, "reason", None) == "not confined"
    assert "/proc/self/ns/net" in getattr(answer, "message", "")
    assert (tree / "train.py").read_text() == "LR = 0.1\n"


# ---- which folders those are -------------------------------------------------------------------


@dataclass
class Place:
    """A made-up machine."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def checkout(self) -> Path:
        return self.home / "project"

    def make(self, *names: str, text: str = "") -> None:
        for name in names:
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)

    def reach(self, argv0: str = "sh", path: tuple[str, ...] = (), **needs: Any) -> set[str]:
        """What may be read of it, relative to it."""
        entries = (*(str(self.folder / one) for one in path), "/usr/bin", "/bin")
        grants = Grants(checkout=self.checkout, private=(self.checkout / ".autoresearch",))
        env = {"PATH": ":".join(entries), **needs.pop("env", {})}
        confinement = make_confinement((argv0,), self.folder / "wt", env, Needs(**needs), grants)
        assert confinement is not None
        below = (Path(one) for one in confinement.read)
        return {str(p.relative_to(self.folder)) for p in below if p.is_relative_to(self.folder)}

    def sees(self, name: str, *given: Any, **settings: Any) -> bool:
        seen = self.reach(*given, **settings)
        return any((self.folder / name).is_relative_to(self.folder / one) for one in seen)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    if ABI == 0:
        pytest.skip("this kernel has no Landlock")
    place = Place(tmp_path.resolve())
    place.make("home/project/prog.py", "home/project/.autoresearch/ledger.sqlite")
    monkeypatch.setenv("HOME", str(place.home))
    return place


def test_what_is_on_the_path_is_seen_with_its_installation(place: Place) -> None:
    place.make("home/.nvm/versions/v22/bin/tool", "home/.nvm/versions/v22/lib/x")
    place.make("soft/bin/tool", "home/scripts/tool")
    seen = place.reach(path=("home/.nvm/versions/v22/bin", "soft/bin", "home/scripts"))
    assert {"home/.nvm/versions/v22", "soft", "home/scripts"} <= seen
    assert not {"home", "home/.nvm", "."} & seen


def test_of_a_folder_in_the_home_folder_only_what_is_installed(place: Place) -> None:
    place.make(
        *("home/.cargo/bin/cargo", "home/.cargo/credentials.toml", "home/.local/bin/tool"),
        *("home/.local/lib/python3/site.py", "home/.local/share/keyrings/login", "home/bin/own"),
        *("home/conda/bin/python", "home/conda/conda-meta/history", "home/conda/ssl/x"),
    )
    path = ("home/.cargo/bin", "home/.local/bin", "home/bin", "home/conda/bin", "home")
    seen = place.reach(path=path)
    wanted = {"home/.cargo/bin", "home/.local/bin", "home/.local/lib", "home/bin", "home/conda"}
    assert wanted <= seen
    for hidden in ("home/.cargo/credentials.toml", "home/.local/share/keyrings/login", "home/x"):
        assert not place.sees(hidden, path=path)


def test_of_the_checkout_only_an_environment(place: Place) -> None:
    place.make("home/project/bin/tool", "home/project/.venv/bin/python", "home/project/tools/x")
    place.make("home/project/.venv/pyvenv.cfg", text=f"home = {place.folder}/base/bin\n")
    place.make("base/bin/python", "base/lib/os.py")
    path = ("home/project/bin", "home/project/.venv/bin", "home/project/tools")
    seen = place.reach(path=path)
    assert {one for one in seen if one.startswith("home/project")} == {"home/project/.venv"}
    assert "base" in seen
    (place.folder / "elsewhere").symlink_to(place.checkout / "tools")
    assert not place.sees("home/project/tools/x", path=("elsewhere",))


def test_no_installation_that_holds_the_home_folder_or_the_checkout(place: Place) -> None:
    place.make("bin/tool", "home/bin/tool")
    assert "." not in place.reach(path=("bin",))
    assert place.reach(path=("bin",)) >= {"bin"}
    assert not place.sees("home/project/prog.py", path=("bin", "home/bin", "home/project"))


def test_a_program_is_seen_where_it_really_is_and_so_is_its_interpreter(place: Place) -> None:
    place.make("node/lib/node_modules/@x/agent/dist/main.js", text="#!/usr/bin/env mynode\n")
    place.make("node/lib/node_modules/dep/index.js", "engine/bin/mynode", "engine/lib/x.so")
    place.make("home/links/none")
    link = place.home / "links" / "agent"
    link.symlink_to(place.folder / "node/lib/node_modules/@x/agent/dist/main.js")
    seen = place.reach("agent", path=("home/links", "engine/bin"))
    assert {"node/lib/node_modules", "engine"} <= seen
    assert "node" not in seen

    place.make("home/.local/share/uv/tools/a/pyvenv.cfg", text=f"home = {place.folder}/py/bin")
    python = place.home / ".local/share/uv/tools/a/bin/python"
    place.make("py/bin/python3", "py/lib/os.py")
    place.make("home/.local/share/uv/tools/a/bin/agent2", text=f"#!{python}\n")
    python.symlink_to(place.folder / "py/bin/python3")
    (place.home / "links" / "agent2").symlink_to(python.with_name("agent2"))
    seen = place.reach("agent2", path=("home/links",))
    assert {"home/.local/share/uv/tools/a", "py"} <= seen
    assert not place.sees("home/.local/share/keyrings", "agent2", path=("home/links",))


def test_files_that_a_command_line_names(place: Place) -> None:
    place.make("tools/a.py", "tools/b.py")
    a, b = place.folder / "tools/a.py", place.folder / "tools/b.py"
    command = (
        f"python {a} --config='{b}' > {place.folder}/none; cat {place.folder}/tools /{'x' * 999}"
    )
    assert files_named(command) == (str(a), str(b))
    assert {"tools/a.py", "tools/b.py"} <= place.reach(named=files_named(command))
    ledger = str(place.checkout / ".autoresearch" / "ledger.sqlite")
    with pytest.raises(AgentError, match=r"may not use .*ledger"):
        place.reach(named=(ledger,))


def test_a_configuration_that_holds_what_is_private_is_refused(place: Place) -> None:
    for value in (place.home, place.checkout, "/"):
        with pytest.raises(AgentError, match=r"may not use .* it holds"):
            place.reach(own=("${FAKE_HOME:-~/.fake}/",), env={"FAKE_HOME": str(value)})
    assert not (place.home / ".fake").exists()
    with pytest.raises(AgentError, match="it is in"):
        place.reach(own=("~/project/.autoresearch/t/",))


def test_a_task_in_a_system_folder_is_not_seen_with_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.make("opt/tool/x", "opt/work/project/.autoresearch/ledger.sqlite", "opt/work/other/x")
    monkeypatch.setattr(installed, "SYSTEM", (str(place.folder / "opt"),))
    project = place.folder / "opt/work/project"
    grants = Grants(checkout=project, private=(project / ".autoresearch",))
    confinement = make_confinement(("sh",), place.folder / "wt", {"PATH": "/bin"}, Needs(), grants)
    assert confinement is not None
    mine = [one for one in confinement.read if one.startswith(str(place.folder / "opt"))]
    assert mine == [str(place.folder / "opt/tool"), str(place.folder / "opt/work/other")]


# ---- what a task may grant ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "given", "problem"),
    [
        ("agent", 'read = ["{root}"]', "may see; name what is needed beside it"),
        ("agent", 'read = ["{root}/.."]', "not absolute"),
        ("agent", 'read = ["/"]', "holds .*autoresearch"),
        ("agent", 'write = ["{root}/.autoresearch/t"]', "does not exist; make it first"),
        ("agent", 'read = ["{root}/holdout/answer"]', "is in .*holdout, which no agent may see"),
        ("agent", 'write = ["~/"]', "holds the home folder"),
        ("agent", 'read = ["models"]', "not absolute"),
        ("agent", "confine = 1", "accepted: true or false"),
        ("agent.command", 'read = ["{root}"]', "may see"),
        ("agent.command", 'write = ["~/none"]', "does not exist"),
    ],
)
def test_a_grant_too_wide_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, given: str, problem: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    root = tmp_path / "task"
    toml = SCORED.format(read="", write="").partition("[agent]")[0]
    files = {"score.py": SCORE, "holdout/answer": "42"}
    wrong = given.format(root=root)
    make_task(root, toml=f"{toml}[{table}]\n{wrong}\n", files=files)
    line = (root / "autoresearch.toml").read_text().splitlines().index(wrong) + 1
    with pytest.raises(TaskError, match=rf"autoresearch.toml:{line}: \[{table}\].*{problem}"):
        load(root)


def test_what_all_agents_and_one_agent_are_granted_adds_up(tree: Path) -> None:
    if ABI == 0:
        pytest.skip("this kernel has no Landlock")
    for name in ("a", "b"):
        (tree.parent / name).mkdir()
        (tree.parent / name / "file").write_text(name)
    agent = agents.load(
        "command",
        "cat ../a/file ../b/file ../home/secret > train.py; echo done",
        {"read": [str(tree.parent / "b")]},
    )
    turn = turn_in(tree, grants=Grants(read=(str(tree.parent / "a"),)))
    assert taken(agent, turn) == Proposal("done")
    assert (tree / "train.py").read_text() == "ab"
