"""The noise of a session's runs, from its ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from support.fabricated import FabricatedSession

from autoresearch.core.history import noise
from autoresearch.records import Role, Status
from autoresearch.store.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        yield ledger


def keep(session: FabricatedSession, role: Role, values: Sequence[float]) -> None:
    """Keep a change whose scheduled runs have these metrics."""
    number = session.ledger.started(session.record) + (role is not Role.BASELINE)
    session.open("", number)
    for index, value in enumerate(values):
        session.end(session.open_run(number, role, index), value)
    session.finish(number, Status.KEEP, values[0])


def test_the_noise_of_a_time_is_a_share_of_it(ledger: Ledger) -> None:
    """A program that is five times as fast has a fifth of it; of other metrics it stays."""
    measured = {"[metric] measure": 'measure = "cpu_time", repeats = 5, relative = true'}
    for tag, fingerprint, expected in (("loss", {}, 0.0721), ("time", measured, 0.02)):
        session = FabricatedSession(ledger, tag, fingerprint=fingerprint)
        keep(session, Role.BASELINE, [0.9, 1.0, 1.1])
        assert noise(ledger, session.record) == (pytest.approx(0.1), 2)
        keep(session, Role.REMEASURE, [0.18, 0.2, 0.22])
        assert noise(ledger, session.record) == (pytest.approx(expected, rel=0.01), 4)
