"""The ledger: damaged, foreign, newer, read-only and full files; transactions, rows and queries."""

from __future__ import annotations

import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest

from autoresearch.errors import LedgerError, StorageError
from autoresearch.protocols import Failure, Proposal
from autoresearch.records import Metric, Role, Run, Status, Verdict
from autoresearch.store.ledger import Ledger
from autoresearch.store.queries import (
    count_verdicts,
    list_descriptions,
    list_notes,
    list_past_attempts,
    list_with_notes,
)
from autoresearch.store.rows import SessionRecord
from autoresearch.store.schema import VERSION


def begin_session(ledger: Ledger, tag: str = "t") -> SessionRecord:
    return ledger.create_session(
        tag,
        base_commit="c0",
        metric=Metric("loss"),
        level="default",
        budget_s=None,
        budget_clock="wall",
        limits={"experiments": 3},
        fingerprint={"python": "3"},
        now=1.0,
    )


def begin(ledger: Ledger, row: SessionRecord, tree: str = "tree") -> int:
    proposal = Proposal("try", hypothesis="h", notes="n", tokens=5, usd=0.5)
    return ledger.begin(
        row, base=0, commit=f"c-{tree}", tree=tree, agent="a", proposal=proposal, now=2.0
    ).number


def keep(ledger: Ledger, row: SessionRecord, number: int, metric: float = 1.0) -> None:
    ledger.finish(row, number, Verdict(Status.KEEP, None, metric), peak_memory_bytes=7, now=3.0)


def make_run(ledger: Ledger, row: SessionRecord, number: int, index: int = 0) -> Run:
    run = ledger.open_run(
        row, experiment=number, attempt=0, role=Role.SCREEN, index=index, commit="c", now=1.0
    )
    return ledger.finish_run(
        run,
        metric=0.5,
        reason=None,
        numbers={"x": 1.0},
        slot=0,
        exit_code=0,
        wall_s=1.0,
        cpu_s=0.5,
        peak_memory_bytes=10,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def fill(path: Path) -> None:
    ledger = Ledger(path)
    row = begin_session(ledger)
    with ledger.transaction():
        for number in range(200):
            begin(ledger, row, f"tree{number}")
            make_run(ledger, row, number)
    ledger.close()


# ---- the file ----------------------------------------------------------------------------------


def test_records_are_read_back(path: Path) -> None:
    ledger = Ledger(path)
    row = begin_session(ledger)
    begin(ledger, row)
    keep(ledger, row, 0)
    run = make_run(ledger, row, 0)
    ledger.close()
    again = Ledger(path, readonly=True)
    assert again.session("t") == row
    assert again.runs(row, 0) == [run]
    assert again.experiment(row, 0).status is Status.KEEP
    again.close()


def test_a_missing_ledger_cannot_be_read(path: Path) -> None:
    with pytest.raises(LedgerError, match="no session was started here yet"):
        Ledger(path, readonly=True)
    assert not path.exists()


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (
            VERSION + 1,
            rf"newer autoresearch \(ledger version {VERSION + 1}, .* update autoresearch",
        ),
        (VERSION - 1, rf"older autoresearch .* reads version {VERSION}\): move it away"),
        (0, "older autoresearch"),
    ],
)
def test_another_version_is_refused(path: Path, version: int, message: str) -> None:
    fill(path)
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {version}")
    db.close()
    before = path.read_bytes()
    for readonly in (False, True):
        with pytest.raises(LedgerError, match=message):
            Ledger(path, readonly=readonly)
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_refused(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE theirs (x)")
    db.close()
    before = path.read_bytes()
    for readonly in (False, True):
        with pytest.raises(LedgerError, match="database of another program"):
            Ledger(path, readonly=readonly)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["text", "truncated", "overwritten", "zeros"])
def test_a_damaged_file_is_refused_and_left_as_it_is(path: Path, damage: str) -> None:
    fill(path)
    data = path.read_bytes()
    half = len(data) // 2
    path.write_bytes(
        {
            "text": b"not a database at all\n" * 500,
            "truncated": data[:half],
            "overwritten": data[:4096] + b"\xa5" * (len(data) - 4096),
            "zeros": bytes(len(data)),
        }[damage]
    )
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=r"is damaged|of another program"):
        Ledger(path)
    assert path.read_bytes() == before


def test_a_folder_in_the_ledgers_place_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(LedgerError, match="cannot use the ledger"):
        Ledger(path)


def test_an_empty_file_becomes_a_ledger(path: Path) -> None:
    path.touch()
    ledger = Ledger(path)
    assert ledger.sessions() == []
    ledger.close()


def test_a_readonly_file_system(path: Path) -> None:
    fill(path)
    place = path.parent
    mounted = subprocess.run(["mount", "--bind", place, place], check=False, capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        with pytest.raises(StorageError, match="cannot write the ledger"):
            Ledger(path)
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_full_database(path: Path) -> None:
    """No transaction is half-done, and the ledger can be used when there is space again."""
    ledger = Ledger(path)
    row = begin_session(ledger)
    begin(ledger, row)
    pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
    ledger._db.execute(f"PRAGMA max_page_count = {pages}")
    full = pytest.raises(StorageError, match=r"cannot write the ledger .* full")
    with full, ledger.transaction():
        ledger.add_elapsed(row, 5.0)
        for number in range(1000):
            begin(ledger, row, f"tree{number}")
    assert ledger.session("t").elapsed_s == 0
    assert [experiment.number for experiment in ledger.all_experiments(row)] == [0]
    ledger._db.execute("PRAGMA max_page_count = 100000")
    assert begin(ledger, row, "again") == 1
    ledger.close()
    reopened = Ledger(path)
    assert len(reopened.all_experiments(row)) == 2
    reopened.close()


def test_a_full_disk(full_disk: Path) -> None:
    ledger = Ledger(full_disk / "ledger.sqlite")
    row = begin_session(ledger)
    with pytest.raises(StorageError):
        for number in range(100_000):
            begin(ledger, row, f"{number:0>2000}")
    finished = len(ledger.all_experiments(row))
    assert not ledger._db.in_transaction
    ledger.close()
    again = Ledger(full_disk / "ledger.sqlite", readonly=True)
    assert len(again.all_experiments(row)) == finished
    again.close()


def test_a_lock_of_another_program(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(path)
    row = begin_session(ledger)
    ledger._db.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="locked by another program"):
        ledger.add_elapsed(row, 1.0)
    other.execute("ROLLBACK")
    other.close()
    ledger.add_elapsed(row, 1.0)
    assert ledger.session("t").elapsed_s == 1.0
    ledger.close()


def test_readers_see_committed_rows_while_another_writes(path: Path) -> None:
    ledger = Ledger(path)
    row = begin_session(ledger)
    reader = Ledger(path, readonly=True)
    begin(ledger, row)
    assert len(reader.all_experiments(row)) == 1
    with ledger.transaction():
        begin(ledger, row, "other")
        assert len(reader.all_experiments(row)) == 1
    assert len(reader.all_experiments(row)) == 2
    reader.close()
    ledger.close()


# ---- rows --------------------------------------------------------------------------------------


def test_a_failed_transaction_changes_nothing(path: Path) -> None:
    ledger = Ledger(path)
    row = begin_session(ledger)
    with pytest.raises(ZeroDivisionError), ledger.transaction():
        begin(ledger, row)
        with ledger.transaction():
            begin(ledger, row, "nested")
        raise ZeroDivisionError
    assert ledger.all_experiments(row) == []
    ledger.close()


def test_a_verdict_is_final(path: Path) -> None:
    ledger = Ledger(path)
    row = begin_session(ledger)
    begin(ledger, row)
    keep(ledger, row, 0, 1.0)
    keep(ledger, row, 0, 2.0)
    assert (ledger.experiment(row, 0).metric, ledger.experiment(row, 0).order) == (1.0, 0)
    ledger.close()


def test_a_run_is_opened_once(path: Path) -> None:
    ledger = Ledger(path)
    row = begin_session(ledger)
    begin(ledger, row)
    first = make_run(ledger, row, 0)

    def open_run(segment: int, retry: int) -> Run:
        name = {"experiment": 0, "attempt": 0, "role": Role.SCREEN, "index": 0}
        return ledger.open_run(row, **name, commit="c", now=9.0, segment=segment, retry=retry)

    assert open_run(segment=0, retry=0) == first
    others = [open_run(segment=1, retry=0), open_run(segment=0, retry=1)]
    assert [(run.segment, run.retry) for run in others] == [(1, 0), (0, 1)]
    ledger.forget_run(first)  # finished: it stays
    assert ledger.runs(row, 0) == [first, *others]
    ledger.close()


def test_seeds_are_unique_and_random(path: Path) -> None:
    ledger = Ledger(path)
    row = begin_session(ledger)
    begin(ledger, row)
    with ledger.transaction():
        seeds = [make_run(ledger, row, 0, index).seed for index in range(300)]
    assert len(set(seeds)) == 300
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert sorted(seeds) != seeds
    ledger.close()


def test_threads_share_a_ledger(path: Path) -> None:
    ledger = Ledger(path)
    row = begin_session(ledger)

    def work(slot: int) -> None:
        for index in range(8):
            number = begin(ledger, row, f"{slot}-{index}")
            make_run(ledger, row, number)
            keep(ledger, row, number)

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(4)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 60
    assert [experiment.number for experiment in ledger.all_experiments(row)] == list(range(32))
    assert [experiment.order for experiment in ledger.finished(row)] == list(range(32))
    ledger.close()


def test_counts_and_costs(path: Path) -> None:
    ledger = Ledger(path)
    row = begin_session(ledger)
    for number in range(4):
        begin(ledger, row, f"tree{number}")
        make_run(ledger, row, number)
    keep(ledger, row, 0)
    keep(ledger, row, 1)
    for number, status in ((2, Status.DISCARD), (3, Status.CRASH)):
        verdict = Verdict(status, "why", None)
        ledger.finish(row, number, verdict, peak_memory_bytes=None, now=4.0)
    ledger.add_turn(row, "a", Failure("down", "503", tokens=3, usd=0.25), 5.0)
    assert count_verdicts(ledger, row) == {"keep": 1, "discard": 1, "crash": 1}
    assert ledger.incumbent(row).number == 1
    assert ledger.since_keep(row) == 2
    assert ledger.started(row) == ledger.last_order(row) == 3
    assert ledger.costs(row) == (4 * 5 + 3, 4 * 0.5 + 0.25)
    assert ledger.spent(row) == {"wall_s": 4.0, "cpu_s": 2.0, "runs": 4}
    assert ledger.fruitless_turns(row) == 1
    assert [experiment.number for experiment in ledger.finished(row, after=1)] == [2, 3]
    assert [experiment.number for experiment in ledger.finished(row, last=2)] == [2, 3]
    ledger.close()


def test_sessions_do_not_see_each_other(path: Path) -> None:
    ledger = Ledger(path)
    first, second = begin_session(ledger, "one"), begin_session(ledger, "two")
    begin(ledger, first)
    make_run(ledger, first, 0)
    assert ledger.all_experiments(second) == ledger.runs(second, 0) == []
    with pytest.raises(LedgerError, match=r"no session 'three' .* sessions there: one, two"):
        ledger.session("three")
    with pytest.raises(LedgerError, match="no experiment 7"):
        ledger.experiment(first, 7)
    ledger.close()


# ---- notes ---------------------------------------------------------------------------------------


def test_the_latest_notes_of_a_session(path: Path) -> None:
    ledger = Ledger(path)
    row, other = begin_session(ledger), begin_session(ledger, "other")
    for at in range(30):
        ledger.add_note(row, "a", f"note {at}", now=float(at))
    ledger.add_note(other, "b", "elsewhere", now=99.0)
    assert [note.text for note in list_notes(ledger, row, last=3)] == [
        "note 27",
        "note 28",
        "note 29",
    ]
    ledger.close()


def test_the_experiments_with_notes(path: Path) -> None:
    ledger = Ledger(path)
    row = begin_session(ledger)
    for number in range(8):
        ledger.begin(
            row,
            base=0,
            commit="c",
            tree=f"t{number}",
            agent="a",
            proposal=Proposal(
                "try", notes="odd ones have a sentence" if number % 2 else f"space of {40 * 'a'}"
            ),
            now=1.0,
        )
    assert [experiment.number for experiment in list_with_notes(ledger, row, last=2, among=8)] == [
        5,
        7,
    ]
    assert [experiment.number for experiment in list_with_notes(ledger, row, last=9, among=4)] == [
        5,
        7,
    ]
    ledger.close()


def test_past_attempts_and_descriptions(path: Path) -> None:
    ledger = Ledger(path)
    row = begin_session(ledger)
    begin(ledger, row, "baseline")
    keep(ledger, row, 0)
    for number, reason in enumerate(("worse", "not better", "worse", None), 1):
        begin(ledger, row, f"tree{number}")
        status = Status.DISCARD if reason else Status.CRASH
        verdict = Verdict(status, reason or "timeout", 2.0)
        ledger.finish(row, number, verdict, peak_memory_bytes=None, now=3.0)
    begin(ledger, row, "open")
    reasons = ("not better", "not confirmed")
    attempts = list_past_attempts(ledger, row, after=-1, last=4, reasons=reasons)
    assert [(attempt.order, attempt.status, attempt.reason) for attempt in attempts] == [
        (0, "keep", None),
        (2, "discard", "not better"),
        (4, "crash", "timeout"),
    ]
    assert attempts[1] == (2, 2, 0, "discard", "not better", 2.0, "try")
    assert list_past_attempts(ledger, row, after=2, last=3, reasons=("not better",)) == []
    assert list_descriptions(ledger, row, after=0, last=4, length=2) == ["tr"] * 4
    assert list_descriptions(ledger, row, after=3, last=4, length=9) == ["try"]
    assert list_descriptions(ledger, row, after=4, last=4, length=9) == []
    ledger.close()


def test_a_description_of_several_lines_is_joined(path: Path) -> None:
    ledger = Ledger(path)
    row = begin_session(ledger)
    for number, text in enumerate(("baseline", "one\ntwo", "three")):
        ledger.begin(
            row, base=0, commit="c", tree=text, agent="a", proposal=Proposal(text), now=1.0
        )
        keep(ledger, row, number)
    assert list_descriptions(ledger, row, after=0, last=2, length=99) == ["one two", "three"]
    ledger.close()
