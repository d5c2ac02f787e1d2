"""
Make the model in train.py small enough for a CPU: to try everything before you rent a GPU.

    python toy.py               # sets knobs in train.py and the budget in autoresearch.toml

The result says nothing about the model of full size. For research on a CPU take `tiny_gpt`.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).absolute().parent
KNOBS = {
    "DEPTH": "2",
    "WIDTH": "64",
    "HEAD_DIM": "32",
    "SEQ_LEN": "64",
    "TOTAL_BATCH": "1024",
    "DEVICE_BATCH": "8",
}
SETTINGS = {"budget": '"3s"', "budget_clock": '"cpu"'}


def set_values(text: str, values: dict[str, str], equals: str = " = ") -> str:
    """Set `NAME = value` lines. Ends the program if one is not there exactly once."""
    for name, value in values.items():
        text, count = re.subn(
            rf"^({name}\s*=\s*)[^\s#]+(?: [^\s#]+)*", rf"\g<1>{value}", text, flags=re.MULTILINE
        )
        if count != 1:
            raise SystemExit(f"error: {count} lines set {name}; expected 1")
    return text


def main() -> None:
    for name, values in (("train.py", KNOBS), ("autoresearch.toml", SETTINGS)):
        file = ROOT / name
        file.write_text(set_values(file.read_text(encoding="utf-8"), values), encoding="utf-8")
    print("train.py and autoresearch.toml are set to toy size. Commit them to start a session.")


if __name__ == "__main__":
    main()
