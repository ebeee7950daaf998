"""What `contentshop restore` does: a copy becomes a house again, with ids that nobody has seen."""

from __future__ import annotations

import shutil
from pathlib import Path

from cli.backing_up import BLOBS, DATABASES, check_copy, copy_blobs, copy_database
from cli.connection import cli_settings, data_folder
from cli.datafolder import DataFolder
from cli.embedded import HouseOptions, house_settings
from cli.errors import CliError, ExitCode
from cli.output import Output
from libs.common import env, logs
from services.assets import app as assets_app
from services.assets.restoring import after_restore as settle_assets
from services.enqueue import app as enqueue_app
from services.enqueue.restoring import after_restore as settle_enqueue
from services.packager import app as packager_app
from services.packager.restoring import after_restore as settle_packager

# enqueue last: it tells the others again what it knows.
_ACTS = (
    ("assets", assets_app.migrate, settle_assets),
    ("packager", packager_app.migrate, settle_packager),
    ("enqueue", enqueue_app.migrate, settle_enqueue),
)


def restore(folder: Path, *, data: Path | None, output: Output) -> ExitCode:
    """Copies into a data folder without a house; what was cut short may be done again.

    Raises:
        CliError: no whole copy, or the data folder is in use or holds a house.
    """
    check_copy(folder)
    house = data_folder(data, cli_settings())
    with house.held():
        _make_room(house)
        copied = copy_blobs(folder / BLOBS, house.path / BLOBS)
        for name in DATABASES:
            copy_database(folder / name, house.path / name)
        _settle(house)
        house.end_restore()
    output.say(f"{house.path}: 3 databases, {copied.blobs} images and zips")
    output.note(f"start it: contentshop up --data {house.path}")
    output.result({"data": str(house.path), "blobs": copied.blobs, "bytes": copied.size_bytes})
    return ExitCode.OK


def _make_room(house: DataFolder) -> None:
    """Marks the folder as half restored; what an earlier half restore left goes."""
    held = [house.path / name for name in (*DATABASES, BLOBS)]
    if house.half_restored:
        for path in held:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                for suffix in ("", "-wal", "-shm", "-journal"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
    elif any(path.exists() for path in held):
        raise CliError(
            f"{house.path} holds a house already",
            ExitCode.REFUSED,
            hint="Restore into another folder with --data, or move this one away.",
            reason="DATA_FOLDER_TAKEN",
        )
    house.begin_restore()


def _settle(house: DataFolder) -> None:
    options = HouseOptions(port_base=0, generator="offline", log_level="warning")
    settings = house_settings(house, house.make_secrets(), options, env.process_environ())
    logs.configure("restore", level=options.log_level, json=settings["enqueue"].log_json)
    for service, migrate, settle in _ACTS:
        migrate(settings[service])
        settle(settings[service])
