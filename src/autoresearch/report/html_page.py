"""report.html: the report as one self-contained file that can be mailed.

It has the sections of report.md (`page.py`), and for each kept change its effect, interval, reason
and diff. It holds no script and refers to nothing outside itself. Foreign text is escaped: by
jinja2, or in `page.py` where a section is Markdown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from autoresearch.formatting import clock, counted, one_line, percent, printable, short
from autoresearch.report import page, plot, text
from autoresearch.report.page import ChangeText, Facts
from autoresearch.report.summary import Kept, Summary

DIFF_LINES = 400  # shown of one change: git shows the rest
OPEN_LINES = 40  # of a diff that is shown without a click
DRAWN = (page.KEPT, page.CHANGES)  # sections that this page has in another form
KINDS = {"+": "add", "-": "del", "@": "at"}  # of a diff's lines, by their first character


@dataclass(frozen=True, slots=True)
class _Line:
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class _Interval:
    """A keep's gain and its interval, in percent of the width of the picture."""

    zero: float
    low: float
    width: float
    gain: float


def draw_html(summary: Summary, facts: Facts) -> str:
    """Draw a whole summary."""
    changes = facts.changes
    sections = page.list_sections(summary, facts)
    text_of_page: str = _template().render(
        summary=summary,
        title=f"{one_line(summary.task)}, session {one_line(summary.tag)}",
        started=clock(summary.created_at),
        drawn=clock(summary.now),
        headline=_split_headline(summary),
        checks=_list_checks(summary),
        alarms=page.list_alarms(summary),
        flagged=[
            _describe_change(summary, keep, changes)
            for keep in summary.keeps
            if keep.number in {flagged.number for flagged in summary.flagged}
        ],
        warnings=page.list_warnings(summary),
        chart=_draw_chart(summary),
        keeps=[_describe_change(summary, keep, changes) for keep in summary.keeps if keep.number],
        sections=[section for section in sections if section.heading not in DRAWN],
        outcome=text.describe_outcome(summary),
    )
    return text_of_page


@cache
def _template() -> Any:
    # 60 ms that no other command needs.
    import jinja2
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("autoresearch.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown"] = lambda source: Markup(markdown.render(source))
    environment.filters["inline"] = lambda source: Markup(markdown.renderInline(source))
    return environment.get_template("report.html")


def _draw_chart(summary: Summary) -> Any:
    from markupsafe import Markup

    return Markup(plot.plot_svg(summary)) if summary.baseline else ""


def _split_headline(summary: Summary) -> tuple[str, str]:
    """The claim, and the evidence for it, as Markdown."""
    bold, _, rest = page.make_headline(summary).removeprefix("**").partition("**")
    return bold, rest.strip()


def _list_checks(summary: Summary) -> list[tuple[str, str]]:
    """("good", "repeats on fresh seeds"), for each of the three properties."""
    checks = summary.checks
    if checks is None:
        return []
    states = (checks.repeats, checks.holds, checks.nothing_suspicious)
    names = {True: "good", False: "bad", None: "open"}
    return [(names[state], words) for state, words in zip(states, checks.words, strict=True)]


def _describe_change(
    summary: Summary, keep: Kept, changes: Mapping[int, ChangeText]
) -> dict[str, Any]:
    change = changes.get(keep.number, ChangeText("", "", ""))
    lines = printable(change.diff.rstrip("\n")).split("\n") if change.diff.strip() else []
    flags = {flagged.number: flagged.flag for flagged in summary.flagged}
    base = summary.baseline.score_when_kept if summary.baseline else None
    return {
        "number": keep.number,
        "commit": short(keep.commit),
        "agent": one_line(keep.agent),
        "description": one_line(keep.description),
        "effect": text.describe_effect(summary, keep),
        "gain": summary.numbers.signed(keep.gain),
        "share": percent(keep.gain / abs(base)) if keep.gain and base else "",
        "is_unsure": not summary.deterministic and (keep.low is None or keep.low <= 0),
        "interval": _place_interval(summary, keep),
        "hypothesis": one_line(change.hypothesis),
        "detail": one_line(change.detail),
        "flag": one_line(flags.get(keep.number, "")),
        "lines": [_classify(line) for line in lines[:DIFF_LINES]],
        "cut": max(0, len(lines) - DIFF_LINES),
        "is_open": len(lines) <= OPEN_LINES,
        "size": _measure_diff(lines),
    }


def _measure_diff(lines: Sequence[str]) -> str:
    added = sum(line.startswith("+") and not line.startswith("+++") for line in lines)
    removed = sum(line.startswith("-") and not line.startswith("---") for line in lines)
    return f"{counted(added, 'line')} added, {removed:,} removed"


def _classify(line: str) -> _Line:
    if line.startswith(("+++", "---", "diff ", "index ", "new file", "deleted file")):
        return _Line("head", line)
    return _Line(KINDS.get(line[:1], ""), line)


def _place_interval(summary: Summary, keep: Kept) -> _Interval | None:
    """Where a keep's interval lies on a scale that all keeps share."""
    known = [
        (one.low, one.gain, one.high)
        for one in summary.keeps
        if one.low is not None and one.gain is not None and one.high is not None
    ]
    if keep.low is None or keep.gain is None or keep.high is None or summary.deterministic:
        return None
    least = min(0.0, *(low for low, _, _ in known))
    span = max(0.0, *(high for _, _, high in known)) - least
    if span <= 0:
        return None

    def place(value: float) -> float:
        return round(100 * (value - least) / span, 2)

    width = round(100 * (keep.high - keep.low) / span, 2)
    return _Interval(place(0.0), place(keep.low), width, place(keep.gain))
