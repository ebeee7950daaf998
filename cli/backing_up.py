"""What `contentshop backup` does, and how a copy of a house is laid out.

Blobs, databases, and the blobs again that came meanwhile: so every blob that a copied row names was
there before the row was copied, or came between the two looks, and assets keeps the blob of a
deleted file for ASSETS_REMOVAL_SECONDS. Databases alone first would have to trust that the copy of
all blobs takes less; blobs alone first would miss those of the newest rows. A blob too many goes as
an orphan. enqueue comes before assets: what its rows name is there when assets is copied.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cli import words
from cli.connection import cli_settings, data_folder
from cli.errors import CliError, ExitCode
from cli.output import Output
from libs.common.blobs_disk import path_of, scan
from libs.common.clock import SystemClock

DATABASES = tuple(f"{name}.sqlite" for name in ("enqueue", "packager", "assets"))
BLOBS = "blobs"
MARK = "backup.json"  # written last: without it a copy is not whole
VERSION = 1
BUSY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Copied:
    """How many blobs, and of what size."""

    blobs: int = 0
    size_bytes: int = 0

    def __add__(self, other: Copied) -> Copied:
        return Copied(self.blobs + other.blobs, self.size_bytes + other.size_bytes)


def backup(folder: Path, *, data: Path | None, output: Output) -> ExitCode:
    """Copies the house into a folder that is empty or not there; FAILED where bytes are missing."""
    house = data_folder(data, cli_settings())
    if not all((house.path / name).is_file() for name in DATABASES):
        raise CliError(f"there is no house in {house.path}", ExitCode.USAGE, reason="NO_HOUSE")
    house.check_whole()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CliError(
            f"{folder} is not empty",
            ExitCode.REFUSED,
            hint="Every copy has a folder of its own.",
            reason="FOLDER_NOT_EMPTY",
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    copied = copy_blobs(house.path / BLOBS, folder / BLOBS)
    for name in DATABASES:
        copy_database(house.path / name, folder / name)
    copied += copy_blobs(house.path / BLOBS, folder / BLOBS)
    missing = list(_missing(folder))
    _write_mark(folder, copied)
    output.say(f"{folder}: 3 databases, {copied.blobs} images and zips")
    output.say(f"{words.size(copied.size_bytes)}; bring it back by: contentshop restore {folder}")
    for file_id in missing:
        output.warn(f"file {file_id} has no bytes in the copy")
    output.result(
        {
            "backup": str(folder),
            "blobs": copied.blobs,
            "bytes": copied.size_bytes,
            "files_without_bytes": missing,
        }
    )
    return ExitCode.FAILED if missing else ExitCode.OK


def copy_database(source: Path, target: Path) -> None:
    """A consistent copy of a database that may be in use; durable when it returns."""
    uri = f"{source.resolve().as_uri()}?mode=rw"  # never makes one
    with (
        closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as there,
        closing(sqlite3.connect(target)) as here,
    ):
        there.backup(here)  # all pages in one step: one snapshot
        here.execute("PRAGMA journal_mode=DELETE")  # one file, and nothing beside it
    target.chmod(0o600)
    _sync(target)


def copy_blobs(source: Path, target: Path) -> Copied:
    """Copies the blobs that the target has not yet; what is removed meanwhile is passed over."""
    copied = Copied()
    target.mkdir(mode=0o700, exist_ok=True)
    if not source.is_dir():
        return copied
    for blob in scan(source.resolve(), ""):
        kept = path_of(target.resolve(), blob.key)
        if kept.exists():  # blobs never change
            continue
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            shutil.copyfile(path_of(source.resolve(), blob.key), kept)
        except FileNotFoundError:
            kept.unlink(missing_ok=True)
            continue
        _sync(kept)
        copied += Copied(1, blob.size)
    return copied


def check_copy(folder: Path) -> None:
    """CliError where the folder holds no whole copy that we can read."""
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
        version = mark["version"]
    except (OSError, ValueError, TypeError, KeyError):
        version = None
    if version == VERSION and all((folder / name).is_file() for name in DATABASES):
        return
    raise CliError(
        f"{folder} holds no whole copy of a house",
        ExitCode.USAGE,
        hint="Name a folder that `contentshop backup` has made.",
        reason="NOT_A_BACKUP",
    )


def _missing(folder: Path) -> Iterator[int]:
    """Files of the copied rows whose bytes are not in the copy as they should be."""
    query = "SELECT id, blob_key, size_bytes FROM files WHERE deleted_at IS NULL ORDER BY id"
    with closing(sqlite3.connect(folder / "assets.sqlite")) as rows:
        for file_id, key, size in rows.execute(query):
            path = path_of((folder / BLOBS).resolve(), key)
            if not path.is_file() or path.stat().st_size != size:
                yield file_id


def _write_mark(folder: Path, copied: Copied) -> None:
    mark = {
        "version": VERSION,
        "made_at": SystemClock().now().isoformat(timespec="seconds"),
        "blobs": copied.blobs,
        "bytes": copied.size_bytes,
    }
    path = folder / MARK
    path.write_text(json.dumps(mark) + "\n", encoding="utf-8")
    _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
