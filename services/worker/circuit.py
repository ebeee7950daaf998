"""Whether the generator takes our key: a circuit that opens on UNAUTHORIZED."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from libs.common.clock import Clock
from libs.common.lifecycle import TaskOwner
from libs.common.outcomes import Outcome

log = structlog.get_logger()

# Answers that a refused key does not get.
_KEY_WAS_TAKEN = frozenset(
    {
        Outcome.PROMPT_BLOCKED,
        Outcome.OUTPUT_BLOCKED,
        Outcome.NO_IMAGE,
        Outcome.TEXT_ONLY,
        Outcome.RATE_LIMITED,
    }
)


class GeneratorCircuit:
    """Healthy until the key is refused; then one job each `probe_seconds` may try again."""

    def __init__(self, clock: Clock, *, probe_seconds: float) -> None:
        self._clock = clock
        self._probe_seconds = probe_seconds
        self._owner = TaskOwner()
        self.healthy = True
        self.probing = False
        self.on_change: Callable[[], None] = lambda: None

    async def start(self) -> None:
        """Nothing to do before the first refusal."""

    async def stop(self) -> None:
        """Ends the wait for a probe."""
        await self._owner.close()

    @property
    def allows_calls(self) -> bool:
        """Whether a generator call is worth its while."""
        return self.healthy or self.probing

    def answered(self, outcome: Outcome | None) -> None:
        """Learns from one call: its outcome, None for an image."""
        if outcome is Outcome.UNAUTHORIZED:
            self._refused()
        elif not self.healthy and (outcome is None or outcome in _KEY_WAS_TAKEN):
            self.healthy, self.probing = True, False
            log.info("generator.healthy")
            self.on_change()

    def _refused(self) -> None:
        if self.healthy:
            log.error("generator.key_refused", probe_seconds=self._probe_seconds)
        elif not self.probing:
            return  # a probe is due already
        self.healthy, self.probing = False, False
        self._owner.spawn(self._probe_later(), name="generator.probe")
        self.on_change()

    async def _probe_later(self) -> None:
        await self._clock.sleep(self._probe_seconds)
        if not self.healthy:
            self.probing = True
            self.on_change()
