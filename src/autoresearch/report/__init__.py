"""What people and programs see of a session. Nothing here changes a session.

Data: `collect.py` reads the ledger into one value, a `Summary` (`summary.py`). Its parts are
computed in `effects.py` (gains of keeps and experiments), `verification.py`, `holdout.py` and
`machine.py` (trends). Views draw a summary and read no ledger: `text.py` and `live.py` on a
terminal, `page.py` as report.md, `plot.py` as progress.png. `experiments.py` prints experiments
without a summary, and `availability.py` the list of agents.
"""
