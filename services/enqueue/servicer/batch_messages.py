"""Batches to protobuf."""

from __future__ import annotations

from contentshop.enqueue.v1 import batch_pb2
from services.enqueue.batch import Batch
from services.enqueue.servicer.convert import timestamp, usage_message


def batch_message(batch: Batch) -> batch_pb2.Batch:
    """A Batch."""
    jobs, images = batch.jobs, batch.images
    return batch_pb2.Batch(
        id=batch.id,
        name=batch.name,
        state=batch_pb2.BatchState.Value(f"BATCH_STATE_{batch.state}"),
        jobs=batch_pb2.JobCounts(
            total=jobs.total,
            queued=jobs.queued,
            running=jobs.running,
            succeeded=jobs.succeeded,
            failed=jobs.failed,
            canceled=jobs.canceled,
        ),
        images=batch_pb2.ImageCounts(
            total=images.total,
            pending=images.pending,
            done=images.done,
            failed=images.failed,
            canceled=images.canceled,
        ),
        job_ids=batch.job_ids,
        usage=usage_message(batch.usage),
        create_time=timestamp(batch.created_at),
        finish_time=timestamp(batch.finished_at),
    )
