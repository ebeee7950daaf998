"""ExecutionService: what to make, in words, and the words that a worker has found."""

from __future__ import annotations

from typing import Any

from contentshop.enqueue.v1 import execution_pb2
from libs.common.checks import checking
from services.enqueue.domain import ImageState, Job
from services.enqueue.prompt import MAX_PROMPT_CHARS
from services.enqueue.usecases.deps import Deps
from services.enqueue.usecases.executing import Held
from services.enqueue.usecases.prompting import record_prompt
from services.enqueue.workflows import WORKFLOWS

MAX_ENHANCE_MS = 3600 * 1000


class PromptDoors:
    """RecordPrompt."""

    _deps: Deps

    async def RecordPrompt(
        self, request: execution_pb2.RecordPromptRequest, context: Any
    ) -> execution_pb2.RecordPromptResponse:
        """Keeps the enhanced prompt of a job."""
        with checking() as check:
            check.id(request.job_id, "job_id")
            check.id(request.fence, "fence")
            check.text(request.enhanced, MAX_PROMPT_CHARS, "enhanced")
            check.within(request.enhance_ms, 0, MAX_ENHANCE_MS, "enhance_ms")
        held = Held(request.job_id, request.fence)
        job = await record_prompt(self._deps, held, request.enhanced.strip(), request.enhance_ms)
        return execution_pb2.RecordPromptResponse(images=images_to_make(job))


def images_to_make(job: Job) -> list[execution_pb2.ImageToMake]:
    """The images that are still to be made, each with its whole prompt."""
    workflow, spec = WORKFLOWS[job.spec.schema_key], job.spec
    return [
        execution_pb2.ImageToMake(
            index=image.index,
            prompt=workflow.image_prompt(spec.prompt.text, image.shot, spec.shot_count),
        )
        for image in job.images
        if image.state is ImageState.PENDING
    ]
