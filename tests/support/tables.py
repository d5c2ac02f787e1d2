"""Read a results.tsv as any reader of tables does."""

from __future__ import annotations

import csv


def read_table(text: str) -> list[dict[str, str]]:
    lines = text.removesuffix("\n").split("\n")
    return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True))
