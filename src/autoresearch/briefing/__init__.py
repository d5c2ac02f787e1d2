"""What an agent is told before it proposes: a text of bounded size, however long the session.

`briefer.py` alone asks the ledger, the repository and the disk, and gathers the `facts.py` of one
briefing. `digest.py` keeps totals of the whole session, `logs.py` finds curves and crashes in logs,
and `source_code.py` shows the editable files. `task_sections.py`, `history_sections.py` and
`plateau.py` write sections from these facts. `fitting.py` fits the sections into the limit.
"""

from autoresearch.briefing.briefer import Briefer

__all__ = ["Briefer"]
