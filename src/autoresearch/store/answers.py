"""Make agents' answers safe for the ledger, git and a terminal."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypeVar

from autoresearch.formatting import escape_unstorable, printable
from autoresearch.protocols import Failure, Proposal

MAX_TOKENS = 2**53  # of one turn; a larger number is a mistake, and sums of it would overflow

Answer = TypeVar("Answer", bound=Proposal | Failure)


def make_recordable(answer: Answer) -> Answer:
    """Remove terminal escapes, escape characters that cannot be stored, and ignore negative,
    non-finite or absurd costs, so that an agent cannot extend its own budget. Raises `TypeError`
    for a value that is no answer."""
    if not isinstance(answer, Proposal | Failure):
        raise TypeError(f"it answered with a {type(answer).__name__}")
    is_failure = isinstance(answer, Failure)
    names = ("reason", "message") if is_failure else ("description", "hypothesis", "notes")
    words: dict[str, Any] = {
        name: printable(escape_unstorable(getattr(answer, name))) for name in names
    }
    tokens, usd = _check_tokens(answer.tokens), _check_dollars(answer.usd)
    return replace(answer, **words, tokens=tokens, usd=usd)


def _check_tokens(tokens: object) -> int | None:
    if not isinstance(tokens, int) or isinstance(tokens, bool) or not 0 <= tokens <= MAX_TOKENS:
        return None
    return tokens


def _check_dollars(usd: object) -> float | None:
    if not isinstance(usd, int | float) or isinstance(usd, bool):
        return None
    return float(usd) if math.isfinite(usd) and usd >= 0 else None
