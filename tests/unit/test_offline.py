from __future__ import annotations

import asyncio
import colorsys
import io
import itertools
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageDraw, ImageStat

from libs.common.clock import SystemClock
from libs.common.outcomes import Outcome
from services.enqueue.servicer.drafts import MAX_VARIATIONS
from services.worker.generation import GenerationError, ImageRequest, Reference
from services.worker.generators.offline import OfflineGenerator
from services.worker.generators.offline_cutout import cutout, subject_mask
from services.worker.generators.offline_source import MAX_PIXELS

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


def photo(role: str, name: str, file_id: int = 1) -> Reference:
    kind = "image/png" if name.endswith(".png") else "image/jpeg"
    return Reference(role, file_id, kind, (PHOTOS / name).read_bytes())


def drawn(role: str, image: Image.Image, file_id: int = 1, kind: str = "PNG") -> Reference:
    out = io.BytesIO()
    image.save(out, kind)
    return Reference(role, file_id, f"image/{kind.lower()}", out.getvalue())


def request(
    *references: Reference,
    index: int = 1,
    prompt: str = "a product photo",
    aspect_ratio: str = "1:1",
    quality: str = "fast",
    image_format: str = "png",
) -> ImageRequest:
    return ImageRequest(
        job_id=7,
        index=index,
        count=8,
        prompt=prompt,
        references=references,
        aspect_ratio=aspect_ratio,
        quality=quality,
        format=image_format,
    )


@pytest.fixture
async def generator() -> AsyncIterator[OfflineGenerator]:
    made = OfflineGenerator(clock=SystemClock())
    yield made
    await made.close()


async def picture(generator: OfflineGenerator, wanted: ImageRequest) -> Image.Image:
    made = await generator.generate(wanted)
    image = Image.open(io.BytesIO(made.data))
    image.load()
    return image


def distance(a: Image.Image, b: Image.Image) -> float:
    """Mean absolute difference per channel, in levels."""
    other = b.convert("RGB").resize(a.size)
    means = ImageStat.Stat(ImageChops.difference(a.convert("RGB"), other)).mean
    return sum(means) / 3


def corner_hue(image: Image.Image) -> float:
    """The hue of the upper left corner, in degrees."""
    r, g, b = ImageStat.Stat(image.convert("RGB").crop((0, 0, 120, 120))).mean
    return colorsys.rgb_to_hsv(r / 255, g / 255, b / 255)[0] * 360


def swatch(color: tuple[int, int, int]) -> Image.Image:
    board = Image.new("RGB", (300, 200), "white")
    ImageDraw.Draw(board).rectangle((30, 30, 270, 170), fill=color)
    return board


async def test_the_same_request_gives_the_same_bytes() -> None:
    wanted = request(photo("product", "mug.jpg"), photo("moodboard", "moodboard.png"), index=3)
    answers = []
    for _ in range(2):  # a new generator each time: nothing is remembered
        generator = OfflineGenerator(clock=SystemClock(), max_workers=1)
        answers.append((await generator.generate(wanted)).data)
        await generator.close()
    assert answers[0] == answers[1]


async def test_it_says_that_it_is_a_preview(generator: OfflineGenerator) -> None:
    made = await generator.generate(request(photo("product", "mug.jpg")))
    assert generator.name == "offline"
    assert (made.model, made.preview) == ("offline-preview-1", True)


@pytest.mark.parametrize(
    ("beside", "prompt"),
    [
        pytest.param([], "a product photo", id="alone"),
        pytest.param([], "on pink", id="one colour"),
        pytest.param([("background", "background.jpg")], "a product photo", id="background"),
        pytest.param([("model", "model.jpg")], "a product photo", id="model"),
    ],
)
async def test_as_many_variations_as_a_job_has_look_different(
    generator: OfflineGenerator, beside: list[tuple[str, str]], prompt: str
) -> None:
    references = [photo(*each) for each in [("product", "sneaker.jpg"), *beside]]
    wanted = [request(*references, index=i, prompt=prompt) for i in range(1, MAX_VARIATIONS + 1)]
    images = [await picture(generator, each) for each in wanted]
    for (i, a), (j, b) in itertools.combinations(enumerate(images, 1), 2):
        assert distance(a, b) > 12, (i, j)


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("shirt.jpg", "a mint green backdrop"),
        ("shirt.jpg", "warmer"),
        ("background.jpg", "make it better"),
        ("background.jpg", "in mint green"),
    ],
)
async def test_variations_of_an_edit_are_different(
    generator: OfflineGenerator, name: str, prompt: str
) -> None:
    images = [
        await picture(generator, request(photo("base", name), index=i, prompt=prompt))
        for i in range(1, MAX_VARIATIONS + 1)
    ]
    for (i, a), (j, b) in itertools.combinations(enumerate(images, 1), 2):
        assert distance(a, b) > 1, (i, j)


async def test_the_prompt_makes_a_difference(generator: OfflineGenerator) -> None:
    images = [
        await picture(generator, request(photo("product", "mug.jpg"), prompt=prompt))
        for prompt in ("on a pink wall", "in a green jungle")
    ]
    assert distance(*images) > 8


@pytest.mark.parametrize(
    ("aspect_ratio", "size"),
    [
        ("", (1024, 1024)),
        ("1:1", (1024, 1024)),
        ("2:3", (683, 1024)),
        ("3:2", (1024, 683)),
        ("3:4", (768, 1024)),
        ("4:3", (1024, 768)),
        ("4:5", (819, 1024)),
        ("5:4", (1024, 819)),
        ("9:16", (576, 1024)),
        ("16:9", (1024, 576)),
        ("21:9", (1024, 439)),
    ],
)
async def test_aspect_ratios(
    generator: OfflineGenerator, aspect_ratio: str, size: tuple[int, int]
) -> None:
    wanted = request(photo("product", "shirt.jpg"), aspect_ratio=aspect_ratio)
    assert (await picture(generator, wanted)).size == size


async def test_high_quality_is_larger(generator: OfflineGenerator) -> None:
    wanted = request(photo("product", "mug.jpg"), quality="high", aspect_ratio="3:4")
    assert (await picture(generator, wanted)).size == (1152, 1536)


@pytest.mark.parametrize("image_format", ["png", "jpeg", "webp"])
async def test_formats(generator: OfflineGenerator, image_format: str) -> None:
    made = await generator.generate(
        request(photo("product", "mug.jpg"), image_format=image_format, aspect_ratio="4:3")
    )
    with Image.open(io.BytesIO(made.data), formats=[image_format.upper()]) as image:
        image.load()
        assert image.size == (1024, 768)
        assert image.mode == "RGB"
    assert made.content_type == f"image/{image_format}"


async def test_the_palette_follows_the_moodboard(generator: OfflineGenerator) -> None:
    hues = []
    for color in ((190, 40, 40), (40, 70, 190)):
        board = drawn("moodboard", swatch(color), 9)
        made = await picture(generator, request(photo("product", "handbag.jpg"), board))
        hues.append(corner_hue(made))
    red, blue = hues
    assert min(red, 360 - red) < 40
    assert 190 < blue < 260


@pytest.mark.parametrize("index", [1, 2, 3, 4, 5])
async def test_the_background_is_used(generator: OfflineGenerator, index: int) -> None:
    stripes = Image.new("RGB", (900, 600), (30, 160, 60))
    background = drawn("background", stripes, 9, "JPEG")
    made = await picture(generator, request(photo("product", "mug.jpg"), background, index=index))
    r, g, b = ImageStat.Stat(made.convert("RGB").crop((500, 80, 520, 100))).mean
    assert g > 1.5 * max(r, b)


async def test_a_model_and_several_products_are_in_the_picture(
    generator: OfflineGenerator,
) -> None:
    bag, mug = photo("product", "handbag.jpg", 1), photo("product", "mug.jpg", 2)
    alone = await picture(generator, request(bag, aspect_ratio="4:3"))
    both = await picture(generator, request(bag, mug, aspect_ratio="4:3"))
    with_model = await picture(
        generator, request(bag, photo("model", "model.jpg", 3), aspect_ratio="4:3")
    )
    assert min(distance(alone, both), distance(alone, with_model)) > 8


async def test_a_prompt_alone_makes_a_picture(generator: OfflineGenerator) -> None:
    made = await picture(generator, request(prompt="a calm teal still life"))
    assert max(ImageStat.Stat(made.convert("L")).stddev) > 5


@pytest.mark.parametrize("prompt", ["make it warmer", "a pink background", "", "black and white"])
async def test_an_edit_is_visible_and_keeps_the_bases_size(
    generator: OfflineGenerator, prompt: str
) -> None:
    base = Image.open(PHOTOS / "model.jpg").resize((500, 740))
    made = await picture(
        generator, request(drawn("base", base, kind="JPEG"), prompt=prompt, aspect_ratio="")
    )
    assert made.size == (500, 740)
    assert 4 < distance(made, base) < 110


async def test_edits_differ_by_their_instruction_and_keep_the_subject(
    generator: OfflineGenerator,
) -> None:
    base = photo("base", "mug.jpg")
    edits = [
        await picture(generator, request(base, prompt=prompt, aspect_ratio=""))
        for prompt in ("pink background", "blue background", "warm evening light")
    ]
    for a, b in itertools.combinations(edits, 2):
        assert distance(a, b) > 5
    middle = (420, 500, 700, 700)  # the mug's own glaze
    original = Image.open(PHOTOS / "mug.jpg").crop(middle)
    assert distance(edits[0].crop(middle), original) < 3


async def test_an_edit_takes_the_asked_ratio(generator: OfflineGenerator) -> None:
    wanted = request(photo("base", "mug.jpg"), prompt="cooler", aspect_ratio="16:9")
    assert (await picture(generator, wanted)).size == (1024, 576)


async def test_an_edit_follows_its_reference(generator: OfflineGenerator) -> None:
    base = photo("base", "handbag.jpg")
    edits = [
        await picture(
            generator,
            request(base, drawn("reference", swatch(color), 2), prompt="", aspect_ratio=""),
        )
        for color in ((190, 40, 40), (40, 70, 190))
    ]
    assert distance(*edits) > 8


@pytest.mark.parametrize("role", ["product", "model", "background", "moodboard", "base"])
@pytest.mark.parametrize("damage", ["truncated", "not an image", "empty", "wrong kind"])
async def test_what_cannot_be_decoded_is_named(
    generator: OfflineGenerator, role: str, damage: str
) -> None:
    whole = (PHOTOS / "mug.jpg").read_bytes()
    gif = io.BytesIO()
    Image.new("L", (8, 8)).save(gif, "GIF")
    data = {
        "truncated": whole[: len(whole) // 2],
        "not an image": b"<svg/>" * 50,
        "empty": b"",
        "wrong kind": gif.getvalue(),
    }[damage]
    broken = Reference(role, 4711, "image/jpeg", data)
    with pytest.raises(GenerationError) as caught:
        await generator.generate(request(photo("product", "mug.jpg"), broken))
    assert caught.value.outcome is Outcome.BAD_INPUT
    assert "4711" in caught.value.message


async def test_too_many_pixels_are_refused_before_decoding(generator: OfflineGenerator) -> None:
    bomb = drawn("product", Image.new("1", (MAX_PIXELS // 1000 + 1, 1000)), 5)
    with pytest.raises(GenerationError) as caught:
        await generator.generate(request(bomb))
    assert caught.value.outcome is Outcome.BAD_INPUT


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
async def test_every_mode_of_png_is_taken(generator: OfflineGenerator, mode: str) -> None:
    source = Image.new("L", (200, 160), 230)
    ImageDraw.Draw(source).ellipse((50, 30, 150, 130), fill=60)
    image = source.convert("I;16") if mode == "I;16" else source.convert(mode)
    assert (await picture(generator, request(drawn("product", image)))).size == (1024, 1024)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (7, 5)])
async def test_odd_sizes_are_taken(generator: OfflineGenerator, size: tuple[int, int]) -> None:
    tiny = Image.new("RGB", size, (200, 30, 30))
    for role in ("product", "background", "moodboard", "model"):
        made = await picture(generator, request(drawn(role, tiny), aspect_ratio="21:9"))
        assert made.size == (1024, 439)
    edit = await picture(generator, request(drawn("base", tiny), aspect_ratio="", prompt="warm"))
    assert edit.size == size


async def test_cancelled_it_returns_at_once_and_begins_nothing_more() -> None:
    gate = threading.Event()
    executor = ThreadPoolExecutor(1)
    generator = OfflineGenerator(clock=SystemClock(), executor=executor)
    busy = executor.submit(gate.wait, 60)  # the one thread is taken: the picture must wait
    try:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(generator.generate(request(photo("product", "mug.jpg"))))
            await asyncio.sleep(0)
            task.cancel()
        assert task.cancelled()
        assert not busy.done()
    finally:
        gate.set()
        executor.shutdown()


async def test_cancelled_in_the_works_it_returns_at_once() -> None:
    begun, gate = threading.Event(), threading.Event()

    class Held(ThreadPoolExecutor):
        """Work that has begun stands still until the gate opens."""

        def submit(self, work: Any, /, *args: Any, **rest: Any) -> Future[Any]:
            def held() -> Any:
                begun.set()
                gate.wait(60)
                return work(*args, **rest)

            return super().submit(held)

    executor = Held(1)
    generator = OfflineGenerator(clock=SystemClock(), executor=executor)
    try:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(generator.generate(request(photo("product", "mug.jpg"))))
            await asyncio.to_thread(begun.wait, 60)
            task.cancel()
        assert task.cancelled()
        assert not gate.is_set()
    finally:
        gate.set()
        executor.shutdown()


async def test_it_waits_by_its_clock_before_a_picture() -> None:
    class Slept(SystemClock):
        seconds = 0.0

        async def sleep(self, seconds: float) -> None:
            self.seconds += seconds

    clock = Slept()
    generator = OfflineGenerator(clock=clock, delay_seconds=2.5)
    await generator.generate(request(photo("product", "mug.jpg")))
    await generator.close()
    assert clock.seconds == 2.5


@pytest.mark.parametrize("name", ["shirt.jpg", "mug.jpg", "sneaker.jpg", "handbag.jpg"])
def test_products_are_cut_out(name: str) -> None:
    with Image.open(PHOTOS / name) as image:
        cut = cutout(image.convert("RGB").resize((900, 900)))
    assert cut.is_cut
    assert cut.grounded
    alpha = cut.image.getchannel("A")
    assert alpha.getextrema() == (0, 255)
    # Feathered, not jagged: the edge has tones between, but the body is solid.
    histogram = alpha.histogram()
    between = sum(histogram[16:240]) / sum(histogram)
    assert 0.002 < between < 0.08


def test_a_mugs_handle_has_a_hole() -> None:
    with Image.open(PHOTOS / "mug.jpg") as image:
        mask = subject_mask(image.convert("RGB"))
    assert mask is not None
    assert mask.getpixel((840, 620)) == 0
    assert mask.getpixel((560, 620)) == 255


def test_transparency_is_believed() -> None:
    image = Image.new("RGBA", (300, 300), (90, 90, 90, 0))
    ImageDraw.Draw(image).ellipse((100, 100, 200, 200), fill=(90, 90, 90, 255))
    cut = cutout(image)
    assert cut.is_cut
    assert cut.image.size == (101, 101)


def test_a_busy_photo_stays_whole() -> None:
    with Image.open(PHOTOS / "background.jpg") as image:
        cut = cutout(image.convert("RGB"))
    assert not cut.is_cut
    assert cut.image.size == (1200, 900)


def drawn_scene(*boxes: tuple[int, int, int, int]) -> Image.Image:
    """A red disc in the middle of a grey wall, with blue boxes on it."""
    image = Image.new("RGB", (400, 400), (214, 214, 210))
    draw = ImageDraw.Draw(image)
    draw.ellipse((140, 140, 260, 260), fill=(190, 40, 40))
    for box in boxes:
        draw.rectangle(box, fill=(60, 90, 180))
    return image


@pytest.mark.parametrize(
    ("boxes", "is_told"),
    [
        pytest.param([], True, id="one"),
        pytest.param([(40, 300, 110, 360), (290, 300, 360, 360)], True, id="three apart"),
        pytest.param([(40, 300, 110, 360), (180, 0, 220, 60)], False, id="a piece at the top"),
        pytest.param([(0, 40, 60, 110)], False, id="a piece at the side"),
    ],
)
def test_a_subject_is_told_from_its_backdrop_but_not_from_a_scene(
    boxes: list[tuple[int, int, int, int]],
    is_told: bool,  # noqa: FBT001 - a case
) -> None:
    assert (subject_mask(drawn_scene(*boxes)) is not None) == is_told


async def test_where_there_is_a_scene_an_edit_colors_the_whole(
    generator: OfflineGenerator,
) -> None:
    scene = drawn_scene((40, 300, 110, 360), (180, 0, 220, 60))
    wanted = request(drawn("base", scene), prompt="a mint green backdrop", aspect_ratio="")
    made = await picture(generator, wanted)
    for place in ((20, 20), (200, 30), (380, 380)):
        (r, g, _), (old_r, old_g, _) = made.getpixel(place), scene.getpixel(place)  # type: ignore[misc]
        assert g - r > old_g - old_r
