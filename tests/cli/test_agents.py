"""`autoresearch agents`, with programs on a PATH of the test's own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.sessions import alive

from autoresearch import agents
from autoresearch.agents.support import availability
from autoresearch.agents.support.availability import (
    AgentAvailability,
    describe,
    list_availability,
)
from autoresearch.agents.support.headless import About
from autoresearch.cli import main as cli
from autoresearch.errors import AgentError
from autoresearch.report.availability import availability_text

SECRET = "very-secret-value-1"
PATIENT_S = 60.0  # for a busy machine


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A HOME with nothing in it, a PATH with nothing on it, and no key."""
    for name in agents.names():
        agent = describe(name)
        places = [file[1:].partition("/")[0] for file in agent.logins if file[0] == "$"]
        for variable in (*agent.keys, *places):
            monkeypatch.delenv(variable, raising=False)
    (tmp_path / "bin").mkdir()
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def install(home: Path) -> Callable[[str, str], None]:
    def install(name: str, script: str) -> None:
        program = home.parent / "bin" / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return install


def list_agents(timeout_s: float = PATIENT_S) -> dict[str, AgentAvailability]:
    return {agent.name: agent for agent in list_availability(timeout_s)}


def print_agents(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(["agents", *words])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_every_agent_is_listed_with_a_description(home: Path) -> None:
    agents_by_name = list_agents()
    assert list(agents_by_name) == agents.names()
    assert all(agent.what and "\n" not in agent.what for agent in agents_by_name.values())
    assert {name for name, agent in agents_by_name.items() if agent.built_in} == {
        "command",
        "replay",
        "tuner",
    }
    absent = [agent for agent in agents_by_name.values() if not agent.installed]
    assert {"aider", "claude", "codex", "gemini", "mini", "opencode", "pi", "qwen"} == {
        agent.name for agent in absent
    }
    assert all(agent.install and agent.version is None and not agent.problem for agent in absent)
    assert agents_by_name["llm"].installed and agents_by_name["llm"].version
    assert agents_by_name["codex"].what == "OpenAI's Codex CLI"


def test_a_version(install: Callable[[str, str], None]) -> None:
    install("codex", "echo; echo codex-cli 0.169.0-alpha.1")
    install("claude", 'test "$1" = --version && test $# = 1 && echo "2.1.9 (Claude Code)" >&2')
    install("mini", "echo no number")
    install("pi", "echo 1.2.3; exit 3")
    agents_by_name = list_agents()
    assert agents_by_name["codex"].version == "0.169.0-alpha.1"
    assert agents_by_name["claude"].version == "2.1.9"
    assert (agents_by_name["mini"].installed, agents_by_name["mini"].version) == (True, None)
    assert agents_by_name["mini"].problem == "`mini --version` said no version"
    assert agents_by_name["pi"].problem == "`pi --version` failed: exit code 3"


def test_a_program_that_hangs_is_killed_with_its_children(
    install: Callable[[str, str], None], home: Path
) -> None:
    install("gemini", f"/bin/sleep 600 & echo $! >{home}/pid; wait")
    began = time.monotonic()
    agents_by_name = list_agents(timeout_s=3.0)
    assert time.monotonic() - began < PATIENT_S
    assert agents_by_name["gemini"].installed and agents_by_name["gemini"].version is None
    assert agents_by_name["gemini"].problem == "`gemini --version` did not end within 3 s"
    assert not alive(int((home / "pid").read_text()))


def test_a_program_gets_no_keys_and_no_input_and_leaves_nothing(
    install: Callable[[str, str], None], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("SOMETHING_ELSE", SECRET)
    monkeypatch.setattr(availability.tempfile, "tempdir", str(home.parent))
    install("codex", f"/usr/bin/env >{home}/env; pwd >{home}/pwd; read line || echo 1.0")
    assert list_agents()["codex"].version == "1.0"
    assert SECRET not in (home / "env").read_text()
    assert not Path((home / "pwd").read_text().strip()).exists()
    assert sorted(path.name for path in home.parent.iterdir()) == ["bin", "home"]


def test_keys_and_logins_are_named_and_never_shown(
    install: Callable[[str, str], None],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("codex", "qwen", "pi", "opencode"):
        install(name, "echo 1.0")
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("CODEX_API_KEY", "")  # set to nothing
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://{SECRET}")  # no key
    monkeypatch.setenv("PI_CODING_AGENT_DIR", str(home / "elsewhere"))
    for file in (".codex/auth.json", ".pi/agent/auth.json"):
        (home / file).parent.mkdir(parents=True)
        (home / file).write_text(SECRET)
    agents_by_name = list_agents()
    assert agents_by_name["codex"].credentials == ("OPENAI_API_KEY", "~/.codex/auth.json")
    assert agents_by_name["qwen"].credentials == ("OPENAI_API_KEY",)
    assert agents_by_name["pi"].credentials == ("OPENAI_API_KEY",)  # its files are elsewhere
    assert agents_by_name["llm"].credentials == ("OPENAI_API_KEY",)
    (home / "elsewhere").mkdir()
    (home / "elsewhere" / "auth.json").write_text(SECRET)
    assert list_agents()["pi"].credentials == ("OPENAI_API_KEY", "$PI_CODING_AGENT_DIR/auth.json")
    text, data = print_agents(capsys), print_agents(capsys, "--json")
    assert "1.0; key or login: OPENAI_API_KEY, ~/.codex/auth.json\n" in text
    assert SECRET not in text + data
    [codex] = [agent for agent in json.loads(data) if agent["name"] == "codex"]
    assert codex["installed"] and codex["credentials"] == ["OPENAI_API_KEY", "~/.codex/auth.json"]


def test_the_list_says_how_to_install_an_agent(
    home: Path, install: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    install("qwen", "echo 0.15.1")
    text = print_agents(capsys)
    assert "not installed: npm install -g @openai/codex\n" in text
    assert "0.15.1; no key or login seen." in text
    assert "tuner" in text and "built in" in text
    assert len(text.splitlines()) == 2 * len(agents.names())


def test_without_the_library(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    agent = list_agents()["llm"]
    assert not agent.installed and "autoresearch[llm]" in agent.install


def test_a_terminal_is_not_harmed(install: Callable[[str, str], None]) -> None:
    install("pi", "printf '\\033[31m1.2\\033]0;title\\007'")
    agent = list_agents()["pi"]
    assert agent.version == "1.2" and "\033" not in availability_text([agent])


def add_module(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, text: str) -> None:
    """A further module among the agents'."""
    (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(agents, "__path__", [*agents.__path__, str(folder)])
    monkeypatch.delitem(sys.modules, f"autoresearch.agents.{name}", raising=False)


@pytest.mark.parametrize(
    ("text", "what", "built_in"),
    [
        ('"""Halves things. And more."""\ndef create(*_): ...\n', "Halves things", True),
        ("def create(*_): ...\n", "", True),
        (
            "from autoresearch.agents.support.headless import About\n"
            "ABOUT = About('a program', 'no-such')\n"
            "def create(*_): ...\n",
            "a program",
            False,
        ),
    ],
)
def test_a_new_file_is_in_the_list(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    what: str,
    built_in: bool,
) -> None:
    add_module(monkeypatch, tmp_path, "halve_it", text)
    agent = list_agents()["halve_it"]
    assert (agent.what, agent.built_in, agent.installed) == (what, built_in, built_in)
    sys.modules.pop("autoresearch.agents.halve_it")


def test_an_agent_that_cannot_be_imported_is_an_error(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    add_module(monkeypatch, tmp_path, "broken_one", "import no_such_module\n")
    with pytest.raises(SystemExit) as ended:
        cli.main(["agents"])
    assert ended.value.code == AgentError.exit_code
    assert "agent 'broken_one' cannot be imported" in capsys.readouterr().err


def test_every_named_agent_says_how_to_install_it() -> None:
    for name in agents.names():
        agent = describe(name)
        assert bool(agent.install) == bool(agent.program or agent.library), name
        assert all(key == key.upper() for key in agent.keys)
        assert all(file.startswith(("~/", "$")) for file in agent.logins)


def test_an_about_of_its_own_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = __import__("autoresearch.agents.codex", fromlist=["create"])
    monkeypatch.setattr(module, "ABOUT", About("something else"), raising=False)
    assert describe("codex") == About("something else")
