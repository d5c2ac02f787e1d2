"""Files in `.autoresearch/` and agents' answers. Whatever a file holds, it is read as the value
that was written, or as none. Whatever an agent answers, the session continues."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.sessions import ScriptedAgent, edit, run_session

from autoresearch.core import scheduler
from autoresearch.errors import BusyError, StorageError
from autoresearch.formatting import escape_unstorable
from autoresearch.interactive import verdict
from autoresearch.interactive.folder import FolderState
from autoresearch.interactive.verdict import TrialReport, read_latest
from autoresearch.measure.execution import UNSETTLED
from autoresearch.measure.scoring import load_result
from autoresearch.protocols import Failure, Proposal, RunResult, Turn
from autoresearch.records import Metric
from autoresearch.store import lock, values
from autoresearch.store.answers import make_recordable
from autoresearch.store.lock import Lock, find_owner, find_running
from autoresearch.store.paths import SessionPaths
from autoresearch.store.rows import SessionRecord

WHOLE = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
OUTCOMES = st.builds(
    RunResult,
    exit_code=st.none() | INTEGERS,
    stopped=st.none() | st.sampled_from(["timeout", "lost", "interrupted", "memory"]),
    wall_s=FLOATS,
    cpu_s=st.none() | FLOATS,
    peak_memory_bytes=st.none() | INTEGERS,
    slot=st.none() | st.integers(0, 64),
    detail=WHOLE,
)
TRIES = st.builds(
    TrialReport,
    status=st.sampled_from(["keep", "discard", "crash", "refused", "running", "limit"]),
    description=WHOLE,
    experiment=st.none() | INTEGERS,
    reason=st.none() | WHOLE,
    detail=WHOLE,
    metric=st.none() | FLOATS,
    incumbent=st.none() | INTEGERS,
    score=st.none() | FLOATS,
    output=st.lists(WHOLE, max_size=3).map(tuple),
    limit=st.none() | WHOLE,
    edited=st.booleans(),
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
DEEP = b"[" * 5_000
BYTES = st.one_of(
    st.binary(max_size=40),
    ANYTHING.map(lambda value: json.dumps(value).encode()),
    st.sampled_from([b"", b"\0" * 200, b"{", b"\xff\xfe", DEEP, b'{"a":' * 3_000, b"9" * 5_000]),
)
ROW = SessionRecord(
    **{f.name: None for f in fields(SessionRecord) if f.name != "metric"},  # type: ignore[arg-type]
    metric=Metric("loss"),
)
quick = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def paths(tmp_path: Path) -> SessionPaths:
    paths = SessionPaths(tmp_path, "t")
    paths.folder.mkdir(parents=True)
    return paths


# ---- values in JSON files -----------------------------------------------------------------------


@quick
@given(OUTCOMES)
def test_a_result_is_read_back_unless_its_run_was_cut_off(
    paths: SessionPaths, outcome: RunResult
) -> None:
    path = paths.folder / "outcome.json"
    path.write_text(json.dumps(asdict(outcome)))
    unsettled = outcome.stopped in UNSETTLED
    assert load_result(path) == (None if unsettled else outcome)


@quick
@given(TRIES)
def test_a_report_on_a_try_is_read_back_and_shown(paths: SessionPaths, report: TrialReport) -> None:
    report.save(paths)
    found = read_latest(paths)
    assert found is not None and found.pid == os.getpid()
    assert replace(found, pid=report.pid) == report
    assert verdict.text(report, ROW)
    assert verdict.to_json(report)["status"] == report.status


def read_and_show(paths: SessionPaths) -> TrialReport | None:
    """Do with the report what `wait` does."""
    report = read_latest(paths)
    if report is not None:
        verdict.text(report, ROW).encode()
        json.dumps(verdict.to_json(report), allow_nan=False)
    return report


@quick
@given(BYTES)
@example(b'{"status": 7}')
@example(b'{"status": "keep", "metric": "much", "output": ["x"]}')
@example(b'{"status": "keep", "metric": NaN}')
@example(b'{"status": "keep", "metric": 1' + b"0" * 400 + b"}")
@example(b'{"status": "keep", "description": "\\ud800"}')
@example(b'{"status": "keep", "output": "abc"}')
@example(b'{"exit_code": "0", "stopped": null, "wall_s": 1, "cpu_s": 1, "peak_memory_bytes": 1}')
@example(b'{"exit_code": 0, "stopped": [], "wall_s": 1, "cpu_s": 1, "peak_memory_bytes": 1}')
@example(b'{"exit_code": 0, "stopped": null, "wall_s": "?", "cpu_s": 1, "peak_memory_bytes": 1}')
@example(b'{"base": true, "taken": 5}')
@example(b'{"base": 1' + b"0" * 30 + b"}")
def test_any_file_is_read_as_a_value_or_none(paths: SessionPaths, data: bytes) -> None:
    for path in (paths.latest_try, paths.folder / "outcome.json"):
        path.write_bytes(data)
    read_and_show(paths)
    outcome = load_result(paths.folder / "outcome.json")
    assert outcome is None or values.parse(json.dumps(asdict(outcome)), RunResult) == outcome
    state = values.parse(data, FolderState) or FolderState()
    assert state.base is None or (type(state.base) is int and abs(state.base) <= 2**63)
    assert state.taken is None or isinstance(state.taken, str)


@quick
@given(OUTCOMES, TRIES, st.integers(0, 500), st.sampled_from([b"", b"\0" * 9]))
def test_a_torn_file_is_read_as_none(
    paths: SessionPaths, outcome: RunResult, report: TrialReport, length: int, rest: bytes
) -> None:
    for value, path in ((outcome, paths.folder / "outcome.json"), (report, paths.latest_try)):
        whole = json.dumps(asdict(value)).encode()  # type: ignore[call-overload]
        path.write_bytes(whole[: length % len(whole)] + rest)
        assert values.read(path, type(value)) is None


@quick
@given(OUTCOMES, st.sampled_from([f.name for f in fields(RunResult)]), ANYTHING)
def test_a_value_of_another_type_is_read_as_none(
    paths: SessionPaths, outcome: RunResult, name: str, value: object
) -> None:
    path = paths.folder / "outcome.json"
    path.write_text(json.dumps({**asdict(outcome), name: value}))
    found = load_result(path)
    if found is not None:
        assert getattr(found, name) == value
        database = sqlite3.connect(":memory:")  # as the ledger stores it
        cells = tuple(asdict(found).values())
        database.execute(f"SELECT {', '.join('?' * len(cells))}", cells)
        database.close()


def test_a_folder_in_the_place_of_a_file_is_a_storage_error(paths: SessionPaths) -> None:
    paths.latest_try.mkdir()
    with pytest.raises(StorageError, match=r"cannot read .*try\.json: Is a directory"):
        read_latest(paths)


# ---- the lock ----------------------------------------------------------------------------------


@pytest.fixture
def held(paths: SessionPaths) -> Iterator[int]:
    """Another open file holds the lock. Returns its descriptor."""
    fd = os.open(paths.lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    yield fd
    os.close(fd)


LOCKS = st.one_of(
    st.binary(max_size=50),
    st.integers().map(lambda number: f"{number}\n".encode()),
    st.sampled_from(["²\n".encode(), "٣\n".encode(), b"0\n", b"-1\n", b"\xff", b"123", b" 5 \n"]),
)


@quick
@given(data=LOCKS)
def test_a_lock_that_is_held_never_looks_free(
    paths: SessionPaths, held: int, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its pid, which `stop` signals, is that of a process, never of a group."""
    monkeypatch.setattr(lock, "PID_WRITTEN_S", 0.0)
    os.ftruncate(held, 0)
    os.pwrite(held, data, 0)
    try:
        pid = find_owner(paths)
    except BusyError as error:
        assert str(paths.lock) in str(error)
        with pytest.raises(BusyError):
            find_running(paths.root)
    else:
        assert pid is not None
        assert 0 < pid < 10**7
        assert data == f"{pid}\n".encode()
        assert find_running(paths.root) == "t"
    with pytest.raises(BusyError, match="'t' is owned by a running process"):
        Lock(paths, patience_s=0)


@quick
@given(data=LOCKS)
def test_a_lock_without_an_owner_is_free_whatever_it_contains(
    paths: SessionPaths, data: bytes
) -> None:
    paths.lock.write_bytes(data)
    assert find_owner(paths) is None
    taken = Lock(paths, patience_s=0)
    assert paths.lock.read_bytes() == f"{os.getpid()}\n".encode()
    taken.release()


def test_a_folder_in_the_place_of_a_lock_is_a_storage_error(paths: SessionPaths) -> None:
    paths.lock.mkdir()
    with pytest.raises(StorageError, match="cannot read"):
        find_owner(paths)


# ---- what agents answer ------------------------------------------------------------------------

WORDS = st.text(max_size=20)


@settings(deadline=None)
@given(WORDS)
@example("\ud83d\0\udcff")
def test_escaped_text_can_be_stored_and_shown(text: str) -> None:
    shown = escape_unstorable(text)
    shown.encode()
    assert "\0" not in shown
    assert escape_unstorable(shown) == shown
    if not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text):
        assert shown == text


@settings(deadline=None)
@given(
    st.one_of(
        st.builds(
            Proposal, WORDS, WORDS, WORDS, st.none() | st.integers(), st.none() | st.floats()
        ),
        st.builds(
            Failure,
            WORDS,
            WORDS,
            st.none(),
            st.none() | st.integers(),
            st.none() | st.floats(),
        ),
        ANYTHING,
    )
)
def test_an_answer_is_recordable_or_refused(answer: object) -> None:
    try:
        found = make_recordable(answer)  # type: ignore[type-var]
    except (TypeError, ValueError) as error:
        assert str(error)
        return
    database = sqlite3.connect(":memory:")
    values = tuple(asdict(found).values())  # type: ignore[call-overload]
    [row] = database.execute(f"SELECT {', '.join('?' * len(values))}", values).fetchall()
    database.close()
    assert row == values


def test_no_answer_ends_the_night(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real ledger and the real git."""
    monkeypatch.setattr(scheduler, "BACKOFF_S", (0.01, 0.01))

    def odd(turn: Turn) -> Proposal:
        edit(turn.worktree, VALUE=5.0)
        return Proposal("half \ud83d of a \0 pair", hypothesis="\udcff", notes="\0\ud800")

    def broken(turn: Turn) -> Proposal:
        raise OSError("\ud800")

    agent = ScriptedAgent(
        lambda turn: Failure("odd \ud800", "half \ud83d", retry_after_s=0),
        broken,
        lambda turn: "a text",  # type: ignore[arg-type, return-value]
        lambda turn: Proposal("much", tokens=2**70),
        lambda turn: Proposal("dear", usd=float("nan")),
        lambda turn: Proposal(7),  # type: ignore[arg-type]
        odd,
    )
    found = run_session(root, agent)
    assert found.experiments[-1].description == "half \\ud83d of a \\x00 pair"
    assert found.experiments[-1].status is not None
    assert len(agent.left) == 0
