"""Recognises the JSON of pytest-benchmark, hyperfine, Criterion.rs and Google Benchmark, and
proposes the path of a time in it: the median, which one slow run moves least.

Units: seconds (pytest-benchmark, hyperfine), nanoseconds (Criterion.rs), `time_unit` (Google).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from autoresearch.task.json_path import quote


class ProposedPath(NamedTuple):
    format: str
    text: str  # the path
    unit: str


def propose_paths(document: Any) -> list[ProposedPath]:
    """A path for every benchmark in the document; empty if its format is not known. A lower value
    is better at each of them."""
    if not isinstance(document, dict):
        return []
    for read in (_pytest_benchmark, _google_benchmark, _hyperfine, _criterion):
        if paths := read(document):
            return paths
    return []


def _pytest_benchmark(document: dict[str, Any]) -> list[ProposedPath]:
    if "machine_info" not in document:
        return []
    items = _items(document, "benchmarks")
    key = "fullname"
    if len({item.get("name") for item in items}) == len(items):
        key = "name"
    names = [item[key] for item in items if _has(item, key, str) and _has(item, "stats", dict)]
    paths = [f"benchmarks[{key}={quote(name)}].stats.median" for name in names]
    return [ProposedPath("pytest-benchmark", path, "s") for path in paths]


def _google_benchmark(document: dict[str, Any]) -> list[ProposedPath]:
    if not _has(document, "context", dict):
        return []
    items = [item for item in _items(document, "benchmarks") if _has(item, "real_time", str)]
    items = [item for item in items if _has(item, "name", str)]
    names = [item["name"] for item in items]
    paths = []
    for item in items:
        is_single = names.count(item["name"]) == 1 and item.get("run_type") != "aggregate"
        if item.get("error_occurred") is not True and (
            is_single or item.get("aggregate_name") == "median"
        ):
            path = f"benchmarks[name={quote(item['name'])}].real_time"
            unit = str(item.get("time_unit", "ns"))
            paths.append(ProposedPath("Google Benchmark", path, unit))
    return paths


def _hyperfine(document: dict[str, Any]) -> list[ProposedPath]:
    items = _items(document, "results")
    if not items or not all(_has(item, "command", str) and "median" in item for item in items):
        return []
    paths = [f"results[{index}].median" for index in range(len(items))]
    return [ProposedPath("hyperfine", path, "s") for path in paths]


def _criterion(document: dict[str, Any]) -> list[ProposedPath]:
    is_estimate = _has(document, "median", dict) and "median_abs_dev" in document
    if not is_estimate or "point_estimate" not in document["median"]:
        return []
    return [ProposedPath("Criterion.rs", "median.point_estimate", "ns")]


def _items(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects in a list; the first hundred."""
    value = document.get(key)
    items = value[:100] if isinstance(value, list) else []
    return [item for item in items if isinstance(item, dict)]


def _has(value: dict[str, Any], key: str, kind: type) -> bool:
    return isinstance(value.get(key), kind)
