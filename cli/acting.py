"""What `contentshop retry`, `explain`, `review` and `rate` do."""

from __future__ import annotations

from pathlib import Path

from cli import words
from cli.asking import ask
from cli.errors import ExitCode
from cli.output import Output
from cli.plain import to_plain
from contentshop.enqueue.v1 import enqueue_pb2, job_pb2


def retry(
    job_id: int,
    *,
    only_missing: bool,
    request_id: str,
    data: Path | None,
    team: str | None,
    output: Output,
) -> ExitCode:
    """Runs a failed job again."""
    request = enqueue_pb2.RetryJobRequest(
        job_id=job_id, only_missing=only_missing, request_id=request_id
    )
    job = ask("enqueue", "RetryJob", request, data=data, team=team).job
    output.say(str(job.id))
    images = words.images(job.number_of_variations, job.number_of_variations)
    output.note(f"job {job.id} runs job {job_id} again: {images}; contentshop watch {job.id}")
    output.result({"job": to_plain(job)})
    return ExitCode.OK


def explain(job_id: int, *, data: Path | None, team: str | None, output: Output) -> ExitCode:
    """Says why a job waits."""
    request = enqueue_pb2.ExplainJobRequest(job_id=job_id)
    why = ask("enqueue", "ExplainJob", request, data=data, team=team)
    output.say(why.sentence)
    if why.HasField("eta"):
        output.say(f"It is likely to end at {words.when(why.eta)}.")
    output.result({"explanation": to_plain(why)})
    return ExitCode.OK


def review(
    job_id: int, *, approve: bool, notes: str, data: Path | None, team: str | None, output: Output
) -> ExitCode:
    """Reviews a job."""
    state = job_pb2.REVIEW_STATE_APPROVED if approve else job_pb2.REVIEW_STATE_REJECTED
    request = enqueue_pb2.ReviewJobRequest(job_id=job_id, state=state, notes=notes)
    job = ask("reviews", "ReviewJob", request, data=data, team=team).job
    output.say(f"job {job_id} is {'approved' if approve else 'rejected'}")
    output.result({"job": to_plain(job)})
    return ExitCode.OK


def rate(
    job_id: int, index: int, rating: int, *, data: Path | None, team: str | None, output: Output
) -> ExitCode:
    """Rates an image."""
    request = enqueue_pb2.RateImageRequest(job_id=job_id, image_index=index, rating=rating)
    image = ask("enqueue", "RateImage", request, data=data, team=team).image
    said = f"has {rating} of 5" if rating else "has no rating any more"
    output.say(f"image {index} of job {job_id} {said}")
    output.result({"image": to_plain(image)})
    return ExitCode.OK
