"""Read the agents of a command line: `claude:3,tuner` names two, with the weights 3 and 1."""

from __future__ import annotations

import re

from autoresearch.errors import TaskError


def parse_agents(text: str) -> str | dict[str, float]:
    """Return one agent's name, or the weights of several by name. Raises `TaskError`.

    Text without a comma names one agent. Quotes around an argument protect its commas and colons,
    and are removed: `command:"a, b"`.
    """
    members = _split_at_commas(text)
    if len(members) == 1:
        return unquote(members[0] if "," in text else text)
    weights: dict[str, float] = {}
    for member in members:
        match = re.fullmatch(r"(.+):(\d+(?:\.\d+)?)", member)
        name, weight = unquote(match[1] if match else member), float(match[2] if match else 1)
        if not name or weight <= 0:
            wrong = "a weight of 0" if name else "a name is missing"
            raise TaskError(f"agents {text!r}: {wrong}; accepted: NAME or NAME:WEIGHT, ...")
        if name in weights:
            raise TaskError(f"agents {text!r}: {name!r} comes twice; give it a weight instead")
        weights[name] = weight
    return weights


def unquote(name: str) -> str:
    """Remove the quotes around an agent's argument: `command:"sh a.sh"` -> `command:sh a.sh`."""
    match = re.fullmatch(r"""([\w.-]+:)(["'])(.*)\2""", name, re.DOTALL)
    return match[1] + match[3] if match and match[3] and match[2] not in match[3] else name


def _split_at_commas(text: str) -> list[str]:
    """Split at the commas outside quotes."""
    pieces, quote = [""], ""
    for letter in text:
        if letter == "," and not quote:
            pieces.append("")
            continue
        if letter in "\"'":
            quote = "" if letter == quote else quote or letter
        pieces[-1] += letter
    return [piece.strip() for piece in pieces]
