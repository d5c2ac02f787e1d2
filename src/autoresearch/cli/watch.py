"""The command that shows sessions on a web page: watch."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from autoresearch.formatting import printable
from autoresearch.store.paths import STATE, enclosing
from autoresearch.task.reading import load
from autoresearch.web.places import Place, find_places
from autoresearch.web.serve import Address, serve


def watch(options: argparse.Namespace) -> int:
    def announce(address: Address) -> None:
        if options.json:
            facts = {"url": address.url, "port": address.port, "notes": list(address.notes)}
            print(json.dumps(facts), flush=True)
            return
        lines = [f"watching {len(places)} {'task' if len(places) == 1 else 'tasks'}: {address.url}"]
        lines += [f"note: {note}" for note in address.notes]
        print(printable("\n".join([*lines, "Ctrl-C ends the page; sessions go on"])), flush=True)

    places = _find_places(options)
    serve(
        places,
        host=options.host,
        port=options.port,
        names=options.name or (),
        has_control=options.control,
        needs_token=options.token,
        announce=announce,
    )
    return 0


def _find_places(options: argparse.Namespace) -> list[Place]:
    """The task folders to show. Raises `TaskError` for a folder that has neither a session nor a
    task."""
    paths = [Path(path).absolute() for path in options.tasks or ["."]]
    folders = [here.root if (here := enclosing(path)) else path for path in paths]
    folders = [folder if folder.is_dir() else folder.parent for folder in folders]
    places = find_places(folders)
    for place in places:
        if not (place.root / STATE).is_dir():
            load(place.root)
    return places
