"""What the jobs of a batch say together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.enqueue.batch import (
    Batch,
    BatchState,
    Tally,
    finished_at,
    image_counts,
    job_counts,
)
from services.enqueue.domain import InputImage, JobState, Moodboard, Usage
from services.enqueue.references import KeptMoodboard, pin_tokens, request_of, with_moodboard

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def tally(state: JobState, jobs: int = 1, *, at: datetime | None = NOW) -> Tally:
    """So many jobs of two images each, of which one is DONE."""
    return Tally(state, jobs, 2 * jobs, jobs, 0, at)


def batch_of(*tallies: Tally) -> Batch:
    return Batch(
        id=1,
        team="red",
        name="",
        created_at=NOW,
        jobs=job_counts(tallies),
        images=image_counts(tallies),
        job_ids=(),
        usage=Usage(),
        finished_at=finished_at(tallies),
    )


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([JobState.QUEUED, JobState.FAILED], BatchState.ACTIVE),
        ([JobState.RUNNING], BatchState.ACTIVE),
        ([JobState.SUCCEEDED], BatchState.SUCCEEDED),
        ([JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED], BatchState.FAILED),
        ([JobState.SUCCEEDED, JobState.CANCELED], BatchState.CANCELED),
    ],
)
def test_a_batch_stands_where_its_jobs_do(states: list[JobState], expected: BatchState) -> None:
    batch = batch_of(*(tally(state) for state in states))
    assert batch.state is expected
    assert batch.ended == (expected is not BatchState.ACTIVE)
    assert (batch.jobs.total, batch.images.total) == (len(states), 2 * len(states))


def test_unsettled_images_are_pending_or_canceled_with_their_job() -> None:
    images = batch_of(tally(JobState.RUNNING, 3), tally(JobState.CANCELED, 2)).images
    assert (images.pending, images.canceled, images.done, images.failed) == (3, 2, 5, 0)


def test_a_batch_ends_with_its_last_job() -> None:
    later = NOW + timedelta(seconds=1)
    ended = [tally(JobState.SUCCEEDED), tally(JobState.FAILED, at=later)]
    assert batch_of(*ended).finished_at == later
    assert batch_of(*ended, tally(JobState.QUEUED, at=None)).finished_at is None
    assert batch_of().finished_at is None


def test_a_kept_moodboard_fills_what_the_request_leaves_out() -> None:
    kept = KeptMoodboard(Moodboard((11, 12), (13,)), model_file_id=14, background_file_id=15)
    own = [InputImage("product", 1), InputImage("product", 2), InputImage("background", 3)]
    assert [(i.role, i.file_id) for i in with_moodboard(own, kept)] == [
        ("product", 1),
        ("product", 2),
        ("model", 14),
        ("background", 3),
        ("moodboard", 11),
        ("moodboard", 12),
        ("avoid", 13),
    ]


def test_pin_tokens_of_a_request_are_different_and_know_each_other() -> None:
    tokens = pin_tokens("abc", 100)
    assert len(set(tokens)) == 100
    assert {request_of(token) for token in [*tokens, *pin_tokens("abc", 1)]} == {"abc"}
