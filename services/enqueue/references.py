"""What jobs ask of assets, and what it answers. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.enqueue.domain import InputImage, Moodboard

# The order of a job's inputs, which is how prompts and generators count them. Those of one role
# stand as they were given.
ORDER = ("product", "model", "background", "moodboard", "avoid")


@dataclass(frozen=True, slots=True)
class DraftRef:
    """An image reference of a request: where it stands, what for, and what it says.

    Exactly one of file_id and upload_url is set.
    """

    field: str
    role: str
    file_id: int = 0
    upload_url: str = ""


@dataclass(frozen=True, slots=True)
class Pins:
    """Which of the references a job needs: they are pinned under its token.

    Attributes:
        token: the job's pin token.
        refs: positions of its references, from 0.
    """

    token: str
    refs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What assets is to resolve in one call.

    Attributes:
        refs: every reference, once.
        pins: one per job; none: nothing is pinned.
        moodboard_id: a moodboard to take a snapshot of; 0 for none. Its files are pinned as well.
        folder_id: a folder to check; 0 for none.
    """

    refs: tuple[DraftRef, ...]
    pins: tuple[Pins, ...] = ()
    moodboard_id: int = 0
    folder_id: int = 0


@dataclass(frozen=True, slots=True)
class KeptMoodboard:
    """A moodboard kept at assets, as it stands now.

    Attributes:
        snapshot: what the job keeps of it.
        model_file_id: the person, used where a request names none; 0: it has none.
        background_file_id: the scene, likewise.
    """

    snapshot: Moodboard
    model_file_id: int = 0
    background_file_id: int = 0


@dataclass(frozen=True, slots=True)
class Resolved:
    """What assets found: the file ids in the order asked, and the moodboard's snapshot."""

    file_ids: tuple[int, ...]
    moodboard: KeptMoodboard | None = None


def with_moodboard(inputs: Sequence[InputImage], kept: KeptMoodboard) -> list[InputImage]:
    """A request's own inputs with those of the kept moodboard it names, in ORDER."""
    own = {i.role for i in inputs}
    found = [
        ("model", 0 if "model" in own else kept.model_file_id),
        ("background", 0 if "background" in own else kept.background_file_id),
        *(("moodboard", file_id) for file_id in kept.snapshot.positive_file_ids),
        *(("avoid", file_id) for file_id in kept.snapshot.negative_file_ids),
    ]
    more = [InputImage(role, file_id) for role, file_id in found if file_id]
    return sorted([*inputs, *more], key=lambda i: ORDER.index(i.role))


def pin_tokens(request: str, jobs: int) -> list[str]:
    """The pin tokens of a request's jobs, in order; `request` is a token of ids."""
    return [request] if jobs == 1 else [f"{request}.{n}" for n in range(1, jobs + 1)]


def request_of(pin_token: str) -> str:
    """What the pin tokens of one request's jobs have in common."""
    return pin_token.partition(".")[0]
