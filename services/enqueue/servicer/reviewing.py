"""EnqueueService: what people say of images, and what images took."""

from __future__ import annotations

from typing import Any

from contentshop.enqueue.v1 import enqueue_pb2, job_pb2
from libs.common.auth import REVIEW_SCOPE, authorize, current_caller
from libs.common.checks import checking
from services.enqueue.domain import ReviewState
from services.enqueue.servicer.convert import image_message, job_message, usage_message
from services.enqueue.servicer.drafts import MAX_VARIATIONS
from services.enqueue.servicer.means import Doors
from services.enqueue.servicer.times import window_of
from services.enqueue.usecases import reviewing, usage

MAX_NOTES_CHARS = 1000
MAX_RATING = 5

_WORDS = {
    job_pb2.REVIEW_STATE_APPROVED: ReviewState.APPROVED,
    job_pb2.REVIEW_STATE_REJECTED: ReviewState.REJECTED,
}


class ReviewDoors(Doors):
    """Requests about made images; the team is the token's."""

    async def ReviewJob(
        self, request: enqueue_pb2.ReviewJobRequest, context: Any
    ) -> enqueue_pb2.ReviewJobResponse:
        """Reviews an ended job; where a review decides who sees what, for reviewers alone."""
        caller = current_caller()
        if self._means.deps.limits.review_required:
            authorize(caller, [REVIEW_SCOPE])
        with checking() as check:
            check.id(request.job_id, "job_id")
            check.one_of(request.state, _WORDS, "state")
            check.text(request.notes, MAX_NOTES_CHARS, "notes")
        job = await reviewing.review_job(
            self._means.deps,
            caller.team,
            request.job_id,
            _WORDS[request.state],
            reviewer=caller.subject,
            notes=request.notes,
        )
        return enqueue_pb2.ReviewJobResponse(job=job_message(job))

    async def RateImage(
        self, request: enqueue_pb2.RateImageRequest, context: Any
    ) -> enqueue_pb2.RateImageResponse:
        """Rates one image."""
        with checking() as check:
            check.id(request.job_id, "job_id")
            check.within(request.image_index, 1, MAX_VARIATIONS, "image_index")
            check.within(request.rating, 0, MAX_RATING, "rating")
        caller = current_caller()
        image = await reviewing.rate_image(
            self._means.deps,
            caller.team,
            request.job_id,
            request.image_index,
            request.rating,
            actor=caller.subject,
        )
        return enqueue_pb2.RateImageResponse(image=image_message(image))

    async def GetUsage(
        self, request: enqueue_pb2.GetUsageRequest, context: Any
    ) -> enqueue_pb2.GetUsageResponse:
        """What the team's images took."""
        with checking() as check:
            start, end = window_of(request, "from", "until", check)
        found = await usage.get_usage(self._means.deps, current_caller().team, start, end)
        return enqueue_pb2.GetUsageResponse(
            images=found.images, jobs=found.jobs, usage=usage_message(found.usage)
        )
