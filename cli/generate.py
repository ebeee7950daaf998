"""`contentshop generate` and `contentshop edit`: what people ask for."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import (
    AspectRatioOption,
    DataOption,
    FormatOption,
    FormatWord,
    JsonOption,
    NoWaitOption,
    OutOption,
    QualityOption,
    QualityWord,
    RequestIdOption,
    TeamOption,
    VariationsOption,
    WorkflowOption,
)
from cli.output import Output

_IMAGE = "FILE|ID"


def generate(
    product_image: Annotated[
        list[str],
        typer.Option(
            metavar=_IMAGE,
            help="A product: a photo, or the id of an uploaded one; 1 to 4 times",
            show_default=False,
        ),
    ],
    *,
    model_image: Annotated[
        str, typer.Option(metavar=_IMAGE, help="A person to wear or hold it", show_default=False)
    ] = "",
    background_image: Annotated[
        str, typer.Option(metavar=_IMAGE, help="A scene to place it in", show_default=False)
    ] = "",
    moodboard_image: Annotated[
        list[str] | None,
        typer.Option(
            metavar=_IMAGE, help="A picture whose mood is wanted; repeatable", show_default=False
        ),
    ] = None,
    avoid_image: Annotated[
        list[str] | None,
        typer.Option(
            metavar=_IMAGE,
            help="A picture whose mood is not wanted; repeatable",
            show_default=False,
        ),
    ] = None,
    variations: VariationsOption = 1,
    aspect_ratio: AspectRatioOption = "",
    instruction: Annotated[
        str, typer.Option(metavar="TEXT", help="Wishes in your own words", show_default=False)
    ] = "",
    purpose: Annotated[
        str,
        typer.Option(metavar="WORD", help="catalog, lifestyle, social or hero", show_default=False),
    ] = "",
    quality: QualityOption = QualityWord.FAST,
    image_format: FormatOption = FormatWord.PNG,
    workflow: WorkflowOption = "",
    request_id: RequestIdOption = "",
    no_wait: NoWaitOption = False,
    out: OutOption = None,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Make new images of products; shows them being made and saves them.

    Example: contentshop generate --product-image shirt.jpg --model-image model.jpg -n 4
    """
    from cli import making  # noqa: PLC0415 - slow to import

    wish = making.GenerationWish(
        product_images=product_image,
        model_image=model_image,
        background_image=background_image,
        moodboard_images=moodboard_image or [],
        avoid_images=avoid_image or [],
        values={
            "aspect_ratio": aspect_ratio,
            "custom_instructions": instruction,
            "purpose": purpose,
        },
        variations=variations,
        quality=quality,
        image_format=image_format,
        workflow=workflow,
        request_id=request_id,
    )
    return making.make(
        wish, wait=not no_wait, out=out, data=data, team=team, output=Output(as_json=as_json)
    )


def edit(
    image: Annotated[
        str,
        typer.Argument(
            metavar=_IMAGE, help="The image to change: a photo, or a file's id", show_default=False
        ),
    ],
    *,
    instruction: Annotated[
        str, typer.Option(metavar="TEXT", help="What to change", show_default=False)
    ],
    reference_image: Annotated[
        str, typer.Option(metavar=_IMAGE, help="An image to look to", show_default=False)
    ] = "",
    variations: VariationsOption = 1,
    aspect_ratio: AspectRatioOption = "",
    quality: QualityOption = QualityWord.FAST,
    image_format: FormatOption = FormatWord.PNG,
    workflow: WorkflowOption = "",
    request_id: RequestIdOption = "",
    no_wait: NoWaitOption = False,
    out: OutOption = None,
    data: DataOption = None,
    team: TeamOption = None,
    as_json: JsonOption = False,
) -> int:
    """Change one image.

    Example: contentshop edit 12 --instruction "make the background warmer"
    """
    from cli import making  # noqa: PLC0415 - slow to import

    wish = making.EditWish(
        base_image=image,
        reference_image=reference_image,
        values={"aspect_ratio": aspect_ratio, "instruction": instruction},
        variations=variations,
        quality=quality,
        image_format=image_format,
        workflow=workflow,
        request_id=request_id,
    )
    return making.make(
        wish, wait=not no_wait, out=out, data=data, team=team, output=Output(as_json=as_json)
    )
