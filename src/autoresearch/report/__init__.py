"""What people and programs see of a session. Nothing here changes one.

`summary.py` reads the ledger into one value, and everything else draws that value: `live.py` and
`text.py` on a terminal, `page.py` as report.md. `table.py` is results.tsv and `plot.py` is
progress.png, both as the original writes them. `publish.py` alone replaces files of ours among the
user's. `words.py` turns numbers and foreign text into words.
"""
