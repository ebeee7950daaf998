"""Loading a job's input images, just before they are used."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from libs.common.errors import TRANSIENT, ContentshopError, DataLossError, NotFoundError
from libs.common.outcomes import Outcome
from services.worker.domain import BadInputsError, Claim, InputFile, InputImage
from services.worker.gateways.patience import Patience
from services.worker.generation import GenerationError, Reference


class InputFiles(Protocol):
    """Where input images are."""

    async def resolve(self, team: str, file_ids: Sequence[int]) -> list[InputFile]:
        """Facts in the order asked; raises BadInputsError."""
        ...

    async def read(self, file: InputFile) -> bytes:
        """Bytes, checked; raises NotFoundError, DataLossError."""
        ...


class LoadReferences:
    """Ids → blob_urls by one call, in the order the prompt speaks of them → bytes.

    Args:
        files: where they are.
        at_once: downloads at once, of all jobs.
        patience: for repeats of the whole, since blob_urls last for minutes only.
    """

    def __init__(self, files: InputFiles, *, at_once: int, patience: Patience) -> None:
        self._files = files
        self._places = asyncio.Semaphore(at_once)
        self._patience = patience

    async def __call__(self, claim: Claim) -> tuple[Reference, ...]:
        """The references of a job, each file's bytes held once.

        Raises:
            GenerationError: BAD_INPUT, naming the file; STORAGE_UNAVAILABLE.
        """
        if not claim.inputs:
            return ()
        try:
            return await self._patience.ask(
                lambda: self._load(claim), lease=claim.lease, what="load_references"
            )
        except BadInputsError as error:
            raise _missing(claim, error) from None
        except TRANSIENT:
            raise GenerationError(
                Outcome.STORAGE_UNAVAILABLE, "the input images could not be read for now"
            ) from None

    async def _load(self, claim: Claim) -> tuple[Reference, ...]:
        resolved = await self._files.resolve(claim.team, [one.file_id for one in claim.inputs])
        files = {file.file_id: file for file in resolved}
        inputs = {one.file_id: one for one in claim.inputs}
        try:
            async with asyncio.TaskGroup() as group:
                reads = {
                    file_id: group.create_task(self._read(inputs[file_id], file))
                    for file_id, file in files.items()
                    if file_id in inputs
                }
        except ExceptionGroup as faults:
            raise _worst(faults) from None
        return tuple(
            Reference(
                one.role,
                one.file_id,
                files[one.file_id].content_type,
                reads[one.file_id].result(),
                files[one.file_id].sha256,
            )
            for one in claim.inputs
        )

    async def _read(self, one: InputImage, file: InputFile) -> bytes:
        async with self._places:
            try:
                return await self._files.read(file)
            except (NotFoundError, DataLossError):
                raise GenerationError(
                    Outcome.BAD_INPUT, f"file {one.file_id} ({one.role}) is damaged"
                ) from None


def _missing(claim: Claim, error: BadInputsError) -> GenerationError:
    named = [f"{i.file_id} ({i.role})" for i in claim.inputs if i.file_id in error.file_ids]
    word = "file" if len(named) == 1 else "files"
    verb = "is" if len(named) == 1 else "are"
    return GenerationError(
        Outcome.BAD_INPUT, f"{word} {', '.join(named)} {verb} not there any more"
    )


def _worst(faults: ExceptionGroup[Exception]) -> Exception:
    """A fault of the inputs before one of the moment, a fault of ours before both."""

    def weight(error: Exception) -> int:
        if isinstance(error, ContentshopError):
            return 1
        return 2 if isinstance(error, GenerationError) else 3

    return max(faults.exceptions, key=weight)
