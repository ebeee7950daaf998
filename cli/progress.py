"""A job's progress while it runs: bars and spinners on a terminal, plain lines elsewhere."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from cli import words
from cli.output import Output
from cli.plain import enum_word
from contentshop.enqueue.v1 import enqueue_pb2, job_pb2

_JOB_STATES = job_pb2.JobState.DESCRIPTOR
_IMAGE_STATES = job_pb2.ImageState.DESCRIPTOR
_MARKS = {"DONE": "✓", "FAILED": "✗", "CANCELED": "–", "PENDING": "·"}  # noqa: RUF001 - a dash


class JobProgress(Protocol):
    """Shows one job from message to message."""

    def update(self, response: enqueue_pb2.WatchJobResponse) -> None:
        """A message came."""
        ...

    def notice(self, text: str) -> None:
        """Something about the connection."""
        ...


def shown(output: Output, job_id: int) -> AbstractContextManager[JobProgress]:
    """The progress display that suits where the output goes."""
    if output.as_json:
        return nullcontext(SilentProgress())
    if output.stderr.is_terminal:
        return LiveProgress(output.stderr, job_id)
    return nullcontext(LineProgress(output))


def job_state(job: job_pb2.Job) -> str:
    """`RUNNING`."""
    return enum_word(_JOB_STATES, job.state)


def image_state(image: job_pb2.Image) -> str:
    """`DONE`."""
    return enum_word(_IMAGE_STATES, image.state)


def image_facts(image: job_pb2.Image) -> str:
    """What there is to say of an image: its size, or why it failed."""
    if image.state == job_pb2.IMAGE_STATE_DONE:
        return f"{image.width}×{image.height}  {words.size(image.size_bytes)}"  # noqa: RUF001 - times
    if image.HasField("error"):
        return f"{image.error.reason}: {image.error.message}"
    return ""


class SilentProgress:
    """Says nothing."""

    def update(self, response: enqueue_pb2.WatchJobResponse) -> None:
        """Nothing."""

    def notice(self, text: str) -> None:
        """Nothing."""


class LineProgress:
    """One plain line per event."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def update(self, response: enqueue_pb2.WatchJobResponse) -> None:
        """Says the event, if there is one."""
        if response.HasField("event"):
            self._output.note(event_line(response.event, response.job))

    def notice(self, text: str) -> None:
        """Says it."""
        self._output.note(text)


def event_line(event: job_pb2.JobEvent, job: job_pb2.Job) -> str:
    """An event in one line: `job 12: image 2 of 4 done`."""
    kind = enum_word(job_pb2.JobEventKind.DESCRIPTOR, event.kind)
    text = kind.lower().replace("_", " ").replace("archive", "zip")
    if event.image_index:
        verb = text.removeprefix("image ")
        image = next((i for i in job.images if i.index == event.image_index), None)
        text = f"image {event.image_index} of {job.number_of_variations} {verb}"
        if kind == "IMAGE_DONE" and image is not None:
            text += f"  {image_facts(image)}"
    elif kind == "STARTED" and event.attempt > 1:
        text += f" (attempt {event.attempt})"
    elif kind == "ARCHIVE_READY":
        text += f"  {words.size(job.archive.size_bytes)}"
    if event.HasField("error") and event.error.reason:
        text += f"  {event.error.reason}: {event.error.message}"
    return f"job {job.id}: {text}"


class LiveProgress:
    """A bar for the job and a line for each image, redrawn in place."""

    def __init__(self, console: Console, job_id: int) -> None:
        self._bar = Progress(
            TextColumn("{task.description}", style="bold"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._bar.add_task(f"job {job_id}", total=None, state="")
        self._spinner = Spinner("dots", style="cyan")
        self._job: job_pb2.Job | None = None
        self._notice = ""
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=12, transient=False
        )

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

    def update(self, response: enqueue_pb2.WatchJobResponse) -> None:
        """The bar moves with the job as it stands."""
        if not response.HasField("job"):
            return
        self._job = job = response.job
        self._bar.update(
            self._task,
            total=job.number_of_variations,
            completed=job.images_done,
            state=Text(job_state(job).lower(), style=words.style_of(job_state(job))).plain,
        )

    def notice(self, text: str) -> None:
        """Shown under the images until something comes."""
        self._notice = "" if text == "connected again" else text

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = [self._bar]
        if self._job is not None:
            parts.append(self._images(self._job))
        if self._notice:
            parts.append(Text(f"  {self._notice} …", style="yellow"))
        return Group(*parts)

    def _images(self, job: job_pb2.Job) -> Table:
        grid = Table.grid(padding=(0, 1))
        running = job.state == job_pb2.JOB_STATE_RUNNING
        for image in job.images:
            state = image_state(image)
            grid.add_row(
                " ",
                self._mark(state, turning=running),
                f"image {image.index}",
                Text("making" if running and state == "PENDING" else state.lower(), style="dim"),
                Text(image_facts(image)),
            )
        if job.archive.state > job_pb2.ARCHIVE_STATE_NONE:
            state = enum_word(job_pb2.ArchiveState.DESCRIPTOR, job.archive.state)
            facts = words.size(job.archive.size_bytes) if state == "READY" else ""
            mark = self._mark("DONE" if state == "READY" else state, turning=True)
            grid.add_row(" ", mark, "zip", Text(state.lower(), style="dim"), facts)
        return grid

    def _mark(self, state: str, *, turning: bool) -> RenderableType:
        if state == "PENDING" and turning:
            return self._spinner
        return Text(_MARKS.get(state, " "), style=words.style_of(state))
