"""What `contentshop batch watch` does: a batch's progress, per image and per variant."""

from __future__ import annotations

from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from cli import words
from cli.connection import Connection, connect
from cli.errors import ExitCode
from cli.following import follow_batch
from cli.output import Output
from cli.plain import enum_word, to_plain
from cli.running import run
from contentshop.enqueue.v1 import batch_pb2, enqueue_pb2, job_pb2

SHOWN_VARIANTS = 15  # rows on a terminal; the rest is counted
_ENDINGS = {
    job_pb2.JOB_EVENT_KIND_SUCCEEDED: "SUCCEEDED",
    job_pb2.JOB_EVENT_KIND_FAILED: "FAILED",
    job_pb2.JOB_EVENT_KIND_CANCELED: "CANCELED",
}
_MOVES = {
    **_ENDINGS,
    job_pb2.JOB_EVENT_KIND_QUEUED: "QUEUED",
    job_pb2.JOB_EVENT_KIND_STARTED: "RUNNING",
    job_pb2.JOB_EVENT_KIND_REQUEUED: "QUEUED",
}


@dataclass(slots=True)
class Variant:
    """One job of the batch, as its events tell."""

    name: str
    images: int
    state: str = "QUEUED"
    done: int = 0
    failed: int = 0
    why: str = ""

    def hear(self, event: job_pb2.JobEvent) -> None:
        """Moves with an event."""
        self.state = _MOVES.get(event.kind, self.state)
        self.done += event.kind == job_pb2.JOB_EVENT_KIND_IMAGE_DONE
        self.failed += event.kind == job_pb2.JOB_EVENT_KIND_IMAGE_FAILED
        if event.error.reason:
            self.why = event.error.reason


class BatchProgress(Protocol):
    """Shows one batch from message to message."""

    def update(self, response: enqueue_pb2.WatchBatchResponse) -> None:
        """A message came."""
        ...

    def notice(self, text: str) -> None:
        """Something about the connection."""
        ...


def batch_state(batch: batch_pb2.Batch) -> str:
    """`ACTIVE`."""
    return enum_word(batch_pb2.BatchState.DESCRIPTOR, batch.state)


def watch(
    batch_id: int, *, after: str, data: Path | None, team: str | None, output: Output
) -> ExitCode:
    """Shows a batch from the cursor to its end; with JSON one line per message."""

    async def work() -> ExitCode:
        async with connect(data, team) as shop:
            batch = await follow_shown(shop, batch_id, output, after=after, lines=True)
        return say_ending(batch, output)

    return run(work())


async def follow_shown(
    shop: Connection,
    batch_id: int,
    output: Output,
    *,
    after: str = "",
    known_to_run: bool = False,
    lines: bool = False,
) -> batch_pb2.Batch:
    """Follows a batch to its end with its progress shown; the batch at its end.

    With `lines` and JSON, each message is a line of it.
    """
    batch = batch_pb2.Batch(id=batch_id)
    with await _shown(shop, batch_id, output) as display:
        stream = follow_batch(
            shop, batch_id, after=after, notice=display.notice, known_to_run=known_to_run
        )
        async with aclosing(stream) as responses:
            async for response in responses:
                batch = response.batch
                display.update(response)
                if lines:
                    output.result(_line(response))
    return batch


def say_ending(batch: batch_pb2.Batch, output: Output) -> ExitCode:
    """One sentence on how a batch ended, and the exit code for it."""
    state = batch_state(batch)
    counts = words.images(batch.images.done, batch.images.total)
    text = f"batch {batch.id} {state.lower()}: {counts}"
    if state == "SUCCEEDED":
        output.note(text, style="bold green")
        return ExitCode.OK
    jobs = batch.jobs
    output.note(f"{text}; {jobs.failed} jobs failed, {jobs.canceled} canceled", style="bold red")
    if jobs.failed:
        output.note(f"Run those again: contentshop batch retry {batch.id} --only-missing")
    return ExitCode.FAILED


def _line(response: enqueue_pb2.WatchBatchResponse) -> dict[str, Any]:
    return {
        "cursor": response.cursor,
        "final": response.final,
        "event": to_plain(response.event) if response.HasField("event") else None,
        "skipped": response.snapshot.skipped,
        "batch": to_plain(response.batch),
    }


async def _shown(
    shop: Connection, batch_id: int, output: Output
) -> AbstractContextManager[BatchProgress]:
    if output.as_json:
        return nullcontext(_Silent())
    from cli.batches import jobs_of  # noqa: PLC0415 - it imports us

    variants = {
        job.id: Variant(job.variant or f"variant {job.variant_index}", job.number_of_variations)
        for job in await jobs_of(shop, batch_id)
    }
    if output.stderr.is_terminal:
        return _Bars(output.stderr, batch_id, variants)
    return nullcontext(_Lines(output, variants))


class _Silent:
    """Says nothing."""

    def update(self, response: enqueue_pb2.WatchBatchResponse) -> None:
        """Nothing."""

    def notice(self, text: str) -> None:
        """Nothing."""


def _variant_of(variants: dict[int, Variant], event: job_pb2.JobEvent) -> Variant:
    """The variant of an event; a job of a later retry is known by its id alone."""
    return variants.setdefault(event.job_id, Variant(f"job {event.job_id}", 0))


class _Lines:
    """One plain line per image and per ending."""

    def __init__(self, output: Output, variants: dict[int, Variant]) -> None:
        self._output = output
        self._variants = variants

    def update(self, response: enqueue_pb2.WatchBatchResponse) -> None:
        """Says the event, if there is one."""
        if not response.HasField("event"):
            return
        event, images = response.event, response.batch.images
        variant = _variant_of(self._variants, event)
        variant.hear(event)
        kind = enum_word(job_pb2.JobEventKind.DESCRIPTOR, event.kind).lower().replace("_", " ")
        what = kind.replace("archive", "zip")
        if event.image_index:
            what = f"image {event.image_index} of {variant.images or '?'} {what.split()[-1]}"
        why = f"  {event.error.reason}: {event.error.message}" if event.error.reason else ""
        so_far = f"  ({images.done} of {images.total} images)" if event.image_index else ""
        self._output.note(f"batch {response.batch.id}: {variant.name}: {what}{so_far}{why}")

    def notice(self, text: str) -> None:
        """Says it."""
        self._output.note(text)


class _Bars:
    """A bar for all images, and one for each variant that is being made, redrawn in place."""

    def __init__(self, console: Console, batch_id: int, variants: dict[int, Variant]) -> None:
        self._variants = variants
        self._bar = Progress(
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._bar.add_task(f"batch {batch_id}", total=None, state="")
        self._notice = ""
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=8)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop_task(self._task)
        self._live.stop()

    def update(self, response: enqueue_pb2.WatchBatchResponse) -> None:
        """The bars move with the events."""
        if response.HasField("event"):
            _variant_of(self._variants, response.event).hear(response.event)
        batch = response.batch
        self._bar.update(
            self._task,
            total=batch.images.total,
            completed=batch.images.done,
            state=f"{batch_state(batch).lower()}, {batch.jobs.succeeded}/{batch.jobs.total} jobs",
        )

    def notice(self, text: str) -> None:
        """Shown under the bars until something comes."""
        self._notice = "" if text == "connected again" else text

    def _render(self) -> RenderableType:
        order = {"RUNNING": 0, "FAILED": 1, "QUEUED": 2, "CANCELED": 3, "SUCCEEDED": 4}
        rows = sorted(self._variants.values(), key=lambda variant: order[variant.state])
        grid = Table.grid(padding=(0, 1))
        for variant in rows[:SHOWN_VARIANTS]:
            bar = "█" * variant.done + "·" * max(variant.images - variant.done, 0)
            state = Text(variant.state.lower(), style=words.style_of(variant.state))
            grid.add_row(" ", Text(variant.name), bar, state, Text(variant.why, style="dim"))
        parts: list[RenderableType] = [self._bar, grid]
        if len(rows) > SHOWN_VARIANTS:
            parts.append(Text(f"  and {len(rows) - SHOWN_VARIANTS} more", style="dim"))
        if self._notice:
            parts.append(Text(f"  {self._notice} …", style="yellow"))
        return Group(*parts)
