"""Batch files: what they may say, and how each mistake is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.batch_file import BatchFile, read_batch_file
from cli.errors import CliError, ExitCode
from contentshop.enqueue.v1 import enqueue_pb2, job_pb2
from libs.common.errors import InvalidArgumentError

WHOLE = """
name: Spring
settings:
  schema_key: apparel.catalog.v1
  model_image: people/anna.jpg
  background_image: /api/uploads/7/file?v=2
  positive_images: [mood.jpg, 9]
  style_appendix: soft light
  moodboard_id:
  input:
    aspect_ratio: 4:5      # a number of base 60 to many a parser
    purpose: catalog
  number_of_variations: 3
  quality: HIGH
  format: webp
  priority: -5
  prompt_strategy: template
variants:
  - product_images: [red.jpg, 12]
    product: 0012
    variant: red
    source_task_id: "007"
  - product_images: [/photos/blue.jpg]
"""


def read(tmp_path: Path, text: str, name: str = "batch.yaml") -> BatchFile:
    path = tmp_path / name
    path.write_text(text)
    return read_batch_file(path)


def refused(tmp_path: Path, text: str) -> dict[str, str]:
    with pytest.raises(InvalidArgumentError) as raised:
        read(tmp_path, text)
    assert raised.value.reason == "BAD_BATCH_FILE"
    return {violation.field: violation.description for violation in raised.value.violations}


def test_everything_a_batch_can_say(tmp_path: Path) -> None:
    found = read(tmp_path, WHOLE)
    request, settings = found.request, found.request.settings
    assert (request.name, settings.schema_key) == ("Spring", "apparel.catalog.v1")
    assert dict(settings.input) == {"aspect_ratio": "4:5", "purpose": "catalog"}
    assert (settings.number_of_variations, settings.priority) == (3, -5)
    assert settings.quality == job_pb2.QUALITY_HIGH
    assert settings.format == job_pb2.IMAGE_FORMAT_WEBP
    assert settings.prompt_strategy == job_pb2.PROMPT_STRATEGY_TEMPLATE
    assert settings.moodboard_id == 0
    first = request.variants[0]
    assert (first.product, first.variant, first.source_task_id) == ("0012", "red", "007")
    assert [given for given, _ in found.images] == [
        str(tmp_path / "people/anna.jpg"),
        "/api/uploads/7/file?v=2",
        str(tmp_path / "mood.jpg"),
        "9",
        str(tmp_path / "red.jpg"),
        "12",
        "/photos/blue.jpg",
    ]


def test_references_are_filled_in_where_they_stand(tmp_path: Path) -> None:
    found = read(tmp_path, WHOLE)
    for number, (_, place) in enumerate(found.images, 1):
        place.file_id = number
    settings = found.request.settings
    assert (settings.model_image.file_id, settings.background_image.file_id) == (1, 2)
    assert [ref.file_id for ref in settings.positive_images] == [3, 4]
    assert [ref.file_id for v in found.request.variants for ref in v.product_images] == [5, 6, 7]


def test_json_says_the_same(tmp_path: Path) -> None:
    values = {
        "name": "Spring",
        "settings": {"number_of_variations": 2, "moodboard_id": None, "input": {"purpose": "hero"}},
        "variants": [{"product_images": [12], "variant": "red"}],
    }
    found = read(tmp_path, json.dumps(values), "batch.json").request
    expected = enqueue_pb2.EnqueueBatchRequest(name="Spring")
    expected.settings.number_of_variations = 2
    expected.settings.input.update({"purpose": "hero"})
    expected.variants.add(variant="red").product_images.add().SetInParent()
    assert found == expected


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    wrong = refused(
        tmp_path,
        """
        request_id: mine
        settings: {quality: best, number_of_variations: many, colour: red, priority: 9999999999}
        variants:
          - {product_images: [{file_id: 1}], variant: [red]}
          - twelve
        """,
    )
    assert wrong == {
        "request_id": "is an option: --request-id",
        "settings.quality": "must be one of fast, high",
        "settings.number_of_variations": "must be a whole number",
        "settings.colour": wrong["settings.colour"],
        "settings.priority": "is out of range",
        "variants[0].product_images[0]": "must be a file, a file's id or an upload URL",
        "variants[0].variant": "must be a single value",
        "variants[1]": "must be a mapping",
    }
    assert wrong["settings.colour"].startswith("is not known here; known are: background_image, ")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words"])
def test_a_file_that_is_no_mapping(tmp_path: Path, text: str) -> None:
    assert "must be a mapping" in " ".join(refused(tmp_path, text).values())


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.yaml", "name: [Spring\nvariants: 1\n", "line 2: "),
        ("a.yaml", "name: !!python/object/apply:os.getcwd []\nvariants: &a [*a]\n", ""),
        ("a.json", '{"name": }', "line 1: Expecting value"),
        ("a.json", "[" * 100_000, "it cannot be parsed"),
        ("a.yaml", "\x00", "it cannot be parsed"),
    ],
)
def test_what_cannot_be_parsed(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises((CliError, InvalidArgumentError)) as raised:
        read(tmp_path, text, name)
    assert says in str(raised.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"name: Fr\xfchling")
    for path, says in (
        (tmp_path / "none.yaml", "no such file"),
        (tmp_path, "is a directory"),
        (latin, "it is not UTF-8"),
    ):
        with pytest.raises(CliError) as raised:
            read_batch_file(path)
        assert says in raised.value.message
        assert raised.value.exit_code is ExitCode.USAGE
