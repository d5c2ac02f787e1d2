"""The report package against a real ledger filled with plausible nights."""

from __future__ import annotations

import io
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from rich.console import Console

from autoresearch.core import judge
from autoresearch.core.events import Warned
from autoresearch.core.history import noise
from autoresearch.errors import LedgerError, NotOursError, StorageError, TaskError
from autoresearch.formatting import Numbers, duration, one_line, percent, printable
from autoresearch.protocols import Failure, Proposal
from autoresearch.records import Experiment, Goal, Metric, Role, Run, Status, Verdict
from autoresearch.report import text
from autoresearch.report.collect import summarise
from autoresearch.report.experiments import log_text, show_text
from autoresearch.report.live import LiveView, SessionView
from autoresearch.report.page import draw_page, make_headline
from autoresearch.report.plot import find_frame, plot
from autoresearch.report.summary import Summary, to_json
from autoresearch.store.files import publish
from autoresearch.store.ledger import Ledger
from autoresearch.store.results import ResultsFile, check_ours, header, parse, row, table

NOW = 1_795_000_000.0
BPB = Metric("val_bpb")
ACCURACY = Metric("accuracy", Goal.MAXIMIZE)
IDEAS = (
    "raise MATRIX_LR to 0.08",
    "warm down over half of the budget instead of a fifth",
    "depth 3, width 96",
    "no value embeddings in the first layer, and a larger head dimension to make up for it",
    "ROPE base 5000",
    "batch of 4 x 256",
)


class Night:
    """Fabricates a session the way the loop fills a ledger, in one transaction's time."""

    def __init__(
        self, ledger: Ledger, tag: str = "nov23", metric: Metric = BPB, **facts: object
    ) -> None:
        self.ledger = ledger
        self.metric = metric
        self.rng = random.Random(tag)
        self.session = ledger.create_session(
            tag,
            base_commit=self.commit(0),
            metric=metric,
            level="default",
            budget_s=10.0,
            budget_clock="cpu",
            limits={"experiments": 100, "hours": 8, "until": "07:00", "deadline": NOW + 9 * 3600},
            fingerprint={},
            now=NOW - 3600,
        )
        if facts:
            self.session = ledger.update_session(self.session, **facts)
        self.means: dict[int, float] = {}
        self.incumbent = 0
        self.agent = "tuner"
        self.costs: tuple[int | None, float | None] = (None, None)  # of a turn of that agent

    def commit(self, number: int) -> str:
        return f"{number:07x}" + "f" * 33

    def open(self, description: str, number: int = 0, base: int | None = None) -> Experiment:
        return self.ledger.begin(
            self.session,
            base=self.incumbent if base is None else base,
            commit=self.commit(number),
            tree=f"tree{number}",
            agent=self.agent if number else "baseline",
            proposal=Proposal(description, "", "", *(self.costs if number else (None, None))),
            lines=(1, 1),
            now=NOW - 60,
        )

    def open_run(self, number: int, role: Role, index: int = 0, of: int | None = None) -> Run:
        commit = self.commit(number if of is None else of)
        return self.ledger.open_run(
            self.session,
            experiment=number,
            attempt=0,
            role=role,
            index=index,
            commit=commit,
            now=NOW - 7,
        )

    def run(self, number: int, role: Role, index: int = 0, of: int | None = None) -> float:
        """A finished run of commit `of`."""
        mean = self.means[number if of is None else of]
        value = mean + self.rng.gauss(0, 0.006)
        self.end(self.open_run(number, role, index, of), value)
        return value

    def end(self, run: Run, value: float | None, reason: str | None = None) -> Run:
        return self.ledger.finish_run(
            run,
            metric=value,
            reason=reason,
            numbers={"num_steps": 160.0},
            slot=0,
            exit_code=0 if reason is None else 1,
            wall_s=11.5,
            cpu_s=10.25,
            peak_memory_bytes=412_000_000,
        )

    def finish(
        self,
        number: int,
        status: Status,
        metric: float | None,
        reason: str | None = None,
        memory: int | None = 412_000_000,
    ) -> Experiment:
        if status is Status.KEEP:
            self.incumbent = number
        verdict = Verdict(status, reason, metric, "on three runs")
        return self.ledger.finish(
            self.session, number, verdict, peak_memory_bytes=memory, now=NOW - 5
        )

    def baseline(self, mean: float = 1.603) -> Experiment:
        self.means[0] = mean
        self.open("baseline")
        values = [self.run(0, Role.BASELINE, index) for index in range(6)]
        return self.finish(0, Status.KEEP, fmean(values))

    def change(self, gain: float, description: str | None = None) -> Experiment:
        """A change that is truly better by `gain`, and is kept if that is much."""
        number = self.ledger.started(self.session) + 1
        sign = 1 if self.metric.better(1.0, 0.0) else -1
        self.means[number] = self.means[self.incumbent] + sign * gain
        self.open(IDEAS[number % len(IDEAS)] if description is None else description, number)
        first = self.run(number, Role.SCREEN)
        if gain < 0:
            return self.finish(number, Status.DISCARD, first, "worse")
        for index in range(3):
            self.run(number, Role.CANDIDATE, index)
            self.run(number, Role.CONTROL, index, of=self.incumbent)
        if gain < 0.004:
            return self.finish(number, Status.DISCARD, first, "not confirmed")
        fresh = [self.run(number, Role.REMEASURE, index) for index in range(4)]
        return self.finish(number, Status.KEEP, fmean(fresh))

    def crash(self, reason: str = "exit code 1") -> Experiment:
        number = self.ledger.started(self.session) + 1
        self.open("depth 64", number)
        self.end(self.open_run(number, Role.SCREEN), None, reason)
        return self.finish(number, Status.CRASH, None, reason)

    def verify(self, runs: int = 6) -> None:
        for index in range(runs):
            self.run(self.incumbent, Role.VERIFY, index)
            self.run(self.incumbent, Role.VERIFY_BASELINE, index, of=0)

    def plausible(self, experiments: int, keep_share: float = 0.07) -> Night:
        with self.ledger.transaction():
            self.baseline(1.603 if self.metric is BPB else 0.81)
            for _ in range(experiments):
                dice = self.rng.random()
                if dice < 0.04:
                    self.crash(self.rng.choice(["timeout", "exit code 1", "memory"]))
                elif dice < 0.04 + keep_share:
                    self.change(0.004 + self.rng.expovariate(200))
                elif dice < 0.25:
                    self.change(self.rng.uniform(0, 0.003))
                else:
                    self.change(-self.rng.expovariate(40))
            self.ledger.add_elapsed(self.session, 40.0 * experiments)
        return self

    def summary(self, whole: bool = False) -> Summary:
        return summarise(self.ledger, self.session.tag, NOW, whole=whole)

    def experiments(self) -> list[Experiment]:
        return self.ledger.finished(self.session)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    folder = tmp_path / "tiny_gpt" / ".autoresearch"
    folder.mkdir(parents=True)
    ledger = Ledger(folder / "ledger.sqlite")
    yield ledger
    ledger.close()


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "tiny_gpt" / "results.tsv"


def drawn(summary: Summary, running: bool = True, width: int = 80, height: int = 24) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, record=True)
    console.print(SessionView(summary, running))
    return console.export_text()


def every_view(night: Night) -> str:
    """All that must work for every session whatever its state."""
    summary, whole = night.summary(), night.summary(whole=True)
    json.dumps(to_json(summary), allow_nan=False)
    assert plot(whole).startswith(b"\x89PNG")
    views = [drawn(summary, running) for running in (True, False)]
    views += [text.status_text(summary, running) for running in (True, False)]
    views += [log_text(night.experiments(), night.metric), draw_page(whole)]
    return "\n".join(views)


# --------------------------------------------------------------------------------------------
# The summary


def test_a_summary_tells_the_incumbent_by_its_unselected_runs(ledger: Ledger) -> None:
    night = Night(ledger)
    night.baseline()
    night.change(-0.02)
    kept = night.change(0.03, "depth 2")
    summary = night.summary()
    assert summary.task == "tiny_gpt" and summary.agent == "tuner"
    assert (summary.keep, summary.discard, summary.crash) == (1, 1, 0)
    assert summary.incumbent is not None and summary.baseline is not None
    fresh = ledger.runs_of(night.session, kept.commit, (Role.REMEASURE,))
    assert summary.incumbent.score == fmean(run.metric or 0.0 for run in fresh)
    assert summary.incumbent.runs == 4
    assert summary.gain == summary.baseline.score - summary.incumbent.score  # type: ignore[operator]
    assert (summary.noise_sd, summary.noise_df) == noise(ledger, night.session)
    assert summary.noise_df == 5 + 3  # the baseline's six and the four fresh ones: no controls
    assert summary.confirmations == 1
    assert summary.false_keeps_expected == pytest.approx(1 / 20)
    assert summary.verification is None


def test_an_incumbent_has_the_mean_of_its_last_runs_only(ledger: Ledger) -> None:
    night = Night(ledger)
    night.baseline()
    night.change(0.001)  # its controls are runs of the incumbent, but do not join the score
    for index in range(4):
        night.run(0, Role.TOPUP, index)
    summary = night.summary()
    [scores] = ledger.scores(night.session, [night.commit(0)]).values()
    assert len(scores) == 6 + 4
    assert summary.incumbent is not None and summary.incumbent.number == 0
    assert summary.incumbent.score == fmean(scores[-judge.SCORE_RUNS :])
    assert summary.gain is None  # nothing was kept, so nothing was gained


def test_limits_and_what_is_left_of_them(ledger: Ledger) -> None:
    night = Night(ledger)
    night.baseline()
    night.change(-0.01)
    ledger.add_elapsed(night.session, 600)
    summary = night.summary()
    assert summary.experiments_left == 99
    assert summary.pace_s == 600
    assert summary.time_left_s is not None and summary.time_left_s <= 8 * 3600 - 600
    known_better = summarise(ledger, "nov23", NOW, elapsed_s=8 * 3600)
    assert known_better.time_left_s == 0
    unlimited = ledger.update_session(night.session, limits={"experiments": None})
    assert unlimited.limits == {"experiments": None}
    summary = night.summary()
    assert summary.experiments_left is None and summary.end_in_s is None
    assert text.describe_left(summary) == "no limit on experiments or time"


def test_ten_fruitless_turns_count_as_an_experiment(ledger: Ledger) -> None:
    night = Night(ledger)
    night.baseline()
    for _ in range(25):
        ledger.add_turn(night.session, "claude", Failure("rate limit", "later\x1b[31m"), NOW)
    summary = night.summary()
    assert summary.fruitless == 25 and summary.experiments_left == 98
    assert "rate limit: later\n" in text.status_text(summary)


def test_what_the_agents_did_earned_and_cost(ledger: Ledger) -> None:
    """Gains add up to the whole way from the baseline to the incumbent, whoever's they are."""
    night = Night(ledger)
    night.baseline()
    for _ in range(30):  # more keeps than a view tells
        night.agent, night.costs = "claude:opus", (1000, 0.25)
        night.change(0.02)
        night.agent, night.costs = "tuner", (None, None)
        night.change(0.01)
        night.change(-0.01)
    down = Failure("service down", "503", None, 500, 0.5)
    ledger.add_turn(night.session, "claude:opus", down, NOW)
    summary = night.summary()
    claude, tuner = summary.agents
    assert (claude.name, claude.experiments, claude.keeps, claude.other_turns) == (
        *("claude:opus", 30, 30, 1),
    )
    assert (tuner.name, tuner.experiments, tuner.keeps) == ("tuner", 60, 30)
    assert (claude.tokens, claude.usd, tuner.tokens, tuner.usd) == (30_500, 8.0, None, None)
    assert claude.gain + tuner.gain == pytest.approx(summary.gain)
    assert claude.gain == pytest.approx(0.6, abs=0.15) and claude.gain > tuner.gain
    assert claude.gain_per_experiment == pytest.approx(claude.gain / 30)
    assert claude.gain_per_usd == pytest.approx(claude.gain / 8)
    assert tuner.gain_per_usd is None
    assert summary.usd_per_keep == pytest.approx(8 / 60)
    assert summary.tokens_per_experiment == pytest.approx(30_500 / 90)
    assert json.loads(json.dumps(to_json(summary)))["agents"][1]["usd"] is None

    status = text.status_text(summary)
    assert "each       339 tokens, $0.089 an experiment; 508 tokens, $0.13 a keep" in status
    line = f"claude:opus: 30 experiments, 30 keeps, gain {summary.numbers.signed(claude.gain)}, "
    assert f"agent      {line}30,500 tokens, $8.00, {claude.gain / 8:+.2g} a dollar\n" in status
    written = draw_page(night.summary(whole=True))
    assert f"| claude:opus | 30 | 30 | {summary.numbers.signed(claude.gain)} |" in written
    assert f"| 30,500 | $8.00 | {claude.gain / 8:+.2g} |\n" in written
    assert "The agents took 30,500 tokens, $8.00: 339 tokens" in written
    log = log_text(night.experiments(), BPB).splitlines()
    assert log[0].endswith("reason            agent                 tokens     cost  description")
    assert "  claude:opus            1,000    $0.25  " in log[2]
    assert all(line.split()[0] == str(number) for number, line in enumerate(log[1:]))
    assert "claude:opus: 30 exp" in every_view(night)


def test_nothing_of_agents_where_there_is_one_without_costs(ledger: Ledger) -> None:
    night = Night(ledger)
    night.baseline()
    night.change(0.02)
    summary = night.summary()
    assert summary.agents == () and summary.usd_per_keep is None
    views = every_view(night)
    assert "## Agents" not in views and "an experiment;" not in views and "each  " not in views
    assert "tokens" not in log_text(night.experiments(), BPB)
    night.costs = (10, None)
    night.change(-0.02)
    [share] = night.summary().agents
    assert (share.experiments, share.tokens, share.usd) == (2, 10, None)


def test_nothing_crashes_before_there_is_a_baseline(ledger: Ledger) -> None:
    night = Night(ledger)
    views = every_view(night)
    assert "no baseline yet" in views and "Nothing was measured" in views
    night.open("baseline")
    night.open_run(0, Role.BASELINE)
    summary = night.summary()
    assert summary.open_runs[0].age_s == 7 and summary.open_experiments[0].number == 0
    assert "#0 baseline, run 1, 7.0 s" in text.status_text(summary, running=True)
    assert "1 run to make again on resume" in text.status_text(summary, running=False)
    every_view(night)


def test_a_session_of_crashes_only(ledger: Ledger) -> None:
    night = Night(ledger)
    night.baseline()
    for reason in ("timeout", "timeout", "exit code 1"):
        night.crash(reason)
    summary = night.summary()
    views = every_view(night)
    assert "Nothing better was found in 3 experiments" in views
    assert "- 2 × timeout (#1, #2)" in views
    assert all(one.gain is None for one in summary.recent)


def test_a_crashed_baseline_leaves_a_session_without_incumbent(ledger: Ledger) -> None:
    night = Night(ledger)
    night.open("baseline")
    night.end(night.open_run(0, Role.BASELINE), None, "exit code 1")
    night.finish(0, Status.CRASH, None, "exit code 1")
    every_view(night)


def test_a_metric_to_maximize(ledger: Ledger) -> None:
    night = Night(ledger, metric=ACCURACY)
    night.baseline(0.8)
    night.change(0.05)
    night.verify()
    summary = night.summary()
    assert summary.gain is not None and summary.gain > 0
    assert summary.verification is not None and summary.verification.low > 0
    assert "higher is better" in text.describe_gain(replace(summary, gain=None))
    assert " better" in text.describe_gain(summary)
    every_view(night)


def test_a_deterministic_session_says_so_everywhere(ledger: Ledger) -> None:
    night = Night(ledger, deterministic=True)
    night.rng.gauss = lambda mean, sd: 0.0  # type: ignore[method-assign]
    night.baseline()
    night.change(0.01)
    night.verify(1)
    summary = night.summary()
    assert summary.false_keeps_expected == 0 and summary.gain_sd is None
    assert summary.verification is not None
    assert summary.verification.low == summary.verification.gain == summary.verification.high
    for view in (drawn(summary), text.status_text(summary), draw_page(night.summary(whole=True))):
        assert "deterministic" in view.lower()
    assert "gives exactly this number again" in make_headline(summary)
    assert make_headline(replace(summary, verification=None)) == make_headline(summary)
    every_view(night)


def test_every_kind_of_run_under_way_has_its_words(ledger: Ledger) -> None:
    night = Night(ledger)
    night.baseline()
    kept = night.change(0.03)
    night.open("wider", 2)
    night.means[2] = 1.5
    night.run(2, Role.SCREEN)
    night.run(2, Role.CANDIDATE)
    night.open_run(2, Role.CONTROL, 0, of=kept.number)
    for number, role in (
        (2, Role.REMEASURE),
        (1, Role.TOPUP),
        (1, Role.VERIFY),
        (1, Role.VERIFY_BASELINE),
    ):
        night.open_run(number, role, 1)
    said = "\n".join(text.list_open_runs(night.summary(), running=True))
    assert "#2 confirmation, run 2 of 6, 7.0 s of about 12 s wider" in said
    assert "measuring the new best, run 2 of 4" in said
    assert "#1 measuring the best once more" in said
    assert "verifying the best, run 2" in said
    assert "and 1 run more" in drawn(night.summary())


def test_an_unknown_session_is_an_error_and_not_an_empty_one(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="no session 'dec24'"):
        summarise(ledger, "dec24", NOW)


# --------------------------------------------------------------------------------------------
# results.tsv


GOLDEN = (
    "commit\tval_bpb\tmemory_gb\tstatus\tdescription"
    "\texperiment\treason\truns\tcpu_s\tagent\ttokens\tusd\n"
    "0000000\t0.997900\t44.0\tkeep\tbaseline\t0\t\t1\t300.5\tbaseline\t\t\n"
    "0000001\t0.993200\t44.2\tkeep\tincrease LR to 0.04\t1\t\t1\t300.5\tclaude\t1200\t0.0300\n"
    "0000002\t1.005000\t44.0\tdiscard\tswitch to GeLU\t2\tworse\t1\t300.5\tclaude\t\t\n"
    "0000003\t0.000000\t0.0\tcrash\tdouble model width\t3\tOOM\t1\t300.5\tclaude\t\t\n"
)


def test_rows_are_those_of_the_original_with_ours_after_them() -> None:
    gib = 2**30
    rows = [
        (Status.KEEP, 0.9979, 44.0, "baseline", None),
        (Status.KEEP, 0.9932, 44.2, "increase LR to 0.04", None),
        (Status.DISCARD, 1.005, 44.0, "switch to GeLU", "worse"),
        (Status.CRASH, None, 44.0, "double model width", "OOM"),
    ]
    lines = [header("val_bpb")]
    for number, (status, metric, memory, description, reason) in enumerate(rows):
        experiment = Experiment(
            number=number,
            base=0,
            commit=f"{number:07x}abcdef",
            agent="claude" if number else "baseline",
            description=description,
            status=status,
            reason=reason,
            metric=metric,
            peak_memory_bytes=int(memory * gib),
            tokens=1200 if number == 1 else None,
            usd=0.03 if number == 1 else None,
        )
        run = Run(1, number, 0, Role.SCREEN, 0, "c", 1, finished=True, cpu_s=300.5)
        later = replace(run, role=Role.TOPUP)
        lines.append(row(experiment, [run, later]))
    assert "".join(lines) == GOLDEN


def test_a_description_stays_on_its_line_and_in_its_column() -> None:
    def cell(description: str) -> str:
        one = Experiment(1, 0, "a" * 40, "tuner", description, status=Status.DISCARD, metric=1.0)
        line = row(one, [])
        assert line.count("\t") == 11 and line.count("\n") == 1 and len(line.splitlines()) == 1
        return line.split("\t")[4]

    assert cell("a\tb\nc\r\nd") == "a b c  d"
    assert cell("größer · 学習率 🚀") == "größer · 学習率 🚀"
    assert cell("\x1b[31mred\x1b[0m\x00 \u2028x") == "red   x"
    # pandas, with which the original reads the file, takes a leading quote for a quotation.
    assert cell('"muon" for all') == "'muon' for all"
    assert cell("") == ""


def test_the_file_grows_with_the_session(ledger: Ledger, results: Path) -> None:
    night = Night(ledger)
    file = ResultsFile(results, ledger, night.session)
    file.prepare()
    assert not results.exists()  # nothing to say yet
    file.append(night.baseline())
    assert results.read_text().startswith(header("val_bpb"))
    for gain in (-0.01, 0.03, 0.001):
        file.append(night.change(gain))
    file.append(night.crash())
    assert results.read_text() == table(ledger, night.session)
    first = results.read_text().split("\n")[1].split("\t")
    assert first[3:6] == ["keep", "baseline", "0"]
    # Later runs of a kept commit change no line that is already there.
    night.verify()
    assert results.read_text() == table(ledger, night.session)


def test_an_appended_line_is_never_written_twice_nor_left_out(
    ledger: Ledger, results: Path
) -> None:
    night = Night(ledger)
    file = ResultsFile(results, ledger, night.session)
    baseline = night.baseline()
    file.prepare()
    file.append(baseline)
    assert results.read_text() == table(ledger, night.session)
    night.change(-0.01)
    file.append(night.change(-0.01))  # the one before was missed
    assert results.read_text() == table(ledger, night.session)
    results.unlink()
    file.append(night.change(-0.01))
    assert results.read_text() == table(ledger, night.session)


def test_a_torn_file_of_ours_is_mended(ledger: Ledger, results: Path) -> None:
    night = Night(ledger)
    night.baseline()
    night.change(0.03, "größere Lernrate für die Matrizen")
    file = ResultsFile(results, ledger, night.session)
    whole = table(ledger, night.session).encode()
    for length in [*range(0, len(whole), 3), len(whole)]:
        results.write_bytes(whole[:length])
        file.prepare()
        assert results.read_bytes() == whole, length
    assert [path.name for path in results.parent.iterdir()] == [".autoresearch", results.name]


@pytest.mark.parametrize(
    "content",
    [
        b"my notes\n",
        b"commit\tval_bpb\tmemory_gb\tstatus\tdescription\nabc1234\t0.99\t44.0\tkeep\tbaseline\n",
        b"commit\tval_bpb\tmemory_gb\tstatus\tdescr\xff\n",
        b"\x89PNG\r\n",
    ],
)
def test_a_file_of_somebody_else_is_refused_and_left_alone(
    ledger: Ledger, results: Path, content: bytes
) -> None:
    night = Night(ledger)
    night.baseline()
    results.write_bytes(content)
    with pytest.raises(NotOursError):
        check_ours(results, ledger)
    with pytest.raises(NotOursError, match=r"mv results\.tsv results-old\.tsv"):
        ResultsFile(results, ledger, night.session).prepare()
    assert results.read_bytes() == content


def test_a_line_added_or_edited_by_hand_is_not_ours(ledger: Ledger, results: Path) -> None:
    night = Night(ledger)
    night.baseline()
    whole = table(ledger, night.session)
    for edited in (whole + "a note\n", whole + "a", whole.replace("baseline", "Baseline", 1)):
        results.write_text(edited)
        with pytest.raises(NotOursError):
            ResultsFile(results, ledger, night.session).prepare()


def test_the_file_of_another_session_of_ours_gives_way(ledger: Ledger, results: Path) -> None:
    first = Night(ledger, "nov22")
    first.baseline()
    first.change(-0.01)
    ResultsFile(results, ledger, first.session).prepare()
    second = Night(ledger, "nov23", ACCURACY)
    ResultsFile(results, ledger, second.session).prepare()
    assert results.read_text() == header("accuracy")
    results.write_text("commit\tval_bpb\tmemory_gb\tstatus\tdescription\n")  # nothing to lose
    ResultsFile(results, ledger, first.session).prepare()
    assert results.read_text() == table(ledger, first.session)


def test_links_and_folders_are_not_ours(ledger: Ledger, results: Path) -> None:
    night = Night(ledger)
    results.symlink_to(results.with_name("elsewhere"))
    with pytest.raises(NotOursError):
        ResultsFile(results, ledger, night.session).prepare()
    results.unlink()
    results.mkdir()
    with pytest.raises(NotOursError):
        ResultsFile(results, ledger, night.session).prepare()


def test_a_disk_that_refuses_is_a_storage_error(ledger: Ledger, tmp_path: Path) -> None:
    night = Night(ledger)
    night.baseline()
    with pytest.raises(StorageError, match="gone"):
        ResultsFile(tmp_path / "gone" / "results.tsv", ledger, night.session).prepare()


def test_the_originals_five_columns_are_read_and_so_are_ours(ledger: Ledger) -> None:
    original = (
        "commit\tval_bpb\tmemory_gb\tstatus\tdescription\r\n"
        "a1b2c3d\t0.997900\t44.0\tkeep\tbaseline\r\n"
        "b2c3d4e\t0.993200\t44.2\tkeep\ta tab\tinside\r\n"
        "c3d4e5f\t0.0000"
    )
    rows = parse(original)
    assert [one["description"] for one in rows] == ["baseline", "a tab inside"]
    assert rows[1]["val_bpb"] == "0.993200"
    night = Night(ledger).plausible(30)
    rows = parse(table(ledger, night.session))
    assert len(rows) == 31 and rows[0]["description"] == "baseline"
    assert [one["experiment"] for one in rows[:3]] == ["0", "1", "2"]
    assert parse("") == []
    with pytest.raises(TaskError, match="memory_gb"):
        parse("a,b,c\n1,2,3\n")


# --------------------------------------------------------------------------------------------
# Pictures and pages


def test_a_published_file_is_replaced_only_while_it_is_ours(ledger: Ledger, results: Path) -> None:
    path = results.with_name("progress.png")
    publish(ledger, path, b"one")
    publish(ledger, path, b"two")
    publish(ledger, path, b"two")
    assert path.read_bytes() == b"two"
    path.write_bytes(b"edited by hand")
    with pytest.raises(NotOursError, match=r"progress\.png"):
        publish(ledger, path, b"three")
    assert path.read_bytes() == b"edited by hand"
    path.write_bytes(b"")  # left by a power cut
    publish(ledger, path, b"three")
    assert path.read_bytes() == b"three"
    assert sorted(p.name for p in path.parent.iterdir()) == [".autoresearch", "progress.png"]


def test_the_picture_is_framed_around_baseline_and_best() -> None:
    low, high = find_frame([1.60, 1.56], [1.58, 1.61, 9.0, -3.0], 0.006)
    assert 1.54 < low < 1.56 and 1.61 < high < 1.63
    for keeps, discards, sd in (([1.0], [], None), ([0.0], [0.0], 0.0), ([], [5.0], None)):
        low, high = find_frame(keeps, discards, sd)
        assert math.isfinite(low) and low < high


def test_the_picture_takes_any_description(ledger: Ledger) -> None:
    night = Night(ledger)
    night.baseline()
    for description in ("$\\frac{", "学習率 🚀", "a\tb\n" * 40, "_^%&#{}~", ""):
        night.change(0.03, description)
    assert plot(night.summary(whole=True)).startswith(b"\x89PNG")


def test_the_headline_claims_only_what_was_measured_again(ledger: Ledger) -> None:
    night = Night(ledger)
    night.baseline()
    night.change(-0.01)
    assert "Nothing better was found in 1 experiment.**" in make_headline(night.summary())
    night.change(0.03)
    assert make_headline(night.summary()).startswith("**Not verified:")
    night.verify()
    assert "Verified: 95 % interval +" in make_headline(night.summary())
    night.change(0.03)  # the verified one is no longer the best
    assert make_headline(night.summary()).startswith("**Not verified:")
    night.verify()
    found = night.summary()
    assert found.verification is not None
    assert (found.verification.new_runs, found.verification.old_runs) == (6, 6)  # not the first's
    doubtful = replace(found.verification, low=-0.001, crashed=1)
    said = make_headline(replace(found, verification=doubtful))
    assert said.startswith("**Not established:") and "interval includes zero" in said
    assert "1 run of them crashed" in said
    worse = replace(doubtful, gain=-0.02, low=-0.03, high=-0.01)
    assert make_headline(replace(found, verification=worse)).startswith("**Not an improvement:")


def test_the_page_holds_everything_a_morning_needs(ledger: Ledger) -> None:
    night = Night(ledger, warnings=["`train.py` ignores the seed"]).plausible(100)
    night.verify()
    text_ = draw_page(night.summary(whole=True), sandbox="runs can reach the network")
    for part in (
        "![progress](progress.png)",
        "## Kept",
        "## Near misses",
        "## Crashes",
        "false keeps expected",
        "Spread (sd): baseline",
        "Drift: at the end",
        "of CPU time",
        "git merge autoresearch/nov23",
        "runs can reach the network",
        "ignores the seed",
    ):
        assert part in text_
    assert "\n\n\n" not in text_


def test_foreign_text_cannot_break_the_page(ledger: Ledger) -> None:
    night = Night(ledger)
    night.baseline()
    night.change(0.03, "a | b\n# c <script>[x](http://y) `z`")
    kept = next(
        line
        for line in draw_page(night.summary(whole=True)).split("\n")
        if line.startswith("| 1 |")
    )
    assert kept.replace("\\|", "").count("|") == 8
    assert "<script>" not in kept.replace("\\<", "") and "\\[x\\](" in kept


# --------------------------------------------------------------------------------------------
# The terminal


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 24), (60, 16), (200, 60), (30, 10)])
def test_the_live_view_fits_its_terminal(ledger: Ledger, width: int, height: int) -> None:
    night = Night(ledger).plausible(40)
    night.open("学習率 " * 30, 41)
    night.open_run(41, Role.SCREEN)
    lines = drawn(night.summary(), width=width, height=height).rstrip("\n").split("\n")
    assert len(lines) < max(height, 15)
    if height == 24:
        assert " 40 " in lines[-2] and " 31 " in lines[-11]  # all of the last ten


def test_the_live_view_takes_no_markup_from_an_agent(ledger: Ledger) -> None:
    night = Night(ledger)
    night.baseline()
    night.change(-0.01, "[bold]x[/bold] [/] \x1b]0;title\x07end")
    view = drawn(night.summary(), width=120)
    assert "[bold]x[/bold] [/] end" in view


def test_the_live_view_survives_a_ledger_it_cannot_read(ledger: Ledger) -> None:
    night = Night(ledger)
    night.baseline()
    calls = 0

    def read() -> Summary:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise LedgerError("locked by another program")
        return night.summary()

    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, height=24)
    with LiveView(read, console) as view:
        view.note(Warned("experiment 1: [keep] ROPE base 5000"))
        deadline = time.monotonic() + 10
        while calls < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert calls >= 4
    assert "locked by another program" in out.getvalue()
    assert "experiment 1: [keep] ROPE base 5000" in out.getvalue()


def test_log_and_show_are_plain_text(ledger: Ledger) -> None:
    night = Night(ledger)
    night.baseline()
    one = night.change(0.03, "depth\t2")
    night.crash()
    night.open("in flight", 3)
    log = log_text([*night.experiments(), *ledger.in_flight(night.session)], BPB)
    assert log.count("\n") == 5 and "open" in log.split("\n")[4]
    shown = show_text(
        one,
        ledger.runs(night.session, one.number),
        "-DEPTH = 3\n+DEPTH = 2\n",
        "\x1b[2Jok\tend",
        BPB,
    )
    assert "experiment  #1 0000001, built on #0, by tuner" in shown
    assert "change      depth 2 (+1 -1 lines)" in shown
    assert shown.count("remeasure") == 4 and "+DEPTH = 2\n" in shown
    assert shown.endswith("    ok\tend\n")


# --------------------------------------------------------------------------------------------
# Words


def test_values_are_shown_to_a_tenth_of_the_noise() -> None:
    assert Numbers(BPB, 0.0007).value(0.997912345) == "0.99791"
    assert Numbers(BPB, 0.006).value(1.603) == "1.6030"
    assert Numbers(BPB, 35.0).value(1234.5) == "1234"
    assert Numbers(BPB).value(0.997912345) == "0.997912"
    assert Numbers(BPB, 0.0).value(1e-9) == "1e-09"
    assert Numbers(BPB, 0.01).value(1e300) == "1e+300"
    assert Numbers(BPB, 0.006).gain(-0.004) == "0.0040 worse"
    assert Numbers(ACCURACY, 0.006).signed(0.01) == "+0.0100"
    assert Numbers(BPB).value(None) == "-"


def test_durations_and_shares() -> None:
    rest = ["3 h 05 min", "2 d 4 h", "-"]
    said = [duration(s) for s in (0, 7.24, 45, 99.6, 725, 3599, 11100, 187200, None)]
    assert said == ["0.0 s", "7.2 s", "45 s", "2 min", "12 min", "1 h 00 min", *rest]
    assert (percent(0.0247), percent(0.5), percent(None)) == ("2.5 %", "50 %", "")


def test_foreign_text_becomes_harmless() -> None:
    assert one_line(" a\x1b[1;31mb\x1b[0m\u202ec\ud800 ") == "ab c"
    assert printable("a\tb\r\nc\x07\x1b]8;;http://x\x1b\\d") == "a\tb\nc d"


# --------------------------------------------------------------------------------------------
# Cost


def test_the_cost_stays_flat_at_two_thousand_experiments(ledger: Ledger, results: Path) -> None:
    night = Night(ledger).plausible(2000, keep_share=0.05)
    night.verify()
    best = min(_cpu_s(night.summary) for _ in range(10))
    assert night.summary(whole=True).keep > 50
    assert best < 0.050, f"summarise took {1000 * best:.1f} ms of CPU"
    file = ResultsFile(results, ledger, night.session)
    file.prepare()
    costs = []
    for _ in range(5):
        one = night.change(-0.01)
        costs.append(_cpu_s(lambda one=one: file.append(one)))
    assert min(costs) < 0.002, f"append took {1000 * min(costs):.1f} ms of CPU"
    assert results.read_text() == table(ledger, night.session)


def _cpu_s(work: object) -> float:
    assert callable(work)
    began = time.thread_time()
    work()
    return time.thread_time() - began
