"""How long every command takes to answer --help, beside an empty Python: `python tests/benchmarks/help_time.py`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

COMMANDS = (
    "",
    "data climate",
    "data inspect",
    "data tune",
    "train",
    "evaluate",
    "downscale",
    "models list",
    "config show",
    "demo",
)
REPEATS = 5


def seconds(command: list[str]) -> float:
    """Best of several."""

    def once() -> float:
        begun = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begun

    return min(once() for _ in range(REPEATS))


def main() -> None:
    """Print a line a command."""
    python = sys.executable
    empty = seconds([python, "-c", "pass"])
    print(f"{'python -c pass':<28}{empty:.3f} s")
    for command in COMMANDS:
        taken = seconds([str(Path(python).parent / "vamoh"), *command.split(), "--help"])
        print(f"{'vamoh ' + command + ' --help':<28}{taken:.3f} s  {taken / empty:.1f} x")


if __name__ == "__main__":
    main()
