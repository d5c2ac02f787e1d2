"""The final value of a metric in the log of a program, or a refusal that quotes the line.

The last line that names the metric decides. If its value cannot be read for certain, the run has no
metric: an earlier value must never take its place. After a `METRIC` line, which is for machines,
only another one or a summary line decides: a scorer may quote a model's text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from autoresearch.formatting import ESCAPE
from autoresearch.measure.output import LARGEST

SHOWN = 120  # characters of a line in a refusal
LONGEST = 100  # characters of a number: the longest that Python prints has 24
RULE = "---"  # above the original's summary: what is printed before it is no summary
FLOAT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+\.\d+", re.ASCII)  # 1,234 alone may mean 1.234
CALL = re.compile(r"(?:\w+\.)?(?:tensor|array|float\d*)\(([^(),]+)(?:, *\w+=.*)?\)")
BETWEEN = r"(?:\s*(?:[|│┃]|->|→)\s*|\s+(?:is\s+)?)"  # a name and its value, as in a table
NUMBER = r"([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)"  # in a pattern that is proposed


class FinalValue(NamedTuple):
    """`value`, or the `reason` why there is none; the `line` that decided, if any."""

    value: float | None
    reason: str | None = None
    line: str = ""


def find_final_value(
    log: Path, name: str, pattern: str | None = None, *, may_quote: bool = False
) -> FinalValue:
    """Find the final value of the metric `name` in a whole log.

    Accepted are `name: NUMBER`, alone on its line, and `METRIC name=NUMBER`; a number may stand in
    `tensor(...)` or `np.float64(...)`. With `pattern`, a regular expression of one group, its last
    match decides instead. A carriage return begins a line anew, as progress bars use it, unless the
    program `may_quote` a text of others: a scorer does, and the text must begin no line.
    """
    try:
        text = log.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return FinalValue(None, "no metric")
    if may_quote:
        text = text.replace("\r\n", "\n").replace("\r", " ")
    return _search(text, pattern) if pattern else _read_lines(text, name)


def propose_pattern(line: str, name: str) -> str | None:
    """A pattern that reads the first number after the name in this line."""
    after = re.search(rf"{re.escape(name)}(?:\s+is)?\W*?(?=[-+.]?\d)", line)
    return None if after is None else _escape(after[0]) + NUMBER


def find_nearest_line(log: Path, name: str) -> str:
    """The last line with the metric's name in any case and form; empty if there is none."""
    text = log.read_bytes().decode(errors="replace") if log.exists() else ""
    near = [line for line in _clean_lines(text) if name.lower() in line.lower()]
    return near[-1][:SHOWN] if near else ""


def _search(text: str, pattern: str) -> FinalValue:
    clean = "\n".join(_clean_lines(text))
    matches = list(re.finditer(pattern, clean, re.MULTILINE))
    if not matches:
        return FinalValue(None, "no metric: the pattern matches nothing")
    final = _to_final(matches[-1][1] or "", matches[-1][0])
    return final if final.value is not None else _refuse(final.line)


def _read_lines(text: str, name: str) -> FinalValue:
    value = rf"(?:\s*(?P<mark>[:=])(?P<rest>.*)|{BETWEEN}[-+]?[\d.])"
    naming = re.compile(rf"(?<![\w./@%-])(?P<name>{re.escape(name)})[\"']?{value}", re.IGNORECASE)
    finals: dict[str, FinalValue] = {}  # the latest value of either form
    unread = ""  # a line that names the metric after the latest value
    for line in _clean_lines(text, (name, RULE)):
        if line == RULE:
            finals.pop(":", None)
            unread = ""
            continue
        match = naming.search(line)
        if match is None or not _may_be_a_value(match["rest"]):
            continue
        form = {"": ":", "METRIC": "="}.get(line[: match.start()].strip())
        final = _to_final((match["rest"] or "").strip(), line)
        if match["name"] != name:  # `Loss: 0.5` after `loss: 3.0`: which of them is meant?
            if ":" in finals and form == match["mark"] == ":" and final.value is not None:
                unread = line
            continue
        if form is None or form != match["mark"] or (final.value is None and not final.reason):
            unread = line
        else:
            finals[form], unread = final, ""
    if unread and ("=" not in finals or unread.startswith("METRIC")):
        return _refuse(unread)
    if len(finals) == 2 and finals[":"].value != finals["="].value:
        both = " and ".join(repr(final.line[:SHOWN]) for final in finals.values())
        return FinalValue(None, f"metric unclear: {both}", finals["="].line)
    return next(reversed(finals.values()), FinalValue(None, "no metric"))


def _refuse(line: str) -> FinalValue:
    return FinalValue(None, f"metric unclear: {line[:SHOWN]!r}", line)


def _may_be_a_value(rest: str | None) -> bool:
    """Whether what follows the name may be meant as its value: not the rest of a sentence or of a
    line of code in a warning."""
    return rest is None or len(rest.split()) <= 1 or re.search(r"\d", rest) is not None


def _to_final(word: str, line: str) -> FinalValue:
    """The value of a word. No reason is given for a word that looks like no number at all."""
    if call := CALL.fullmatch(word):
        word = call[1].strip()
    if len(word) > LONGEST:
        return FinalValue(None, None, line)
    if THOUSANDS.fullmatch(word):
        word = word.replace(",", "")
    if FLOAT.fullmatch(word) and abs(value := float(word)) <= LARGEST:
        return FinalValue(value, None, line)
    if len(word.split()) == 1 and not re.search(r"\d.*[^\deE.+-]|[^\deE.+-].*\d", word):
        return FinalValue(None, f"metric is {word[:40]!r}, not a finite number", line)
    return FinalValue(None, None, line)


def _clean_lines(text: str, words: tuple[str, ...] = ("",)) -> Iterator[str]:
    """The lines that hold one of the words in any case, without colours, indentation, and what a
    progress bar wrote over. Only a newline ends a line."""
    words = tuple(word.lower() for word in words)
    for raw in text.split("\n"):
        lower = raw.lower()
        if any(word in lower for word in words):
            shown = ESCAPE.sub("", raw).rstrip("\r").rpartition("\r")[2]
            yield shown.strip()


def _escape(text: str) -> str:
    return re.sub(r"([.^$*+?{}\[\]\\|()])", r"\\\1", text)
