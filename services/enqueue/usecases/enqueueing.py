"""EnqueueGeneration and EnqueueEdit: from a checked draft to a durable job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from libs.common.checks import Violations
from libs.common.clock import Clock
from libs.common.errors import (
    ContentshopError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)
from libs.common.ids import Ids
from libs.common.request_keys import RequestKey
from services.enqueue.domain import InputImage, Job, JobSpec, Moodboard
from services.enqueue.prompt import PromptStrategy
from services.enqueue.references import (
    DraftRef,
    KeptMoodboard,
    Pins,
    Resolved,
    Wanted,
    pin_tokens,
    with_moodboard,
)
from services.enqueue.store import admission, jobs
from services.enqueue.usecases.deps import Deps, Limits
from services.enqueue.usecases.prompting import build_prompt
from services.enqueue.usecases.storing import NewRequest, Stored, StoreRequests

DEPTH_SECONDS = 1.0
MAX_KNOWN_TEAMS = 10_000
TOO_MANY = "TOO_MANY_REFERENCES"


@dataclass(frozen=True, slots=True)
class Draft:
    """A job whose shape is right and whose references are not resolved yet.

    `spec.inputs`, `spec.prompt`, `spec.moodboard` and `spec.pin_token` are filled in by the use
    case.

    Attributes:
        refs: in the order the prompt speaks of them; drafts of one request may share some.
        moodboard_style: the words of the moodboard given with the request; None where it has none.
        moodboard_field: where the request names the kept moodboard `spec.moodboard_id`.
        folder_field: where the request names the folder `spec.folder_id`.
    """

    spec: JobSpec
    refs: tuple[DraftRef, ...]
    moodboard_style: str | None = None
    moodboard_field: str = "moodboard.moodboard_id"
    folder_field: str = "folder_id"


@dataclass(frozen=True, slots=True)
class Found:
    """The references of new jobs, resolved.

    Attributes:
        tokens: one per job, in order, to pin under.
        file_ids: of every reference.
        moodboard: the snapshot, where one was asked for.
    """

    tokens: list[str]
    file_ids: dict[DraftRef, int]
    moodboard: KeptMoodboard | None


class ImageResolver(Protocol):
    """assets, as far as enqueueing needs it."""

    async def resolve(self, team: str, wanted: Wanted) -> Resolved:
        """All of it, pinned; InvalidArgumentError naming each bad one, at refs[i] and so on."""
        ...


class EnqueueJob:
    """Checks and resolves jobs, and has them stored.

    Args:
        deps: shared means.
        resolver: assets.
        clock: for the depth cache.
        ids: pin tokens.
        store: what stores them.
    """

    def __init__(
        self, deps: Deps, resolver: ImageResolver, clock: Clock, ids: Ids, store: StoreRequests
    ) -> None:
        self._deps = deps
        self._resolver = resolver
        self._clock = clock
        self._ids = ids
        self._store = store
        self._depths: dict[str, tuple[float, int]] = {}

    async def __call__(self, key: RequestKey, draft: Callable[[], Draft]) -> Job:
        """The stored job, or the one this request_id made before.

        Args:
            key: the caller's key; its request_id may be empty.
            draft: checks the request's shape.

        Raises:
            AlreadyExistsError: IDEMPOTENCY_KEY_REUSED.
            InvalidArgumentError: a wrong field or reference.
            ResourceExhaustedError: QUEUE_FULL.
            UnavailableError: nothing is known of the result; repeat with the same request_id.
        """
        self._deps.crash.here("E1")

        async def prepare() -> NewRequest:
            return NewRequest(key, await self.prepare(key.team, [draft()]))

        return await self.job_of(key, await self.store(key, prepare))

    async def store(self, key: RequestKey, prepare: Callable[[], Awaitable[NewRequest]]) -> Stored:
        """What the prepared request has made, or what its request_id made before."""
        try:
            new = await prepare()
        except ContentshopError:
            # A replay comes before any check: what no longer passes may have been made before.
            # Looked up only here and in the transaction, so that a new request pays for it once.
            if (made := await self._store.made_before(key)) is not None:
                return Stored(made)
            raise
        return await self._store(new)

    async def job_of(self, key: RequestKey, stored: Stored) -> Job:
        """The job a request has made, as it stands; NotFoundError where it was removed since."""
        if stored.jobs:
            return stored.jobs[0]
        async with self._deps.db.read(key.team) as tx:
            job = await jobs.find(tx, stored.resource_id, key.team)
        if job is None:
            raise NotFoundError("job")
        return job

    async def prepare(
        self, team: str, drafts: Sequence[Draft], *, writes: bool = True
    ) -> tuple[JobSpec, ...]:
        """The specs of one request's drafts: everything is checked, and resolved in one call.

        Args:
            team: whose.
            drafts: at least one; all have the same moodboard and folder.
            writes: else nothing is pinned, and nothing counted.

        Raises:
            InvalidArgumentError: a wrong reference, or too many.
            ResourceExhaustedError: QUEUE_FULL.
        """
        first = drafts[0]
        _check_references(drafts, self._deps.limits)
        try:
            found = await self.resolve(
                team,
                [draft.refs for draft in drafts],
                moodboard_id=first.spec.moodboard_id,
                folder_id=first.spec.folder_id,
                writes=writes,
            )
        except InvalidArgumentError as error:
            fields = {"moodboard_id": first.moodboard_field, "folder_id": first.folder_field}
            raise _at_fields(error, fields) from None
        specs = tuple(
            _complete(draft, found, token, self._deps.limits.prompt_strategy)
            for token, draft in zip(found.tokens, drafts, strict=True)
        )
        _check_inputs(specs, first, self._deps.limits)
        return specs

    async def resolve(
        self,
        team: str,
        refs: Sequence[Sequence[DraftRef]],
        *,
        moodboard_id: int = 0,
        folder_id: int = 0,
        writes: bool = True,
    ) -> Found:
        """The references of new jobs, each job's pinned under a token of its own.

        Args:
            team: whose.
            refs: for each job; those that are equal are resolved once.
            moodboard_id: to take a snapshot of; 0 for none.
            folder_id: to check; 0 for none.
            writes: else nothing is pinned, and nothing counted.

        Raises:
            InvalidArgumentError: wrong ones, named by their fields.
            ResourceExhaustedError: QUEUE_FULL.
        """
        await self._check_depth(team, len(refs), counts=writes)
        unique = tuple({ref: None for mine in refs for ref in mine})
        positions = {ref: position for position, ref in enumerate(unique)}
        tokens = pin_tokens(self._ids.token(), len(refs))
        pins = [
            Pins(token, tuple(positions[ref] for ref in mine))
            for token, mine in zip(tokens, refs, strict=True)
        ]
        wanted = Wanted(unique, tuple(pins) if writes else (), moodboard_id, folder_id)
        try:
            resolved = await self._resolver.resolve(team, wanted)
        except InvalidArgumentError as error:
            fields = {f"refs[{position}]": ref.field for position, ref in enumerate(unique)}
            raise _at_fields(error, fields) from None
        file_ids = dict(zip(unique, resolved.file_ids, strict=True))
        return Found(tokens, file_ids, resolved.moodboard)

    async def _check_depth(self, team: str, more: int, *, counts: bool) -> None:
        """Refuses a team that would have too many waiting jobs.

        Far from the limit a count may be a second old, what came since added; near it, it is new.
        """
        now = self._clock.monotonic()
        limit = self._deps.limits.queued_jobs_per_team
        counted_at, depth = self._depths.get(team, (float("-inf"), 0))
        if now - counted_at > DEPTH_SECONDS or depth + more > limit:
            async with self._deps.db.read(team) as tx:
                depth = await admission.waiting_count(tx, team, limit)
            counted_at = now
        if len(self._depths) >= MAX_KNOWN_TEAMS:
            self._depths.clear()
        full = depth + more > limit
        self._depths[team] = (counted_at, depth + more if counts and not full else depth)
        if full:
            raise ResourceExhaustedError(
                f"the team may have {limit} waiting jobs",
                reason="QUEUE_FULL",
                metadata={"limit": str(limit)},
                retry_after_seconds=30.0,
                quota_subject="waiting jobs",
            )


def _complete(
    draft: Draft, found: Found, pin_token: str, default_strategy: PromptStrategy
) -> JobSpec:
    """The spec with its inputs resolved and its prompt built."""
    inputs = [InputImage(ref.role, found.file_ids[ref]) for ref in draft.refs]
    moodboard = None
    if found.moodboard is not None:
        moodboard = found.moodboard.snapshot
        inputs = with_moodboard(inputs, found.moodboard)
    elif draft.moodboard_style is not None:
        moodboard = Moodboard(
            tuple(i.file_id for i in inputs if i.role == "moodboard"),
            tuple(i.file_id for i in inputs if i.role == "avoid"),
            draft.moodboard_style,
        )
    style = moodboard.style_appendix if moodboard else ""
    prompt = build_prompt(draft.spec, [i.role for i in inputs], style, default_strategy)
    return replace(
        draft.spec, inputs=tuple(inputs), moodboard=moodboard, prompt=prompt, pin_token=pin_token
    )


def _check_references(drafts: Sequence[Draft], limits: Limits) -> None:
    """Refuses jobs with more references than their model takes, before anything is looked up."""
    check = Violations()
    seen: set[str] = set()
    for draft in drafts:
        most = limits.max_references(draft.spec.quality)
        for ref in draft.refs[most:]:
            if ref.field not in seen:
                seen.add(ref.field)
                check.add(ref.field, _too_many(most), TOO_MANY)
    check.raise_if_any(TOO_MANY)


def _check_inputs(specs: Sequence[JobSpec], first: Draft, limits: Limits) -> None:
    """The same for what a kept moodboard brings."""
    check = Violations()
    most = limits.max_references(first.spec.quality)
    if any(len(spec.inputs) > most for spec in specs):
        check.add(first.moodboard_field, _too_many(most), TOO_MANY)
    check.raise_if_any(TOO_MANY)


def _too_many(most: int) -> str:
    return f"brings too many references: a job of this quality takes at most {most} images"


def _at_fields(error: InvalidArgumentError, fields: Mapping[str, str]) -> InvalidArgumentError:
    """The same error, its violations at the request's own field paths."""
    violations = [
        FieldViolation(fields.get(v.field, v.field), v.description, v.reason)
        for v in error.violations
    ]
    message = error.message
    if len(violations) == 1:
        message = f"{violations[0].field} {violations[0].description}"
    reasons = {v.reason for v in violations}
    reason = reasons.pop() if len(reasons) == 1 else error.reason
    return InvalidArgumentError(message, reason=reason, violations=violations)
