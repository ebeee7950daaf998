"""Where a generated image comes from: kept on its file, and what of it is written into it."""

from __future__ import annotations

from typing import Any

import pytest

from contentshop.assets.v1 import assets_pb2
from tests.fixtures import images
from tests.support.assets_house import AssetsHouse, Backend, Team, reason_of, sha256

INPUTS = [
    assets_pb2.ProvenanceInput(role="product", file_id=7, sha256=sha256(b"a")),
    assets_pb2.ProvenanceInput(role="model", file_id=3, sha256=sha256(b"b")),
    assets_pb2.ProvenanceInput(role="product", file_id=5, sha256=sha256(b"c")),
]
TOOK: dict[str, Any] = {
    "prompt_tokens": 1500,
    "output_tokens": 1290,
    "total_tokens": 2790,
    "cost_micros": 39_000,
}


async def test_a_file_says_what_it_was_made_of(
    house: AssetsHouse, red: Team, backend: Backend
) -> None:
    answer = await backend.store("red", 5, 1, attempt=2, inputs=INPUTS, **TOOK)
    file_id = answer.image.file_id
    expected = assets_pb2.Provenance(attempt=2, inputs=INPUTS, **TOOK)
    assert (await red.get(file_id)).provenance == expected
    await house.ended("red", 5, outputs=[file_id])
    expected.source_task_id = "task-1"
    assert (await red.get(file_id)).provenance == expected
    assert [file.provenance for file in await red.files()] == [expected]


async def test_uploads_have_no_provenance(red: Team) -> None:
    assert not (await red.upload()).HasField("provenance")


async def test_only_a_prompt_that_was_given_is_written(red: Team, backend: Backend) -> None:
    for index, kind in enumerate(("PNG", "JPEG", "WEBP"), start=1):
        data = images.DIRTY[kind]()
        quiet = await backend.store("red", 5, index, data)
        said = await backend.store("red", 6, index, data, prompt='A <hat> & "shoes"\r\n\x00fin')
        _, without = await red.download(quiet.image.file_id)
        _, with_prompt = await red.download(said.image.file_id)
        assert b"AIPromptInformation" not in without
        start = b"<Iptc4xmpExt:AIPromptInformation>A &lt;hat&gt; &amp; &quot;shoes&quot;\r\nfin</"
        assert start in with_prompt
        assert f"job-6/image-{index}".encode() in with_prompt
        assert b"trainedAlgorithmicMedia" in with_prompt


async def test_a_long_prompt_is_cut_to_what_fits(red: Team, backend: Backend) -> None:
    answer = await backend.store("red", 5, 1, images.encoded("JPEG"), prompt="ü&" * 40_000)
    _, stored = await red.download(answer.image.file_id)
    inside = stored.split(b"AIPromptInformation>")[1].removesuffix(b"</Iptc4xmpExt:").decode()
    assert inside.replace("ü", "").replace("&amp;", "") == ""
    assert len(inside.encode()) > 47_000


@pytest.mark.parametrize(
    "said",
    [
        {"prompt_tokens": -1},
        {"output_tokens": -1},
        {"total_tokens": -1},
        {"cost_micros": -1},
        {"prompt": "x" * 100_001},
        {"inputs": [INPUTS[0]] * 65},
        {"inputs": [assets_pb2.ProvenanceInput(role="", file_id=7, sha256=sha256(b"a"))]},
        {"inputs": [assets_pb2.ProvenanceInput(role="product", sha256=sha256(b"a"))]},
        {"inputs": [assets_pb2.ProvenanceInput(role="product", file_id=7, sha256="ab")]},
    ],
)
async def test_wrong_provenance_is_refused(backend: Backend, said: dict[str, Any]) -> None:
    assert await reason_of(backend.store("red", 5, 1, **said)) == "INVALID_ARGUMENT"
