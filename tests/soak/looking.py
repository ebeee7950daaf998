"""What processes and folders take up, from outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.machine import rss_bytes

MB = 2**20

# What a measure may gain in an hour, by the first word of its name. Rows are judged by the load.
BOUNDS = {
    "rss": 12.0,  # MB
    "descriptors": 6.0,
    "threads": 30.0,  # pools fill one by one, as late as some minute is busier than all before
    "connections": 6.0,
    "disk": 24.0,  # MB
    "files": 30.0,
    "messages": 30.0,
}
ROWS_PER_ROUND = 0.02
# Those grow with time, as they should; who runs it rotates them.
UNJUDGED = frozenset({"log"})


def process(name: str, pid: int) -> dict[str, float]:
    """Memory, descriptors, sockets and threads of a process."""
    targets = list(_targets(pid))
    return {
        f"rss {name}": rss_bytes(pid) / MB,
        f"descriptors {name}": len(targets),
        f"connections {name}": sum(target.startswith("socket:") for target in targets),
        f"threads {name}": sum(1 for _ in Path(f"/proc/{pid}/task").iterdir()),
    }


def _targets(pid: int) -> Iterator[str]:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            yield str(link.readlink())
        except OSError:
            continue  # closed meanwhile


def folder(path: Path) -> tuple[int, float]:
    """How many files, and MB; what goes while we look does not count."""
    files, size = 0, 0
    for at, _, names in os.walk(path):
        for name in names:
            try:
                size += Path(at, name).stat().st_size
            except OSError:
                continue
            files += 1
    return files, size / MB


def size(path: Path) -> float:
    """MB of a file; 0 where there is none."""
    try:
        return path.stat().st_size / MB
    except OSError:
        return 0.0
