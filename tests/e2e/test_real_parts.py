"""The four services as processes on PostgreSQL, RabbitMQ and S3, and what a team does with them."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from contentshop.assets.v1 import assets_pb2
from contentshop.enqueue.v1 import enqueue_pb2, enqueue_pb2_grpc, job_pb2
from contentshop.packager.v1 import packager_pb2
from libs.common.errors import UnavailableError
from libs.common.grpc_client import ClientTls, RpcClient, open_channel
from tests.fakes.gemini_behaviours import SAID, Behaviour, draw
from tests.fakes.gemini_stub import GeminiStub
from tests.support.certificates import make_certificates
from tests.support.eventually import eventually
from tests.support.fleet import Fleet, Servers, running_fleet
from tests.support.fleet_team import FleetTeam
from tests.support.house import contentshop
from tests.support.invariants import check_invariants

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("show_logs")]

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "mug.jpg"
KEY = "key-of-the-stub"
MODEL = "gemini-3-pro-image"
HIGH = job_pb2.QUALITY_HIGH
SIDE_PIXELS = 64
# What comes by a renewal comes late: nothing here waits for one.
SETTINGS = {"SWEEP_SECONDS": "0.5", "LEASE_SECONDS": "120", "WORKER_RENEW_SECONDS": "60"}


@pytest.fixture(scope="module")
async def gemini() -> AsyncIterator[GeminiStub]:
    """What the worker of the lane `image_generation.high` calls."""
    async with GeminiStub(api_key=KEY, side_pixels=SIDE_PIXELS) as stub:
        yield stub


@pytest.fixture(scope="module")
async def fleet(servers: Servers, gemini: GeminiStub) -> AsyncIterator[Fleet]:
    """Migrated by `migrate`; an offline worker, and a worker with Gemini for quality high."""
    async with running_fleet(servers, SETTINGS, workers=0, migrate=True) as fleet:
        fleet.start("worker", WORKER_LANES="image_generation.fast,image_edit.fast")
        fleet.start(
            "worker",
            WORKER_LANES="image_generation.high",
            GENERATOR="gemini",
            GEMINI_API_KEY=KEY,
            GEMINI_BASE_URL=gemini.base_url,
            MODEL_PRICES=f"{MODEL}=2:120:0.01",
        )
        await fleet.wait_ready("worker")
        yield fleet


@pytest.fixture
async def team(fleet: Fleet, gemini: GeminiStub) -> FleetTeam:
    """A new team; the stub has forgotten the others."""
    gemini.reset()
    return fleet.team()


@pytest.fixture
async def photo(team: FleetTeam) -> assets_pb2.File:
    """The team's upload."""
    return await team.upload(PHOTO.read_bytes())


async def test_from_a_photo_to_a_zip(fleet: Fleet, team: FleetTeam, photo: assets_pb2.File) -> None:
    job = await team.make_job(photo, 4)
    seen = await team.watch(job.id)
    assert seen.connections == 1
    assert seen.kinds() == [
        *("QUEUED", "ADMITTED", "STARTED"),
        *["IMAGE_DONE"] * 4,
        *("SUCCEEDED", "ARCHIVE_READY"),
    ]
    made = await team.check_done(seen.job)
    assert len({hashlib.sha256(data).digest() for data in made}) == 4
    archive = await team.archive(job.id)
    assert re.fullmatch(rf"generation-{job.id}-\d{{13}}\.zip", archive.filename)
    assert (archive.file_id, archive.image_count) == (seen.job.archive.file_id, 4)
    await _fetch_like_a_browser(team, seen.job.images[0].file_id, made[0])
    with zipfile.ZipFile(io.BytesIO(await team.download(archive.file_id))) as found:
        assert found.read("image-1.png") == made[0]
    await check_invariants(fleet)


async def _fetch_like_a_browser(team: FleetTeam, file_id: int, data: bytes) -> None:
    url = await team.download_url(file_id)
    async with httpx2.AsyncClient() as browser:
        fetched = await browser.get(url)
        assert fetched.status_code == 200
        assert fetched.content == data
        assert fetched.headers["content-type"] == "image/png"
        assert "attachment" in fetched.headers["content-disposition"]
        changed = url.replace("X-Amz-Signature=", "X-Amz-Signature=0")
        assert (await browser.get(changed)).status_code == 403


async def test_a_batch_in_one_zip(fleet: Fleet, team: FleetTeam, photo: assets_pb2.File) -> None:
    batch = await team.make_batch(photo, ["red", "blue/green"], 2)
    await team.batch_ended(batch.id)
    archive = await team.make_archive(batch_id=batch.id)
    assert archive.state == packager_pb2.ARCHIVE_STATE_READY, archive
    assert archive.image_count == 4
    names = [f"{folder}/image-{n}.png" for folder in ("red", "blue-green") for n in (1, 2)]
    with zipfile.ZipFile(io.BytesIO(await team.download_archive(batch_id=batch.id))) as found:
        assert found.namelist() == [*names, "manifest.json"]
        facts = json.loads(found.read("manifest.json"))
        assert facts["name"] == batch.name
        for image in facts["images"]:
            assert found.read(image["file_name"]) == await team.download(int(image["file_id"]))
    folder = await team.make_archive(folder_id=await team.folder_of(batch.id, 4))
    assert (folder.state, folder.image_count) == (packager_pb2.ARCHIVE_STATE_READY, 4)
    await check_invariants(fleet)


async def test_an_edit(team: FleetTeam, photo: assets_pb2.File) -> None:
    job = await team.make_edit(photo.id, "a warmer light")
    seen = await team.watch(job.id)
    assert seen.job.type == job_pb2.JOB_TYPE_IMAGE_EDIT
    assert seen.job.base_image_file_id == photo.id
    assert seen.job.archive.state == job_pb2.ARCHIVE_STATE_NONE
    await team.check_done(seen.job)


async def test_the_command_against_services_named_by_address(
    fleet: Fleet, team: FleetTeam, tmp_path: Path
) -> None:
    env = {
        f"CONTENTSHOP_{service.upper()}": fleet.target(service)
        for service in ("enqueue", "assets", "packager")
    }
    env["CONTENTSHOP_TOKEN"] = fleet.token(team.name)
    ran = await contentshop(
        *("generate", "--product-image", PHOTO, "-n", "2", "--out", tmp_path / "out", "--json"),
        env=env,
        cwd=tmp_path,
    )
    assert ran.code == 0, ran
    job = ran.json()["job"]
    made = await team.check_done(await team.get(job["id"]))
    saved = [(tmp_path / "out" / f"image-{n}.png").read_bytes() for n in (1, 2)]
    assert saved == made
    zipped = tmp_path / "out" / job["archive"]["filename"]
    assert zipped.read_bytes() == await team.download_archive(job["id"])


async def test_gemini_makes_the_images(
    team: FleetTeam, photo: assets_pb2.File, gemini: GeminiStub
) -> None:
    job = await team.make_job(photo, 3, quality=HIGH)
    seen = await team.watch(job.id)
    made = await team.check_done(seen.job)
    pixels = {_pixels(data) for data in made}
    drawn = [
        draw(f"{call.prompt} {call.number} 0", call.aspect_ratio, SIDE_PIXELS, "png")
        for call in gemini.calls
    ]
    assert pixels == {_pixels(data) for data in drawn}
    assert len(pixels) == gemini.count == 3
    for image in seen.job.images:
        usage = (image.usage.prompt_tokens, image.usage.output_tokens, image.usage.total_tokens)
        assert usage == (17, 1290, 1307)
        assert image.model == gemini.calls[0].model
    assert seen.job.usage.total_tokens == 3 * 1307


async def test_gemini_enhances_the_prompt_once(
    team: FleetTeam, photo: assets_pb2.File, gemini: GeminiStub
) -> None:
    strategy = job_pb2.PROMPT_STRATEGY_GEMINI
    job = await team.make_job(photo, 2, quality=HIGH, prompt_strategy=strategy)
    assert (job.prompt.strategy, job.prompt.enhanced) == (strategy, "")
    seen = await team.watch(job.id)
    await team.check_done(seen.job)
    words, *images = gemini.calls
    assert words.prompt == job.prompt.original
    assert seen.job.prompt.enhanced == f"{job.prompt.original}\n{SAID}"
    assert len(images) == 2
    assert all(call.prompt.startswith(seen.job.prompt.enhanced) for call in images)
    # 17 tokens in, 1,290 out, and the image.
    cost = 17 * 2 + 1290 * 120 + 10_000
    assert seen.job.usage.cost_micros == 2 * cost
    made = [file for file in await team.files(job.id) if file.image_index]
    assert len(made) == 2
    for file in made:
        [used] = file.provenance.inputs
        assert (used.role, used.file_id, used.sha256) == ("product", photo.id, photo.sha256)
        assert file.provenance.cost_micros == cost  # MODEL_PRICES has none for the words
    # The words' 17 tokens are counted with the first image.
    assert sorted(file.provenance.total_tokens for file in made) == [1307, 1307 + 17]


def _pixels(data: bytes) -> tuple[tuple[int, int], bytes]:
    with Image.open(io.BytesIO(data)) as image:
        return image.size, image.convert("RGB").tobytes()


async def test_a_blocked_image_fails_the_job_and_costs_no_other(
    fleet: Fleet, team: FleetTeam, photo: assets_pb2.File, gemini: GeminiStub
) -> None:
    gemini.script(Behaviour("finish", reason="IMAGE_SAFETY", times=1))
    job = (await team.watch((await team.make_job(photo, 3, quality=HIGH)).id)).job
    assert job.state == job_pb2.JOB_STATE_FAILED
    assert job.error.reason == "OUTPUT_BLOCKED"
    assert gemini.count == 3
    good = [image for image in job.images if image.state == job_pb2.IMAGE_STATE_DONE]
    bad = [image for image in job.images if image.state == job_pb2.IMAGE_STATE_FAILED]
    assert (len(good), [image.error.reason for image in bad]) == (2, ["OUTPUT_BLOCKED"])
    for image in good:
        assert len(await team.download(image.file_id)) == image.size_bytes
    await eventually(lambda: _count_files(team, job.id, 2))
    await check_invariants(fleet)


async def _count_files(team: FleetTeam, job_id: int, count: int) -> bool:
    return len(await team.files(job_id)) == count


async def test_a_rate_limit_is_waited_for_and_burns_no_attempt(
    fleet: Fleet, team: FleetTeam, photo: assets_pb2.File, gemini: GeminiStub
) -> None:
    # Of no limit the governor would keep half of the calls that were made in the last minute.
    await fleet.limit_model(MODEL, 600)
    gemini.script(Behaviour("error", status=429, retry_delay="0.7s", times=1))
    seen = await team.watch((await team.make_job(photo, 1, quality=HIGH)).id)
    assert seen.kinds() == ["QUEUED", "ADMITTED", "STARTED", "IMAGE_DONE", "SUCCEEDED"]
    assert gemini.count == 2
    assert seen.job.attempts == 1
    started, done = seen.events[2].time, seen.events[3].time
    assert done.ToNanoseconds() - started.ToNanoseconds() >= 0.7e9


async def test_a_cancel_ends_generator_calls_within_a_second(
    fleet: Fleet, team: FleetTeam, photo: assets_pb2.File, gemini: GeminiStub
) -> None:
    gemini.script(Behaviour("hang"))
    job = await team.make_job(photo, 2, quality=HIGH)
    await eventually(lambda: [c.state for c in gemini.calls] == ["waiting"] * 2)
    canceled = await team.cancel(job.id)
    assert canceled.state == job_pb2.JOB_STATE_CANCELED
    await eventually(
        lambda: [c.state for c in gemini.calls] == ["gone"] * 2,
        timeout_seconds=30.0,  # before any renewal; within one on a machine that is not busy
        what="the calls are gone",
    )
    seen = await team.watch(job.id)
    assert seen.kinds()[-1] == "CANCELED"
    assert {image.state for image in seen.job.images} == {job_pb2.IMAGE_STATE_CANCELED}
    await check_invariants(fleet)
    await team.delete(photo.id)


async def test_mtls_everywhere(servers: Servers, tmp_path: Path) -> None:
    tls = make_certificates(tmp_path)
    async with running_fleet(servers, {"SWEEP_SECONDS": "0.5"}, tls=tls) as guarded:
        team = guarded.team()
        photo = await team.upload(PHOTO.read_bytes())
        seen = await team.watch((await team.make_job(photo, 2)).id)
        await team.check_done(seen.job)
        for stranger in (None, ClientTls(tls.ca)):  # no TLS; no certificate
            channel = open_channel(guarded.target("enqueue"), stranger)
            client = RpcClient(channel, lambda: guarded.token(team.name))
            stub = enqueue_pb2_grpc.EnqueueServiceStub(channel)
            with pytest.raises(UnavailableError):
                await client.unary(
                    stub.GetJob, enqueue_pb2.GetJobRequest(job_id=seen.job.id), timeout_seconds=30
                )
            await client.close()
