"""Faults planted in assets and in watches: histories of the house must find each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.assets import relay
from services.assets.store import files, pins, storage
from services.enqueue.store import events


async def _nothing(*_args: Any) -> int:
    return 0


def pins_are_never_released() -> None:
    """The inputs of a job stay pinned after its end."""
    pins.release = _nothing  # type: ignore[assignment]


def strays_stay() -> None:
    """What a job made and enqueue never recorded is kept."""
    files.delete_unrecorded = _nothing  # type: ignore[assignment]


def orphans_stay() -> None:
    """Blobs without a file are never swept."""
    relay.OrphanSweep._sweep = _nothing  # type: ignore[assignment]


def deleted_bytes_count() -> None:
    """What is deleted is still counted as stored."""
    storage.shrink = _nothing  # type: ignore[assignment]


def watchers_miss_an_event() -> None:
    """Who watches a job is told of its next event only when another follows, and not of it."""
    real = events.after_each

    async def after_each(tx: Any, cursors: Any) -> Any:
        found = await real(tx, cursors)
        return {job: new[1:] for job, new in found.items()}

    events.after_each = after_each


HOUSE_PLANTS: dict[str, Callable[[], None]] = {
    plant.__name__: plant
    for plant in (
        pins_are_never_released,
        strays_stay,
        orphans_stay,
        deleted_bytes_count,
        watchers_miss_an_event,
    )
}
