"""Running totals of the whole session: keeps, near misses, crashes, and what became of each word.

They grow with the number of different things that were tried, not with the length of the session.
`Digest.add` takes what finished since the last call, so no experiment is read twice.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from autoresearch.core.history import SegmentAlignment
from autoresearch.records import Metric, Status
from autoresearch.store import queries
from autoresearch.store.ledger import Ledger
from autoresearch.store.rows import PastAttempt, SessionRecord

DESCRIPTION = 300  # characters of a description that are read
WORDS = 20_000  # counted; of more, the rarer half is forgotten
NEAR_MISSES = 24  # the best so many are kept
CRASHED = 8  # the latest so many are kept
REASONS = 200  # of crashes, counted apart
NOT_CONFIRMED = "not confirmed"  # the reason of a discard that passed the screen
GAINING = (NOT_CONFIRMED, "not better")  # the reasons of discards that may have a gain
WORD_BYTES = bytes(  # bytes of a word stay, the rest become blanks
    byte if (chr(byte).isalnum() and byte < 128) or byte in b"_\n" else ord(" ")
    for byte in range(256)
)
FILLER_TEXT = """
about above after again against all also and another any are around avoid back be because
been before begin begins being below best better between both but by bytes can change
changed changes combine could current cut does double drop each earlier either end ends
enough even every faster few fewer first for four from full gain give gives half have helps
higher how improve improves increase increased increases instead into its just keep last
late later less let lets level like little longer low lower lowers make makes many may mean
means model modest more most move much need needs new next none not now off once one only
other out over part pays per place raise raised raises rather reduce reduced reduces remove
removes replace run runs same saved set sets short shorter should slightly slower small
smaller some start started starting starts stays step steps still such take takes test than
that the their them then there these they this three time too train training tried try
trying two under until up update use used uses using value values very was well were what
when where which while will with within without would
"""
FILLERS = frozenset(FILLER_TEXT.split())
"""Words that describe no idea. In prose they name no constant either: "all" is not ALL."""


class NearMiss(NamedTuple):
    """An experiment that was better than its incumbent in the screen, and not kept."""

    passed_screen: bool  # and then was not better in every run
    gain: float  # in metric units
    number: int
    base: int
    description: str


@dataclass(frozen=True, slots=True)
class WordCount:
    """How many descriptions had a word, and what came of these experiments."""

    name: str
    tried: int
    kept: int
    best: float | None  # gain, in metric units; None if it was never better


class Digest:
    """The totals of one session."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.order = -1  # of the latest experiment that was added; the baseline's is 0
        self.keeps: list[PastAttempt] = []  # the baseline first
        self.near_misses: list[NearMiss] = []  # the best first
        self.crashes: Counter[str] = Counter()  # by reason
        self.latest_crash: dict[str, int] = {}  # the experiment, by reason
        self.crashed: deque[PastAttempt] = deque(maxlen=CRASHED)
        self._scores: dict[int, float] = {}  # of keeps, when they became the incumbent
        self._tried: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()
        self._best: dict[str, float] = {}

    @property
    def since_keep(self) -> int:
        """Experiments finished since the latest keep."""
        return self.order - self.keeps[-1].order if self.keeps else 0

    def gain(self, base: int, metric: float | None) -> float | None:
        """Return how much better a metric is than the score of experiment `base`."""
        score = self._scores.get(base)
        return None if score is None or metric is None else self.metric.gain(metric, score)

    def add(self, last: int, attempts: Sequence[PastAttempt], descriptions: Sequence[str]) -> None:
        """Add what finished since the last call, up to the experiment of order `last`: `attempts`
        are those that were kept, crashed or gained, in their order; `descriptions` are of all."""
        self.order = last
        by_status: defaultdict[str, list[PastAttempt]] = defaultdict(list)
        for attempt in attempts:
            by_status[attempt.status].append(attempt)
        keeps = by_status[Status.KEEP]
        self.keeps += keeps
        self._scores |= {keep.number: keep.metric for keep in keeps if keep.metric is not None}
        self._add_crashes(by_status[Status.CRASH])
        self._tried.update(chain.from_iterable(map(set, _split_words(descriptions))))
        self._kept.update(chain.from_iterable(map(set, _split_words(_describe(keeps)))))
        self._add_gains(keeps + by_status[Status.DISCARD])
        if len(self._tried) > WORDS:
            self._forget_rare_words()

    def _add_crashes(self, crashes: Sequence[PastAttempt]) -> None:
        self.crashed.extend(crashes)
        for crash in crashes:
            reason = crash.reason or "unknown"
            if reason not in self.crashes and len(self.crashes) >= REASONS:
                reason = "another reason"
            self.crashes[reason] += 1
            self.latest_crash[reason] = crash.number

    def _add_gains(self, attempts: Sequence[PastAttempt]) -> None:
        """Update the best gain of each word, and the near misses."""
        gains = sorted(
            (gain, attempt)
            for attempt in attempts
            if attempt.order  # the baseline gains nothing
            and (gain := self.gain(attempt.base, attempt.metric)) is not None
            and gain > 0
        )
        best: dict[str, float] = {}
        descriptions = _split_words(_describe(attempt for _, attempt in gains))
        for (gain, _), words in zip(gains, descriptions, strict=True):
            best.update(dict.fromkeys(words, gain))  # the better gain overwrites the worse
        for word, gain in best.items():
            self._best[word] = max(gain, self._best.get(word, 0.0))
        misses = [
            NearMiss(row.reason == NOT_CONFIRMED, gain, row.number, row.base, row.description)
            for gain, row in gains
            if row.status == Status.DISCARD
        ]
        best_of_each = {miss.description: miss for miss in sorted([*self.near_misses, *misses])}
        self.near_misses = sorted(best_of_each.values(), reverse=True)[:NEAR_MISSES]

    def _forget_rare_words(self) -> None:
        self._tried = Counter({w: self._tried[w] for w in _rank(self._tried)[: WORDS // 2]})
        self._kept = Counter({w: n for w, n in self._kept.items() if w in self._tried})
        self._best = {w: gain for w, gain in self._best.items() if w in self._tried}

    def count(self, name: str) -> WordCount | None:
        """Return what came of a name, in any spelling that the descriptions use (a single letter or
        a word of every text, such as ALL, only as it is). None if no description has it."""
        is_exact = len(name) == 1 or name.lower() in FILLERS
        ways = {name} if is_exact else {name, name.lower(), name.upper(), name.title()}
        spellings = (ways & self._tried.keys()) - FILLERS
        if not spellings:
            return None
        return WordCount(
            name=name,
            tried=sum(self._tried[word] for word in spellings),
            kept=sum(self._kept[word] for word in spellings),
            best=max((self._best[word] for word in spellings if word in self._best), default=None),
        )

    def count_others(self, names: Collection[str], least: int) -> list[WordCount]:
        """Count further words of at least `least` descriptions, the most frequent first: ideas
        that left no trace in the source. A word of every other description is no idea."""
        most = max(least, self.order // 2)
        skipped = {name.lower() for name in names} | FILLERS
        counts = []
        for word in _rank({word: n for word, n in self._tried.items() if least <= n <= most}):
            lower = word.lower()
            if len(word) > 2 and word[:2].isalpha() and lower not in skipped:
                skipped.add(lower)
                counts.append(self.count(word))
        return [count for count in counts if count is not None]


def read_into(
    digest: Digest, ledger: Ledger, record: SessionRecord, scale: SegmentAlignment
) -> None:
    """Add what a session has finished since the last call."""
    last, after = ledger.last_order(record), digest.order
    if last > after:
        attempts = queries.list_past_attempts(ledger, record, after, last, GAINING)
        digest.add(
            last,
            [row._replace(metric=scale.then(row.metric, row.order)) for row in attempts],
            queries.list_descriptions(ledger, record, max(0, after), last, DESCRIPTION),
        )


def _rank(counts: Mapping[str, int]) -> list[str]:
    """Sort words by their counts, the highest first; equal counts by the alphabet."""
    return sorted(sorted(counts), key=counts.__getitem__, reverse=True)


def _describe(attempts: Iterable[PastAttempt]) -> list[str]:
    return [attempt.description[:DESCRIPTION].replace("\n", " ") for attempt in attempts]


def _split_words(descriptions: Sequence[str]) -> Iterable[list[str]]:
    """Split each description into words. All in one go: 10,000 of them take 10 ms."""
    if not descriptions:
        return []
    letters = "\n".join(descriptions).encode(errors="replace").translate(WORD_BYTES)
    return map(str.split, letters.decode("ascii").split("\n"))
