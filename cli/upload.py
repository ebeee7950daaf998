"""`contentshop upload FILE…`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DataOption, JsonOption, TeamOption


def upload(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="Photos: PNG, JPEG or WebP, ≤ 10 MiB")
    ],
    *,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> None:
    """Upload photos; prints their ids, to be used in place of files."""
    from cli.output import Output  # noqa: PLC0415 - slow to import
    from cli.running import run  # noqa: PLC0415

    run(_upload(files, data, team, Output(as_json=as_json)))


async def _upload(files: list[Path], data: Path | None, team: str | None, output: Output) -> None:
    from cli import files as transfer  # noqa: PLC0415 - slow to import
    from cli import words  # noqa: PLC0415
    from cli.connection import connect  # noqa: PLC0415
    from cli.plain import to_plain  # noqa: PLC0415

    photos = [transfer.read_photo(path) for path in files]
    async with connect(data, team) as shop:
        stored = [await transfer.upload(shop, photo, shop.ids.token()) for photo in photos]
    output.table(
        [("file", "right"), ("name", "left"), ("pixels", "right"), ("size", "right")],
        [
            (str(f.id), f.filename, f"{f.width}×{f.height}", words.size(f.size_bytes))
            for f in stored
        ],
    )
    output.result({"files": [to_plain(file) for file in stored]})
