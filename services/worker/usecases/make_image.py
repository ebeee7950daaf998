"""Making one image of a job: tries, storing, recording."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from libs.common.backoff import Backoff
from libs.common.clock import Clock
from libs.common.crash import CrashPoints
from libs.common.errors import ContentshopError, InvalidArgumentError
from libs.common.ids import Ids
from libs.common.outcomes import Outcome
from services.worker.circuit import GeneratorCircuit
from services.worker.domain import Claim, JobOverError, Lease, StoredImage, wait_before_next_try
from services.worker.generation import (
    GeneratedImage,
    GenerationError,
    Generator,
    ImageRequest,
    NoLeaveError,
    Usage,
)
from services.worker.inhand import Counters, JobInHand
from services.worker.prices import Price
from services.worker.usecases.call_leave import CallLeave

log = structlog.get_logger()


class ImageStore(Protocol):
    """Where made images go."""

    async def store_generated(
        self, claim: Claim, request: ImageRequest, image: GeneratedImage
    ) -> StoredImage:
        """Stores one image and what it was made of; raises JobOverError, InvalidArgumentError."""
        ...


class ImageRecords(Protocol):
    """Who is told of made images."""

    async def record_image(
        self, lease: Lease, index: int, stored: StoredImage, model: str, usage: Usage
    ) -> int:
        """The file id that stands in the slot; raises LeaseLostError."""
        ...


@dataclass(frozen=True, slots=True)
class _Kept:
    """An image in store, its bytes let go."""

    stored: StoredImage
    model: str
    usage: Usage


class MakeImage:
    """Makes, stores and records one image, by as many tries as its outcomes allow.

    Args:
        generator: makes it, one call per try.
        store: keeps the bytes.
        records: is told.
        circuit: whether calls are worth their while.
        counters: what is counted.
        leave: gives places for calls, and leave for each; a place is held until the bytes are
            stored, which bounds the bytes in memory.
        model_of: quality → the model that is asked; empty for none that is governed.
        timeout_seconds: for one generator call.
        prices: by model; what is not there costs nothing.
        clock: for waits.
        ids: for jitter.
        crash: W3, W4 and W6 are here.
    """

    def __init__(
        self,
        *,
        generator: Generator,
        store: ImageStore,
        records: ImageRecords,
        circuit: GeneratorCircuit,
        counters: Counters,
        leave: CallLeave,
        model_of: Callable[[str], str],
        timeout_seconds: float,
        prices: Mapping[str, Price],
        clock: Clock,
        ids: Ids,
        crash: CrashPoints,
        backoff: Backoff | None = None,
    ) -> None:
        self._generator = generator
        self._store = store
        self._records = records
        self._circuit = circuit
        self._counters = counters
        self._leave = leave
        self._model_of = model_of
        self._timeout = timeout_seconds
        self._prices = prices
        self._clock = clock
        self._ids = ids
        self._crash = crash
        self._backoff = backoff or Backoff(first_seconds=0.5, max_seconds=10.0)

    async def __call__(
        self, job: JobInHand, request: ImageRequest, spent: Usage
    ) -> GenerationError | None:
        """None when the image is recorded, else the fault that used the tries up.

        Args:
            job: the image's.
            request: what to make.
            spent: on it already, to be counted with it.

        Raises:
            LeaseLostError, JobOverError: the job is not this worker's any more.
        """
        tries = 0
        while True:
            tries += 1
            try:
                await self._try(job, request, spent)
            except NoLeaveError as no_leave:
                # What has just failed may be why there is no leave: others find out before it.
                fault = no_leave if tries == 1 else no_leave.behind_others()
                log.info("image.no_leave", index=request.index, again_in=fault.retry_after_seconds)
                return fault
            except GenerationError as fault:
                wait = wait_before_next_try(
                    fault,
                    tries,
                    self._backoff.wait(tries, self._ids),
                    hands_back=job.claim.hands_back(fault.outcome),
                )
                log.info(
                    "image.try_failed",
                    index=request.index,
                    tries=tries,
                    outcome=fault.outcome.value,
                    detail=fault.detail,
                    again_in=wait,
                )
                if wait is None:
                    return fault
            else:
                return None
            await self._clock.sleep(wait)

    async def _try(self, job: JobInHand, request: ImageRequest, spent: Usage) -> None:
        model = self._model_of(request.quality)
        async with self._leave.place(job.claim.lease, model):
            if job.leaving:
                raise asyncio.CancelledError  # ends this image's task, as leave() would have
            with job.busy():
                kept = await self._make_and_store(job, request, spent)
        with job.busy():
            await self._record(job, request.index, kept)

    async def _make_and_store(self, job: JobInHand, request: ImageRequest, spent: Usage) -> _Kept:
        image = await self._call(job, request)
        image = replace(image, usage=spent + image.usage.priced(image.model, self._prices))
        self._crash.here("W4")
        try:
            stored = await self._store.store_generated(job.claim, request, image)
        except InvalidArgumentError as error:
            self._counters.failures += 1
            raise GenerationError(
                Outcome.INVALID_OUTPUT,
                "the generator made an image that is no good",
                detail=error.violations[0].reason if error.violations else error.reason,
            ) from None
        except (JobOverError, asyncio.CancelledError):
            self._counters.wasted += 1
            raise
        except ContentshopError as error:
            self._counters.wasted += 1
            raise GenerationError(
                Outcome.STORAGE_UNAVAILABLE,
                "the image could not be stored for now",
                detail=error.reason,
            ) from None
        if stored.dropped:
            self._counters.wasted += 1
        return _Kept(stored, image.model, image.usage)

    async def _call(self, job: JobInHand, request: ImageRequest) -> GeneratedImage:
        if not self._circuit.allows_calls:
            raise GenerationError(Outcome.UNAUTHORIZED, "the generator refuses its key")
        self._counters.calls += 1
        job.calls += 1
        # Runs when the call is under way, at its first wait.
        asyncio.get_running_loop().call_soon(self._crash.here, "W3")
        try:
            async with asyncio.timeout(self._timeout):
                image = await self._generator.generate(request)
        except TimeoutError:
            fault = GenerationError(Outcome.TIMED_OUT, "the generator did not answer in time")
        except GenerationError as error:
            fault = error
        except Exception as error:  # noqa: BLE001 - a fault of one call must not end the job
            log.warning("generator.fault", index=request.index, exc_info=error)
            fault = GenerationError(Outcome.INTERNAL, "the generator failed")
        else:
            self._answered(request, None)
            self._counters.extra += image.extra_images
            return image
        finally:
            job.calls -= 1
        self._counters.failures += 1
        self._answered(request, fault)
        raise fault

    def _answered(self, request: ImageRequest, fault: GenerationError | None) -> None:
        self._circuit.answered(fault.outcome if fault else None)
        self._leave.answered(self._model_of(request.quality), fault)

    async def _record(self, job: JobInHand, index: int, kept: _Kept) -> None:
        self._crash.here("W6")
        try:
            standing = await self._records.record_image(
                job.claim.lease, index, kept.stored, kept.model, kept.usage
            )
        except (ContentshopError, asyncio.CancelledError):
            self._count_wasted(kept)
            raise
        if standing != kept.stored.file_id:
            self._count_wasted(kept)

    def _count_wasted(self, kept: _Kept) -> None:
        if not kept.stored.dropped:  # those are counted already
            self._counters.wasted += 1
