"""What people and programs see of a session. Nothing here changes a session.

`collect.py` reads the ledger into one value, the `summary.py`, with the help of `effects.py` (gains
of keeps and experiments), `verification.py`, `holdout.py` and `machine.py` (trends). Views draw that
value: `live.py` and `text.py` on a terminal, `page.py` as report.md. `plot.py` draws progress.png as
the original does, and `availability.py` the list of agents.
"""
