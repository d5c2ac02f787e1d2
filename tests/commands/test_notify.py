"""The user hears of keeps and of the end, whatever the listener at the other end does."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from support.commands import Done, call
from support.sessions import ScriptedAgent, alive, change, run_session, task_of

from autoresearch import agents
from autoresearch.commands import notify
from autoresearch.commands.notify import notifying, read_ways
from autoresearch.core.session import Session
from autoresearch.errors import StorageError, TaskError


@contextmanager
def serve_hook(status: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook on a loopback port, and what was posted to it."""
    posted: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            posted.append(json.loads(self.rfile.read(length)))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", posted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run_notified(root: Path, agent: ScriptedAgent, *ways: str, settings: str = "") -> Done:
    """Run a session by its command."""
    file = root / "autoresearch.toml"
    file.write_text(f"{file.read_text()}{settings}")
    words = [word for way in ways for word in ("--notify", way)]
    with patch.object(agents, "load", lambda *_, **__: agent):
        return call(root, "run", "--tag", "t", "--plain", *words)


def test_a_night_is_told_by_webhook_and_by_command(root: Path) -> None:
    command = "sh -c 'cat >> told; echo >> told; echo $AUTORESEARCH_EVENT >> events'"
    with serve_hook() as (url, posted):
        agent = ScriptedAgent(
            change("lower", VALUE=5.0),
            change("worse", VALUE=9.0),
            change("lowest <b>", VALUE=4.0),
        )
        assert run_notified(root, agent, url, command).returncode == 0
    events = [message["event"] for message in posted]
    assert events == ["first keep", "new best", "finished"]
    assert (root / "events").read_text().split("\n")[:3] == events
    assert [json.loads(line) for line in (root / "told").read_text().splitlines()] == posted
    first, second, last = posted
    assert first["what"] == "#1 lower" and first["task"] == "task" and first["session"] == "t"
    assert second["experiment"] == 3 and second["what"] == "#3 lowest <b>"
    assert first["text"].startswith("task t: first keep, #1 lower; ")
    assert "better" in first["gain"] and first["metric"] == "score"
    assert last["what"] == "the agent has nothing more to propose"


def test_only_what_is_asked_for_is_told(root: Path) -> None:
    with serve_hook() as (url, posted):
        settings = f"[notify]\nwebhook = '{url}'\non = ['finished']\n"
        run_notified(root, ScriptedAgent(change(VALUE=5.0)), settings=settings)
    assert [message["event"] for message in posted] == ["finished"]


def test_a_listener_that_fails_is_a_warning_once(root: Path) -> None:
    with serve_hook(500) as (url, posted):
        agent = ScriptedAgent(change(VALUE=5.0), change(VALUE=4.0))
        done = run_notified(root, agent, url, "sh -c 'echo no >&2; exit 3'")
    assert done.returncode == 0
    assert len(posted) == 3
    warnings = re.findall(r"warning: (\[notify\].*)", done.stdout)
    assert warnings[:2] == [
        "[notify] command: exit code 3: no",
        "[notify] webhook: HTTP Error 500: Internal Server Error",
    ]
    assert len(warnings) == 2


def test_a_command_that_hangs_ends_with_its_children(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "LIMIT_S", 0.5)
    command = "sh -c 'sleep 300 & echo $! > pid; wait'"
    done = run_notified(root, ScriptedAgent(), command)
    assert "[notify] command: Command" in done.stdout and "timed out" in done.stdout
    assert not alive(int((root / "pid").read_text()))


def test_an_error_is_told_as_an_early_end(root: Path) -> None:
    with serve_hook() as (url, posted):

        def fail(session: Session) -> None:
            with pytest.raises(StorageError), notifying(session):
                raise StorageError("disk full\nmore")

        run_session(root, ScriptedAgent(), before=fail, notify__webhook=url)
    assert [(message["event"], message["what"]) for message in posted] == [
        ("stopped early", "disk full")
    ]


def test_the_desktop_is_told_by_notify_send(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "notify-send"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/shown\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    run_notified(root, ScriptedAgent(), "desktop")
    shown = (tmp_path / "shown").read_text().splitlines()
    assert shown[1:3] == ["--", "autoresearch: finished"]


def test_settings_are_checked_and_options_read(root: Path) -> None:
    assert read_ways(["desktop", "https://x/y", "say done"]) == {
        "notify.desktop": True,
        "notify.webhook": "https://x/y",
        "notify.command": "say done",
    }
    with pytest.raises(TaskError, match=r"\[notify\] webhook: .*accepted: an address"):
        task_of(root, notify__webhook="ftp://x")
    with pytest.raises(TaskError, match=r"\[notify\] on: .*accepted: a list of"):
        task_of(root, notify__on=["sometimes"])
    assert call(root, "run", "--notify", "http://").returncode == 2
