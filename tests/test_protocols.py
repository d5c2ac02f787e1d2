"""The values that pass between the harness and a runner survive JSON."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.protocols import Confinement, RunResult, RunSpec, TreeFile, TreeManifest

TEXTS = st.text(max_size=8)
LISTS = st.lists(TEXTS, max_size=3).map(tuple)
PATHS = TEXTS.map(Path)
FLOATS = st.floats(allow_nan=False)
CONFINEMENTS = st.builds(Confinement, read=LISTS, write=LISTS)
SPECS = st.builds(
    RunSpec,
    argv=LISTS,
    tree=PATHS,
    log=PATHS,
    outcome=PATHS,
    env=st.dictionaries(TEXTS, TEXTS, max_size=3),
    timeout_s=FLOATS,
    limit_s=st.none() | FLOATS,
    limit_clock=TEXTS,
    memory_bytes=st.none() | st.integers(),
    confinement=st.none() | CONFINEMENTS,
    directory=TEXTS,
)
RESULTS = st.builds(
    RunResult, wall_s=FLOATS, cpu_s=st.none() | FLOATS, slot=st.none() | st.integers()
)
MANIFESTS = st.builds(
    TreeManifest,
    files=st.dictionaries(TEXTS, st.builds(TreeFile), max_size=3),
    links=st.dictionaries(TEXTS, TEXTS, max_size=3),
)


@settings(max_examples=50)
@given(SPECS | RESULTS | MANIFESTS)
def test_a_value_survives_json(value: RunSpec | RunResult | TreeManifest) -> None:
    assert type(value).from_json(json.loads(json.dumps(value.to_json()))) == value
