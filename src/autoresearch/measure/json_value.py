"""The metric in structured output: the last JSON document of a log, or a file that a run wrote.

Output is hostile: size and depth are bounded, and the time is linear in the size. A number is read
from its own text, so that `NaN`, `1e999`, a string or a boolean never passes for one.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autoresearch.formatting import cut
from autoresearch.measure.benchmark_formats import propose_paths
from autoresearch.measure.final_value import FLOAT, LONGEST, FinalValue
from autoresearch.measure.output import LARGEST
from autoresearch.task.json_path import Step, parse_path, quote

LARGEST_FILE = 16_000_000  # bytes of a JSON file; a log has `[runner] log_limit`
SHOWN_KEYS, SHOWN = 10, 60  # keys of an object, and characters of a value, in a refusal
MOST_BROKEN = 100_000  # documents in a log that cannot be read: each takes up to 20 us
SHOWN_REASON = 300
PROPOSED = 3  # paths of a benchmark's format, in a refusal


class Number(str):
    """The text of a number, as the document has it; also `NaN` and `Infinity`."""

    __slots__ = ()


class Object(dict[str, Any]):
    """A JSON object, and the keys that it has more than once."""

    repeated: frozenset[str] = frozenset()

    @classmethod
    def from_pairs(cls, pairs: list[tuple[str, Any]]) -> Object:
        made = cls(pairs)
        if len(made) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            made.repeated = frozenset(key for key, count in counts.items() if count > 1)
        return made


DECODER = json.JSONDecoder(
    object_pairs_hook=Object.from_pairs,
    parse_float=Number,
    parse_int=Number,
    parse_constant=Number,
)
OPENING = re.compile(r"^[ \t]*(?=[{\[])", re.MULTILINE)


class Broken(Exception):
    """A document cannot be read from the character `at` of its text on."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at


class Unreadable(Exception):
    """The reason why a document or a value cannot be read."""


def find_json_value(log: Path, path: str) -> FinalValue:
    """The number at `path` in the last JSON document that a program printed. It begins a line."""
    try:
        text = log.read_bytes().decode(errors="replace")
        return _to_final(_last_document(text, parse_path(path)), path, "the last JSON document")
    except FileNotFoundError:
        return FinalValue(None, "no metric")
    except Unreadable as why:
        return FinalValue(None, f"no metric: {why}")


def find_file_value(file: Path, name: str, path: str) -> FinalValue:
    """The number at `path` in `file`, which the task calls `name`. A missing file is one that the
    run did not write: the commit's own copy is no part of a run's tree."""
    try:
        return _to_final(_read_document(file, name), path, name)
    except Unreadable as why:
        return FinalValue(None, f"no metric: {why}")


def _read_document(file: Path, name: str) -> Any:
    if file.is_symlink() or not file.is_file():
        raise Unreadable(f"it wrote no file {name}")
    if (size := file.stat().st_size) > LARGEST_FILE:
        raise Unreadable(f"{name} has {size:,} bytes; the most is {LARGEST_FILE:,}")
    text = file.read_bytes().decode(errors="replace").removeprefix("\ufeff")
    try:
        document, end = DECODER.raw_decode(text, len(text) - len(text.lstrip()))
    except RecursionError:
        raise Unreadable(f"{name} is nested too deeply") from None
    except ValueError as error:
        raise Unreadable(f"{name} is no JSON document: {error}") from None
    if text[end:].strip():
        line = text.count("\n", 0, end) + 1
        raise Unreadable(f"{name} goes on after its JSON document, in line {line}")
    return document


def _last_document(text: str, steps: tuple[Step, ...]) -> Any:
    """The last document whose outermost part is an object, or the list that the path begins with.

    A line that begins like one but cannot be read, after the last document, is refused: an earlier
    document must never take its place."""
    wanted = "[" if isinstance(steps[0].key, int) or steps[0].value is not None else "{"
    last, unread = None, ""
    for opening, document, line in _documents(text):
        if opening == wanted:
            last, unread = (document, "") if line is None else (last, line)
    if unread:
        raise Unreadable(f"the last JSON document cannot be read: {cut(unread, SHOWN)!r}")
    if last is None:
        kind = "list" if wanted == "[" else "object"
        raise Unreadable(f"it printed no JSON {kind} that begins a line")
    return last


def _documents(text: str) -> Iterator[tuple[str, Any, str | None]]:
    """(its first character, document, None), or (its first character, None, first line) of one that
    cannot be read, in their order. After a failure it goes on at the line of the failure, so that
    the time is linear."""
    at = broken = 0
    while at < len(text) and (start := OPENING.search(text, at)) is not None:
        begin = start.end()
        first_line = text[begin : _line_end(text, begin)]
        try:
            document, end = _decode(text, begin)
            at = _line_end(text, end)
            is_whole = not text[end:at].strip()
            yield text[begin], document, None if is_whole else first_line
        except Broken as failure:
            broken += 1
            if broken > MOST_BROKEN:
                raise Unreadable(
                    f"more than {MOST_BROKEN:,} lines begin like JSON and are none; "
                    "let it write a file, and name that in [metric] file"
                ) from None
            yield text[begin], None, first_line
            broken_line = text.rfind("\n", begin, failure.at) + 1
            is_later = broken_line > begin and failure.at < len(text)
            at = broken_line if is_later else _line_end(text, failure.at)


def _decode(text: str, begin: int) -> tuple[Any, int]:
    """The document that begins there, and its end. Raises `Broken`.

    It decodes as few lines as it can: the decoder's error counts the lines above it, so that a
    million errors in one text would take an hour."""
    end = _line_end(text, begin)
    while True:
        part = text[begin:end]
        try:
            document, size = DECODER.raw_decode(part)
            return document, begin + size
        except RecursionError:
            raise Unreadable("it printed JSON that is nested too deeply") from None
        except json.JSONDecodeError as error:
            is_open = error.pos >= len(part.rstrip()) - 1  # it may go on in the next line
            if is_open and end == len(text):
                raise Broken(end) from None  # whatever is in it is no document of its own
            if not is_open:
                raise Broken(begin + error.pos) from None
        end = _line_end(text, min(len(text), begin + 2 * len(part) + 1))


def _line_end(text: str, at: int) -> int:
    newline = text.find("\n", at)
    return len(text) if newline < 0 else newline


def _to_final(document: Any, path: str, where: str) -> FinalValue:
    try:
        value = _walk(document, parse_path(path), where)
    except Unreadable as why:
        return FinalValue(None, f"no metric: {cut(str(why), SHOWN_REASON)}{_propose(document)}")
    found = f"{path} in {where} is"
    if not isinstance(value, Number):
        return FinalValue(None, f"no metric: {found} {_describe(value)}, not a number")
    text = str(value)
    is_finite = len(text) <= LONGEST and FLOAT.fullmatch(text) and abs(float(text)) <= LARGEST
    if not is_finite:
        return FinalValue(None, f"no metric: {found} {text[:40]}, not a finite number")
    return FinalValue(float(text), None, f"{path} = {text}")


def _walk(value: Any, steps: tuple[Step, ...], where: str) -> Any:
    done = ""
    for step in steps:
        place = f"{done} in {where}" if done else where
        value = _take(value, step, place)
        done += step.text
        if isinstance(value, Object) and value.get("error_occurred") is True:  # Google Benchmark
            message = cut(str(value.get("error_message", "")), SHOWN)
            raise Unreadable(f"{done} in {where} is of a benchmark that failed: {message}")
    return value


def _take(value: Any, step: Step, place: str) -> Any:
    if step.value is not None:
        return _select(value, step, place)
    if isinstance(value, Object) and isinstance(step.key, str):
        if step.key in value.repeated:
            raise Unreadable(f"{place} has the key {step.key!r} more than once")
        if step.key in value:
            return value[step.key]
        near = difflib.get_close_matches(step.key, [key[:200] for key in value][:1_000], 1)
        hint = f"; did you mean {cut(near[0], SHOWN)!r}?" if near else ""
        raise Unreadable(f"{place} has no key {step.key!r}; it has {_list_keys(value)}{hint}")
    if isinstance(value, list):
        index = step.key if isinstance(step.key, int) else None
        if isinstance(step.key, str) and re.fullmatch(r"\d{1,9}", step.key, re.ASCII):
            index = int(step.key)
        if index is not None and -len(value) <= index < len(value):
            return value[index]
        raise Unreadable(f"{place} is a list of {len(value)}, which has no {step.text!r}")
    raise Unreadable(f"{place} is {_describe(value)}, which has no {step.text!r}")


def _select(value: Any, step: Step, place: str) -> Any:
    """The only item of a list whose key has the value that the step wants."""
    if not isinstance(value, list):
        raise Unreadable(f"{place} is {_describe(value)}, not a list")
    key = str(step.key)
    items = [item for item in value if isinstance(item, Object) and key not in item.repeated]
    named = [item for item in items if isinstance(item.get(key), str)]
    matching = [item for item in named if item[key] == step.value]
    names = [str(item[key]) for item in named]
    if len(matching) == 1:
        return matching[0]
    known = f"; there are {_list(names)}" if names and not matching else ""
    raise Unreadable(f"{place} has {len(matching)} items with {step.text[1:-1]}{known}")


def _propose(document: Any) -> str:
    """The paths of a benchmark's format that is recognised, for a refusal."""
    paths = propose_paths(document)
    if not paths:
        return ""
    proposals = " or ".join(f"json = '{path.text}'" for path in paths[:PROPOSED])
    return f". This is {paths[0].format}'s format: [metric] {proposals}"


def _describe(value: Any) -> str:
    match value:
        case None:
            return "null"
        case True | False:
            return str(value).lower()
        case Number():
            return f"the number {value[:40]}"
        case str():
            return f"the text {cut(value, SHOWN)!r}"
        case list():
            return f"a list of {len(value)}"
        case _:
            return f"an object with {_list_keys(value)}"


def _list_keys(value: dict[str, Any]) -> str:
    return _list([quote(key) for key in value]) if value else "no keys"


def _list(words: list[str]) -> str:
    unique = list(dict.fromkeys(words))
    more = f" and {len(unique) - SHOWN_KEYS} more" if len(unique) > SHOWN_KEYS else ""
    return ", ".join(cut(word, SHOWN) for word in unique[:SHOWN_KEYS]) + more
