"""Rows to domain objects."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from services.enqueue.domain import (
    Archive,
    ArchiveState,
    Event,
    EventKind,
    Fault,
    Hold,
    Image,
    ImageState,
    InputImage,
    Job,
    JobSpec,
    JobState,
    Labels,
    MadeImage,
    Moodboard,
    Review,
    ReviewState,
    Usage,
)
from services.enqueue.prompt import Prompt, PromptStrategy

Row = sa.Row[Any]


def fault_of(reason: str | None, message: str | None) -> Fault | None:
    """A fault from its two columns."""
    return Fault(reason, message or "") if reason else None


def job_of(row: Row, images: tuple[Image, ...] = ()) -> Job:
    """A job from its row and its images."""
    job = Job(
        id=row.id,
        spec=spec_of(row),
        state=JobState(row.state),
        fence=row.fence,
        worker=row.worker or "",
        attempts=row.attempts,
        max_attempts=row.max_attempts,
        lost_workers=row.lost_workers,
        dispatch_no=row.dispatch_no,
        last_sequence=row.last_sequence,
        images_done=row.images_done,
        images_failed=row.images_failed,
        fault=fault_of(row.error_reason, row.error_message),
        archive=Archive(
            ArchiveState(row.archive_state),
            row.archive_file_id or 0,
            row.archive_filename or "",
            row.archive_size_bytes or 0,
            fault_of(row.archive_error_reason, row.archive_error_message),
        ),
        created_at=row.created_at,
        admitted_at=row.admitted_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        not_before=row.not_before,
        review=Review(
            ReviewState(row.review_state),
            row.reviewer or "",
            row.reviewed_at,
            row.review_notes or "",
        ),
        hold=None if row.credits_held is None else Hold(row.credits_held, row.credits_released),
        dead=row.dead,
        rate_waits=row.rate_waits,
        rate_wait_until=row.rate_wait_until,
    )
    return job.with_images(images) if images else job


def spec_of(row: Row) -> JobSpec:
    """The unchanging part of a job."""
    board = row.moodboard_snapshot
    return JobSpec(
        team=row.team,
        type=row.type,
        quality=row.quality,
        format=row.format,
        schema_key=row.schema_key,
        values=row.input,
        aspect_ratio=row.aspect_ratio,
        count=row.number_of_variations,
        inputs=tuple(InputImage(role, file_id) for role, file_id in row.inputs),
        moodboard=Moodboard(
            tuple(board["positive_file_ids"]),
            tuple(board["negative_file_ids"]),
            board["style_appendix"],
        )
        if board
        else None,
        prompt=Prompt(
            row.prompt_original,
            PromptStrategy(row.prompt_strategy),
            row.prompt_enhanced or "",
            row.prompt_enhance_ms,
        ),
        priority=row.priority,
        labels=Labels(
            row.product,
            row.variant,
            row.destination,
            row.workspace_session_id,
            row.template_name,
            row.source_task_id,
        ),
        pin_token=row.pin_token,
        batch_id=row.batch_id or 0,
        variant_index=row.variant_index or 0,
        retry_of=row.retry_of or 0,
        folder_id=row.folder_id or 0,
        moodboard_id=row.moodboard_id or 0,
        shots=tuple(row.shots or ()),
        shots_of=row.shots_of or 0,
    )


def image_of(row: Row) -> Image:
    """A slot from its row."""
    made = None
    if row.file_id is not None:
        made = MadeImage(
            file_id=row.file_id,
            content_type=row.content_type,
            width=row.width,
            height=row.height,
            size_bytes=row.size_bytes,
            sha256=row.sha256,
            model=row.model,
            usage=Usage(row.prompt_tokens, row.output_tokens, row.total_tokens, row.cost_micros),
        )
    return Image(
        index=row.image_index,
        state=ImageState(row.state),
        attempt=row.attempt,
        made=made,
        fault=fault_of(row.error_reason, row.error_message),
        done_at=row.done_at,
        rating=row.rating,
        shot=row.image_index,
    )


def event_of(row: Row) -> Event:
    """An event from its row."""
    return Event(
        job_id=row.job_id,
        sequence=row.sequence,
        kind=EventKind(row.kind),
        at=row.at,
        image_index=row.image_index,
        file_id=row.file_id,
        attempt=row.attempt,
        fault=fault_of(row.error_reason, row.error_message),
        commit_order=row.commit_order,
    )
