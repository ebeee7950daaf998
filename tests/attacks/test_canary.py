"""Secrets go through a whole life, failures included, and come out nowhere.

Prompts and file names are a team's own: its job and its file have them, and nothing else does.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cli.datafolder import DataFolder
from contentshop.assets.v1 import assets_pb2, backend_pb2
from contentshop.enqueue.v1 import enqueue_pb2, enqueue_pb2_grpc, job_pb2
from libs.common.auth import mint_user_token
from libs.common.grpc_client import open_channel
from tests.attacks import canary
from tests.attacks.canary import FILENAME, GEMINI, NOTES, PROMPT, PROVIDER, QUERY, SUBJECT
from tests.fakes.gemini_behaviours import Behaviour
from tests.fakes.gemini_stub import GeminiStub
from tests.fixtures import images
from tests.support.databases import ROOT, SERVICES, PostgresTemplates
from tests.support.eventually import eventually
from tests.support.fleet import AUTH_SECRET, CLOCK, SERVICE_SECRET, Fleet, Servers
from tests.support.fleet_team import FleetTeam
from tests.support.house import house
from tests.support.postgres import PostgresServer
from tests.support.rabbitmq import RabbitServer
from tests.support.seaweed import SeaweedServer

pytestmark = pytest.mark.timeout(240)
PHOTO = (ROOT / "examples" / "photos" / "mug.jpg").read_bytes()
STRANGER = "canary-stranger"  # another team's name: in no answer to ours


@pytest.fixture
async def gemini() -> AsyncIterator[GeminiStub]:
    async with GeminiStub(api_key=GEMINI) as stub:
        yield stub


@pytest.fixture
async def fleet(
    postgres_server: PostgresServer,
    postgres_templates: PostgresTemplates,
    rabbit_server: RabbitServer,
    seaweed: SeaweedServer,
    gemini: GeminiStub,
) -> AsyncIterator[Fleet]:
    """All services at LOG_LEVEL=debug, each of their secrets marked."""
    servers = Servers(postgres_server, postgres_templates, rabbit_server, seaweed)
    settings = {
        "LOG_LEVEL": "debug",
        "SWEEP_SECONDS": "0.5",
        "GENERATOR": "gemini",
        "GEMINI_API_KEY": GEMINI,
        "GEMINI_BASE_URL": gemini.base_url,
        "MAX_ATTEMPTS": "1",
        "ASSETS_UPLOAD_HOSTS": "shop.example",
    }
    async with Fleet(servers, settings) as made:
        await made.prepare(migrate=False)
        made.urls = {name: canary.with_password(urls) for name, urls in made.urls.items()}
        for service in (*SERVICES, "worker"):
            made.start(service)
        await made.wait_ready()
        yield made


@pytest.mark.real
async def test_no_secret_leaves_the_real_parts(fleet: Fleet, gemini: GeminiStub) -> None:
    team, stranger = fleet.team(), fleet.team(STRANGER)
    seaweed = fleet.servers.seaweed.secret_key
    more = (AUTH_SECRET, SERVICE_SECRET, seaweed)
    rabbit_url = fleet.servers.rabbit.amqp_url_of(fleet.bucket)
    async with canary.tapped(rabbit_url) as tap:
        theirs = await _upload(stranger, PHOTO)
        answers = await _a_whole_life(team, gemini)
        answers += await _refusals(fleet, team, theirs.id)
        sent = await tap.drain()
    assert len(sent) >= 6  # enqueued, a doorbell and an end for each of two jobs
    assert len(answers) > 15
    for body in sent:
        assert not canary.found_in(body.decode("latin-1"), *more), body
    for answer in answers:
        assert not canary.found_in(answer, *more, STRANGER), answer
    keys = [name for name in _blob_keys(fleet) if len(name) > 20]
    assert keys
    logged = 0
    for name, text in fleet.new_logs("canary"):
        for line in text.splitlines():
            logged += 1
            assert not canary.found_in(line, *more, *keys), f"{name}: {line}"
    assert logged > 50
    for service in SERVICES:
        url = fleet.dsn(service).replace("postgresql://", "postgresql+psycopg://", 1)
        cells = list(canary.leaking_cells(url, *more))
        assert not cells, cells


def _blob_keys(fleet: Fleet) -> list[str]:
    listed = fleet.servers.seaweed.client().list_objects(fleet.bucket, recursive=True)
    return [str(blob.object_name) for blob in listed]


async def _upload(team: FleetTeam, data: bytes) -> assets_pb2.File:
    header = assets_pb2.UploadHeader(
        filename=f"{FILENAME}.jpg",
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        request_id="once",
    )
    parts = [assets_pb2.UploadFileRequest(header=header), assets_pb2.UploadFileRequest(chunk=data)]
    return (await team.ask_assets("UploadFile", parts)).file  # type: ignore[no-any-return]


async def _a_whole_life(team: FleetTeam, gemini: GeminiStub) -> list[str]:
    """Upload, a job that fails, its retry, a zip and downloads; what the watchers were told."""
    photo = await _upload(team, PHOTO)
    gemini.script(
        Behaviour("finish", reason="IMAGE_SAFETY", times=1),
        Behaviour("error", status=500, message=PROVIDER, times=1),
        Behaviour("text", text=PROVIDER, times=1),
    )
    request = enqueue_pb2.EnqueueGenerationRequest(
        request_id="life",
        product_images=[
            backend_pb2.ImageRef(upload_url=f"https://shop.example{photo.upload_url}?{QUERY}")
        ],
        number_of_variations=3,
    )
    request.input["custom_instructions"] = f"in the style of {PROMPT}"
    job = (await team.ask("EnqueueGeneration", request)).job
    failed = await team.watch(job.id)
    assert failed.job.state == job_pb2.JOB_STATE_FAILED, failed.job.error
    gemini.script()
    retry = (await team.ask("RetryJob", enqueue_pb2.RetryJobRequest(job_id=job.id))).job
    seen = await team.watch(retry.id)
    await team.check_done(seen.job)
    review = enqueue_pb2.ReviewJobRequest(
        job_id=retry.id, state=job_pb2.REVIEW_STATE_APPROVED, notes=f"well, {NOTES}"
    )
    await team.ask("ReviewJob", review)
    await _fetch(team, seen.job.images[0].file_id)
    told = [*failed.events, *seen.events, *await team.events(job.id), *await team.events(retry.id)]
    errors = [image.error for image in failed.job.images]
    return [str(one) for one in (*told, *errors, failed.job.error, seen.job.archive)]


async def _fetch(team: FleetTeam, file_id: int) -> None:
    """A presigned URL is made, so that it could be logged; the bytes come by it in other tests."""
    assert "X-Amz-Signature" in await team.download_url(file_id)


async def _refusals(fleet: Fleet, team: FleetTeam, theirs: int) -> list[str]:
    """Calls that are refused, and every word of the refusals."""
    bad = enqueue_pb2.EnqueueGenerationRequest(schema_key=PROMPT, request_id=f"{PROMPT} x")
    bad.input[f"{PROMPT}'\n"] = PROMPT
    another = enqueue_pb2.EnqueueGenerationRequest(
        product_images=[
            backend_pb2.ImageRef(file_id=theirs),
            backend_pb2.ImageRef(upload_url=f"http://{QUERY}@localhost/{QUERY}"),
        ]
    )
    good = mint_user_token(
        secret=AUTH_SECRET,
        issuer="contentshop",
        team=team.name,
        scopes=["team"],
        clock=CLOCK,
        subject=SUBJECT,
    )
    head, _, _ = good.rpartition(".")
    jobs, files = "/contentshop.enqueue.v1.EnqueueService/", "/contentshop.assets.v1.AssetsService/"
    upload = assets_pb2.CreateUploadRequest(filename=f"{FILENAME}\r\n", size_bytes=2**40)
    calls: list[tuple[str, bytes, str]] = [
        (f"{jobs}EnqueueGeneration", bad.SerializeToString(), good),
        (f"{jobs}EnqueueGeneration", another.SerializeToString(), good),
        (f"{jobs}EnqueueGeneration", b"\xff" + PROMPT.encode(), good),
        (f"{jobs}GetJob", b"\x08\x01", f"{head}.{SUBJECT}"),
        (
            f"{jobs}ListJobs",
            enqueue_pb2.ListJobsRequest(page_token=QUERY).SerializeToString(),
            good,
        ),
        (f"{files}CreateUpload", upload.SerializeToString(), good),
        (f"{files}GetFile", assets_pb2.GetFileRequest(file_id=theirs).SerializeToString(), good),
    ]
    return [await _refused(fleet, *call) for call in calls] + await _bad_picture(fleet, good)


async def _refused(fleet: Fleet, method: str, body: bytes, token: str) -> str:
    async with open_channel(fleet.target(method.split(".")[1])) as channel:
        call: Any = channel.unary_unary(method)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(body, metadata=(("authorization", f"Bearer {token}"),), timeout=20)
    return _words(caught.value)


async def _bad_picture(fleet: Fleet, token: str) -> list[str]:
    data = images.dirty_png() + FILENAME.encode()
    header = assets_pb2.UploadHeader(filename=f"{FILENAME}.png", size_bytes=len(data))
    parts = [assets_pb2.UploadFileRequest(header=header), assets_pb2.UploadFileRequest(chunk=data)]
    async with open_channel(fleet.target("assets")) as channel:
        call: Any = channel.stream_unary("/contentshop.assets.v1.AssetsService/UploadFile")
        sent = iter([part.SerializeToString() for part in parts])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(sent, metadata=(("authorization", f"Bearer {token}"),), timeout=20)
    return [_words(caught.value)]


def _words(error: grpc.aio.AioRpcError) -> str:
    trailers = b" ".join(
        value if isinstance(value, bytes) else value.encode()
        for _, value in error.trailing_metadata() or ()
    )
    return f"{error.code()} {error.details()} {trailers.decode('latin-1')}"


async def test_no_secret_leaves_the_embedded_house(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with house(data, "--log-level", "debug", env={"GEMINI_API_KEY": GEMINI}) as running:
        assert running.process.stderr is not None
        reading = asyncio.get_running_loop().create_task(running.process.stderr.read())
        secrets = DataFolder(data).read_secrets()
        token = mint_user_token(
            secret=secrets.auth,
            issuer="contentshop",
            team="demo",
            scopes=["team"],
            clock=CLOCK,
            subject=SUBJECT,
        )
        photo = tmp_path / f"{FILENAME}.jpg"
        photo.write_bytes(PHOTO)
        request = enqueue_pb2.EnqueueGenerationRequest(number_of_variations=2)
        uploaded = (await running.run("upload", photo, "--json")).json()["files"][0]
        request.product_images.add(file_id=int(uploaded["id"]))
        request.input["custom_instructions"] = f"in the style of {PROMPT}"
        async with open_channel(running.ready["enqueue"]) as channel:
            stub = enqueue_pb2_grpc.EnqueueServiceStub(channel)
            metadata = (("authorization", f"Bearer {token}"),)
            job = (await stub.EnqueueGeneration(request, metadata=metadata, timeout=20)).job

            async def zipped() -> bool:
                get = enqueue_pb2.GetJobRequest(job_id=job.id)
                now = (await stub.GetJob(get, metadata=metadata, timeout=20)).job
                return bool(now.archive.state == job_pb2.ARCHIVE_STATE_READY)

            await eventually(zipped, timeout_seconds=60, what="the zip is built")
            request.schema_key = PROMPT
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.EnqueueGeneration(request, metadata=metadata, timeout=20)
        await running.stop()
        logged = (await reading).decode()
    assert logged.count("rpc.done") > 10
    more = (secrets.auth, secrets.service)
    for line in logged.splitlines():
        assert not canary.found_in(line, *more), line
    for service in SERVICES:
        cells = list(canary.leaking_cells(f"sqlite:///{data / service}.sqlite", *more))
        assert not cells, cells
