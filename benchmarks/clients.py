"""What a client library of the agent `llm` would cost a user: size, packages, import.

    python benchmarks/clients.py [NAME ...]

Installs each into an environment of its own (in a temporary folder, from your package index) and
imports it five times, compiled. Medians of CPU seconds; memory is what the import adds.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path
from statistics import median

CLIENTS = {"openai": "openai", "any-llm-sdk": "any_llm", "litellm": "litellm"}
IMPORTS = 5
PROBE = """
import resource, sys
def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss
before = used()
__import__(sys.argv[1])
after = used()
print(after[0] - before[0], (after[1] - before[1]) / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=list(CLIENTS), help="of packages")
    options = parser.parse_args()
    print(f"{platform.system()} {platform.machine()}, Python {platform.python_version()}\n")
    print("| library | MB on disk | packages | import, CPU s | import, MB |")
    print("|---|---:|---:|---:|---:|")
    for name in options.names:
        with tempfile.TemporaryDirectory() as folder:
            print(measured(name, Path(folder)), flush=True)


def measured(name: str, folder: Path) -> str:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    [site] = folder.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    python = str(folder / "bin" / "python")
    subprocess.run([*pip, "--python", python, "install", name], check=True, capture_output=True)
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) / 1e6
    found = list(distributions(path=[str(site)]))
    version = next(one.version for one in found if one.name.lower() == name)
    runs = [imported(python, CLIENTS.get(name, name)) for _ in range(IMPORTS)]
    cpu_s, memory = (median(column) for column in zip(*runs, strict=True))
    return f"| {name} {version} | {size:.0f} | {len(found)} | {cpu_s:.2f} | {memory:.0f} |"


def imported(python: str, module: str) -> tuple[float, float]:
    """(CPU seconds, MB) of an import in a fresh process."""
    command = [python, "-c", PROBE, module]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    cpu_s, memory = map(float, done.stdout.split()[-2:])
    return cpu_s, memory


if __name__ == "__main__":
    main()
