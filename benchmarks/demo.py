"""How often does a short session of `make demo` keep a change that is verified?

    python benchmarks/demo.py --work DIR [--tries 10] [--experiments 6] [--hours H]

Each try is a new session on `tiny_gpt`, as `make demo` has it: the tuner, two slots, and other
seeds each time. It ends after so many experiments (`make demo` goes on for ten minutes, and finds
more) or hours. A keep is verified if the interval of the final runs, on fresh seeds, is above zero.
Called again with the same DIR it goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-m", "autoresearch"]
ENV = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
DATA = ("data", "val", "holdout")
ROW = "{:>3} {:>7} {:>5} {:>6} {:>18}   {:>6}  {}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder to work in")
    parser.add_argument("--tries", type=int, default=10)
    parser.add_argument("--experiments", type=int, default=6, help="of each try")
    parser.add_argument("--hours", type=float, default=1.0, help="of each try, at most")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print(ROW.format("try", "exper.", "runs", "gain", "95 % interval", "min", "kept"))
    verified = 0
    for number in range(1, options.tries + 1):
        folder = options.work.resolve() / f"try{number}"
        prepare(folder)
        limits = ["--experiments", str(options.experiments), "--hours", str(options.hours)]
        call("run", str(folder), "--tag", "demo", "--slots", "2", "--plain", *limits)
        found = json.loads(call("status", str(folder), "--tag", "demo", "--json"))
        again = found["verification"]
        verified += again is not None and again["low"] > 0
        gain, interval = "-", "-"
        if again is not None:
            gain = f"{again['gain']:+.3f}"
            interval = f"{again['low']:+.3f} to {again['high']:+.3f}"
        kept = "; ".join(keep["description"] for keep in found["keeps"][1:])
        minutes = f"{found['elapsed_s'] / 60:.1f}"
        print(
            ROW.format(number, found["finished"], found["runs"], gain, interval, minutes, kept),
            flush=True,
        )
    print(f"\na verified keep in {verified} of {options.tries} tries")


def prepare(folder: Path) -> None:
    if (folder / "data" / "meta.json").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    call("new", "tiny_gpt", str(folder))
    prepared = next(folder.parent.glob("*/data/meta.json"), None)
    if prepared:
        for name in DATA:
            shutil.copytree(prepared.parents[1] / name, folder / name)
    else:
        command = [sys.executable, "prepare.py"]
        subprocess.run(command, cwd=folder, check=True, env=ENV, stdout=subprocess.DEVNULL)


def call(*words: str) -> str:
    return subprocess.run(
        [*COMMAND, *words], check=True, env=ENV, stdout=subprocess.PIPE, text=True
    ).stdout


if __name__ == "__main__":
    main()
