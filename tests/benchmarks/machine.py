"""The machine, and what its processes use: from /proc."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from libs.common.clock import SystemClock
from tests.support.postgres import find_binaries
from tests.support.rabbitmq import find_script

ROOT = Path(__file__).parents[2]
_TICKS = os.sysconf("SC_CLK_TCK")
_PACKAGES = ("grpcio", "protobuf", "psycopg", "sqlalchemy", "aio-pika", "uvloop", "isal", "minio")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process since its start, in steps of 10 ms."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / _TICKS


def rss_bytes(pid: int) -> int:
    """Resident memory now."""
    return _status(pid, "VmRSS")


def peak_rss_bytes(pid: int) -> int:
    """The most since forget_peak."""
    return _status(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    """Sets the peak back to what is resident now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(pid: int, name: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    match = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


def facts() -> dict[str, Any]:
    """What a reader must know to compare the figures with others."""
    rabbit = re.search(r"rabbitmq_server-([\d.]+)", str(find_script("rabbitmq-server").resolve()))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": SystemClock().now().isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {
            "cores": os.cpu_count(),
            "memory_gib": round(memory / 2**30, 1),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "postgresql": _output(find_binaries() / "postgres", "--version"),
            "rabbitmq": rabbit[1] if rabbit else "unknown",
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
        "load_average_before": os.getloadavg()[0],
    }


def commit() -> str:
    """The short commit, with `-dirty` where the tree differs from it."""
    try:
        return _output("git", "describe", "--always", "--dirty", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _output(*argv: str | Path) -> str:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
