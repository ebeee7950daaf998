"""Things that really are there, of two teams: what random requests name."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from contentshop.assets.v1 import assets_pb2, assets_pb2_grpc, backend_pb2, backend_pb2_grpc
from contentshop.enqueue.v1 import (
    batch_pb2,
    enqueue_pb2,
    enqueue_pb2_grpc,
    execution_pb2,
    execution_pb2_grpc,
    job_pb2,
    ops_pb2,
)
from contentshop.enqueue.v1 import ops_pb2_grpc as ops_grpc
from contentshop.packager.v1 import packager_pb2, packager_pb2_grpc
from libs.common.broker import LANES
from libs.common.errors import FailedPreconditionError, InvalidArgumentError, NotFoundError
from tests.fixtures import images
from tests.fuzz.house import OTHERS, OURS, PNG, UNLUCKY, House
from tests.support.eventually import eventually

Assets = assets_pb2_grpc.AssetsServiceStub
Backend = backend_pb2_grpc.AssetsBackendServiceStub
Jobs = enqueue_pb2_grpc.EnqueueServiceStub
Execution = execution_pb2_grpc.ExecutionServiceStub
Zips = packager_pb2_grpc.PackagerServiceStub
ENDED = (job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELED)
CREDITS = 1_000_000


@dataclass
class Pool:
    """By team, and by the word that names a thing in the protos: `file`, `job`, `batch`…"""

    ids: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    texts: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Short: Hypothesis shows it with every fault."""
        return "Pool()"

    def add(self, team: str, kind: str, *ids: int) -> None:
        """Some more things of a kind."""
        self.ids.setdefault((team, kind), []).extend(ids)

    def say(self, name: str, *texts: str, team: str = "") -> None:
        """Some more texts that mean something in a field of this name; to all, or to a team."""
        self.texts.setdefault((team, name), []).extend(texts)

    def texts_of(self, team: str, name: str) -> list[str]:
        """What a team may say in a field of this name."""
        return self.texts.get((team, name), []) + self.texts.get(("", name), [])


async def fill(house: House, pool: Pool, number: int = 1) -> None:
    """Both teams get files, folders, a moodboard, jobs in many states, a batch and zips."""
    if number == 1:
        _say_what_is_known(pool)
    for team in (OURS, OTHERS):
        await _files(house, pool, team, number)
        if number == 1:  # later a random call may have opened the model's circuit for hours
            await _jobs(house, pool, team)
        await _unserved(house, pool, team)
    await _tokens(house, pool)


def _say_what_is_known(pool: Pool) -> None:
    pool.say("lane", *LANES)
    pool.say("lanes", *LANES)
    pool.say("worker", "worker-1", "worker-2")
    pool.say("claim_id", "claim-1", "claim-2")
    pool.say("model", "small-fast", "small-high", "small", "gemini-3-pro-image")
    pool.say("schema_key", "", "apparel.catalog.v1", "image.edit.v1")
    pool.say("content_type", "image/png", "image/png", "image/jpeg")
    pool.say("outcome", *("OUTPUT_BLOCKED", "TIMED_OUT", "INTERNAL", "WORKER_LOST", "DONE"))
    pool.say("sha256", hashlib.sha256(PNG).hexdigest())
    pool.say("role", "product", "background", "avoid")
    pool.say("request_id", *("", "", "once", "twice"))
    for name in ("pin_token", "page_token", "after_cursor"):
        pool.say(name, "", "")
    for team in (OURS, OTHERS):
        pool.say("team", team, team=team)


async def _files(house: House, pool: Pool, team: str, number: int) -> None:
    for count in range(3):
        data = images.encoded("PNG", images.picture(20 + count, 10 + number % 50))
        header = assets_pb2.UploadHeader(filename="photo.png", size_bytes=len(data))
        parts = [
            assets_pb2.UploadFileRequest(header=header),
            assets_pb2.UploadFileRequest(chunk=data),
        ]
        file = (await house.call(Assets, "UploadFile", parts, team=team)).file
        pool.add(team, "file", file.id)
        pool.say("upload_url", file.upload_url, team=team)
    name = f"Autumn {number}"
    made = await house.call(
        Assets, "CreateFolder", assets_pb2.CreateFolderRequest(name=name), team=team
    )
    pool.add(team, "folder", made.folder.id)
    content = assets_pb2.MoodboardContent(name=name, positive_file_ids=pool.ids[team, "file"][-1:])
    board = await house.call(
        Assets, "CreateMoodboard", assets_pb2.CreateMoodboardRequest(content=content), team=team
    )
    pool.add(team, "moodboard", board.moodboard.id)
    variant = assets_pb2.Variant(id=f"variant-{number}", image_file_id=pool.ids[team, "file"][-1])
    put = assets_pb2.PutVariantsRequest(variants=[variant])
    await house.call(Assets, "PutVariants", put, team=team)
    pool.say("variant", variant.id, team=team)
    pool.say("variant_ids", variant.id, team=team)
    begun = await house.call(
        Backend,
        "BeginArchive",
        backend_pb2.BeginArchiveRequest(team=team, size_bytes=9),
        "packager",
    )
    pool.say("blob_key", begun.blob_key, team=team)


async def _jobs(house: House, pool: Pool, team: str) -> None:
    grant = ops_pb2.GrantCreditsRequest(request_id=f"grant-{team}", team=team, amount=CREDITS)
    await house.call(ops_grpc.OpsServiceStub, "GrantCredits", grant, "ops")
    image = backend_pb2.ImageRef(file_id=pool.ids[team, "file"][-1])
    jobs = []
    for variations in (1, 2):
        request = enqueue_pb2.EnqueueGenerationRequest(
            product_images=[image], number_of_variations=variations
        )
        jobs.append((await house.call(Jobs, "EnqueueGeneration", request, team=team)).job.id)
    unlucky = enqueue_pb2.EnqueueGenerationRequest(product_images=[image])
    unlucky.input["custom_instructions"] = UNLUCKY
    jobs.append((await house.call(Jobs, "EnqueueGeneration", unlucky, team=team)).job.id)
    batch = enqueue_pb2.EnqueueBatchRequest(
        variants=[batch_pb2.BatchVariant(product_images=[image]) for _ in range(2)]
    )
    made = (await house.call(Jobs, "EnqueueBatch", batch, team=team)).batch
    pool.add(team, "batch", made.id)
    pool.add(team, "job", *jobs, *made.job_ids)
    pool.add(team, "folder", 1)
    ended = [
        await eventually(partial(_ended, house, job_id, team), timeout_seconds=60)
        for job_id in jobs
    ]
    pool.add(
        team, "file", *(image.file_id for job in ended for image in job.images if image.file_id)
    )
    archive = packager_pb2.CreateArchiveRequest(job_id=jobs[1])
    zipped = (await house.call(Zips, "CreateArchive", archive, team=team)).archive
    pool.add(team, "archive", zipped.id)
    get = packager_pb2.GetArchiveRequest(archive_id=zipped.id)

    async def built() -> int:
        return int((await house.call(Zips, "GetArchive", get, team=team)).archive.file_id)

    pool.add(team, "file", await eventually(built, timeout_seconds=60, what="the zip is built"))


async def _unserved(house: House, pool: Pool, team: str) -> None:
    """Jobs of a lane that no worker serves: claimed by nobody else; and a pending upload."""
    edit = enqueue_pb2.EnqueueEditRequest(
        base_image=backend_pb2.ImageRef(file_id=pool.ids[team, "file"][0]),
        quality=job_pb2.QUALITY_HIGH,
    )
    edit.input["instruction"] = "a warmer light"
    for _ in range(2):
        try:
            made = await house.call(Jobs, "EnqueueEdit", edit, team=team)
        except InvalidArgumentError:
            return  # the photo was deleted meanwhile
        pool.add(team, "job", made.job.id)
    claim = execution_pb2.ClaimJobRequest(
        job_id=made.job.id, claim_id=f"claim-{made.job.id}", worker="worker-2"
    )
    with suppress(FailedPreconditionError):  # its team has no place left
        await house.call(Execution, "ClaimJob", claim, "worker")
    put = assets_pb2.CreateUploadRequest(filename="a.png", size_bytes=len(PNG))
    try:
        upload = await house.call(Assets, "CreateUpload", put, team=team)
    except FailedPreconditionError:
        return  # the embedded store has no such uploads
    pool.add(team, "upload", upload.upload_id)


async def _ended(house: House, job_id: int, team: str) -> Any:
    request = enqueue_pb2.GetJobRequest(job_id=job_id)
    try:
        job = (await house.call(Jobs, "GetJob", request, team=team)).job
    except NotFoundError:
        return None
    return job if job.state in ENDED else None


async def _tokens(house: House, pool: Pool) -> None:
    """Page tokens and cursors as the services give them."""
    pages: list[tuple[Any, str, Any]] = [
        (Assets, "ListFiles", assets_pb2.ListFilesRequest(page_size=1)),
        (Assets, "ListFolders", assets_pb2.ListFoldersRequest(page_size=1)),
        (Jobs, "ListJobs", enqueue_pb2.ListJobsRequest(page_size=1)),
        (Jobs, "ListCreditEntries", enqueue_pb2.ListCreditEntriesRequest(page_size=1)),
    ]
    for stub, method, request in pages:
        answer = await house.call(stub, method, request)
        pool.say("page_token", answer.next_page_token, team=OURS)
    watch = enqueue_pb2.WatchBatchRequest(batch_id=pool.ids[OURS, "batch"][0])
    stub = Jobs(house.channels["enqueue"])
    token = house.token("team", "enqueue")
    call = stub.WatchBatch(watch, metadata=(("authorization", f"Bearer {token}"),), timeout=30)
    async for message in call:
        pool.say("after_cursor", message.cursor, team=OURS)
        break
    call.cancel()
