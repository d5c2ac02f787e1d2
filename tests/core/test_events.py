"""Events are plain values: each has a line for people and a JSON object for programs."""

from __future__ import annotations

import dataclasses
import json

import pytest

from autoresearch.core import events

EXAMPLES: dict[str, object] = {"str": "a", "int": 3, "float": 0.5, "str | None": None}
EXAMPLES |= {"float | None": None}
KINDS = events.Event.__subclasses__()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_event_has_a_line_and_a_json_object(kind: type[events.Event]) -> None:
    fields = {field.name: EXAMPLES[str(field.type)] for field in dataclasses.fields(kind)}
    event = kind(**fields)
    told = json.loads(json.dumps(event.to_json()))
    assert told.pop("event").replace("_", "") == kind.__name__.lower()
    assert told.pop("text") == str(event)
    assert "\n" not in str(event) and not str(event).startswith(kind.__name__)
    assert told == fields


def test_the_line_of_an_experiment() -> None:
    done = events.ExperimentFinished(7, "discard", "worse", "val_bpb", 1.5, "LR 0.1 -> 0.2")
    assert str(done) == "   7 discard (worse) val_bpb 1.5: LR 0.1 -> 0.2"
    crash = events.ExperimentFinished(12, "crash", "timeout", "val_bpb", None, "deeper")
    assert str(crash) == "  12 crash (timeout): deeper"
