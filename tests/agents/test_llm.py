"""`--agent llm:MODEL`: the real client against the scripted server, one turn and whole nights."""

from __future__ import annotations

import email.utils
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.commands import Done, call
from support.model_server import MODEL, TOKENS_IN, TOKENS_OUT, ModelServer
from support.sessions import night, wait_until

from autoresearch import agents
from autoresearch.agents import llm
from autoresearch.agents.llm import Llm, Provider, create, prompt
from autoresearch.agents.support.chat import Reply, _read_error, read_reply, read_wait_s
from autoresearch.errors import AgentError
from autoresearch.protocols import Agent, Failure, Proposal, Turn
from autoresearch.testing import AgentSuite

INSTANT = Path(__file__).parents[2] / "src" / "autoresearch" / "tasks" / "instant"
KEY = "scripted-key-0123456789"
TOKENS = TOKENS_IN + TOKENS_OUT


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        name for name in os.environ if name.startswith("OPENAI_") or "proxy" in name.lower()
    ]:
        monkeypatch.delenv(name)
    for provider in llm.PROVIDERS.values():
        monkeypatch.delenv(provider.key_env or "", raising=False)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The instant task's folder, as an agent gets it."""
    tree = tmp_path / "worktree"
    tree.mkdir()
    for file in ("train.py", "problem.py"):
        (tree / file).write_bytes((INSTANT / file).read_bytes())
    return tree


def turn_in(
    tree: Path, briefing: str = "Lower the loss.\n", timeout_s: float | None = 60.0
) -> Turn:
    return Turn(tree, ("train.py",), None, briefing, timeout_s)  # type: ignore[arg-type]


def made(server: ModelServer, mode: str, **options: object) -> Llm:
    return create(MODEL, {"base_url": f"{server.url(mode)}/v1", **options}, 0)


def ask(server: ModelServer, mode: str, tree: Path, **options: object) -> Any:
    """One turn; one that failed has edited nothing."""
    before = (tree / "train.py").read_bytes()
    answer = made(server, mode, **options).propose(turn_in(tree))
    if not isinstance(answer, Proposal):
        assert (tree / "train.py").read_bytes() == before
    return answer


# ---- a turn ------------------------------------------------------------------------------------


def test_a_turn(server: ModelServer, tree: Path) -> None:
    answer = ask(server, "ok", tree)
    assert answer == Proposal("Set X to 0.5 in train.py.", tokens=TOKENS)
    was = (INSTANT / "train.py").read_text()
    assert (tree / "train.py").read_text() == was.replace("X = 0.8 ", "X = 0.5 ")
    [(path, body)] = server.requests
    assert path == "ok/v1/chat/completions"
    assert body == {
        "model": MODEL,
        "messages": [{"role": "user", "content": body["messages"][0]["content"]}],
    }


def test_it_is_found_by_its_name() -> None:
    agent = agents.load("llm", "ollama/qwen3:8b")
    assert (agent.name, agent.wants_briefing) == ("llm:ollama/qwen3:8b", True)
    assert agent.probes  # type: ignore[attr-defined]
    assert agents.load("llm", None, {"model": "ollama/x"}).name == "llm:ollama/x"


@pytest.mark.parametrize(
    ("mode", "reason", "message", "retry_after_s"),
    [
        ("idle", "bad edit", "no SEARCH/REPLACE block; it begins: I would rather not.", 0.0),
        ("astray", "bad edit", "block 1 (train.py): its search is not in the file", 0.0),
        ("cut", "bad edit", "cut off by the limit of tokens", 0.0),
        ("limited", "rate limited", "Rate limit reached, please try again in 7s.", 1.0),
        ("inside", "rate limited", "try again in 3s", 3.0),
        ("broken", "service down", "The server had an error.", None),
        ("malformed", "service down", "the reply is no JSON", None),
        ("odd", "service down", "the reply is no chat completion", None),
    ],
)
def test_a_turn_that_fails(
    server: ModelServer,
    tree: Path,
    mode: str,
    reason: str,
    message: str,
    retry_after_s: float | None,
) -> None:
    answer = ask(server, mode, tree)
    assert isinstance(answer, Failure)
    assert (answer.reason, answer.retry_after_s) == (reason, retry_after_s)
    assert message in answer.message
    assert answer.tokens == (TOKENS if reason == "bad edit" else None)
    assert len(server.requests) == 1  # waiting and asking again is the harness's part


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("refused", r"key refused: Incorrect API key provided.; check the key"),
        ("unknown", r"unknown model: The model `fake-model` does not exist.; check the model's"),
        (
            "broke",
            r"no credit: This request needs more money than there is.; waiting does not help",
        ),
        (
            "quota",
            r"no credit: You exceeded your current quota, check your plan.; waiting does not",
        ),
    ],
)
def test_going_on_is_pointless(
    server: ModelServer, tree: Path, mode: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(AgentError, match=rf"llm:fake-model at http://127.*/{mode}/v1: {words}"):
        ask(server, mode, tree)
    assert server.keys == [f"Bearer {KEY}"]


@pytest.mark.parametrize("mode", ["hang", "drip"])
def test_the_deadline_is_for_the_whole_call(server: ModelServer, tree: Path, mode: str) -> None:
    began = time.monotonic()
    answer = ask(server, mode, tree, timeout="1s")
    assert answer.reason == "timeout"
    assert time.monotonic() - began < 30


def test_nobody_answers(tree: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]  # nobody listens
        agent = create(MODEL, {"base_url": f"http://127.0.0.1:{port}/v1"}, 0)
        answer = agent.propose(turn_in(tree))
    assert isinstance(answer, Failure) and answer.reason == "service down"


@pytest.mark.parametrize("mode", ["hang", "drip"])
def test_an_interrupt_ends_the_call(server: ModelServer, tree: Path, mode: str) -> None:
    agent = made(server, mode)
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(agent.propose(turn_in(tree))))
    thread.start()
    wait_until(lambda: server.requests, 60)
    agent.interrupt()
    thread.join(30)
    assert answers == [Failure("interrupted", "was stopped: interrupted", 0.0)]
    agent.interrupt()  # nothing is under way


# ---- keys and money ----------------------------------------------------------------------------


def test_the_key_is_in_no_message(
    server: ModelServer, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_LLM", f"{KEY}\n")  # as a file has it
    answer = ask(server, "echo", tree, key_env="MY_LLM")
    assert server.keys == [f"Bearer {KEY}"]
    assert answer == Failure("service down", "bad Bearer <MY_LLM>")
    assert KEY not in repr(made(server, "ok", key_env="MY_LLM")._service)


def test_an_edit_that_holds_the_key_is_refused(
    server: ModelServer, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_LLM", KEY)
    agent = made(server, "ok", key_env="MY_LLM")
    edit = f"train.py\n<<<<<<< SEARCH\n{{}}\n=======\n# {KEY}\n>>>>>>> REPLACE\n"
    first = (tree / "train.py").read_text().splitlines()[0]
    monkeypatch.setattr(agent._caller, "call", lambda *_: Reply(text=edit.format(first)))
    answer = agent.propose(turn_in(tree))
    assert answer == Failure("secret", "the edit holds the value of MY_LLM", 0.0)
    assert KEY not in (tree / "train.py").read_text()
    said = Reply(text=f"DESCRIPTION: uses {KEY}\n\n{edit.format(first).replace(KEY, 'x')}")
    monkeypatch.setattr(agent._caller, "call", lambda *_: said)
    answer = agent.propose(turn_in(tree))
    assert isinstance(answer, Proposal) and answer.description == "uses <MY_LLM>"


def test_a_password_in_the_address_is_not_shown(server: ModelServer, tree: Path) -> None:
    url = f"{server.url('unknown')}/v1".replace("http://", "http://me:secret-password@")
    with pytest.raises(AgentError) as error:
        create(MODEL, {"base_url": url}, 0).propose(turn_in(tree))
    assert "secret-password" not in str(error.value) and "http://127.0.0.1" in str(error.value)


def test_each_provider_gets_its_own_key(
    server: ModelServer, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-openai")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key-of-anthropic")
    for name, provider in llm.PROVIDERS.items():
        here = Provider(f"{server.url('ok')}/{name}/", provider.key_env)
        monkeypatch.setitem(llm.PROVIDERS, name, here)
    for model in ("anthropic/claude", "ollama/qwen3:8b", "openai/gpt-5", "gpt-5"):
        assert isinstance(create(model, {}, 0).propose(turn_in(tree)), Proposal)
    asked = [path.split("/")[1] for path, _ in server.requests]
    assert asked == ["anthropic", "ollama", "openai", "openai"]
    assert [body["model"] for _, body in server.requests] == [
        "claude",
        "qwen3:8b",
        "gpt-5",
        "gpt-5",
    ]
    keys = ["key-of-anthropic", "none", "key-of-openai", "key-of-openai"]
    assert server.keys == [f"Bearer {key}" for key in keys]


def test_the_usual_variable_says_where_the_server_is(
    server: ModelServer, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url('ok')}/v1")
    assert isinstance(create("Qwen/Qwen3", {}, 0).propose(turn_in(tree)), Proposal)
    assert server.requests[0][1]["model"] == "Qwen/Qwen3"


def test_settings_are_passed_on(server: ModelServer, tree: Path) -> None:
    prices = {"usd_per_million_in": 3, "usd_per_million_out": 15.0}
    answer = ask(server, "ok", tree, temperature=0.5, max_tokens=4000, **prices)
    assert answer.usd == pytest.approx((TOKENS_IN * 3 + TOKENS_OUT * 15) / 1e6)
    body = server.requests[0][1]
    assert (body["temperature"], body["max_tokens"]) == (0.5, 4000)
    answer = ask(server, "idle", tree, **prices)
    assert answer.usd == pytest.approx((TOKENS_IN * 3 + TOKENS_OUT * 15) / 1e6)


def test_openai_calls_the_limit_by_its_new_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert create("gpt-5", {"max_tokens": 9}, 0)._service.parameters == {"max_completion_tokens": 9}


@pytest.mark.parametrize(
    ("argument", "options", "problem"),
    [
        (None, {}, "llm: which model"),
        ("ollama/", {}, "which model of ollama"),
        ("mistral/large", {}, "no provider 'mistral'; there are: anthropic, gemini, ollama"),
        ("gpt-5", {}, "OPENAI_API_KEY is not set"),
        ("gemini/flash", {}, "GEMINI_API_KEY is not set"),
        ("ollama/x", {"key_env": "NO_SUCH"}, "NO_SUCH is not set"),
        ("x", {"base_url": "http://h/v1", "key_env": "NO_SUCH"}, "NO_SUCH is not set"),
        (
            "ollama/x",
            {"key_env": "A=1"},
            'key_env: found "A=1"; accepted: the name of the variable',
        ),
        ("two words", {}, 'found "two words"; accepted: the model\'s name'),
        ("x", {"base_url": "localhost:8000"}, "base_url: found .*accepted: an address such as"),
        ("x", {"base_url": "http://h/v1?key=1"}, "no such address"),
        (
            "ollama/x",
            {"temperature": 3},
            r"temperature: found 3 \(above 2\); accepted: a number from 0",
        ),
        ("ollama/x", {"temperature": True}, "not a number"),
        ("ollama/x", {"max_tokens": 0}, "accepted: a whole number above 0"),
        ("ollama/x", {"usd_per_million_in": -1}, "below 0"),
        ("ollama/x", {"usd_per_million_in": 1}, "give both"),
        ("ollama/x", {"timeout": "soon"}, "not a duration"),
        ("ollama/x", {"top_p": 1}, "unknown option 'top_p'; accepted: model, base_url, key_env"),
    ],
)
def test_what_is_refused(argument: str | None, options: dict[str, object], problem: str) -> None:
    with pytest.raises(AgentError, match=problem):
        agents.load("llm", argument, options)


def test_a_key_that_is_none_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "schlüssel")
    with pytest.raises(AgentError, match="OPENAI_API_KEY holds a character") as error:
        create("gpt-5", {}, 0)
    assert "schl" not in str(error.value)


def test_without_the_library_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(AgentError, match=r"needs the library 'openai': pip install 'autoresearch"):
        agents.load("llm", "ollama/x")


def test_the_library_is_imported_by_nobody_else() -> None:
    script = (
        "import sys, autoresearch.cli.main, autoresearch.agents.llm; print('openai' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


# ---- what is asked, what is read ---------------------------------------------------------------


def test_a_file_is_shown_unless_the_briefing_does(tree: Path) -> None:
    long = "".join(f"LINE_{n} = {n}\n" for n in range(100))
    files = {"train.py": long.replace("\n", "\r\n").encode(), "small.py": b"A = '```'\n"}
    asked = prompt(turn_in(tree), files)
    assert f"\ntrain.py\n```\n{long}```\n" in asked
    assert "\nsmall.py\n````\nA = '```'\n````\n" in asked
    told = prompt(turn_in(tree, f"Lower it.\n{long}"), files)
    assert told.count(long) == 1 and "small.py\n````" in told
    huge = prompt(turn_in(tree), {"train.py": b"x" * 400_001, "small.py": b"A = 1"})
    assert "train.py: too large to show" in huge and "A = 1" in huge and len(huge) < 5_000


def test_a_link_is_not_followed(server: ModelServer, tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.py"
    outside.write_bytes((tree / "train.py").read_bytes())
    (tree / "train.py").unlink()
    (tree / "train.py").symlink_to(outside)
    answer = made(server, "ok").propose(turn_in(tree))
    assert isinstance(answer, Failure) and "editable: none" in answer.message
    assert outside.read_bytes() == (INSTANT / "train.py").read_bytes()


def reply(**changes: object) -> str:
    message = {"role": "assistant", "content": "text"} | changes.pop("message", {})  # type: ignore[operator]
    choice = {"index": 0, "message": message, "finish_reason": "stop"} | changes.pop("choice", {})  # type: ignore[operator]
    return json.dumps({"choices": [choice], "usage": {}} | changes)


@pytest.mark.parametrize(
    ("text", "cause", "words"),
    [
        (reply(), None, ""),
        (reply(message={"refusal": "no"}), "bad edit", "the model refused: no"),
        (reply(choice={"finish_reason": "content_filter"}), "bad edit", "content filter"),
        (reply(error={"code": 502, "message": "upstream"}), "service down", "upstream"),
        (reply(error="quota exceeded"), "rate limited", "quota"),
        (reply(error={"code": 402, "message": "can only afford 9"}), "no credit", "afford 9"),
        (reply(error={"code": "insufficient_quota", "message": "x"}), "no credit", "x"),
        (reply(choices=[]), "service down", "no chat completion"),
        (reply(choices=None), "service down", "no chat completion"),
        ("<html>", "service down", "no JSON: '<html>'"),
        ("", "service down", "no JSON"),
        ("[" * 100_000, "service down", "no JSON"),
    ],
)
def test_a_reply(text: str, cause: str | None, words: str) -> None:
    said = read_reply(text)
    assert said.cause == cause and words in said.message


def test_what_a_reply_says_of_its_cost() -> None:
    said = read_reply(reply(usage={"prompt_tokens": 5, "completion_tokens": 2, "cost": 0.25}))
    assert (said.tokens, said.usd) == (7, 0.25)
    odd = '{"choices": [{"message": {"content": [{"text": "a"}, {"text": "b"}, 3]}}], "usage": %s}'
    for usage in ("null", '{"prompt_tokens": Infinity, "cost": NaN}', '{"prompt_tokens": -1}'):
        said = read_reply(odd % usage)
        assert (said.text, said.tokens, said.usd, said.cause) == ("ab", None, None, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "usage", "error", "code", "text"]),
            inner,
        )
    ),
    max_leaves=12,
)


@given(JSON | st.dictionaries(st.sampled_from(["choices", "usage", "error"]), JSON), st.text())
def test_any_reply_is_read(body: object, text: str) -> None:
    for raw in (json.dumps(body), text):
        said = read_reply(raw)
        assert said.cause is None or said.message


def test_how_long_to_wait() -> None:
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    assert read_wait_s({"retry-after": "12"}, "") == 12
    for status in (429, 503):
        assert _read_error(status, "later", {"retry-after": "12"}).retry_after_s == 12
    assert _read_error(401, "no", {"retry-after": "12"}).retry_after_s is None
    assert 90 < (read_wait_s({"retry-after": date}, "") or 0) <= 100
    assert read_wait_s({}, "try again in 1m5s") == 65
    assert read_wait_s({"retry-after": "nan"}, "") is None
    assert read_wait_s({"retry-after": "soon"}, "") is None
    assert read_wait_s({"retry-after": "-5"}, "") == 1  # 0 would mean: waiting mends nothing
    assert read_wait_s({"retry-after": "1e99"}, "") == 86_400


# ---- nights ------------------------------------------------------------------------------------


def spend_night(server: ModelServer, mode: str, tmp_path: Path, experiments: int = 2) -> Done:
    """`autoresearch run` on the instant task, with the settings in its task file. Of the baseline
    only two runs, because these tests are about the agent."""
    root = tmp_path / "instant"
    assert call(tmp_path, "new", "instant", root).returncode == 0
    with (root / "autoresearch.toml").open("a") as file:
        file.write(f'[agent.llm]\nbase_url = "{server.url(mode)}/v1"\n')
        file.write("usd_per_million_in = 1\nusd_per_million_out = 2\n")
        file.write("[judge]\nbaseline_runs = 2\n")
    words = ("--tag", "t", "--experiments", experiments, "--plain", "--agent", f"llm:{MODEL}")
    with patch.dict(os.environ, {"OPENAI_API_KEY": KEY}):
        return call(root, "run", *words)


@pytest.mark.parametrize("mode", ["ok", "busy"])
def test_a_night(server: ModelServer, mode: str, tmp_path: Path) -> None:
    """Two experiments, end to end, also when the service is busy at first."""
    done = spend_night(server, mode, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    past = night(tmp_path / "instant")
    baseline, *experiments = past.experiments
    assert [experiment.description for experiment in experiments] == [
        "Set X to 0.5 in train.py.",
        "Set Y to 0.5 in train.py.",
    ]
    assert baseline.status and all(experiment.status for experiment in experiments)
    assert {experiment.agent for experiment in experiments} == {f"llm:{MODEL}"}
    assert {experiment.tokens for experiment in experiments} == {TOKENS}
    assert experiments[0].usd == pytest.approx((TOKENS_IN + 2 * TOKENS_OUT) / 1e6)
    assert ("rate limited" in done.stdout) == (mode == "busy")
    for file in (tmp_path / "instant").rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()


def test_bad_answers_cost_turns_and_no_run(server: ModelServer, tmp_path: Path) -> None:
    done = spend_night(server, "astray", tmp_path, 1)
    assert "bad edit: block 1 (train.py): its search is not in the file" in done.stdout
    past = night(tmp_path / "instant")
    assert len(past.experiments) == 1 and all(run.experiment == 0 for run in past.runs)


@pytest.mark.parametrize(
    ("mode", "word"),
    [("refused", "key refused"), ("unknown", "unknown model"), ("quota", "no credit")],
)
def test_a_night_that_is_pointless_ends_at_once(
    server: ModelServer, mode: str, word: str, tmp_path: Path
) -> None:
    done = spend_night(server, mode, tmp_path)
    assert done.returncode == AgentError.exit_code
    assert word in done.stderr and KEY not in done.stdout + done.stderr
    assert len(server.requests) == 1


class TestLlm(AgentSuite):
    """The suite for third parties; the scripted model knows the constants of the instant task."""

    files: ClassVar[dict[str, str]] = {
        "train.py": (INSTANT / "train.py").read_text(),
        "data.py": "SIZE = 100\n",
    }

    @pytest.fixture(autouse=True)
    def served(self, server: ModelServer) -> None:
        self.server = server

    def make(self) -> Agent:
        return made(self.server, "ok")
