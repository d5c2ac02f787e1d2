"""The text that an agent reads before it proposes, of bounded size however long the session is.

`briefer.py` reads the ledger, the repository and the logs, and gathers the `facts.py` of one
briefing. `digest.py` keeps totals of the whole session, `logs.py` finds curves and crashes in logs,
and `source_code.py` shows the editable files. `task_sections.py`, `history_sections.py` and
`plateau.py` write sections from these facts. `fitting.py` fits the sections into the limit.
"""

from autoresearch.briefing.briefer import Briefer

__all__ = ["Briefer"]
