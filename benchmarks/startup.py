"""How long `import lesionlocator` and `lesionlocator --help` take, best and middle of eleven."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "an empty program": [sys.executable, "-c", "pass"],
    "import lesionlocator": [sys.executable, "-c", "import lesionlocator"],
    "lesionlocator --help": [str(Path(sys.executable).with_name("lesionlocator")), "--help"],
}


def seconds(command):
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main():
    print(f"{'':24}{'best':>8}{'middle':>8}   (wanted: under 0.3 s)")
    for name, command in COMMANDS.items():
        times = [seconds(command) for _ in range(11)]
        print(f"{name:24}{min(times):7.2f}s{statistics.median(times):7.2f}s")


if __name__ == "__main__":
    main()
