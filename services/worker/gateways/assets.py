"""Calls to assets' AssetsBackendService, and blobs by blob_url."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Sequence

from contentshop.assets.v1 import assets_pb2, backend_pb2_grpc
from contentshop.assets.v1 import backend_pb2 as pb
from libs.common.blobs import CHUNK_BYTES, BlobUrls
from libs.common.crash import CrashPoints
from libs.common.errors import (
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
)
from libs.common.grpc_client import RpcClient
from services.worker.domain import BadInputsError, Claim, InputFile, JobOverError, StoredImage
from services.worker.gateways.patience import Patience
from services.worker.generation import GeneratedImage, ImageRequest

RESOLVE_SECONDS = 10.0
READ_SECONDS = 30.0
STORE_SECONDS = 30.0
STORE_BYTES_PER_SECOND = 2 * 1024 * 1024  # a slower upload is given up and begun again
_REF = re.compile(r"refs\[(\d+)\]")


class AssetsGateway:
    """What the worker asks of assets; errors are typed.

    Args:
        client: calls assets.
        blobs: reads by blob_url.
        patience: for repeats.
        crash: W5 is here.
        send_prompt: prompts go with made images, to be written into their files.
    """

    def __init__(
        self,
        client: RpcClient,
        blobs: BlobUrls,
        *,
        patience: Patience,
        crash: CrashPoints,
        send_prompt: bool = False,
    ) -> None:
        self._client = client
        self._stub = backend_pb2_grpc.AssetsBackendServiceStub(client.channel)
        self._blobs = blobs
        self._patience = patience
        self._crash = crash
        self._send_prompt = send_prompt

    def ready(self) -> bool:
        """Whether the channel is connected."""
        return self._client.ready()

    async def resolve(self, team: str, file_ids: Sequence[int]) -> list[InputFile]:
        """The files' facts in the order asked, by one call and one try.

        Raises:
            BadInputsError: some are unknown or deleted; it names them all.
        """
        refs = [pb.ImageRef(file_id=file_id) for file_id in file_ids]
        request = pb.ResolveImagesRequest(team=team, refs=refs)
        try:
            answer: pb.ResolveImagesResponse = await self._client.unary(
                self._stub.ResolveImages, request, timeout_seconds=RESOLVE_SECONDS
            )
        except InvalidArgumentError as error:
            found = [_REF.match(violation.field) for violation in error.violations]
            places = [int(match[1]) for match in found if match is not None]
            bad = [file_ids[place] for place in places if place < len(file_ids)]
            raise BadInputsError(bad or file_ids) from None
        return [
            InputFile(i.file_id, i.blob_url, i.content_type, i.size_bytes, i.sha256)
            for i in answer.images
        ]

    async def read(self, file: InputFile) -> bytes:
        """A file's bytes, checked against its SHA-256, by one try.

        Raises:
            NotFoundError: there is no such blob.
            DataLossError: the bytes are not those that were stored.
            DeadlineExceededError, UnavailableError: it may work later.
        """
        try:
            async with asyncio.timeout(READ_SECONDS):
                data = await self._blobs.read_all(file.blob_url, file.size_bytes)
        except TimeoutError:
            raise DeadlineExceededError("the blob store is slow") from None
        if await asyncio.to_thread(_sha256, data) != file.sha256:
            raise DataLossError("the bytes are not those that were stored")
        return data

    async def store_generated(
        self, claim: Claim, request: ImageRequest, image: GeneratedImage
    ) -> StoredImage:
        """Stores one image and its provenance; what stands in its slot, repeated if need be.

        Raises:
            JobOverError: the job has ended.
            InvalidArgumentError: the image is no good.
        """
        tries = 0
        header = pb.StoreGeneratedHeader(
            team=claim.team,
            job_id=claim.lease.job_id,
            image_index=request.index,
            size_bytes=len(image.data),
            sha256=await asyncio.to_thread(_sha256, image.data),
            model=image.model,
            preview=image.preview,
            attempt=claim.attempt,
            inputs=[
                assets_pb2.ProvenanceInput(role=one.role, file_id=one.file_id, sha256=one.sha256)
                for one in request.references
            ],
            prompt_tokens=image.usage.prompt_tokens,
            output_tokens=image.usage.output_tokens,
            total_tokens=image.usage.total_tokens,
            cost_micros=image.usage.cost_micros,
            prompt=request.prompt if self._send_prompt else "",
        )

        async def once() -> pb.StoreGeneratedResponse:
            nonlocal tries
            tries += 1
            answer: pb.StoreGeneratedResponse = await self._client.unary(
                self._stub.StoreGenerated,
                self._parts(header, image.data),
                timeout_seconds=STORE_SECONDS + len(image.data) / STORE_BYTES_PER_SECOND,
            )
            return answer

        try:
            answer = await self._patience.ask(once, lease=claim.lease, what="StoreGenerated")
        except FailedPreconditionError as error:
            if error.reason == "JOB_ENDED":
                raise JobOverError from None
            raise
        stored = answer.image
        return StoredImage(
            file_id=stored.file_id,
            content_type=stored.content_type,
            width=stored.width,
            height=stored.height,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            # After a lost answer the file that is there is most likely the one just sent.
            dropped=answer.already_stored and tries == 1,
        )

    async def _parts(
        self, header: pb.StoreGeneratedHeader, data: bytes
    ) -> AsyncIterator[pb.StoreGeneratedRequest]:
        yield pb.StoreGeneratedRequest(header=header)
        for start in range(0, len(data), CHUNK_BYTES):
            self._crash.here("W5")
            yield pb.StoreGeneratedRequest(chunk=data[start : start + CHUNK_BYTES])


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
