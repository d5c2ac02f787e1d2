"""Formats numbers and foreign text for people, the same in every view.

A metric is shown to a tenth of its noise, because further digits mean nothing. A positive gain is
an improvement, whatever the metric's direction.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass

from autoresearch.records import Metric, Run

SIGNIFICANT = 6  # digits, if the noise is not known
ROUNDING = 1e-12  # of a value: a noise below it comes from floating-point numbers
MOST_DECIMALS, LEAST_EXPONENT = 8, 12  # of a number that is written without an exponent
ESCAPE = re.compile(  # terminal escapes: colours and cursor, titles and links, the rest
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)"
)
UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters: tabs, newlines, terminal escapes
    "\u2028\u2029\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069"  # line separators; text direction
    "\ud800-\udfff]"  # halves of a pair, which no file can hold
)
TRAILER = re.compile(r"^(?:\w+(?:-\w+)+\s*:|---)", re.MULTILINE)  # or the end of the message


@dataclass(frozen=True, slots=True)
class Numbers:
    """Formats values and gains of one metric, all to the same number of decimals."""

    metric: Metric
    sd: float | None = None  # of one run; None or 0 if it is not known

    def value(self, value: float | None) -> str:
        """To a tenth of the noise, or to SIGNIFICANT digits; "-" for None. A value or a noise that
        is far from 1 gets an exponent: 1.23e-09."""
        if value is None:
            return "-"
        if not self.sd or not math.isfinite(self.sd) or self.sd < ROUNDING * abs(value):
            return plain(value)
        decimals = 1 - math.floor(math.log10(self.sd))
        size = math.floor(math.log10(abs(value))) if value else -decimals
        if decimals <= MOST_DECIMALS and size < LEAST_EXPONENT:
            return f"{value:.{max(0, decimals)}f}"
        return f"{value:.{max(0, size + decimals)}e}"

    def signed(self, gain: float | None) -> str:
        """ "+0.0123": better by that much. Empty for None."""
        return "" if gain is None else ("-" if gain < 0 else "+") + self.value(abs(gain))

    def gain(self, gain: float) -> str:
        """ "0.0123 better", "0.0040 worse", "no difference"."""
        if gain == 0:
            return "no difference"
        return f"{self.value(abs(gain))} {'better' if gain > 0 else 'worse'}"

    def in_sd(self, gain: float | None) -> str:
        """ "+1.3": better by 1.3 standard deviations of one run. Empty if either is unknown."""
        if gain is None or not self.sd:
            return ""
        return f"{gain / self.sd:+.{1 if abs(gain / self.sd) < 100 else 0}f}"

    def short(self, gain: float | None) -> str:
        """In sd where the noise is known, else in metric units."""
        return self.in_sd(gain) or self.signed(gain)

    @property
    def direction(self) -> str:
        return "lower is better" if self.metric.gain(0.0, 1.0) > 0 else "higher is better"


def plain(value: float) -> str:
    """One value, whose noise is not known: six digits, and those before the point. 1000000123 is no
    1e+09."""
    if 10**SIGNIFICANT <= abs(value) < 1e15:
        return f"{value:.0f}"
    return f"{value:.{SIGNIFICANT}g}"


def tell_apart(value: float, other: float) -> tuple[str, str]:
    """Two values with the fewest digits that tell them apart, at least SIGNIFICANT.

    >>> tell_apart(2.634291, 2.634294)
    ('2.634291', '2.634294')
    """
    texts = (plain(value), plain(other))
    digits = SIGNIFICANT
    while value != other and texts[0] == texts[1]:
        digits += 1
        texts = (f"{value:.{digits}g}", f"{other:.{digits}g}")
    return texts


def percent(share: float | None) -> str:
    """ "2.5 %", "50 %", without the sign; empty if it is not known."""
    if share is None:
        return ""
    percent = 100 * abs(share)
    return f"{percent:.2g} %" if percent < 10 else f"{percent:.0f} %"


def duration(seconds: float | None) -> str:
    """ "7.2 s", "45 s", "12 min", "3 h 05 min", "2 d 4 h"."""
    if seconds is None:
        return "-"
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def dollars(usd: float | None) -> str:
    """ "$12.30", "$0.0042"; empty if it is not known."""
    if usd is None:
        return ""
    return f"${usd:.2f}" if usd >= 0.1 or not usd else f"${usd:.2g}"


def size(count: int | None) -> str:
    """ "412 MB", "1.3 GB"."""
    if count is None:
        return "-"
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def counted(count: int, singular: str, plural: str | None = None) -> str:
    """ "1 keep", "3 keeps"."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def join(*parts: str) -> str:
    """The parts that are not empty, with commas between them."""
    return ", ".join(filter(None, parts))


def clock(unix: float) -> str:
    """Local date and time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix))


def one_line(text: str) -> str:
    """Make an agent's or a program's text harmless on one line of a table or a terminal."""
    return UNPRINTABLE.sub(" ", ESCAPE.sub("", text)).strip()


def printable(text: str) -> str:
    """Make text of many lines harmless: newlines and tabs stay, terminal escapes do not."""
    text = ESCAPE.sub("", text).replace("\r\n", "\n")
    return UNPRINTABLE.sub(lambda found: found[0] if found[0] in "\n\t" else " ", text)


def quote_formula(text: str) -> str:
    """A cell's text with an apostrophe before what a spreadsheet would take for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def quote_trailers(text: str) -> str:
    """Indent the lines that git or a reader of the log would take for trailers of a commit, such as
    `Signed-off-by: somebody`."""
    return TRAILER.sub(r"  \g<0>", text)


def escape_unstorable(text: str) -> str:
    """`text` with its NULs and lone surrogates escaped, so that SQLite and git can store it."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


def cut(text: str, width: int) -> str:
    """Return one line of at most `width` characters. Dots replace a longer line's end."""
    text = one_line(text)
    return text if len(text) <= width else text[: max(0, width - 3)] + "..."


def short(commit: str) -> str:
    """A commit's first seven digits."""
    return commit[:7]


def describe_cost(run: Run) -> str:
    """Which run, and the CPU time it used where that is why it crashed."""
    used = [f"{run.cpu_s:.1f} s of CPU time, all threads together"] if run.cpu_s is not None else []
    used += [f"{run.score_cpu_s:.1f} s to score it"] if run.score_cpu_s is not None else []
    over = (run.reason or "").endswith("over budget")
    return f"run {run.name}" + (f", {', '.join(used)}" if over and used else "")
