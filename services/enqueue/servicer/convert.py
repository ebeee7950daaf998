"""Domain objects to protobuf."""

from __future__ import annotations

from datetime import datetime

from google.protobuf import timestamp_pb2

from contentshop.enqueue.v1 import job_pb2
from services.enqueue.domain import Event, Fault, Image, Job, Review, Usage
from services.enqueue.prompt import Prompt, PromptStrategy


def timestamp(at: datetime | None) -> timestamp_pb2.Timestamp | None:
    """A Timestamp, or None for a time that is not set."""
    if at is None:
        return None
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(at)
    return stamp


def fault_message(fault: Fault | None) -> job_pb2.JobError | None:
    """A JobError, or None."""
    return job_pb2.JobError(reason=fault.reason, message=fault.message) if fault else None


def usage_message(usage: Usage) -> job_pb2.Usage:
    """A Usage."""
    return job_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        cost_micros=usage.cost_micros,
    )


def image_message(image: Image) -> job_pb2.Image:
    """An Image."""
    message = job_pb2.Image(
        index=image.index,
        state=job_pb2.ImageState.Value(f"IMAGE_STATE_{image.state}"),
        error=fault_message(image.fault),
        done_time=timestamp(image.done_at),
        attempt=image.attempt,
        rating=image.rating,
        shot=image.shot,
    )
    made = image.made
    if made is not None:
        message.file_id = made.file_id
        message.content_type = made.content_type
        message.width = made.width
        message.height = made.height
        message.size_bytes = made.size_bytes
        message.model = made.model
        message.usage.CopyFrom(usage_message(made.usage))
    return message


def job_message(job: Job) -> job_pb2.Job:
    """A Job."""
    spec = job.spec
    message = job_pb2.Job(
        id=job.id,
        type=job_pb2.JobType.Value(f"JOB_TYPE_{spec.type.upper()}"),
        state=job_pb2.JobState.Value(f"JOB_STATE_{job.state}"),
        lane=spec.lane,
        schema_key=spec.schema_key,
        number_of_variations=spec.count,
        product_image_file_ids=spec.file_ids("product"),
        model_image_file_id=spec.file_id("model"),
        background_image_file_id=spec.file_id("background"),
        base_image_file_id=spec.file_id("base"),
        reference_image_file_id=spec.file_id("reference"),
        prompt=_prompt_message(spec.prompt),
        quality=job_pb2.Quality.Value(f"QUALITY_{spec.quality.upper()}"),
        format=job_pb2.ImageFormat.Value(f"IMAGE_FORMAT_{spec.format.upper()}"),
        product=spec.labels.product,
        variant=spec.labels.variant,
        destination=spec.labels.destination,
        workspace_session_id=spec.labels.workspace_session_id,
        template_name=spec.labels.template_name,
        source_task_id=spec.labels.source_task_id,
        priority=spec.priority,
        attempts=job.attempts,
        max_attempts=job.max_attempts,
        lost_workers=job.lost_workers,
        error=fault_message(job.fault),
        images=[image_message(image) for image in job.images],
        images_done=job.images_done,
        images_failed=job.images_failed,
        archive=_archive_message(job),
        last_sequence=job.last_sequence,
        usage=usage_message(sum((i.made.usage for i in job.images if i.made), Usage())),
        create_time=timestamp(job.created_at),
        admit_time=timestamp(job.admitted_at),
        start_time=timestamp(job.started_at),
        finish_time=timestamp(job.finished_at),
        not_before=timestamp(job.not_before),
        review=_review_message(job.review),
        credits=_credits_message(job),
        batch_id=spec.batch_id,
        variant_index=spec.variant_index,
        retry_of=spec.retry_of,
        folder_id=spec.folder_id,
        moodboard_id=spec.moodboard_id,
        dead=job.dead,
    )
    message.input.update(dict(spec.values))
    if spec.moodboard is not None:
        message.moodboard_snapshot.CopyFrom(
            job_pb2.MoodboardSnapshot(
                positive_file_ids=spec.moodboard.positive_file_ids,
                negative_file_ids=spec.moodboard.negative_file_ids,
                style_appendix=spec.moodboard.style_appendix,
            )
        )
    return message


def _prompt_message(prompt: Prompt) -> job_pb2.Prompt:
    return job_pb2.Prompt(
        original=prompt.original,
        enhanced=prompt.enhanced,
        strategy=job_pb2.PromptStrategy.Value(
            f"PROMPT_STRATEGY_{prompt.strategy or PromptStrategy.NONE}"
        ),
        enhance_ms=prompt.enhance_ms or 0,
    )


def _archive_message(job: Job) -> job_pb2.JobArchive:
    archive = job.archive
    return job_pb2.JobArchive(
        state=job_pb2.ArchiveState.Value(f"ARCHIVE_STATE_{archive.state}"),
        file_id=archive.file_id,
        filename=archive.filename,
        size_bytes=archive.size_bytes,
        error=fault_message(archive.fault),
    )


def _review_message(review: Review) -> job_pb2.Review:
    return job_pb2.Review(
        state=job_pb2.ReviewState.Value(f"REVIEW_STATE_{review.state}"),
        reviewer=review.reviewer,
        review_time=timestamp(review.at),
        notes=review.notes,
    )


def _credits_message(job: Job) -> job_pb2.JobCredits:
    if job.hold is None:
        return job_pb2.JobCredits()
    return job_pb2.JobCredits(
        held=job.hold.held, captured=job.images_done, released=job.hold.released or 0
    )


def event_message(event: Event) -> job_pb2.JobEvent:
    """A JobEvent."""
    return job_pb2.JobEvent(
        sequence=event.sequence,
        kind=job_pb2.JobEventKind.Value(f"JOB_EVENT_KIND_{event.kind}"),
        time=timestamp(event.at),
        image_index=event.image_index,
        file_id=event.file_id,
        attempt=event.attempt,
        error=fault_message(event.fault),
        job_id=event.job_id,
    )
