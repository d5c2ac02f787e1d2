"""What the name of a constant tells: whether it is a setting, and of what."""

from __future__ import annotations

import re

IGNORED = re.compile(
    r"seed|^__.*__$|^_*(?:type_checking|debug|verbose|quiet|silent|dry_?run|port|version)$",
    re.IGNORECASE,
)
"""No settings of the program's result: a better seed is no improvement."""

SETTINGS = re.compile(r"conf|cfg|param|hyper|setting|option|opts|default|args", re.IGNORECASE)
"""Names of dictionaries and classes that hold settings; other dictionaries are data."""


def get_setting_name(name: str) -> str:
    """The part of a place's name that tells what it sets: `lr` of `CONFIG[optim][lr]`."""
    words = re.findall(r"\w+", re.sub(r"(?:\[\d+\])+$", "", name).replace("-", "_"))
    return words[-1].strip("_") if words else name


def is_ignored(name: str) -> bool:
    plain = re.split(r"[.\[]", name.rstrip("]"))[-1].lstrip("-").replace("-", "_")
    return IGNORED.search(plain) is not None or IGNORED.search(get_setting_name(name)) is not None
