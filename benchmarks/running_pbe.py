"""A service or a page, started as a person starts it, for the benchmarks."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).parents[1]
PBE = Path(sys.executable).parent / "pbe"


@contextmanager
def running_pbe(log: Path, *arguments: str) -> Iterator[tuple[str, int]]:
    """Start `pbe serve` or `pbe app` on a free port and yield its address and process; end it, and print its code."""
    command = [PBE, *arguments, "--port", "0"]
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=file, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("http"):
            raise SystemExit(f"error: pbe {arguments[0]} did not start\n{log.read_text()}")
        try:
            yield line.split()[0].rstrip("/"), process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            print(f"  SIGTERM: exit code {process.wait(120)}")
