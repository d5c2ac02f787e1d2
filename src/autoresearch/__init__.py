"""autoresearch: the agent only has ideas and edits files; the harness runs, measures, decides
and records. Read `loop.py` first."""

__version__ = "0.1.0"
