"""The agents of a command line, with their weights."""

from __future__ import annotations

import pytest

from autoresearch.errors import TaskError
from autoresearch.task.agent_names import parse_agents


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tuner", "tuner"),
        ("claude:3", "claude:3"),  # one agent: no weight
        ('command:"a b"', "command:a b"),
        ('command:"a b" c', 'command:"a b" c'),
        ('command:"a" "b"', 'command:"a" "b"'),
        ("claude:3,tuner:1", {"claude": 3.0, "tuner": 1.0}),
        ("claude, tuner", {"claude": 1.0, "tuner": 1.0}),
        ("codex:gpt-5:2,tuner", {"codex:gpt-5": 2.0, "tuner": 1.0}),
        ("codex:gpt-5,codex:o4:0.5", {"codex:gpt-5": 1.0, "codex:o4": 0.5}),
        ('command:"a, b"', "command:a, b"),
        ("command:'x \"1,2\"':3,tuner", {'command:x "1,2"': 3.0, "tuner": 1.0}),
        ('command:sh -c "echo a, b",tuner', {'command:sh -c "echo a, b"': 1.0, "tuner": 1.0}),
        ('qwen:"coder:7",tuner', {"qwen:coder:7": 1.0, "tuner": 1.0}),
    ],
)
def test_agents_of_a_command_line(text: str, expected: object) -> None:
    assert parse_agents(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tuner,", "a name is missing"),
        (",tuner", "a name is missing"),
        ("tuner,,claude", "a name is missing"),
        ("tuner:0,claude", "a weight of 0"),
        ("tuner,tuner", "'tuner' comes twice"),
        ("tuner:2,claude,tuner:3", "'tuner' comes twice"),
    ],
)
def test_agents_of_a_command_line_that_make_no_sense(text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        parse_agents(text)
