"""What one team does with a fleet: every call repeated while a service is away, as clients do."""

from __future__ import annotations

import asyncio
import hashlib
import io
import secrets
import time
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from contentshop.assets.v1 import assets_pb2, assets_pb2_grpc, backend_pb2
from contentshop.enqueue.v1 import batch_pb2, enqueue_pb2, enqueue_pb2_grpc, job_pb2
from contentshop.packager.v1 import packager_pb2, packager_pb2_grpc
from libs.common.errors import AbortedError, DeadlineExceededError, UnavailableError
from libs.common.grpc_client import RpcClient
from tests.support.eventually import eventually
from tests.support.zips import read_strictly

CALL_SECONDS = 5.0
ONE_TRY_SECONDS = 30.0
PATIENCE_SECONDS = 120.0
PAUSE_SECONDS = 0.1
CHUNK_BYTES = 256 * 1024

T = TypeVar("T")


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """The answer of a call that may be repeated, once there is one."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return await call()
        except (UnavailableError, AbortedError, DeadlineExceededError):
            if time.monotonic() > give_up_at:
                raise
        await asyncio.sleep(PAUSE_SECONDS)


@dataclass
class Watched:
    """What a watcher saw, over all its connections."""

    messages: list[enqueue_pb2.WatchJobResponse] = field(default_factory=list)
    connections: int = 0

    @property
    def events(self) -> list[job_pb2.JobEvent]:
        """Events in the order they came."""
        return [m.event for m in self.messages if m.WhichOneof("update") == "event"]

    @property
    def job(self) -> job_pb2.Job:
        """The job as the final message has it."""
        assert self.messages[-1].final
        return self.messages[-1].job

    @property
    def cursor(self) -> int:
        """The last number that was seen."""
        return self.messages[-1].sequence if self.messages else 0

    def kinds(self) -> list[str]:
        """The events' kinds, `IMAGE_DONE`."""
        return [
            job_pb2.JobEventKind.Name(event.kind).removeprefix("JOB_EVENT_KIND_")
            for event in self.events
        ]


class FleetTeam:
    """One team's clients of the three services."""

    def __init__(
        self, name: str, assets: RpcClient, enqueue: RpcClient, packager: RpcClient
    ) -> None:
        self.name = name
        self._assets = assets
        self._enqueue = enqueue
        self._packager = packager
        self._files = assets_pb2_grpc.AssetsServiceStub(assets.channel)
        self._jobs = enqueue_pb2_grpc.EnqueueServiceStub(enqueue.channel)
        self._zips = packager_pb2_grpc.PackagerServiceStub(packager.channel)

    async def _call(self, client: RpcClient, method: Any, request: Any) -> Any:
        return await client.unary(method, request, timeout_seconds=CALL_SECONDS)

    async def upload(self, data: bytes) -> assets_pb2.File:
        """Stores a photo, once whatever happens on the way."""
        header = assets_pb2.UploadHeader(
            filename="photo.jpg",
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            request_id=secrets.token_hex(8),
        )
        parts = [assets_pb2.UploadFileRequest(header=header)]
        parts += [
            assets_pb2.UploadFileRequest(chunk=data[at : at + CHUNK_BYTES])
            for at in range(0, len(data), CHUNK_BYTES)
        ]
        answer = await patiently(lambda: self._call(self._assets, self._files.UploadFile, parts))
        return answer.file  # type: ignore[no-any-return]

    async def make_job(
        self, photo: assets_pb2.File, n: int = 4, *, request_id: str = "", **fields: Any
    ) -> job_pb2.Job:
        """Enqueues n images of a photo; repeated with the same request_id until answered."""
        request = enqueue_pb2.EnqueueGenerationRequest(
            request_id=request_id or secrets.token_hex(8),
            product_images=[backend_pb2.ImageRef(upload_url=photo.upload_url)],
            number_of_variations=n,
            **fields,
        )
        answer = await patiently(
            lambda: self._call(self._enqueue, self._jobs.EnqueueGeneration, request)
        )
        return answer.job  # type: ignore[no-any-return]

    async def make_batch(
        self,
        photo: assets_pb2.File,
        variants: Sequence[str],
        n: int = 2,
        *,
        request_id: str = "",
        **settings: Any,
    ) -> batch_pb2.Batch:
        """Enqueues n images of a photo for each variant."""
        request = enqueue_pb2.EnqueueBatchRequest(
            request_id=request_id or secrets.token_hex(8),
            name="Autumn",
            settings=batch_pb2.BatchSettings(number_of_variations=n, **settings),
        )
        for variant in variants:
            image = backend_pb2.ImageRef(file_id=photo.id)
            request.variants.add(variant=variant, product_images=[image])
        answer = await patiently(
            lambda: self._call(self._enqueue, self._jobs.EnqueueBatch, request)
        )
        return answer.batch  # type: ignore[no-any-return]

    async def batch_ended(self, batch_id: int) -> None:
        """Returns at the batch's end, by watching it."""

        async def watched() -> None:
            async for _ in self.watch_batch(batch_id):
                pass

        await patiently(watched)

    def watch_batch(
        self, batch_id: int, cursor: str = ""
    ) -> AsyncIterator[enqueue_pb2.WatchBatchResponse]:
        """One connection of a batch's watcher."""
        request = enqueue_pb2.WatchBatchRequest(batch_id=batch_id, after_cursor=cursor)
        return self._enqueue.stream(self._jobs.WatchBatch, request)

    def connect(
        self, job_id: int, after_sequence: int = 0
    ) -> AsyncIterator[enqueue_pb2.WatchJobResponse]:
        """One connection of a job's watcher."""
        request = enqueue_pb2.WatchJobRequest(job_id=job_id, after_sequence=after_sequence)
        return self._enqueue.stream(self._jobs.WatchJob, request)

    async def ask(self, method: str, request: Any) -> Any:
        """The answer of a method of EnqueueService that may be repeated."""
        return await patiently(
            lambda: self._call(self._enqueue, getattr(self._jobs, method), request)
        )

    async def ask_assets(self, method: str, request: Any) -> Any:
        """The answer of a method of AssetsService that may be repeated."""
        return await patiently(
            lambda: self._call(self._assets, getattr(self._files, method), request)
        )

    async def folder_of(self, batch_id: int, files: int) -> int:
        """The folder that all of a batch share, once so many files are in it."""

        async def filled() -> int:
            request = assets_pb2.ListFoldersRequest(batch_id=batch_id)
            answer = await self._call(self._assets, self._files.ListFolders, request)
            shared = [f for f in answer.folders if f.kind == assets_pb2.FOLDER_KIND_BATCH]
            assert [folder.file_count for folder in shared] == [files]
            return int(shared[0].id)

        return await eventually(lambda: patiently(filled))

    async def make_archive(self, **source: int) -> packager_pb2.Archive:
        """The archive of a batch_id or folder_id, built to its end, by watching it."""
        request = packager_pb2.CreateArchiveRequest(**source)  # type: ignore[arg-type]  # ids all
        await patiently(lambda: self._call(self._packager, self._zips.CreateArchive, request))

        async def watched() -> packager_pb2.Archive:
            watch = packager_pb2.WatchArchiveRequest(**source)
            stream = self._packager.stream(self._zips.WatchArchive, watch)
            messages = [message async for message in stream]
            assert messages[-1].final
            archive: packager_pb2.Archive = messages[-1].archive
            return archive

        return await patiently(watched)

    async def make_edit(self, base_file_id: int, instruction: str, n: int = 1) -> job_pb2.Job:
        """Enqueues an edit."""
        request = enqueue_pb2.EnqueueEditRequest(
            request_id=secrets.token_hex(8),
            base_image=backend_pb2.ImageRef(file_id=base_file_id),
            number_of_variations=n,
        )
        request.input["instruction"] = instruction
        answer = await patiently(lambda: self._call(self._enqueue, self._jobs.EnqueueEdit, request))
        return answer.job  # type: ignore[no-any-return]

    async def get(self, job_id: int) -> job_pb2.Job:
        """The job as it stands."""
        request = enqueue_pb2.GetJobRequest(job_id=job_id)
        answer = await patiently(lambda: self._call(self._enqueue, self._jobs.GetJob, request))
        return answer.job  # type: ignore[no-any-return]

    async def jobs(self) -> list[job_pb2.Job]:
        """The newest 200."""
        request = enqueue_pb2.ListJobsRequest(page_size=200)
        answer = await patiently(lambda: self._call(self._enqueue, self._jobs.ListJobs, request))
        return list(answer.jobs)

    async def events(self, job_id: int) -> list[job_pb2.JobEvent]:
        """All of a job's."""
        request = enqueue_pb2.ListJobEventsRequest(job_id=job_id, page_size=1000)
        answer = await patiently(
            lambda: self._call(self._enqueue, self._jobs.ListJobEvents, request)
        )
        return list(answer.events)

    async def cancel(self, job_id: int) -> job_pb2.Job:
        """Cancels a job."""
        request = enqueue_pb2.CancelJobRequest(job_id=job_id)
        answer = await patiently(lambda: self._call(self._enqueue, self._jobs.CancelJob, request))
        return answer.job  # type: ignore[no-any-return]

    def watch_once(
        self, job_id: int, after_sequence: int
    ) -> AsyncGenerator[enqueue_pb2.WatchJobResponse, None]:
        """One connection of a job's watcher."""
        request = enqueue_pb2.WatchJobRequest(job_id=job_id, after_sequence=after_sequence)
        return self._enqueue.stream(self._jobs.WatchJob, request)

    async def watch(self, job_id: int, seen: Watched | None = None) -> Watched:
        """Watches to the end, coming back with the cursor after each interruption.

        Asserts that event numbers grow one by one and that none is skipped.
        """
        seen = seen if seen is not None else Watched()
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while True:
            seen.connections += 1
            try:
                async for message in self.watch_once(job_id, seen.cursor):
                    _take(seen, message)
                    if message.final:
                        return seen
                    give_up_at = time.monotonic() + PATIENCE_SECONDS
            except UnavailableError:
                if time.monotonic() > give_up_at:
                    raise
            await asyncio.sleep(PAUSE_SECONDS)

    async def files(self, job_id: int = 0) -> list[assets_pb2.File]:
        """The newest files, or a job's."""
        request = assets_pb2.ListFilesRequest(page_size=200, job_id=job_id)
        answer = await patiently(lambda: self._call(self._assets, self._files.ListFiles, request))
        return list(answer.files)

    async def delete(self, file_id: int) -> None:
        """Deletes a file, by one try."""
        request = assets_pb2.DeleteFileRequest(file_id=file_id)
        await self._assets.unary(self._files.DeleteFile, request, timeout_seconds=ONE_TRY_SECONDS)

    async def download_url(self, file_id: int) -> str:
        """A URL for browsers."""
        request = assets_pb2.CreateDownloadUrlRequest(file_id=file_id)
        answer = await self._assets.unary(
            self._files.CreateDownloadUrl, request, timeout_seconds=ONE_TRY_SECONDS
        )
        return answer.url  # type: ignore[no-any-return]

    async def download(self, file_id: int) -> bytes:
        """A file's bytes, checked against its facts."""

        async def whole() -> bytes:
            request = assets_pb2.DownloadFileRequest(file_id=file_id)
            stream = self._assets.stream(self._files.DownloadFile, request)
            parts = [part async for part in stream]
            data = b"".join(part.chunk for part in parts[1:])
            assert hashlib.sha256(data).hexdigest() == parts[0].file.sha256
            return data

        return await patiently(whole)

    async def archive(self, job_id: int) -> packager_pb2.Archive:
        """A job's archive as the packager has it."""
        request = packager_pb2.GetArchiveRequest(job_id=job_id)
        answer = await patiently(lambda: self._call(self._packager, self._zips.GetArchive, request))
        return answer.archive  # type: ignore[no-any-return]

    async def download_archive(self, job_id: int = 0, **key: int) -> bytes:
        """The zip of a job, or of another key, from the packager."""

        async def whole() -> bytes:
            request = packager_pb2.DownloadArchiveRequest(**(key or {"job_id": job_id}))
            stream = self._packager.stream(self._zips.DownloadArchive, request)
            parts = [part async for part in stream]
            data = b"".join(part.chunk for part in parts[1:])
            assert len(data) == parts[0].archive.size_bytes
            return data

        return await patiently(whole)

    async def check_done(self, job: job_pb2.Job) -> list[bytes]:
        """Asserts a SUCCEEDED job whole: slots, files, zip; the images' bytes in order."""
        assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job
        assert [image.index for image in job.images] == list(range(1, job.number_of_variations + 1))
        made = [await self.download(image.file_id) for image in job.images]

        async def listed() -> list[assets_pb2.File]:
            files = await self.files(job.id)
            wanted = len(job.images) + (len(job.images) > 1)
            assert len(files) == wanted, files
            return files

        files = await eventually(listed)
        slots = {f.image_index: f.id for f in files if f.kind == assets_pb2.FILE_KIND_GENERATED}
        assert slots == {image.index: image.file_id for image in job.images}
        if len(job.images) > 1:
            assert job.archive.state == job_pb2.ARCHIVE_STATE_READY, job.archive
            data = await self.download_archive(job.id)
            names = [entry.name for entry in read_strictly(data).entries]
            assert names[-1] == "manifest.json"
            with zipfile.ZipFile(io.BytesIO(data)) as found:
                assert found.testzip() is None
                assert [found.read(name) for name in names[:-1]] == made
            stems = [name.rpartition(".")[0] for name in names[:-1]]
            assert stems == [f"image-{n}" for n in range(1, len(made) + 1)]
        return made


def _take(seen: Watched, message: enqueue_pb2.WatchJobResponse) -> None:
    update = message.WhichOneof("update")
    if update == "event":
        assert message.sequence == message.event.sequence == seen.cursor + 1
    elif update == "snapshot":
        assert message.snapshot.skipped_from == 0
        assert message.sequence == seen.cursor
    else:
        assert message.sequence == seen.cursor
    if update != "heartbeat":
        assert message.job.last_sequence >= message.sequence
    seen.messages.append(message)
