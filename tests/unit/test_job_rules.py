"""The rules of a job's life: which moves there are, what an ending is, which shots are made."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from libs.common.errors import FailedPreconditionError
from services.enqueue.domain import (
    Archive,
    ArchiveState,
    Event,
    EventKind,
    Fault,
    Image,
    ImageState,
    InputImage,
    Job,
    JobSpec,
    JobState,
    Labels,
    Position,
    Usage,
    bad_cursor,
    cursor_past_end,
    outcome_of,
    sources_of,
    wants_archive,
)
from services.enqueue.prompt import Prompt, PromptStrategy

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = JobSpec(
    team="red",
    type="image_generation",
    quality="high",
    format="png",
    schema_key="apparel.catalog.v1",
    values={},
    aspect_ratio="",
    count=3,
    inputs=(InputImage("product", 4), InputImage("model", 7), InputImage("product", 5)),
    moodboard=None,
    prompt=Prompt("a shirt", PromptStrategy.NONE),
    priority=0,
    labels=Labels(),
    pin_token="p" * 32,
)
JOB = Job(
    id=1,
    spec=SPEC,
    state=JobState.RUNNING,
    fence=1,
    worker="w1",
    attempts=1,
    max_attempts=3,
    lost_workers=0,
    dispatch_no=1,
    last_sequence=3,
    images_done=0,
    images_failed=0,
    fault=None,
    archive=Archive(),
    created_at=NOW,
    admitted_at=NOW,
    started_at=NOW,
    finished_at=None,
    not_before=None,
)


def test_a_job_moves_along_these_ways_and_no_others() -> None:
    queued, running = JobState.QUEUED, JobState.RUNNING
    assert {state: set(sources_of(state)) for state in JobState} == {
        queued: {running},
        running: {queued},
        JobState.SUCCEEDED: {running},
        JobState.FAILED: {queued, running},
        JobState.CANCELED: {queued, running},
    }


def test_a_job_is_over_in_its_three_last_states() -> None:
    over = {state for state in JobState if replace(JOB, state=state).terminal}
    assert over == {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED}


@pytest.mark.parametrize("archive", list(ArchiveState))
def test_a_watch_ends_when_the_job_and_its_zip_have(archive: ArchiveState) -> None:
    ended = replace(JOB, state=JobState.SUCCEEDED, archive=Archive(archive))
    assert ended.final is (archive is not ArchiveState.PENDING)
    assert not replace(ended, state=JobState.RUNNING).final


@pytest.mark.parametrize(
    ("done", "failed", "outcome"),
    [(3, 0, JobState.SUCCEEDED), (2, 1, JobState.FAILED), (0, 3, JobState.FAILED)],
)
def test_a_settled_job_ends_well_only_with_every_image(
    done: int, failed: int, outcome: JobState
) -> None:
    settled = replace(JOB, images_done=done, images_failed=failed)
    assert settled.settled
    assert outcome_of(settled) is outcome


@pytest.mark.parametrize(("done", "failed"), [(0, 0), (2, 0), (0, 2), (1, 1)])
def test_a_job_with_a_pending_image_does_not_end(done: int, failed: int) -> None:
    pending = replace(JOB, images_done=done, images_failed=failed)
    assert not pending.settled
    with pytest.raises(FailedPreconditionError) as raised:
        outcome_of(pending)
    assert raised.value.reason == "IMAGES_PENDING"


def test_a_job_of_several_images_that_succeeds_gets_a_zip() -> None:
    assert wants_archive(JobState.SUCCEEDED, 2)
    assert not wants_archive(JobState.SUCCEEDED, 1)
    assert not wants_archive(JobState.FAILED, 2)
    assert not wants_archive(JobState.CANCELED, 2)


def test_which_word_of_a_zip_is_news() -> None:
    none, pending = Archive(), Archive(ArchiveState.PENDING)
    ready, newer = Archive(ArchiveState.READY, 7), Archive(ArchiveState.READY, 8)
    failed = Archive(ArchiveState.FAILED, fault=Fault("NO", "no"))
    assert ready.replaces(pending)
    assert failed.replaces(pending)
    assert ready.replaces(failed)
    assert not failed.replaces(failed)
    assert not failed.replaces(ready)
    assert not replace(failed, file_id=9).replaces(ready)
    assert newer.replaces(ready)
    assert not ready.replaces(ready)
    assert not ready.replaces(newer)
    assert none == Archive(ArchiveState.NONE, 0, "", 0, None)


def test_usage_adds_up_field_by_field() -> None:
    assert Usage(1, 20, 300, 4000) + Usage(5, 60, 700, 8000) == Usage(6, 80, 1000, 12000)
    assert Usage() == Usage(0, 0, 0, 0)


def test_the_inputs_of_a_role_and_the_lane() -> None:
    assert SPEC.file_ids("product") == (4, 5)
    assert SPEC.file_ids("background") == ()
    assert (SPEC.file_id("product"), SPEC.file_id("model"), SPEC.file_id("background")) == (4, 7, 0)
    assert SPEC.lane == "image_generation.high"


def _slot(index: int) -> Image:
    return Image(index, ImageState.PENDING, attempt=0, made=None, fault=None, done_at=None, shot=0)


def test_a_retry_of_the_missing_images_says_which_of_the_first_job_they_are() -> None:
    assert [SPEC.shot(index) for index in (1, 2, 3)] == [1, 2, 3]
    assert SPEC.shot_count == 3
    some = replace(SPEC, count=2, shots=(2, 5), shots_of=6)
    assert [some.shot(1), some.shot(2)] == [2, 5]
    assert some.shot_count == 6
    retry = replace(JOB, spec=some).with_images([_slot(1), _slot(2)])
    assert [(image.index, image.shot) for image in retry.images] == [(1, 2), (2, 5)]
    # As they come: the store has said it.
    assert [image.shot for image in JOB.with_images([_slot(1)]).images] == [0]


def test_a_cursor_stands_before_every_event_of_its_commit() -> None:
    behind, at, inside = Position(4, 9, 9), Position(5, 0, 0), Position(5, 1, 1)
    assert behind.before(5)
    assert at.before(5)
    assert not inside.before(5)
    assert not Position(6, 0, 0).before(5)
    event = Event(7, 3, EventKind.QUEUED, NOW, commit_order=5)
    assert event.position == (5, 7, 3)


def test_what_a_job_and_an_event_are_where_nothing_is_said() -> None:
    event = Event(7, 3, EventKind.QUEUED, NOW)
    assert (event.image_index, event.file_id, event.attempt, event.commit_order) == (0, 0, 0, 0)
    assert (JOB.dead, JOB.rate_waits, _slot(1).rating) == (False, 0, 0)
    assert (SPEC.batch_id, SPEC.variant_index, SPEC.retry_of) == (0, 0, 0)
    assert (SPEC.folder_id, SPEC.moodboard_id, SPEC.shots_of) == (0, 0, 0)


def test_refused_cursors_name_their_field_and_reason() -> None:
    past = cursor_past_end()
    assert past.reason == "CURSOR_PAST_END"
    assert [violation.field for violation in past.violations] == ["after_sequence"]
    bad = bad_cursor("is torn")
    assert bad.reason == "BAD_CURSOR"
    assert [(v.field, v.description, v.reason) for v in bad.violations] == [
        ("after_cursor", "is torn", "BAD_CURSOR")
    ]
