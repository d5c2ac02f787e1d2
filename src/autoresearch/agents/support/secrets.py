"""Find the secrets in an agent's environment, remove them from texts, and detect them in edits.

A variable is secret by its name (key, token, password), or because `[agent] env` or an agent's keys
name it, unless its value is plainly no secret: a number, a path, an address without a password.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
PLAIN_NAME = re.compile(r"(?:MODEL|MODEL_NAME|PROJECT|LOCATION|REGION)$", re.IGNORECASE)
SECRET_LENGTH = 8  # a shorter value is no secret, and taking it out would garble the text
NUMBERS = re.compile(r"[-+\d.,:eE_xX\s]+")


@dataclass(frozen=True, slots=True)
class Secret:
    name: str  # of its variable
    value: str


def secrets_in(env: Mapping[str, str], named: Collection[str] = ()) -> list[Secret]:
    """The secrets of an environment, the longest first. `named`: variables that somebody passed on
    beside the standard set."""
    found = [one for name, value in env.items() for one in _secrets(name, value, name in named)]
    return sorted(set(found), key=lambda one: -len(one.value))


def mask(text: str, secrets: Iterable[Secret]) -> str:
    """`text` with the names of secrets in place of their values."""
    for one in secrets:
        text = text.replace(one.value, f"<{one.name}>")
    return text


def leaked(secrets: Iterable[Secret], old: Iterable[bytes], new: Iterable[bytes]) -> str | None:
    """The name of a secret that `new` holds and `old` does not."""
    before, after = tuple(old), tuple(new)
    for one in secrets:
        value = one.value.encode(errors="surrogateescape")
        if any(value in data for data in after) and not any(value in data for data in before):
            return one.name
    return None


def _secrets(name: str, value: str, named: bool) -> Iterable[Secret]:
    told = SECRET_NAME.search(name) is not None
    try:
        user, at, _ = urlsplit(value).netloc.rpartition("@")
    except ValueError:  # no address
        user, at = "", ""
    if at:  # in a proxy's address, say
        yield from (Secret(name, part) for part in (user, user.partition(":")[2]) if _long(part))
    asked = told or (named and not PLAIN_NAME.search(name))
    if asked and _long(value) and not _plain(value, told):
        yield Secret(name, value)


def _long(value: str) -> bool:
    return len(value) >= SECRET_LENGTH


def _plain(value: str, told: bool) -> bool:
    """A number, an address without a password, a path. A value that its name calls a secret must be
    the path of something that exists: a random one can begin with a slash."""
    if re.match(r"https?://", value):
        return "@" not in value and "?" not in value
    if value.startswith(("/", "~/", "./")):
        return not told or _exists(value)
    return not told and NUMBERS.fullmatch(value) is not None


def _exists(value: str) -> bool:
    try:
        return Path(value).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False
