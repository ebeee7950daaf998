"""A real gRPC server that answers ResolveImages from a list, for tests of enqueue alone."""

from __future__ import annotations

from typing import Any

import grpc

from contentshop.assets.v1 import assets_pb2, backend_pb2, backend_pb2_grpc
from libs.common.auth import Authenticator, SharedSecret
from libs.common.clock import SystemClock
from libs.common.errors import FieldViolation, InvalidArgumentError, UnimplementedError
from libs.common.grpc_server import GrpcServer


class FakeAssetsBackend(backend_pb2_grpc.AssetsBackendServiceServicer):
    """Knows which file ids each team has; ids stand for uploads.

    Attributes:
        files: team → file ids.
        moodboards: moodboard id → what it holds now; folders: known ids. Of all teams.
        calls: every ResolveImages request, in order.
        unheard: ended jobs it says it has not heard of; asked: those it was asked of, in order.
    """

    def __init__(self, service_secret: str) -> None:
        self.files: dict[str, set[int]] = {}
        self.moodboards: dict[int, assets_pb2.MoodboardContent] = {}
        self.folders: set[int] = set()
        self.calls: list[backend_pb2.ResolveImagesRequest] = []
        self.unheard: set[int] = set()
        self.asked: list[backend_pb2.EndedJob] = []

        def register(server: grpc.aio.Server) -> None:
            backend_pb2_grpc.add_AssetsBackendServiceServicer_to_server(self, server)

        self.server = GrpcServer(
            services=["contentshop.assets.v1.AssetsBackendService"],
            register=register,
            authenticator=Authenticator(
                service="assets",
                user_keys=SharedSecret("unused"),
                user_issuer="contentshop",
                service_secret=service_secret,
                clock=SystemClock(),
            ),
            address="127.0.0.1:0",
            grace_seconds=0.0,
        )

    async def ResolveImages(  # noqa: N802 - gRPC's name
        self,
        request: backend_pb2.ResolveImagesRequest,
        context: Any,  # noqa: ARG002 - gRPC's shape
    ) -> backend_pb2.ResolveImagesResponse:
        self.calls.append(request)
        known = self.files.get(request.team, set())
        violations = []
        images = []
        for position, ref in enumerate(request.refs):
            file_id = ref.file_id
            if ref.upload_url:
                parts = ref.upload_url.split("/")
                file_id = int(parts[3]) if ref.upload_url.startswith("/api/uploads/") else 0
            if not file_id:
                violations.append(
                    FieldViolation(f"refs[{position}]", "is no upload", "IMAGE_NOT_AN_UPLOAD")
                )
            elif file_id not in known:
                violations.append(
                    FieldViolation(f"refs[{position}]", "is not found", "IMAGE_NOT_FOUND")
                )
            images.append(backend_pb2.ResolvedImage(file_id=file_id))
        for field, wanted, there in (
            ("moodboard_id", request.moodboard_id, self.moodboards.keys()),
            ("folder_id", request.folder_id, self.folders),
        ):
            if wanted and wanted not in there:
                reason = field.removesuffix("_id").upper() + "_NOT_FOUND"
                violations.append(FieldViolation(field, "is not found", reason))
        if violations:
            raise InvalidArgumentError(
                "bad references", reason="BAD_IMAGE_REFERENCE", violations=violations
            )
        return backend_pb2.ResolveImagesResponse(
            images=images, moodboard=self.moodboards.get(request.moodboard_id)
        )

    async def StoreGenerated(self, request_iterator: Any, context: Any) -> Any:  # noqa: ARG002, N802 - gRPC's shape
        raise _not_here()

    async def BeginArchive(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - gRPC's shape
        raise _not_here()

    async def StoreArchive(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - gRPC's shape
        raise _not_here()

    async def ResolveArchive(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - gRPC's shape
        raise _not_here()

    async def ListUnheardEndings(  # noqa: N802 - gRPC's name
        self,
        request: backend_pb2.ListUnheardEndingsRequest,
        context: Any,  # noqa: ARG002 - gRPC's shape
    ) -> backend_pb2.ListUnheardEndingsResponse:
        self.asked += request.jobs
        job_ids = [job.job_id for job in request.jobs if job.job_id in self.unheard]
        return backend_pb2.ListUnheardEndingsResponse(job_ids=job_ids)

    async def ListFolderImages(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 - gRPC's shape
        raise _not_here()


def _not_here() -> UnimplementedError:
    return UnimplementedError("enqueue does not call this")
