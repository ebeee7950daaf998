"""One walk over the new doors of `contentshop up`: each service asks the others as it should.

Images wait for a review, so that enqueue's word goes to assets and to the packager too.
"""

from __future__ import annotations

import hashlib
import io
import secrets
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cli.datafolder import DataFolder
from contentshop.assets.v1 import assets_pb2, assets_pb2_grpc, backend_pb2
from contentshop.enqueue.v1 import (
    batch_pb2,
    credits_pb2,
    enqueue_pb2,
    enqueue_pb2_grpc,
    job_pb2,
    ops_pb2,
    ops_pb2_grpc,
)
from contentshop.packager.v1 import packager_pb2, packager_pb2_grpc
from contentshop.worker.v1 import worker_pb2, worker_pb2_grpc
from libs.common.auth import mint_user_token
from libs.common.clock import SystemClock
from libs.common.errors import FailedPreconditionError, PermissionDeniedError
from libs.common.grpc_client import RpcClient, open_channel
from tests.fakes.gemini_behaviours import Behaviour
from tests.fakes.gemini_stub import GeminiStub
from tests.support.eventually import eventually
from tests.support.house import ROOT, House, house

PHOTO = ROOT / "examples" / "photos" / "mug.jpg"
KEY = "key-of-the-stub"
TEAM = "walkers"
LANE = "image_generation.fast"
GRANTED = 10
CALL_SECONDS = 60.0
APPROVED = job_pb2.REVIEW_STATE_APPROVED


class Walker:
    """One token's holder, and the doors of all services."""

    def __init__(self, shop: House, *scopes: str) -> None:
        token = mint_user_token(
            secret=DataFolder(shop.data).read_secrets().auth,
            issuer="contentshop",
            team=TEAM if "team" in scopes else "",
            scopes=scopes,
            clock=SystemClock(),
        )
        self.clients = {
            name: RpcClient(open_channel(shop.ready[name]), lambda: token)
            for name in ("assets", "enqueue", "packager", "worker")
        }
        channels = {name: client.channel for name, client in self.clients.items()}
        self.files = assets_pb2_grpc.AssetsServiceStub(channels["assets"])
        self.jobs = enqueue_pb2_grpc.EnqueueServiceStub(channels["enqueue"])
        self.ops = ops_pb2_grpc.OpsServiceStub(channels["enqueue"])
        self.zips = packager_pb2_grpc.PackagerServiceStub(channels["packager"])
        self.worker = worker_pb2_grpc.WorkerServiceStub(channels["worker"])

    async def ask(self, method: Any, request: Any) -> Any:
        """One answer."""
        client = self.clients["enqueue"]  # for its token; the method has its own channel
        return await client.unary(method, request, timeout_seconds=CALL_SECONDS)

    async def all_of(self, method: Any, request: Any) -> list[Any]:
        """A whole stream."""
        return [message async for message in self.clients["enqueue"].stream(method, request)]

    async def job_ended(self, job_id: int) -> job_pb2.Job:
        """The job as its watch's final message has it."""
        request = enqueue_pb2.WatchJobRequest(job_id=job_id)
        messages = await self.all_of(self.jobs.WatchJob, request)
        assert messages[-1].final
        job: job_pb2.Job = messages[-1].job
        return job

    async def approve(self, job_id: int) -> job_pb2.Job:
        """The job, approved."""
        request = enqueue_pb2.ReviewJobRequest(job_id=job_id, state=APPROVED, notes="good")
        job: job_pb2.Job = (await self.ask(self.jobs.ReviewJob, request)).job
        return job

    async def credits(self) -> credits_pb2.Credits:
        """The team's."""
        answer = await self.ask(self.jobs.GetCredits, enqueue_pb2.GetCreditsRequest())
        return answer.credits  # type: ignore[no-any-return]


@asynccontextmanager
async def _walking(shop: House) -> AsyncIterator[tuple[Walker, Walker, Walker]]:
    """A team, its reviewer and an operator."""
    walkers = Walker(shop, "team"), Walker(shop, "team", "review"), Walker(shop, "ops")
    yield walkers
    for walker in walkers:
        for client in walker.clients.values():
            await client.close()


async def test_a_team_and_its_operator_go_through_the_whole_house(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with GeminiStub(api_key=KEY) as gemini:
        env = {
            "GEMINI_API_KEY": KEY,
            "GEMINI_BASE_URL": gemini.base_url,
            "REVIEW_REQUIRED": "true",
        }
        data = tmp_path_factory.mktemp("walk") / "data"
        async with (
            house(data, "--generator", "gemini", env=env) as shop,
            _walking(shop) as (team, reviewer, ops),
        ):
            photo, folder_id, moodboard_id = await _prepare(team, ops)
            request = enqueue_pb2.EnqueueGenerationRequest(
                request_id=secrets.token_hex(8),
                product_images=[backend_pb2.ImageRef(file_id=photo.id)],
                moodboard=enqueue_pb2.MoodboardInput(moodboard_id=moodboard_id),
                number_of_variations=2,
                folder_id=folder_id,
            )
            job = await _waits_for_its_lane(team, ops, request)
            gemini.script(Behaviour("finish", reason="IMAGE_SAFETY", times=1))
            await ops.ask(ops.ops.ResumeLane, ops_pb2.ResumeLaneRequest(lane=LANE))
            made = await _fails_and_is_run_again(team, job)
            await _is_shown_when_it_is_approved(team, reviewer, made, folder_id)
            await _batch(team, reviewer, photo)
            await _what_is_told(team, ops)


async def _prepare(team: Walker, ops: Walker) -> tuple[assets_pb2.File, int, int]:
    """Credits, a photo, the team's variant, a folder and a moodboard."""
    grant = ops_pb2.GrantCreditsRequest(request_id="walk", team=TEAM, amount=GRANTED, note="hello")
    for _ in range(2):  # once, however often it is said
        await ops.ask(ops.ops.GrantCredits, grant)
    assert (await team.credits()).available == GRANTED
    data = PHOTO.read_bytes()
    parts = [
        assets_pb2.UploadFileRequest(
            header=assets_pb2.UploadHeader(filename="mug.jpg", size_bytes=len(data))
        ),
        assets_pb2.UploadFileRequest(chunk=data),
    ]
    photo = (await team.ask(team.files.UploadFile, parts)).file
    variant = assets_pb2.Variant(id="mug", title="A mug", image_file_id=photo.id)
    await team.ask(team.files.PutVariants, assets_pb2.PutVariantsRequest(variants=[variant]))
    folder = assets_pb2.CreateFolderRequest(name="Best of")
    board = assets_pb2.CreateMoodboardRequest(
        content=assets_pb2.MoodboardContent(
            name="Calm", positive_file_ids=[photo.id], style_appendix="soft light"
        )
    )
    return (
        photo,
        (await team.ask(team.files.CreateFolder, folder)).folder.id,
        (await team.ask(team.files.CreateMoodboard, board)).moodboard.id,
    )


async def _waits_for_its_lane(
    team: Walker, ops: Walker, request: enqueue_pb2.EnqueueGenerationRequest
) -> job_pb2.Job:
    """A job in a paused lane: it says what it waits for, and holds its credits."""
    await ops.ask(ops.ops.PauseLane, ops_pb2.PauseLaneRequest(lane=LANE, reason="new keys"))
    job: job_pb2.Job = (await team.ask(team.jobs.EnqueueGeneration, request)).job
    explained = await team.ask(team.jobs.ExplainJob, enqueue_pb2.ExplainJobRequest(job_id=job.id))
    assert explained.reason == enqueue_pb2.WAIT_REASON_LANE_PAUSED, explained
    held = await team.credits()
    assert (held.available, held.held) == (GRANTED - 2, 2)
    assert "soft light" in job.prompt.original
    return job


async def _fails_and_is_run_again(team: Walker, job: job_pb2.Job) -> list[job_pb2.Job]:
    """One image is blocked and the job FAILED; its retry makes what is missing. Both jobs."""
    failed = await team.job_ended(job.id)
    assert (failed.state, failed.error.reason) == (job_pb2.JOB_STATE_FAILED, "OUTPUT_BLOCKED")
    request = enqueue_pb2.RetryJobRequest(
        request_id=secrets.token_hex(8), job_id=job.id, only_missing=True
    )
    retry = (await team.ask(team.jobs.RetryJob, request)).job
    assert (retry.retry_of, retry.number_of_variations) == (job.id, 1)
    done = await team.job_ended(retry.id)
    assert done.state == job_pb2.JOB_STATE_SUCCEEDED
    return [failed, done]


async def _is_shown_when_it_is_approved(
    team: Walker, reviewer: Walker, jobs: list[job_pb2.Job], folder_id: int
) -> None:
    """Bytes wait for the review; the folder that was asked for holds both jobs' images."""
    images = [
        (job.id, image)
        for job in jobs
        for image in job.images
        if image.state == job_pb2.IMAGE_STATE_DONE
    ]
    assert len(images) == 2
    for job_id, image in images:
        download = assets_pb2.DownloadFileRequest(file_id=image.file_id)
        with pytest.raises(FailedPreconditionError) as raised:
            await team.all_of(team.files.DownloadFile, download)
        assert raised.value.reason == "NOT_APPROVED"
        with pytest.raises(PermissionDeniedError):
            await team.approve(job_id)
        assert (await reviewer.approve(job_id)).review.state == APPROVED
        rate = enqueue_pb2.RateImageRequest(job_id=job_id, image_index=image.index, rating=4)
        assert (await team.ask(team.jobs.RateImage, rate)).image.rating == 4

    async def shown() -> list[Any]:
        answer = await team.ask(
            team.files.ListFolderFiles, assets_pb2.ListFolderFilesRequest(folder_id=folder_id)
        )
        assert {file.id for file in answer.files} == {image.file_id for _, image in images}
        request = assets_pb2.DownloadFileRequest(file_id=images[0][1].file_id)
        try:
            return await team.all_of(team.files.DownloadFile, request)
        except FailedPreconditionError:  # the word is on its way
            return []

    parts = await eventually(shown)
    data = b"".join(part.chunk for part in parts[1:])
    assert hashlib.sha256(data).hexdigest() == parts[0].file.sha256


async def _batch(team: Walker, reviewer: Walker, photo: assets_pb2.File) -> None:
    """Two variants of two images, watched to the end, approved, and zipped by variant."""
    request = enqueue_pb2.EnqueueBatchRequest(
        request_id=secrets.token_hex(8),
        name="Spring",
        settings=batch_pb2.BatchSettings(number_of_variations=2),
    )
    for variant in ("mug", "cup"):
        image = backend_pb2.ImageRef(file_id=photo.id)
        request.variants.add(variant=variant, product_images=[image])
    estimate = enqueue_pb2.EstimateBatchRequest(settings=request.settings)
    estimate.variants.extend(request.variants)
    estimated = await team.ask(team.jobs.EstimateBatch, estimate)
    assert (estimated.images, estimated.required_credits) == (4, 4)
    assert estimated.available_credits == GRANTED - 2
    batch = (await team.ask(team.jobs.EnqueueBatch, request)).batch
    watch = enqueue_pb2.WatchBatchRequest(batch_id=batch.id)
    last = (await team.all_of(team.jobs.WatchBatch, watch))[-1]
    assert last.final
    assert last.batch.state == batch_pb2.BATCH_STATE_SUCCEEDED
    for job_id in batch.job_ids:
        await reviewer.approve(job_id)
        job = await team.job_ended(job_id)
        assert job.archive.state == job_pb2.ARCHIVE_STATE_READY
    create = packager_pb2.CreateArchiveRequest(batch_id=batch.id)
    await team.ask(team.zips.CreateArchive, create)
    watched = packager_pb2.WatchArchiveRequest(batch_id=batch.id)
    archive = (await team.all_of(team.zips.WatchArchive, watched))[-1].archive
    assert archive.state == packager_pb2.ARCHIVE_STATE_READY
    asked = packager_pb2.DownloadArchiveRequest(batch_id=batch.id)
    parts = await team.all_of(team.zips.DownloadArchive, asked)
    with zipfile.ZipFile(io.BytesIO(b"".join(part.chunk for part in parts[1:]))) as found:
        assert found.testzip() is None
        folders = [name.partition("/")[0] for name in found.namelist()[:-1]]
    assert folders == ["mug", "mug", "cup", "cup"]


async def _what_is_told(team: Walker, ops: Walker) -> None:
    """Credits, usage, metrics and the audit say the same."""
    left = await team.credits()
    assert (left.granted, left.available, left.held, left.captured) == (GRANTED, 4, 0, 6)
    checked = await ops.ask(ops.ops.CheckCredits, ops_pb2.CheckCreditsRequest())
    assert (checked.accounts, len(checked.differences)) == (1, 0)
    used = await team.ask(team.jobs.GetUsage, enqueue_pb2.GetUsageRequest())
    assert (used.images, used.jobs) == (6, 4)
    assert used.usage.total_tokens > 0
    metrics = await ops.ask(ops.ops.GetJobMetrics, ops_pb2.GetJobMetricsRequest(team=TEAM))
    [generation] = metrics.types
    assert (generation.succeeded, generation.failed, generation.canceled) == (3, 1, 0)
    await eventually(lambda: _comes_to_rest(team, ops))
    audit = await ops.ask(ops.ops.ListAuditEntries, ops_pb2.ListAuditEntriesRequest())
    told = {entry.action for entry in audit.entries}
    assert {"GRANT_CREDITS", "PAUSE_LANE", "RESUME_LANE", "REVIEW_JOB", "RATE_IMAGE"} <= told


async def _comes_to_rest(team: Walker, ops: Walker) -> bool:
    """assets has heard of every ending, and the worker has nothing left to do."""
    stored = await team.ask(team.files.GetStorage, assets_pb2.GetStorageRequest())
    files = (await team.ask(team.files.ListFiles, assets_pb2.ListFilesRequest(page_size=200))).files
    assert stored.stored_bytes == sum(file.size_bytes for file in files)
    candidates = await team.ask(
        team.files.ListImageCandidates, assets_pb2.ListImageCandidatesRequest(variant_ids=["mug"])
    )
    assert [len(one.generated) for one in candidates.variants] == [2]
    worker = (await ops.ask(ops.worker.GetWorker, worker_pb2.GetWorkerRequest())).worker
    assert (worker.generator, worker.generator_healthy) == ("gemini", True)
    assert (len(worker.running), worker.generator_calls) == (0, 7)
    return True
