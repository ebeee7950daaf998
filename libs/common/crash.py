"""Crash points: named places where the process kills itself when the environment asks for it.

`CRASH_AT=E4` kills at the first pass of E4; `CRASH_AT=E4:3` at the third. Unset, as in
production, a point costs one comparison. The names are those of docs/LIFE-OF-A-JOB.md.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator


class CrashPoints:
    """The armed crash point of this process, if any."""

    def __init__(self, spec: str) -> None:
        self._name, _, count = spec.partition(":")
        self._left = int(count or 1)

    def here(self, name: str) -> None:
        """Dies by SIGKILL when this is the armed point and its count is reached."""
        if name != self._name:
            return
        self._left -= 1
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def in_the_middle(
        self, name: str, parts: Iterable[bytes | memoryview]
    ) -> Iterable[bytes | memoryview]:
        """The parts as they are; or, where this is the armed point, in halves, passing between."""
        return parts if name != self._name else self._halved(name, parts)

    def _halved(self, name: str, parts: Iterable[bytes | memoryview]) -> Iterator[memoryview]:
        for part in parts:
            view = memoryview(part).cast("B")
            yield view[: len(view) // 2]
            self.here(name)
            yield view[len(view) // 2 :]
