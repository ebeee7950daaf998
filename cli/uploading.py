"""What `contentshop upload` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cli import files, words
from cli.connection import connect
from cli.errors import ExitCode
from cli.output import Output
from cli.plain import to_plain
from cli.running import run
from contentshop.assets.v1 import assets_pb2


def upload_all(
    paths: Sequence[Path], *, data: Path | None, team: str | None, output: Output
) -> ExitCode:
    """Uploads the photos one after the other; all are looked at before the first is sent."""
    photos = [files.read_photo(path) for path in paths]

    stored: list[assets_pb2.File] = []

    async def work() -> None:
        async with connect(data, team) as shop:
            for photo in photos:
                # One by one: those before a refusal are stored, and are to be named.
                stored.append(await files.upload(shop, photo, shop.ids.token()))  # noqa: PERF401

    try:
        run(work())
    finally:
        if stored:  # also where a later one was refused: they are stored, and count
            _show(stored, output)
    return ExitCode.OK


def _show(stored: Sequence[assets_pb2.File], output: Output) -> None:
    output.table(
        [("id", "right"), ("name", "left"), ("pixels", "right"), ("size", "right")],
        [
            (str(file.id), file.filename, pixels(file), words.size(file.size_bytes))
            for file in stored
        ],
    )
    output.result({"files": [to_plain(file) for file in stored]})


def pixels(file: assets_pb2.File) -> str:
    """Width and height."""
    return f"{file.width}×{file.height}"  # noqa: RUF001 - the sign for times
