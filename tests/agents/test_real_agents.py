"""Real coding agents, installed from their registries into `.agents/`, against the scripted server:
`make test-agents`. With `RECORD=1` what they print becomes `tests/agents/`, for the default suite.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.model_server import MODEL, TOKENS_IN, TOKENS_OUT, ModelServer
from support.sessions import night

from autoresearch import agents
from autoresearch.agents.support import process
from autoresearch.agents.support.headless import Headless
from autoresearch.errors import AgentError
from autoresearch.protocols import Failure, Proposal, Turn

pytestmark = [pytest.mark.agents, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
INSTALLED = Path(os.environ.get("AGENTS", ROOT / ".agents"))
RECORDINGS = ROOT / "tests" / "agents"
INSTANT = ROOT / "src" / "autoresearch" / "tasks" / "instant"
KEY = "scripted-key-0123456789"
PATIENCE = float(os.environ.get("PATIENCE", "1"))  # for a slow machine: stretches every deadline

LITELLM = {"OPENAI_API_KEY": KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # prices: not online

Files = Mapping[str, object]


@dataclass(frozen=True)
class Setup:
    """How an agent is told of the scripted server: files in its HOME, and variables."""

    model: str
    files: Callable[[str], Files] = lambda url: {}
    env: Callable[[str], Mapping[str, str]] = lambda url: {"OPENAI_API_KEY": KEY}
    silent: tuple[str, ...] = ()  # what it goes on trying until its deadline


def codex(url: str) -> Files:
    fake = {
        "name": "fake",
        "base_url": f"{url}/v1",
        "env_key": "OPENAI_API_KEY",
        "wire_api": "responses",
        "request_max_retries": 3,
        "stream_max_retries": 1,
        "stream_idle_timeout_ms": 60_000,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in fake.items()]
    return {".codex/config.toml": "\n".join(['model_provider = "fake"', TABLE, *lines])}


TABLE = "[model_providers.fake]"


def opencode(url: str) -> Files:
    model = {"name": MODEL, "cost": {"input": 1, "output": 2}}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "fake",
        "options": {"baseURL": f"{url}/v1", "apiKey": KEY},
        "models": {MODEL: model},
    }
    whole = {"provider": {"fake": provider}, "permission": "allow", "autoupdate": False}
    return {".config/opencode/opencode.json": whole}


def pi(url: str) -> Files:
    model = {
        "id": MODEL,
        "name": MODEL,
        "reasoning": False,
        "input": ["text"],
        "cost": {"input": 1, "output": 2, "cacheRead": 0, "cacheWrite": 0},
        "contextWindow": 100_000,
        "maxTokens": 4_000,
    }
    provider = {"baseUrl": f"{url}/v1", "api": "openai-completions", "apiKey": "OPENAI_API_KEY"}
    return {".pi/agent/models.json": {"providers": {"fake": provider | {"models": [model]}}}}


def qwen(url: str) -> Files:
    """With its own patience left, it asks a service that says 429 again for longer than a turn."""
    login = {"security": {"auth": {"selectedType": "openai"}}}
    patience = {"model": {"generationConfig": {"maxRetries": 0}}}
    return {".qwen/settings.json": login | patience}


def aider(url: str) -> Files:
    """The prices that it fetches otherwise, as it keeps them for a day."""
    prices = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
    known = {f"openai/{MODEL}": {"litellm_provider": "openai", "mode": "chat"} | prices}
    return {".aider/caches/model_prices_and_context_window.json": known}


SETUPS = {
    "codex": Setup(MODEL, codex),
    "opencode": Setup(f"fake/{MODEL}", opencode),
    "pi": Setup(f"fake/{MODEL}", pi),
    "gemini": Setup(
        "gemini-2.5-pro",
        lambda url: {
            ".gemini/settings.json": {"security": {"auth": {"selectedType": "gemini-api-key"}}}
        },
        lambda url: {"GEMINI_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": url},
        silent=("limited", "broken"),
    ),
    "qwen": Setup(
        MODEL,
        qwen,
        lambda url: {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"{url}/v1"},
    ),
    "mini": Setup(
        f"openai/{MODEL}",
        env=lambda url: LITELLM | {"OPENAI_API_BASE": f"{url}/v1"},
        silent=("limited",),
    ),
    "aider": Setup(
        f"openai/{MODEL}",
        aider,
        env=lambda url: LITELLM | {"OPENAI_API_BASE": f"{url}/v1"},
        silent=("limited",),
    ),
}


@pytest.fixture(params=sorted(SETUPS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


def environment(name: str, url: str, home: Path) -> dict[str, str]:
    """A HOME of its own, and the installed agents first on the PATH."""
    setup = SETUPS[name]
    for path, content in setup.files(url).items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        (home / path).write_text(text)
    folders = [INSTALLED / "node_modules" / ".bin", INSTALLED / name / "bin"]
    path = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
    return {"HOME": str(home), "PATH": path, **setup.env(url)}


def take_turn(
    name: str,
    mode: str,
    server: ModelServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: tuple[str, ...] = (),
) -> Proposal | Failure | AgentError:
    url = server.url(mode)
    for key, value in environment(name, url, tmp_path / "home").items():
        monkeypatch.setenv(key, value)
    recording = "-".join((mode, *args[-1:]))
    monkeypatch.setattr(process.Program, "run", recorded(name, recording, tmp_path))
    tree = tmp_path / "worktree"
    tree.mkdir()
    for file in ("train.py", "problem.py"):
        (tree / file).write_bytes((INSTANT / file).read_bytes())
    for words in ("init -q", "add -A", "-c user.name=a -c user.email=a@b commit -qm incumbent"):
        subprocess.run(["git", *words.split()], cwd=tree, check=True)
    short_s = {"hang": 15} | dict.fromkeys(SETUPS[name].silent, 40)
    timeout_s = short_s.get(mode, 120) * PATIENCE
    turn = Turn(tree, ("train.py",), None, "Lower the loss.\n", timeout_s)  # type: ignore[arg-type]
    agent = agents.load(name, SETUPS[name].model, {"args": args})
    assert isinstance(agent, Headless)
    with closing(agent):
        try:
            answer = agent.propose(turn)
        except AgentError as error:
            return error
    assert answer is not None
    return answer


def recorded(name: str, recording: str, tmp_path: Path) -> Callable[..., process.Output]:
    """`Program.run`, which keeps what it returns when asked to."""
    run = process.Program.run

    def run_and_keep(self: process.Program, *args: Any, **kwargs: Any) -> process.Output:
        output = run(self, *args, **kwargs)
        if "RECORD" in os.environ:
            keep(RECORDINGS / name / recording, output, tmp_path)
        return output

    return run_and_keep


def keep(where: Path, output: process.Output, tmp_path: Path) -> None:
    """Its stdout; its stderr where that is all it said."""
    if not (text := "\n".join(output.lines) or output.stderr):
        return
    where.parent.mkdir(parents=True, exist_ok=True)
    scrubbed = text.replace(str(tmp_path), "/tmp").replace(str(INSTALLED), "/agents")
    where.with_suffix(".out" if output.lines else ".err").write_text(scrubbed + "\n")


def test_a_turn(
    name: str, server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = take_turn(name, "ok", server, tmp_path, monkeypatch)
    assert isinstance(answer, Proposal), answer
    assert "X = 0.5 " in (tmp_path / "worktree" / "train.py").read_text()
    assert answer.description.startswith("Set X to 0.5 in train.py")
    assert answer.tokens is not None and answer.tokens >= TOKENS_IN + TOKENS_OUT


def test_aider_edits_by_search_and_replace_too(
    server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does with the models it knows; of others, such as the scripted one, it wants files."""
    args = ("--edit-format", "diff")
    answer = take_turn("aider", "ok", server, tmp_path, monkeypatch, args)
    assert isinstance(answer, Proposal), answer
    assert "X = 0.5 " in (tmp_path / "worktree" / "train.py").read_text()
    assert answer.description == "Set X to 0.5 in train.py."


FAILURES = {
    "limited": ("rate limited",),
    "broken": ("service down",),
    "refused": ("key refused",),
    "unknown": ("unknown model",),
    "malformed": ("agent failed", "service down", "no change", "timeout"),
    "idle": ("no change", "agent failed"),  # mini-swe-agent insists on a tool call
    "hang": ("timeout", "service down"),
}


@pytest.mark.parametrize("mode", FAILURES)
def test_a_turn_that_fails(
    name: str, mode: str, server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = take_turn(name, mode, server, tmp_path, monkeypatch)
    assert KEY not in str(answer)
    if mode in ("refused", "unknown"):
        assert isinstance(answer, AgentError), answer
        assert any(word in str(answer) for word in FAILURES[mode])
        return
    assert isinstance(answer, Failure), answer
    assert answer.reason in FAILURES[mode], answer


def spend_night(
    name: str, url: str, experiments: int, tmp_path: Path
) -> subprocess.CompletedProcess[str]:
    """`autoresearch run` on the instant task, in `tmp_path / "instant"`."""
    env = {**os.environ, **environment(name, url, tmp_path / "home")}
    cli, root = [sys.executable, "-m", "autoresearch"], str(tmp_path / "instant")
    subprocess.run([*cli, "new", "instant", root], env=env, check=True)
    run = ["run", root, "--tag", "t", "--experiments", str(experiments), "--plain"]
    agent = ["--agent", f"{name}:{SETUPS[name].model}"]
    return subprocess.run([*cli, *run, *agent], env=env, capture_output=True, text=True)


@pytest.mark.parametrize("mode", ["ok", "busy"])
def test_a_night(name: str, mode: str, server: ModelServer, tmp_path: Path) -> None:
    """Five experiments, end to end, also when the service is busy at first."""
    done = spend_night(name, server.url(mode), 5, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    root = tmp_path / "instant"
    past = night(root)
    assert len(past.experiments) == 6
    assert {one.agent for one in past.experiments[1:]} == {f"{name}:{SETUPS[name].model}"}
    assert all(one.tokens for one in past.experiments[1:])
    assert past.experiments[1].description.startswith("Set X to 0.5")
    assert KEY not in (root / "results.tsv").read_text()


def test_an_edit_of_a_frozen_file_costs_no_run(
    name: str, server: ModelServer, tmp_path: Path
) -> None:
    done = spend_night(name, server.url("frozen"), 1, tmp_path)
    assert "frozen file" in done.stdout + done.stderr
    past = night(tmp_path / "instant")
    assert all(run.experiment == 0 for run in past.runs)


def test_a_refused_key_ends_the_night_at_once(
    name: str, server: ModelServer, tmp_path: Path
) -> None:
    done = spend_night(name, server.url("refused"), 5, tmp_path)
    assert done.returncode == AgentError.exit_code
    assert "key refused" in done.stderr and KEY not in done.stdout + done.stderr
