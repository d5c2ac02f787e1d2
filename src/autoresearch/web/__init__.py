"""`autoresearch watch`: the sessions of one or more tasks, live, on a web page.

The page is a process of its own. It reads the ledger, as `status` does, and shows the words and
numbers of `report/`. It changes nothing, unless it was started with `--control`: then it calls the
functions behind `pause`, `resume`, `stop` and `note`.

`places.py` finds sessions on the disk; `model.py` keeps one of them in memory and follows it;
`details.py`, `diff.py`, `strips.py` and `timing.py` read what a page shows beside a summary;
`app.py` maps addresses to templates; `security.py` decides on every request; `serve.py` binds the
port. `static/app.js` draws the chart and replaces the parts that the server sends again.
"""
