"""`contentshop demo`: what `make demo` calls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import JsonOption, VariationsOption
from cli.output import Output
from cli.up import GeneratorOption, GeneratorWord


def demo(
    *,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for images, zip and data")
    ] = Path("out/demo"),
    photos: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Example photos (examples/photos)", show_default=False),
    ] = None,
    variations: VariationsOption = 4,
    generator: GeneratorOption = GeneratorWord.OFFLINE,
    as_json: JsonOption = False,
) -> int:
    """Show it all in one go: start a house, upload, generate, watch, save, stop."""
    from cli import demonstration  # noqa: PLC0415 - slow to import

    return demonstration.demonstrate(
        out,
        photos=photos,
        variations=variations,
        generator=generator,
        output=Output(as_json=as_json),
    )
