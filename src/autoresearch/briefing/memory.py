"""What the whole session taught, in a few small tables that grow with what was tried, not with how
often: `learn` is given what finished since the last time, and looks at nothing twice."""

from __future__ import annotations

import re
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from autoresearch.records import Metric, Status
from autoresearch.store.rows import PastAttempt

DESCRIPTION = 300  # characters of a description that are looked at
WORDS = 20_000  # told apart; of more, the rarer half is forgotten
NEAR_MISSES = 24  # remembered, the best ones
CRASHED = 8  # the latest so many are told apart
REASONS = 200  # of crashes, told apart
LATE = "not confirmed"  # the reason of those that got past the screen
GAINING = (LATE, "not better")  # the reasons of discards whose gain says something
SAME_WORDS = bytes(  # what belongs to a word stays, the rest separates
    byte if (chr(byte).isalnum() and byte < 128) or byte in b"_\n" else ord(" ")
    for byte in range(256)
)
FILLERS = frozenset(
    re.findall(
        r"\w+",
        """
    about above after again against all also and another any are around avoid back be because
    been before being below best better between both but by bytes can change changed changes
    combine could current cut does double drop each earlier enough even every faster few fewer
    first for from full gain give gives half have helps higher how improve improves increase
    increased increases instead into its just keep last late later less let lets level like
    little longer low lower lowers make makes many may mean means model modest more most move
    much need needs new next not now off one only other out over part pays per place raise
    raised raises rather reduce reduced reduces remove removes replace run runs same saved set
    sets short shorter should slightly slower small smaller some start stays step steps still
    such take takes test than that the their them then there these they this time too train
    training tried try trying two under until up update use used uses using value values very
    was well were what when where which while will with within without would
    """,
    )
)
"""Words that say nothing about an idea."""


class NearMiss(NamedTuple):
    """Better than its incumbent in the screen, and not kept."""

    confirmed: bool  # past the screen, then not better in every run
    gain: float  # in metric units
    number: int
    base: int
    description: str


@dataclass(frozen=True, slots=True)
class Theme:
    """How often a word was in a description, and what came of it."""

    name: str
    tried: int
    kept: int
    best: float | None  # gain, in metric units; None: never better


class Memory:
    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.order = -1  # of the latest experiment that was looked at
        self.keeps: list[PastAttempt] = []  # the baseline first
        self.near: list[NearMiss] = []  # the best first
        self.crashes: Counter[str] = Counter()  # by reason
        self.crashed: deque[PastAttempt] = deque(maxlen=CRASHED)
        self.finished = 0  # experiments, the baseline excluded
        self._latest_crash: dict[str, int] = {}
        self._scores: dict[int, float] = {}  # of keeps, when they became the incumbent
        self._tried: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()
        self._best: dict[str, float] = {}

    @property
    def since_keep(self) -> int:
        """Experiments finished since the incumbent became it."""
        return self.order - self.keeps[-1].order if self.keeps else 0

    def gain(self, base: int, metric: float | None) -> float | None:
        """How much better than the incumbent it was held against, in metric units."""
        score = self._scores.get(base)
        return None if score is None or metric is None else self.metric.gain(metric, score)

    def latest_crash(self, reason: str) -> int | None:
        return self._latest_crash.get(reason)

    def learn(self, last: int, tried: Sequence[PastAttempt], descriptions: Sequence[str]) -> None:
        """Take in what finished since, up to the one of order `last`: those `tried` that were kept,
        crashed or gained, in their order, and the descriptions of all."""
        self.finished, self.order = max(0, last), last
        by_status: defaultdict[str, list[PastAttempt]] = defaultdict(list)
        for row in tried:
            by_status[row.status].append(row)
        kept = by_status[Status.KEEP]
        self._learn_keeps(kept)
        self._learn_crashes(by_status[Status.CRASH])
        self._tried.update(chain.from_iterable(map(set, _words(descriptions))))
        self._kept.update(chain.from_iterable(map(set, _words(_of(kept)))))
        self._learn_gains(kept + by_status[Status.DISCARD])
        if len(self._tried) > WORDS:
            self._forget()

    def _learn_keeps(self, keeps: Sequence[PastAttempt]) -> None:
        self.keeps += keeps
        self._scores |= {row.number: row.metric for row in keeps if row.metric is not None}

    def _learn_crashes(self, crashes: Sequence[PastAttempt]) -> None:
        self.crashed.extend(crashes)
        for row in crashes:
            reason = row.reason or "unknown"
            if reason not in self.crashes and len(self.crashes) >= REASONS:
                reason = "another reason"
            self.crashes[reason] += 1
            self._latest_crash[reason] = row.number

    def _learn_gains(self, rows: Sequence[PastAttempt]) -> None:
        """The best of each word, and the near misses."""
        gained = []
        for row in rows:
            if row.order:  # the baseline gains nothing
                gain = self.gain(row.base, row.metric)
                if gain is not None and gain > 0:
                    gained.append((gain, row))
        gained.sort()
        best: dict[str, float] = {}
        for (gain, _), words in zip(gained, _words(_of(row for _, row in gained)), strict=True):
            best.update(dict.fromkeys(words, gain))  # the better one overwrites the worse
        for word, gain in best.items():
            if gain > self._best.get(word, 0.0):
                self._best[word] = gain
        found = [
            NearMiss(row.reason == LATE, gain, row.number, row.base, row.description)
            for gain, row in gained
            if row.status == Status.DISCARD
        ]
        best_first = sorted([*self.near, *found], reverse=True)
        once = {miss.description: miss for miss in reversed(best_first)}
        self.near = sorted(once.values(), reverse=True)[:NEAR_MISSES]

    def _forget(self) -> None:
        """The rarest words."""
        self._tried = Counter(dict(self._tried.most_common(WORDS // 2)))
        self._kept = Counter({w: n for w, n in self._kept.items() if w in self._tried})
        self._best = {w: gain for w, gain in self._best.items() if w in self._tried}

    # ---- by name ---------------------------------------------------------------------------

    def theme(self, name: str) -> Theme | None:
        """What came of a name of the source, however it is spelled in the descriptions; None when
        none had it. A single letter only as it is."""
        seen = self._spelled(name)
        return self._theme(name, seen) if seen else None

    def others(self, names: Collection[str], least: int) -> list[Theme]:
        """Further words of at least `least` descriptions: ideas that have left no trace in the
        source. The most frequent first; what every other description says is no idea."""
        common = max(least, self.finished // 2)
        told = {name.lower() for name in names} | FILLERS
        found = []
        for word, times in self._tried.most_common():
            if times < least:
                break
            lower = word.lower()
            if times <= common and len(word) > 2 and word[:2].isalpha() and lower not in told:
                told.add(lower)
                found.append(self._theme(word, self._spelled(word)))
        return found

    def _spelled(self, name: str) -> list[str]:
        """The ways to write it that were seen."""
        ways = {name} if len(name) == 1 else {name, name.lower(), name.upper(), name.title()}
        return [word for word in ways if word in self._tried]

    def _theme(self, name: str, spelled: Sequence[str]) -> Theme:
        gains = [self._best[word] for word in spelled if word in self._best]
        return Theme(
            name=name,
            tried=sum(self._tried[word] for word in spelled),
            kept=sum(self._kept[word] for word in spelled),
            best=max(gains, default=None),
        )


def _of(rows: Iterable[PastAttempt]) -> list[str]:
    return [row.description[:DESCRIPTION].replace("\n", " ") for row in rows]


def _words(descriptions: Sequence[str]) -> Iterable[list[str]]:
    """The words of each description, all in one go: of 10,000 in 10 ms."""
    if not descriptions:
        return []
    letters = "\n".join(descriptions).encode(errors="replace").translate(SAME_WORDS)
    return map(str.split, letters.decode("ascii").split("\n"))
