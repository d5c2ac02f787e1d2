"""What an agent is told before it proposes: a text of bounded size, however long the night was.

`briefer.py` gathers, and is the only file here that asks the ledger, the repository or the disk.
`memory.py` keeps what the whole session taught, `logs.py` reads curves and last words, `source.py`
the files. `ground.py` and `record.py` make sections of it: where one stands, and what was tried.
`sections.py` fits them into the limit.
"""

from autoresearch.briefing.briefer import Briefer

__all__ = ["Briefer"]
