"""ExecutionService: leave for calls to a model, and how they went."""

from __future__ import annotations

import math
from typing import Any

from contentshop.enqueue.v1 import execution_pb2
from libs.common.checks import checking
from services.enqueue.governor import CallReport
from services.enqueue.usecases.executing import Held
from services.enqueue.usecases.governing import Governor

MAX_MODEL_CHARS = 128
MAX_CALLS = 10
MAX_REPORTED = 100_000
MAX_RETRY_MS = 24 * 3600 * 1000


class CallDoors:
    """AcquireCalls and ReportCalls."""

    _governor: Governor

    async def AcquireCalls(
        self, request: execution_pb2.AcquireCallsRequest, context: Any
    ) -> execution_pb2.AcquireCallsResponse:
        """Leave for some calls, or a wait."""
        with checking() as check:
            check.id(request.job_id, "job_id")
            check.id(request.fence, "fence")
            check.text(request.model, MAX_MODEL_CHARS, "model", required=True)
            check.within(request.calls, 1, MAX_CALLS, "calls")
        grant = await self._governor.acquire(
            Held(request.job_id, request.fence), request.model, request.calls
        )
        return execution_pb2.AcquireCallsResponse(
            granted=grant.calls, wait_ms=math.ceil(grant.wait_seconds * 1000)
        )

    async def ReportCalls(
        self, request: execution_pb2.ReportCallsRequest, context: Any
    ) -> execution_pb2.ReportCallsResponse:
        """How calls went."""
        with checking() as check:
            check.text(request.model, MAX_MODEL_CHARS, "model", required=True)
            for name in ("ok", "rate_limited", "failed"):
                check.within(getattr(request, name), 0, MAX_REPORTED, name)
            check.within(request.retry_after_ms, 0, MAX_RETRY_MS, "retry_after_ms")
        calls = CallReport(
            request.ok, request.rate_limited, request.failed, request.retry_after_ms / 1000
        )
        await self._governor.report(request.model, calls)
        return execution_pb2.ReportCallsResponse()
