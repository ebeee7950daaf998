"""A batch's progress, on a terminal and in lines."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from cli.batch_watching import SHOWN_VARIANTS, Variant, _Bars, _Lines
from cli.output import Output
from contentshop.enqueue.v1 import batch_pb2, enqueue_pb2, job_pb2


def said(kind: str, job_id: int, done: int, **fields: Any) -> enqueue_pb2.WatchBatchResponse:
    return enqueue_pb2.WatchBatchResponse(
        event=job_pb2.JobEvent(
            kind=job_pb2.JobEventKind.Value(f"JOB_EVENT_KIND_{kind}"), job_id=job_id, **fields
        ),
        batch=batch_pb2.Batch(
            id=3,
            state=batch_pb2.BATCH_STATE_ACTIVE,
            images=batch_pb2.ImageCounts(total=40, done=done),
            jobs=batch_pb2.JobCounts(total=20, running=1),
        ),
    )


STORY = [
    said("STARTED", 17, 0),
    said("IMAGE_DONE", 17, 1, image_index=1),
    said("IMAGE_FAILED", 17, 1, image_index=2, error={"reason": "NO_IMAGE", "message": "none"}),
    said("FAILED", 17, 1, error={"reason": "NO_IMAGE", "message": "none"}),
    said("STARTED", 99, 1),  # of a retry that began later
]


def variants() -> dict[int, Variant]:
    return {number: Variant(f"v{number}", 2) for number in range(1, 21)}


def test_bars_show_what_runs_first() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100, color_system=None)
    with _Bars(console, 3, variants()) as bars:
        for message in STORY:
            bars.update(message)
        bars.update(enqueue_pb2.WatchBatchResponse(batch=STORY[-1].batch))  # a snapshot
        bars.notice("the connection is gone; trying again")
    drawn = text.getvalue().rsplit("batch 3", 1)[1]
    lines = [line.strip() for line in drawn.splitlines()]
    assert "1/40 active, 0/20 jobs" in lines[0]
    assert lines[1].startswith("job 99")
    assert lines[2].split() == ["v17", "█·", "failed", "NO_IMAGE"]
    assert f"and {21 - SHOWN_VARIANTS} more" in lines
    assert "the connection is gone; trying again …" in lines


def test_lines_tell_each_event(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _Lines(Output(), variants())
    for message in STORY:
        lines.update(message)
    lines.notice("connected again")
    assert capsys.readouterr().err.splitlines() == [
        "batch 3: v17: started",
        "batch 3: v17: image 1 of 2 done  (1 of 40 images)",
        "batch 3: v17: image 2 of 2 failed  (1 of 40 images)  NO_IMAGE: none",
        "batch 3: v17: failed  NO_IMAGE: none",
        "batch 3: job 99: started",
        "connected again",
    ]
