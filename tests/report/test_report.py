"""The report package against a real ledger with plausible sessions."""

from __future__ import annotations

import io
import json
import math
import re
import time
from dataclasses import replace
from statistics import fmean

import pytest
from rich.console import Console
from support.fabricated import ACCURACY, BPB, NOW, FabricatedSession

from autoresearch.core import judge
from autoresearch.core.events import Warned
from autoresearch.core.history import noise
from autoresearch.core.judge import FRESH_RUNS
from autoresearch.errors import LedgerError
from autoresearch.formatting import (
    Numbers,
    duration,
    one_line,
    percent,
    printable,
    tell_apart,
)
from autoresearch.protocols import Failure
from autoresearch.records import Role, Status
from autoresearch.report import text
from autoresearch.report.collect import summarise
from autoresearch.report.experiments import log_text, show_text
from autoresearch.report.html_page import draw_html
from autoresearch.report.live import LiveView, SessionView
from autoresearch.report.page import ChangeText, Facts, draw_page, make_headline
from autoresearch.report.plot import find_frame, plot
from autoresearch.report.summary import Summary, to_json
from autoresearch.store.ledger import Ledger


def draw(summary: Summary, running: bool = True, width: int = 80, height: int = 24) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, record=True)
    console.print(SessionView(summary, running))
    return console.export_text()


def draw_all_views(session: FabricatedSession) -> str:
    """All views, which must work for every session in every state."""
    summary, whole = session.summary(), session.summary(whole=True)
    json.dumps(to_json(summary), allow_nan=False)
    assert plot(whole).startswith(b"\x89PNG")
    views = [draw(summary, running) for running in (True, False)]
    views += [text.status_text(summary, running) for running in (True, False)]
    views += [log_text(session.experiments(), session.metric), draw_page(whole)]
    return "\n".join(views)


# --------------------------------------------------------------------------------------------
# The summary


def test_the_incumbents_score_is_of_its_unselected_runs(ledger: Ledger) -> None:
    session = FabricatedSession(ledger)
    session.baseline()
    session.change(-0.02)
    kept = session.change(0.03, "depth 2")
    summary = session.summary()
    assert summary.task == "tiny_gpt" and summary.agent == "tuner"
    assert (summary.keep, summary.discard, summary.crash) == (1, 1, 0)
    assert summary.incumbent is not None and summary.baseline is not None
    fresh = ledger.runs_of(session.record, kept.commit, (Role.REMEASURE,))
    assert summary.incumbent.score == fmean(run.metric or 0.0 for run in fresh)
    assert summary.incumbent.runs == 4
    assert summary.gain == summary.baseline.score - summary.incumbent.score  # type: ignore[operator]
    assert (summary.noise_sd, summary.noise_df) == noise(ledger, session.record)
    assert summary.noise_df == 5 + 3  # the baseline's six and the four fresh ones: no controls
    assert summary.confirmations == 1
    assert summary.false_keeps_expected == pytest.approx(1 / 20)
    assert summary.verification is None


def test_an_incumbent_has_the_mean_of_its_last_runs_only(ledger: Ledger) -> None:
    session = FabricatedSession(ledger)
    session.baseline()
    session.change(0.001)  # its controls are runs of the incumbent, but do not join the score
    for index in range(4):
        session.run(0, Role.TOPUP, index)
    summary = session.summary()
    [scores] = ledger.scores(session.record, [session.commit(0)]).values()
    assert len(scores) == 6 + 4
    assert summary.incumbent is not None and summary.incumbent.number == 0
    assert summary.incumbent.score == fmean(scores[-judge.SCORE_RUNS :])
    assert summary.gain is None  # nothing was kept, so nothing was gained


def test_limits_and_what_is_left_of_them(ledger: Ledger) -> None:
    session = FabricatedSession(ledger)
    session.baseline()
    session.change(-0.01)
    ledger.add_elapsed(session.record, 600)
    summary = session.summary()
    assert summary.experiments_left == 99
    assert summary.pace_s == 600
    assert summary.time_left_s is not None and summary.time_left_s <= 8 * 3600 - 600
    late = summarise(ledger, "nov23", NOW, elapsed_s=8 * 3600)
    assert late.time_left_s == 0
    unlimited = ledger.update_session(session.record, limits={"experiments": None})
    assert unlimited.limits == {"experiments": None}
    summary = session.summary()
    assert summary.experiments_left is None and summary.end_in_s is None
    assert text.describe_left(summary) == "no limit on experiments or time"


def test_ten_fruitless_turns_count_as_an_experiment(ledger: Ledger) -> None:
    session = FabricatedSession(ledger)
    session.baseline()
    for _ in range(25):
        ledger.add_turn(session.record, "claude", Failure("rate limit", "later\x1b[31m"), NOW)
    summary = session.summary()
    assert summary.fruitless == 25 and summary.experiments_left == 98
    assert "rate limit: later\n" in text.status_text(summary)


def test_shares_of_the_agents(ledger: Ledger) -> None:
    """The gains of all agents add up to the gain from the baseline to the incumbent."""
    session = FabricatedSession(ledger)
    session.baseline()
    for _ in range(30):  # more keeps than a view shows
        session.agent, session.costs = "claude:opus", (1000, 0.25)
        session.change(0.02)
        session.agent, session.costs = "tuner", (None, None)
        session.change(0.01)
        session.change(-0.01)
    down = Failure("service down", "503", None, 500, 0.5)
    ledger.add_turn(session.record, "claude:opus", down, NOW)
    summary = session.summary()
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
    markdown = draw_page(session.summary(whole=True))
    assert f"| claude:opus | 30 | 30 | {summary.numbers.signed(claude.gain)} |" in markdown
    assert f"| 30,500 | $8.00 | {claude.gain / 8:+.2g} |\n" in markdown
    assert "The agents took 30,500 tokens, $8.00: 339 tokens" in markdown
    log = log_text(session.experiments(), BPB).splitlines()
    assert log[0].endswith("reason            agent                 tokens     cost  description")
    assert "  claude:opus            1,000    $0.25  " in log[2]
    assert all(line.split()[0] == str(number) for number, line in enumerate(log[1:]))
    assert "claude:opus: 30 exp" in draw_all_views(session)


def test_a_single_agent_without_costs_is_not_listed(ledger: Ledger) -> None:
    session = FabricatedSession(ledger)
    session.baseline()
    session.change(0.02)
    summary = session.summary()
    assert summary.agents == () and summary.usd_per_keep is None
    views = draw_all_views(session)
    assert "## Agents" not in views and "an experiment;" not in views and "each  " not in views
    assert "tokens" not in log_text(session.experiments(), BPB)
    session.costs = (10, None)
    session.change(-0.02)
    [share] = session.summary().agents
    assert (share.experiments, share.tokens, share.usd) == (2, 10, None)


def test_nothing_crashes_before_there_is_a_baseline(ledger: Ledger) -> None:
    session = FabricatedSession(ledger)
    views = draw_all_views(session)
    assert "no baseline yet" in views and "Nothing was measured" in views
    session.open("baseline")
    session.open_run(0, Role.BASELINE)
    summary = session.summary()
    assert summary.open_runs[0].age_s == 7 and summary.open_experiments[0].number == 0
    assert "#0 baseline, run 1, 7.0 s" in text.status_text(summary, running=True)
    assert "1 run to make again on resume" in text.status_text(summary, running=False)
    draw_all_views(session)


def test_a_session_of_crashes_only(ledger: Ledger) -> None:
    session = FabricatedSession(ledger)
    session.baseline()
    for reason in ("timeout", "timeout", "exit code 1"):
        session.crash(reason)
    summary = session.summary()
    views = draw_all_views(session)
    assert "Nothing better was found in 3 experiments" in views
    assert "- 2 × **timeout**: depth 64 (#2), depth 64 (#1)" in views
    assert all(experiment.gain is None for experiment in summary.recent)


def test_a_crashed_baseline_leaves_a_session_without_incumbent(ledger: Ledger) -> None:
    session = FabricatedSession(ledger)
    session.open("baseline")
    session.end(session.open_run(0, Role.BASELINE), None, "exit code 1")
    session.finish(0, Status.CRASH, None, "exit code 1")
    draw_all_views(session)


def test_a_metric_to_maximize(ledger: Ledger) -> None:
    session = FabricatedSession(ledger, metric=ACCURACY)
    session.baseline(0.8)
    session.change(0.05)
    session.verify()
    summary = session.summary()
    assert summary.gain is not None and summary.gain > 0
    assert summary.verification is not None and summary.verification.low > 0
    assert "higher is better" in text.describe_gain(replace(summary, gain=None))
    assert " better" in text.describe_gain(summary)
    draw_all_views(session)


def test_a_deterministic_session_says_so_everywhere(ledger: Ledger) -> None:
    session = FabricatedSession(ledger, deterministic=True)
    session.rng.gauss = lambda mean, sd: 0.0  # type: ignore[method-assign]
    session.baseline()
    session.change(0.01)
    session.verify(1)
    summary = session.summary()
    assert summary.false_keeps_expected == 0 and summary.gain_sd is None
    assert summary.verification is not None
    assert summary.verification.low == summary.verification.gain == summary.verification.high
    for view in (draw(summary), text.status_text(summary), draw_page(session.summary(whole=True))):
        assert "deterministic" in view.lower()
    assert "gives exactly this number again" in make_headline(summary)
    assert make_headline(replace(summary, verification=None)) == make_headline(summary)
    draw_all_views(session)


def test_every_kind_of_open_run_is_described(ledger: Ledger) -> None:
    session = FabricatedSession(ledger)
    session.baseline()
    kept = session.change(0.03)
    session.open("wider", 2)
    session.means[2] = 1.5
    session.run(2, Role.SCREEN)
    session.run(2, Role.CANDIDATE)
    session.open_run(2, Role.CONTROL, 0, of=kept.number)
    for number, role in (
        (2, Role.REMEASURE),
        (1, Role.TOPUP),
        (1, Role.VERIFY),
        (1, Role.VERIFY_BASELINE),
    ):
        session.open_run(number, role, 1)
    lines = "\n".join(text.list_open_runs(session.summary(), running=True))
    assert "#2 confirmation, run 2 of 6, 7.0 s of about 12 s wider" in lines
    assert f"measuring the new best, run 2 of {FRESH_RUNS}" in lines
    assert "#1 measuring the best once more" in lines
    assert "verifying the best, run 2" in lines
    assert "and 1 run more" in draw(session.summary())


def test_an_unknown_session_is_an_error_and_not_an_empty_one(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="no session 'dec24'"):
        summarise(ledger, "dec24", NOW)


# --------------------------------------------------------------------------------------------
# Pictures and pages


def test_the_picture_is_framed_around_baseline_and_best() -> None:
    low, high = find_frame([1.60, 1.56], [1.58, 1.61, 9.0, -3.0], 0.006)
    assert 1.54 < low < 1.56 and 1.61 < high < 1.63
    for keeps, discards, sd in (([1.0], [], None), ([0.0], [0.0], 0.0), ([], [5.0], None)):
        low, high = find_frame(keeps, discards, sd)
        assert math.isfinite(low) and low < high


def test_the_picture_takes_any_description(ledger: Ledger) -> None:
    session = FabricatedSession(ledger)
    session.baseline()
    for description in ("$\\frac{", "学習率 🚀", "a\tb\n" * 40, "_^%&#{}~", ""):
        session.change(0.03, description)
    assert plot(session.summary(whole=True)).startswith(b"\x89PNG")


def test_the_headline_claims_only_what_was_measured_again(ledger: Ledger) -> None:
    session = FabricatedSession(ledger)
    session.baseline()
    session.change(-0.01)
    assert "Nothing better was found in 1 experiment.**" in make_headline(session.summary())
    session.change(0.03)
    assert make_headline(session.summary()).startswith("**Not repeated yet:")
    session.verify()
    claim = make_headline(session.summary())
    assert (
        "** Repeats on fresh seeds; no holdout; nothing suspicious seen. Run again: 95 %" in claim
    )
    session.change(0.03)  # the verified one is no longer the best
    assert make_headline(session.summary()).startswith("**Not repeated yet:")
    session.verify()
    summary = session.summary()
    verification = summary.verification
    assert verification is not None
    assert (verification.new_runs, verification.old_runs) == (6, 6)  # not the first one's
    doubtful = replace(verification, low=-0.001, crashed=1)
    claim = make_headline(replace(summary, verification=doubtful))
    assert claim.startswith("**Not established:") and "interval includes zero" in claim
    assert "1 run of them crashed" in claim
    worse = replace(doubtful, gain=-0.02, low=-0.03, high=-0.01)
    assert make_headline(replace(summary, verification=worse)).startswith("**Not an improvement:")


def test_the_page_has_all_sections(ledger: Ledger) -> None:
    session = FabricatedSession(ledger, warnings=["`train.py` ignores the seed"]).plausible(100)
    session.verify()
    markdown = draw_page(session.summary(whole=True), Facts("runs can reach the network"))
    for part in (
        "![progress](progress.png)",
        "## Kept",
        "## Near misses",
        "## What did not work",
        "## Crashes",
        "false keeps expected",
        "Spread (sd): baseline",
        "Drift: at the end",
        "of CPU time",
        "autoresearch finish --tag nov23",
        "runs can reach the network",
        "ignores the seed",
    ):
        assert part in markdown
    assert "\n\n\n" not in markdown


def test_foreign_text_cannot_break_the_page(ledger: Ledger) -> None:
    session = FabricatedSession(ledger)
    session.baseline()
    session.change(0.03, "a | b\n# c <script>[x](http://y) `z`")
    markdown = draw_page(session.summary(whole=True))
    [row] = [line for line in markdown.split("\n") if line.startswith("| 1 |")]
    assert row.replace("\\|", "").count("|") == 9
    assert "<script>" not in row.replace("\\<", "") and "\\[x\\](" in row


EVIL = "</style><script>alert(1)</script> ![x](http://host/p.png) [y](javascript:z) \x1b[31m\u202e"


def test_the_html_page_is_one_file_without_a_script(ledger: Ledger) -> None:
    session = FabricatedSession(ledger, warnings=[EVIL])
    session.baseline()
    session.change(0.03, EVIL)
    session.change(-0.03, EVIL)
    session.crash(EVIL)
    session.verify()
    diff = f"--- a\n+++ b\n@@ -1 +1 @@\n-old\n+{EVIL} ```\n"
    facts = Facts(EVIL, {1: ChangeText(diff, EVIL, EVIL)}, f"run {EVIL}", EVIL)
    summary = session.summary(whole=True)
    html = draw_html(summary, facts)
    assert "<script" not in html and "<img" not in html and "\x1b" not in html
    assert not re.search(r"""(src|href)=["'](?!#)""", html)
    assert '<span class="add">+&lt;/style&gt;&lt;script&gt;' in html
    assert html.index("Repeats on fresh seeds") < html.index("<svg") < html.index(">Kept</h2>")
    assert "1 × <strong>worse</strong>" in html and "How to reproduce it" in html
    markdown = draw_page(summary, facts)
    assert "````diff" in markdown  # no line of the change ends the block


def test_a_flagged_keep_comes_before_the_chart_with_its_diff(ledger: Ledger) -> None:
    session = FabricatedSession(ledger)
    session.baseline()
    session.change(0.03, "suspicious")
    ledger.select("UPDATE experiment SET flag = 'too good' WHERE number = 1")
    facts = Facts(changes={1: ChangeText("-a\n+cheat\n", "", "")})
    summary = session.summary(whole=True)
    html, markdown = draw_html(summary, facts), draw_page(summary, facts)
    assert html.index("Flagged: #1") < html.index("+cheat") < html.index("<svg")
    assert (
        markdown.index("Flagged: #1") < markdown.index("> +cheat") < markdown.index("![progress]")
    )


def test_the_html_page_in_every_state(ledger: Ledger) -> None:
    session = FabricatedSession(ledger)
    assert "Nothing was measured" in draw_html(session.summary(whole=True), Facts())
    session.baseline()
    assert "Nothing better was found" in draw_html(session.summary(whole=True), Facts())
    exact = FabricatedSession(ledger, "exact", deterministic=True)
    exact.baseline()
    exact.change(0.03)
    html = draw_html(exact.summary(whole=True), Facts())
    assert "gives exactly this number again" in html and 'class="range"' not in html


# --------------------------------------------------------------------------------------------
# The terminal


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 24), (60, 16), (200, 60), (30, 10)])
def test_the_live_view_fits_its_terminal(ledger: Ledger, width: int, height: int) -> None:
    session = FabricatedSession(ledger).plausible(40)
    session.open("学習率 " * 30, 41)
    session.open_run(41, Role.SCREEN)
    lines = draw(session.summary(), width=width, height=height).rstrip("\n").split("\n")
    assert len(lines) < max(height, 15)
    if height == 24:
        assert " 40 " in lines[-2] and " 32 " in lines[-10]  # all of the last nine


def test_the_live_view_takes_no_markup_from_an_agent(ledger: Ledger) -> None:
    session = FabricatedSession(ledger)
    session.baseline()
    session.change(-0.01, "[bold]x[/bold] [/] \x1b]0;title\x07end")
    view = draw(session.summary(), width=120)
    assert "[bold]x[/bold] [/] end" in view


def test_the_live_view_survives_a_ledger_it_cannot_read(ledger: Ledger) -> None:
    session = FabricatedSession(ledger)
    session.baseline()
    calls = 0

    def read() -> Summary:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise LedgerError("locked by another program")
        return session.summary()

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
    session = FabricatedSession(ledger)
    session.baseline()
    keep = session.change(0.03, "depth\t2")
    session.crash()
    session.open("in flight", 3)
    log = log_text([*session.experiments(), *ledger.in_flight(session.record)], BPB)
    assert log.count("\n") == 5 and "open" in log.split("\n")[4]
    shown = show_text(
        keep,
        ledger.runs(session.record, keep.number),
        "-DEPTH = 3\n+DEPTH = 2\n",
        "\x1b[2Jok\tend",
        BPB,
    )
    assert "experiment  #1 0000001, built on #0, by tuner" in shown
    assert "change      depth 2 (+1 -1 lines)" in shown
    assert shown.count("remeasure") == 4 and "+DEPTH = 2\n" in shown
    assert shown.endswith("    ok\tend\n")


# --------------------------------------------------------------------------------------------
# Formatting


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
    assert Numbers(BPB, 2e-11).value(1.2341e-9) == "1.234e-09"
    assert Numbers(BPB, 0.0).value(1e-9) == "1e-09"
    assert Numbers(BPB, 20.0).value(1_000_000_123) == "1000000123"
    assert Numbers(BPB).value(1_000_000_123) == "1000000123"
    assert Numbers(BPB, 1e-16).value(0.8) == "0.8"
    assert tell_apart(2.634291, 2.634294) == ("2.634291", "2.634294")
    assert tell_apart(1e9, 1e9 + 1) == ("1000000000", "1000000001")
    assert tell_apart(0.1, 0.1) == ("0.1", "0.1")


def test_durations_and_shares() -> None:
    rest = ["3 h 05 min", "2 d 4 h", "-"]
    texts = [duration(s) for s in (0, 7.24, 45, 99.6, 725, 3599, 11100, 187200, None)]
    assert texts == ["0.0 s", "7.2 s", "45 s", "2 min", "12 min", "1 h 00 min", *rest]
    assert (percent(0.0247), percent(0.5), percent(None)) == ("2.5 %", "50 %", "")


def test_foreign_text_becomes_harmless() -> None:
    assert one_line(" a\x1b[1;31mb\x1b[0m\u202ec\ud800 ") == "ab c"
    assert printable("a\tb\r\nc\x07\x1b]8;;http://x\x1b\\d") == "a\tb\nc d"


# --------------------------------------------------------------------------------------------
# Cost


def test_a_summary_costs_little_at_two_thousand_experiments(ledger: Ledger) -> None:
    session = FabricatedSession(ledger).plausible(2000, keep_share=0.05)
    session.verify()
    costs = []
    for _ in range(10):
        start = time.thread_time()
        assert session.summary().keep > 50
        costs.append(time.thread_time() - start)
    assert min(costs) < 0.050, f"summarise took {1000 * min(costs):.1f} ms of CPU"
