"""Find the secrets in an agent's environment, remove them from texts, and detect them in edits.

A variable is secret by its name (key, token, password), or because `[agent] env` or an agent's keys
name it, unless its value is plainly no secret: a number, a path, an address without a password.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
PLAIN_NAME = re.compile(r"(?:MODEL|MODEL_NAME|PROJECT|LOCATION|REGION)$", re.IGNORECASE)
SECRET_LENGTH = 8  # a shorter value is no secret, and its removal would garble the text
NUMBERS = re.compile(r"[-+\d.,:eE_xX\s]+")


class Secret(NamedTuple):
    name: str  # of its variable
    value: str


def secrets_in(env: Mapping[str, str], passed_on: Collection[str] = ()) -> list[Secret]:
    """Return the secrets of an environment, the longest first. `passed_on` are the variables that a
    setting or an agent adds to the standard set."""
    secrets = {
        Secret(name, value)
        for name, text in env.items()
        for value in _secret_parts(name, text, name in passed_on)
        if len(value) >= SECRET_LENGTH
    }
    return sorted(secrets, key=lambda secret: -len(secret.value))


def mask(text: str, secrets: Iterable[Secret]) -> str:
    """Replace the values of secrets in `text` by the names of their variables."""
    for secret in secrets:
        text = text.replace(secret.value, f"<{secret.name}>")
    return text


def find_leak(secrets: Iterable[Secret], old: Iterable[bytes], new: Iterable[bytes]) -> str | None:
    """Return the name of a secret that is in `new` and not in `old`."""
    before, after = tuple(old), tuple(new)
    for secret in secrets:
        value = secret.value.encode(errors="surrogateescape")
        if any(value in data for data in after) and not any(value in data for data in before):
            return secret.name
    return None


def _secret_parts(name: str, value: str, is_passed_on: bool) -> Iterable[str]:
    try:
        user, at, _ = urlsplit(value).netloc.rpartition("@")
    except ValueError:  # no address
        user, at = "", ""
    if at:  # in a proxy's address, say
        yield from (user, user.partition(":")[2])
    has_secret_name = SECRET_NAME.search(name) is not None
    may_be_secret = has_secret_name or (is_passed_on and not PLAIN_NAME.search(name))
    if may_be_secret and not _is_plain(value, has_secret_name):
        yield value


def _is_plain(value: str, has_secret_name: bool) -> bool:
    """Whether it is a number, an address without a password, or a path. With a secret name only the
    path of an existing file is plain: a random value can begin with a slash."""
    if re.match(r"https?://", value):
        return "@" not in value and "?" not in value
    if value.startswith(("/", "~/", "./")):
        return not has_secret_name or _exists(value)
    return not has_secret_name and NUMBERS.fullmatch(value) is not None


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False
