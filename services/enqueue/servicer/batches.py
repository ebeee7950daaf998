"""EnqueueService: batches, and running failed jobs again."""

from __future__ import annotations

from typing import Any

from contentshop.enqueue.v1 import enqueue_pb2
from libs.common.auth import current_caller
from libs.common.canonical import request_key
from libs.common.checks import checking
from libs.common.paging import page_size
from services.enqueue.servicer.batch_drafts import batch_draft
from services.enqueue.servicer.batch_messages import batch_message
from services.enqueue.servicer.convert import job_message
from services.enqueue.servicer.means import Doors
from services.enqueue.usecases import batches

DEFAULT_PAGE = 50
MAX_PAGE = 200


class BatchDoors(Doors):
    """Requests about batches; the team is the token's."""

    async def EnqueueBatch(
        self, request: enqueue_pb2.EnqueueBatchRequest, context: Any
    ) -> enqueue_pb2.EnqueueBatchResponse:
        """Enqueues a batch."""
        team = current_caller().team
        key = request_key(team, "EnqueueBatch", request)
        batch = await self._means.batches(key, lambda: batch_draft(team, request))
        return enqueue_pb2.EnqueueBatchResponse(batch=batch_message(batch))

    async def EstimateBatch(
        self, request: enqueue_pb2.EstimateBatchRequest, context: Any
    ) -> enqueue_pb2.EstimateBatchResponse:
        """Says what a batch would take."""
        team = current_caller().team
        found = await self._means.batches.estimate(team, lambda: batch_draft(team, request))
        return enqueue_pb2.EstimateBatchResponse(
            jobs=found.jobs,
            images=found.images,
            required_credits=found.required,
            available_credits=found.available,
            enough_credits=found.enough,
            estimated_seconds=found.seconds,
        )

    async def GetBatch(
        self, request: enqueue_pb2.GetBatchRequest, context: Any
    ) -> enqueue_pb2.GetBatchResponse:
        """One batch as it stands."""
        _check_batch_id(request.batch_id)
        batch = await batches.get_batch(self._means.deps, current_caller().team, request.batch_id)
        return enqueue_pb2.GetBatchResponse(batch=batch_message(batch))

    async def ListBatches(
        self, request: enqueue_pb2.ListBatchesRequest, context: Any
    ) -> enqueue_pb2.ListBatchesResponse:
        """A page of batches, newest first."""
        team = current_caller().team
        limit = page_size(request.page_size, default=DEFAULT_PAGE, most=MAX_PAGE)
        scope = ("ListBatches", team)
        before = self._means.tokens.open(request.page_token, *scope)
        found = await batches.list_batches(
            self._means.deps, team, before_id=before, limit=limit + 1
        )
        token = self._means.tokens.seal(found[limit - 1].id, *scope) if len(found) > limit else ""
        return enqueue_pb2.ListBatchesResponse(
            batches=[batch_message(batch) for batch in found[:limit]], next_page_token=token
        )

    async def CancelBatch(
        self, request: enqueue_pb2.CancelBatchRequest, context: Any
    ) -> enqueue_pb2.CancelBatchResponse:
        """Cancels what has not ended of a batch."""
        _check_batch_id(request.batch_id)
        caller = current_caller()
        batch = await batches.cancel_batch(
            self._means.deps, caller.team, request.batch_id, actor=caller.subject
        )
        return enqueue_pb2.CancelBatchResponse(batch=batch_message(batch))

    async def RetryBatch(
        self, request: enqueue_pb2.RetryBatchRequest, context: Any
    ) -> enqueue_pb2.RetryBatchResponse:
        """Runs the failed jobs of a batch again."""
        key = request_key(current_caller().team, "RetryBatch", request)
        _check_batch_id(request.batch_id)
        retried = await self._means.retry.batch(
            key, request.batch_id, only_missing=request.only_missing
        )
        return enqueue_pb2.RetryBatchResponse(
            batch=batch_message(retried.batch), job_ids=retried.job_ids
        )

    async def RetryJob(
        self, request: enqueue_pb2.RetryJobRequest, context: Any
    ) -> enqueue_pb2.RetryJobResponse:
        """Runs a failed job again."""
        key = request_key(current_caller().team, "RetryJob", request)
        with checking() as check:
            check.id(request.job_id, "job_id")
        job = await self._means.retry.job(key, request.job_id, only_missing=request.only_missing)
        return enqueue_pb2.RetryJobResponse(job=job_message(job))


def _check_batch_id(batch_id: int) -> None:
    with checking() as check:
        check.id(batch_id, "batch_id")
