"""Numbers, times, events and messages as the command shows them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import typer
from google.protobuf import timestamp_pb2

from cli import words
from cli.options import parse_id, parse_seconds
from cli.plain import enum_word, to_plain
from cli.progress import event_line
from contentshop.enqueue.v1 import enqueue_pb2, job_pb2

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (55_345, "55.3 kB"),
        (1_400_000, "1.4 MB"),
        (5 * 10**12, "5000.0 GB"),
    ],
)
def test_sizes(count: int, shown: str) -> None:
    assert words.size(count) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (-1.0, "0 ms"),
        (0.04, "40 ms"),
        (1.84, "1.8 s"),
        (65, "1 min 05 s"),
        (3599.9, "1 h 00 min"),
        (7380, "2 h 03 min"),
    ],
)
def test_lengths_of_time(value: float, shown: str) -> None:
    assert words.seconds(value) == shown


@pytest.mark.parametrize(
    ("passed", "shown"), [(3, "just now"), (300, "5 min ago"), (7300, "2 h ago"), (2e5, "2 d ago")]
)
def test_ago(passed: float, shown: str) -> None:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(NOW - timedelta(seconds=passed))
    assert words.ago(stamp, NOW) == shown


def test_counts_of_images() -> None:
    assert [words.images(1, 1), words.images(3, 4), words.images(4, 4)] == [
        "1 image",
        "3 of 4 images",
        "4 images",
    ]


def test_ids_and_lengths_as_typed() -> None:
    assert parse_id("12") == 12
    assert [parse_seconds(text) for text in ("90", "90s", "15m", "1h")] == [90, 90, 900, 3600]
    for wrong in ("", "-1", "1.5", "٣", "0", "1e3"):
        with pytest.raises(typer.BadParameter):
            parse_id(wrong)
    for wrong in ("", "-1s", "1d", "٣", "876001h", "9" * 12 + "h", "9" * 5000):
        with pytest.raises(typer.BadParameter):
            parse_seconds(wrong)


def test_messages_as_plain_values() -> None:
    job = job_pb2.Job(id=2**40, state=job_pb2.JOB_STATE_RUNNING, product_image_file_ids=[3])
    job.images.add(index=1, state=job_pb2.IMAGE_STATE_PENDING)
    job.input.update({"purpose": "hero"})
    job.create_time.FromJsonString("2026-11-21T12:00:00Z")
    plain = to_plain(job)
    assert plain["id"] == 2**40
    assert (plain["state"], plain["type"]) == ("RUNNING", "")
    assert plain["images"][0]["state"] == "PENDING"
    assert plain["input"] == {"purpose": "hero"}
    assert plain["create_time"] == "2026-11-21T12:00:00Z"
    assert plain["finish_time"] is None
    assert plain["product_image_file_ids"] == [3]


def test_a_value_we_do_not_know_is_its_number() -> None:
    assert enum_word(job_pb2.JobState.DESCRIPTOR, 99) == "99"


def test_events_in_a_line() -> None:
    job = job_pb2.Job(id=7, number_of_variations=4, images_done=1)
    job.images.add(
        index=2, state=job_pb2.IMAGE_STATE_DONE, width=1024, height=768, size_bytes=1_300_000
    )
    job.archive.size_bytes = 5_000_000
    lines = [
        event_line(event, job)
        for event in (
            job_pb2.JobEvent(kind=job_pb2.JOB_EVENT_KIND_QUEUED),
            job_pb2.JobEvent(kind=job_pb2.JOB_EVENT_KIND_STARTED, attempt=2),
            job_pb2.JobEvent(kind=job_pb2.JOB_EVENT_KIND_IMAGE_DONE, image_index=2),
            job_pb2.JobEvent(
                kind=job_pb2.JOB_EVENT_KIND_IMAGE_FAILED,
                image_index=3,
                error=job_pb2.JobError(reason="NO_IMAGE", message="the model made none"),
            ),
            job_pb2.JobEvent(kind=job_pb2.JOB_EVENT_KIND_ARCHIVE_READY),
        )
    ]
    assert lines == [
        "job 7: queued",
        "job 7: started (attempt 2)",
        "job 7: image 2 of 4 done  1024×768  1.3 MB",  # noqa: RUF001 - the sign for times
        "job 7: image 3 of 4 failed  NO_IMAGE: the model made none",
        "job 7: zip ready  5.0 MB",
    ]


def test_no_field_of_the_contract_is_left_out() -> None:
    plain = to_plain(enqueue_pb2.WatchJobResponse(sequence=3))
    assert set(plain) == {field.name for field in enqueue_pb2.WatchJobResponse.DESCRIPTOR.fields}
