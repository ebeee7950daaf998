"""Faults planted in assets and the packager: histories of the house must find each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.assets import relay
from services.assets.store import files, pins, storage
from services.packager.store import builds


async def _nothing(*_args: Any) -> int:
    return 0


async def _as_if(*_args: Any) -> bool:
    return True


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


def zips_are_forgotten() -> None:
    """A packager that dies after it stored a zip stores another."""
    builds.note_written = _as_if  # type: ignore[assignment]


HOUSE_PLANTS: dict[str, Callable[[], None]] = {
    plant.__name__: plant
    for plant in (
        pins_are_never_released,
        strays_stay,
        orphans_stay,
        deleted_bytes_count,
        zips_are_forgotten,
    )
}
