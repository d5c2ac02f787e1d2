"""Tell the user of what happens in a session: by a command, a webhook, or on the desktop.

Everything is told by a thread of its own, so that a slow server does not hold up the session. What
cannot be told is a warning of the session, once for each way.
"""

from __future__ import annotations

import json
import os
import queue
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any

from autoresearch.core.events import Event, ExperimentFinished
from autoresearch.core.session import Session
from autoresearch.errors import AutoresearchError
from autoresearch.formatting import cut, one_line
from autoresearch.records import Status
from autoresearch.store.ledger import Ledger
from autoresearch.task.model import NotifySettings
from autoresearch.task.values import OCCASIONS

FIRST_KEEP, NEW_BEST, STOPPED_EARLY, FINISHED = OCCASIONS
LIMIT_S = 10.0  # for one way of telling
LAST_S = 15.0  # at the end of a session, for what was not told yet
TEXT = 400  # characters


@contextmanager
def notifying(session: Session) -> Iterator[None]:
    """Tell of the session while the block works, and of its end."""
    settings = session.task.notify
    if not (settings.command or settings.webhook or settings.desktop):
        yield
        return
    notifier = Notifier(session, settings)
    session.listeners.append(notifier.listen)
    try:
        yield
        is_early = session.stopping is not None
        notifier.tell(STOPPED_EARLY if is_early else FINISHED, session.record.stopped or "")
    except AutoresearchError as error:
        notifier.tell(STOPPED_EARLY, str(error).split("\n")[0])
        raise
    finally:
        session.listeners.remove(notifier.listen)
        notifier.close()


def read_ways(words: Sequence[str]) -> dict[str, object]:
    """The settings for `--notify`: an address, the word desktop, or else a command."""
    settings: dict[str, object] = {}
    for word in words:
        if word == "desktop":
            settings["notify.desktop"] = True
        elif word.startswith(("http://", "https://")):
            settings["notify.webhook"] = word
        else:
            settings["notify.command"] = word
    return settings


class Notifier:
    def __init__(self, session: Session, settings: NotifySettings) -> None:
        self._session = session
        self._settings = settings
        self._failed: set[str] = set()  # ways that were warned of
        self._has_kept = len(session.ledger.keeps(session.record, last=2)) > 1
        self._queue: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def listen(self, event: Event) -> None:
        """A listener of the session: tells of keeps."""
        if isinstance(event, ExperimentFinished) and event.status == Status.KEEP and event.number:
            occasion = NEW_BEST if self._has_kept else FIRST_KEEP
            self._has_kept = True
            self.tell(occasion, f"#{event.number} {event.description}")

    def tell(self, occasion: str, what: str) -> None:
        if occasion in self._settings.on:
            self._queue.put((occasion, what))

    def close(self) -> None:
        """Tell what was not told yet, for at most LAST_S seconds."""
        self._queue.put(None)
        self._thread.join(LAST_S)

    def _work(self) -> None:
        while (news := self._queue.get()) is not None:
            message = self._make_message(*news)
            settings = self._settings
            if settings.command:
                self._try("command", _run_command, settings.command, message, self._session)
            if settings.webhook:
                self._try("webhook", _post, settings.webhook, message)
            if settings.desktop:
                self._try("desktop", _show, message)

    def _make_message(self, occasion: str, what: str) -> dict[str, Any]:
        """What is told, in the words of `status`."""
        session = self._session
        message = {
            "event": occasion,
            "task": session.task.root.name,
            "session": session.record.tag,
            "what": cut(what, TEXT),
            "at": time.time(),
        }
        with suppress(AutoresearchError):  # the disk is full: the news are told all the same
            message |= _read_standing(session)
        standing = f"; {message['gain']}" if message.get("gain") else ""
        name = one_line(f"{message['task']} {message['session']}")
        return message | {"text": f"{name}: {occasion}, {message['what']}{standing}"}

    def _try(self, way: str, tell: Callable[..., None], *arguments: object) -> None:
        try:
            tell(*arguments)
        except Exception as error:  # whatever a server or a program does, the session goes on
            if way not in self._failed:
                self._failed.add(way)
                with suppress(AutoresearchError):
                    self._session.warn(f"[notify] {way}: {cut(str(error), 200)}")


def _read_standing(session: Session) -> dict[str, Any]:
    from autoresearch.report.collect import summarise
    from autoresearch.report.text import describe_gain

    with closing(Ledger(session.paths.ledger, readonly=True)) as ledger:
        summary = summarise(ledger, session.record.tag, time.time())
    best = summary.incumbent
    return {
        "metric": summary.metric.name,
        "score": best.score if best else None,
        "experiment": best.number if best else None,
        "gain": describe_gain(summary),
    }


def _run_command(command: str, message: dict[str, Any], session: Session) -> None:
    """The message is on stdin as JSON; its event and its text are in the environment too."""
    told = {"AUTORESEARCH_EVENT": message["event"], "AUTORESEARCH_TEXT": message["text"]}
    with subprocess.Popen(
        shlex.split(command),
        cwd=session.task.root,
        env=os.environ | told,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            _, errors = process.communicate(json.dumps(message), timeout=LIMIT_S)
        finally:
            with suppress(ProcessLookupError):  # what it has started ends with it
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise OSError(f"exit code {process.returncode}: {errors.strip()}")


def _post(url: str, message: dict[str, Any]) -> None:
    """Post the message as JSON."""
    from urllib.request import Request, urlopen

    headers = {"Content-Type": "application/json", "User-Agent": "autoresearch"}
    request = Request(url, json.dumps(message).encode(), headers, method="POST")
    with urlopen(request, timeout=LIMIT_S) as response:
        response.read(1)


def _show(message: dict[str, Any]) -> None:
    """Show the message on the desktop."""
    program = shutil.which("notify-send")
    if program is None:
        raise OSError("there is no notify-send here")
    title, text = f"autoresearch: {message['event']}", message["text"]
    words = [program, "--app-name=autoresearch", "--", title, text]
    subprocess.run(words, check=True, capture_output=True, timeout=LIMIT_S)
