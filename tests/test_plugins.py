"""Agents, runners and tasks of other packages, by entry point and by dotted path."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoresearch import agents, runners
from autoresearch.cli import main as cli
from autoresearch.errors import AgentError, AutoresearchError, RunnerError, TaskError
from autoresearch.plugins import AGENTS, RUNNERS, TASKS, Plugins
from autoresearch.protocols import Agent, Runner
from autoresearch.task.model import RunnerSettings
from autoresearch.testing import AgentSuite, RunnerSuite

EXAMPLE = Path(__file__).parent / "support" / "example_plugin"


def add_package(site: Path, name: str, points: dict[str, dict[str, str]]) -> None:
    """Install a package in `site` as far as its entry points: group -> name -> module."""
    folder = site / f"{name}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [
        line
        for group, given in points.items()
        for line in (f"[{group}]", *(f"{key} = {value}" for key, value in given.items()))
    ]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which Python finds packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def example(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example package, as if it were installed."""
    (site / "example_plugin").symlink_to(EXAMPLE / "example_plugin")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    add_package(site, "example_plugin", project["entry-points"])
    yield site
    for name in [name for name in sys.modules if name.partition(".")[0] == "example_plugin"]:
        del sys.modules[name]


@pytest.mark.usefixtures("example")
class TestExampleAgent(AgentSuite):
    def make(self) -> Agent:
        return agents.load("halve")


@pytest.mark.usefixtures("example")
class TestExampleRunner(RunnerSuite):
    def make(self, slots: int) -> Runner:
        return runners.load(RunnerSettings(name="logging", slots=slots))


def run_cli(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_a_session_of_nothing_but_plugins(
    example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The task of the example, its runner by entry point and its agent by dotted path."""
    folder, runs = tmp_path / "task", tmp_path / "runs.txt"
    assert run_cli("new", "parabola", folder) == 0
    with (folder / "autoresearch.toml").open("a") as file:
        file.write(
            '[agent]\nname = "example_plugin.halve:0.5"\n'
            f'[runner]\nname = "logging"\n[runner.logging]\nfile = "{runs}"\n'
        )
    subprocess.run(["git", "-C", str(folder), "commit", "-qam", "plug-ins"], check=True)
    capsys.readouterr()
    assert run_cli("run", folder, "--tag", "t", "--experiments", 2, "--plain") == 0
    assert run_cli("log", folder, "--json") == 0
    assert "LR 0.9 -> 0.45" in capsys.readouterr().out
    lines = runs.read_text().splitlines()
    assert len(lines) >= 6 and set(lines) == {"python 0 None"}


def test_the_list_of_agents_has_the_plugin(
    example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("agents", "--json") == 0
    [halve] = [each for each in json.loads(capsys.readouterr().out) if each["name"] == "halve"]
    assert halve["built_in"] and halve["what"].startswith("Lowers the constant LR")


@pytest.mark.parametrize("kind", [AGENTS, RUNNERS, TASKS])
def test_entry_points_are_not_read_for_a_name_of_ours(
    kind: Plugins, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [ours, *_] = kind.ours()
    add_package(site, "thief", {kind.group: {ours: "thief.module"}})
    monkeypatch.setattr("importlib.metadata.entry_points", None)
    assert kind.find(ours) == f"{kind.group}.{ours}"


def test_names_of_other_packages_are_accepted_and_suggested(example: Path) -> None:
    assert {"tuner", "halve"} <= set(agents.names())
    with pytest.raises(AgentError, match=r"no agent 'halv'\. Did you mean 'halve'\? There are: "):
        agents.load("halv")
    with pytest.raises(RunnerError, match=r"no runner 'loging'\. Did you mean 'logging'\?.*local"):
        runners.load(RunnerSettings(name="loging"))
    with pytest.raises(TaskError, match=r"no task 'parabol'\. Did you mean 'parabola'\?.*instant"):
        TASKS.folder("parabol")
    assert agents.load("example_plugin.halve", "0.5").name == "halve"
    assert TASKS.folder("example_plugin.parabola").name == "parabola"


BROKEN = "raise OSError('no such device')\n"


@pytest.mark.parametrize("name", ["mine", "mine_lib.mine"])
@pytest.mark.parametrize(
    ("kind", "source", "problem"),
    [
        (AGENTS, BROKEN, "cannot be imported: OSError: no such device"),
        (RUNNERS, BROKEN, "cannot be imported: OSError: no such device"),
        (AGENTS, "import no_such_library", "cannot be imported: ModuleNotFoundError: No module"),
        (AGENTS, "pass", "the module mine_lib.mine defines no function `create`"),
        (RUNNERS, "create = 1", "the module mine_lib.mine defines no function `create`"),
    ],
)
def test_a_plugin_that_is_broken_is_an_error(
    site: Path, kind: Plugins, source: str, problem: str, name: str
) -> None:
    (site / "mine_lib").mkdir()
    (site / "mine_lib" / "mine.py").write_text(source)
    add_package(site, "mine_lib", {kind.group: {"mine": "mine_lib.mine"}})
    try:
        with pytest.raises(kind.error, match=problem) as raised:
            kind.load(name)
        assert str(raised.value).startswith(f"{kind.kind} {name!r}")
        assert "mine_lib.mine" in str(raised.value)
    finally:
        for module in ("mine_lib", "mine_lib.mine"):
            sys.modules.pop(module, None)


@pytest.mark.parametrize("kind", [AGENTS, RUNNERS])
def test_a_module_that_is_not_there(kind: Plugins) -> None:
    with pytest.raises(kind.error, match=f"^{kind.kind} 'no_such.thing' cannot be imported: "):
        kind.load("no_such.thing")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("example_plugin.halve", "is no folder with autoresearch.toml"),
        ("example_plugin.nothing", "is no folder with autoresearch.toml"),
        ("no_such.task", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_what_is_no_task(example: Path, tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(TaskError, match=problem):
        TASKS.folder(name)
    assert run_cli("new", name, tmp_path / "new") == TaskError.exit_code
    assert not (tmp_path / "new").exists()


def test_two_packages_of_one_name(site: Path) -> None:
    for package in ("one", "two"):
        add_package(site, package, {AGENTS.group: {"mine": f"{package}.mine"}})
    with pytest.raises(AutoresearchError, match=r"agent 'mine' is in two installed packages: "):
        agents.load("mine")
