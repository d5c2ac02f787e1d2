"""What people and programs see of a session. Nothing here changes a session.

`collect.py` reads the ledger into one value, whose classes are in `summary.py`. `effects.py` (gains
of keeps and experiments), `verification.py`, `holdout.py` and `machine.py` (trends) compute its
parts. Views draw it: `live.py` and `text.py` on a terminal, `page.py` as report.md. `plot.py` draws
progress.png as the original does, and `availability.py` the list of agents.
"""
