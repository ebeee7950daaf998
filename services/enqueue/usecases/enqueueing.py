"""EnqueueGeneration and EnqueueEdit: from a checked draft to a durable job."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from libs.common import request_keys
from libs.common.clock import Clock
from libs.common.db import Tx
from libs.common.errors import (
    AlreadyExistsError,
    ContentshopError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
)
from libs.common.ids import Ids
from libs.common.request_keys import KeptKey, RequestKey, check_same
from services.enqueue import tables
from services.enqueue.domain import DraftRef, EventKind, InputImage, Job, JobSpec, Moodboard
from services.enqueue.group_commit import GroupCommit
from services.enqueue.store import admission, jobs
from services.enqueue.store.admission import Places
from services.enqueue.store.events import NewEvent, about
from services.enqueue.usecases.deps import Deps, send, tell
from services.enqueue.workflows import WORKFLOWS

DEPTH_SECONDS = 1.0
MAX_KNOWN_TEAMS = 10_000


@dataclass(frozen=True, slots=True)
class Draft:
    """A job whose shape is right and whose references are not resolved yet.

    `spec.inputs`, `spec.prompt`, `spec.moodboard` and `spec.pin_token` are filled in by the use
    case; `moodboard_style` is the moodboard's words, None where there is no moodboard.
    """

    spec: JobSpec
    refs: tuple[DraftRef, ...]
    moodboard_style: str | None = None


class ImageResolver(Protocol):
    """assets, as far as enqueueing needs it."""

    async def resolve(self, team: str, refs: Sequence[DraftRef], pin_token: str) -> list[int]:
        """The file ids in order, pinned; InvalidArgumentError naming each bad one at refs[i]."""
        ...


@dataclass(frozen=True, slots=True)
class NewJob:
    """One job to store, with the caller's key."""

    spec: JobSpec
    key: RequestKey


class EnqueueJob:
    """Checks, resolves and stores one job; the storing is shared by all that wait (group commit).

    Args:
        deps: shared means.
        resolver: assets.
        clock: for the depth cache.
        ids: pin tokens.
    """

    def __init__(self, deps: Deps, resolver: ImageResolver, clock: Clock, ids: Ids) -> None:
        self._deps = deps
        self._resolver = resolver
        self._clock = clock
        self._ids = ids
        self._known_teams: set[str] = set()
        self._depths: dict[str, tuple[float, int]] = {}
        self.commits: GroupCommit[NewJob, Job] = GroupCommit(self._store)

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
        pin_token = self._ids.token()
        try:
            drafted = draft()
            await self._check_depth(key.team)
            file_ids = await self._resolve(key.team, drafted.refs, pin_token)
        except ContentshopError:
            # A replay comes before any check: what no longer passes may have made its job before.
            # Looked up only here and in the transaction, so that a new request pays for it once.
            if (replayed := await self._replay(key)) is not None:
                return replayed
            raise
        job = await self.commits.submit(NewJob(_complete(drafted, file_ids, pin_token), key))
        self._deps.crash.here("E3")
        return job

    async def _replay(self, key: RequestKey) -> Job | None:
        if not key.request_id:
            return None
        async with self._deps.db.read(key.team) as tx:
            kept = await request_keys.find_same(tx, tables.idempotency_keys, key)
            return await jobs.find(tx, kept.resource_id, key.team) if kept else None

    async def _check_depth(self, team: str) -> None:
        """Refuses a team with too many waiting jobs.

        Far from the limit a count may be a second old, what came since added; near it, it is new.
        """
        now = self._clock.monotonic()
        limit = self._deps.limits.queued_jobs_per_team
        counted_at, depth = self._depths.get(team, (float("-inf"), 0))
        if now - counted_at > DEPTH_SECONDS or depth >= limit:
            async with self._deps.db.read(team) as tx:
                depth = await admission.waiting_count(tx, team, limit)
            counted_at = now
        if len(self._depths) >= MAX_KNOWN_TEAMS:
            self._depths.clear()
        self._depths[team] = (counted_at, depth + 1)
        if depth >= limit:
            raise ResourceExhaustedError(
                f"the team has {limit} waiting jobs, which is its limit",
                reason="QUEUE_FULL",
                metadata={"limit": str(limit)},
                retry_after_seconds=30.0,
                quota_subject="waiting jobs",
            )

    async def _resolve(self, team: str, refs: Sequence[DraftRef], pin_token: str) -> list[int]:
        try:
            return await self._resolver.resolve(team, refs, pin_token)
        except InvalidArgumentError as error:
            raise _at_fields(error, refs) from None

    async def _store(self, group: Sequence[NewJob]) -> Sequence[Job | ContentshopError]:
        """The group in one transaction: each item's job, or its own error."""
        teams = {item.spec.team for item in group}
        async with self._deps.db.transaction(*sorted(teams)) as tx:
            if not teams <= self._known_teams:
                await admission.ensure_teams(tx, teams)
            limits = await admission.lock_teams(tx, teams)
            names = {i.key.name for i in group if i.key.request_id}
            kept = await request_keys.find(tx, tables.idempotency_keys, names)
            fresh, repeats = _split(group, kept)
            stored = await self._add(tx, [group[i] for i in fresh], limits) if fresh else []
            self._deps.crash.here("E2")
            results: dict[int, Job | ContentshopError] = dict(zip(fresh, stored, strict=True))
            made = {group[i].key.name: job for i, job in zip(fresh, stored, strict=True)}
            for position in repeats:
                results[position] = await _repeated(tx, group[position].key, kept, made, group)
        if len(self._known_teams) < MAX_KNOWN_TEAMS:
            self._known_teams |= teams
        return [results[position] for position in range(len(group))]

    async def _add(
        self, tx: Tx, items: Sequence[NewJob], limits: Mapping[str, int | None]
    ) -> list[Job]:
        """Stores new jobs with slots, events, keys and messages; admits those with a place."""
        deps = self._deps
        places = await admission.places(tx, limits, deps.limits.live_jobs_per_team)
        admitted = _admissible(items, places)
        stored = await jobs.add(
            tx,
            [item.spec for item in items],
            admitted=admitted,
            max_attempts=deps.limits.max_attempts,
            ring=deps.limits.first_ring_seconds,
        )
        await tell(tx, deps, [event for job in stored for event in _first_events(job)])
        named = [(i.key, j.id) for i, j in zip(items, stored, strict=True) if i.key.request_id]
        await request_keys.add(tx, tables.idempotency_keys, named)
        announcer = deps.announcer
        messages = [announcer.enqueued(j.id, j.spec.team, j.spec.pin_token) for j in stored]
        messages += [announcer.doorbell(j) for j in stored if j.admitted_at is not None]
        await send(tx, deps, messages)
        return stored


def _first_events(job: Job) -> list[NewEvent]:
    kinds = [EventKind.QUEUED, *([EventKind.ADMITTED] if job.admitted_at else [])]
    return [about(job, kind, sequence=sequence) for sequence, kind in enumerate(kinds, 1)]


def _complete(draft: Draft, file_ids: Sequence[int], pin_token: str) -> JobSpec:
    """The spec with its inputs resolved and its prompt built."""
    inputs = tuple(
        InputImage(ref.role, file_id) for ref, file_id in zip(draft.refs, file_ids, strict=True)
    )
    moodboard = None
    if draft.moodboard_style is not None:
        moodboard = Moodboard(
            tuple(i.file_id for i in inputs if i.role == "moodboard"),
            tuple(i.file_id for i in inputs if i.role == "avoid"),
            draft.moodboard_style,
        )
    prompt = WORKFLOWS[draft.spec.schema_key].prompt(
        draft.spec.values, [i.role for i in inputs], draft.moodboard_style or ""
    )
    return replace(
        draft.spec, inputs=inputs, moodboard=moodboard, prompt=prompt, pin_token=pin_token
    )


def _at_fields(error: InvalidArgumentError, refs: Sequence[DraftRef]) -> InvalidArgumentError:
    """The same error, its violations at the request's own field paths."""
    fields = {f"refs[{position}]": ref.field for position, ref in enumerate(refs)}
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


def _split(
    group: Sequence[NewJob], kept: Mapping[tuple[str, str, str], KeptKey]
) -> tuple[list[int], list[int]]:
    """Positions of new requests and of repeats, repeats within the group included."""
    fresh, repeats, seen = [], [], set(kept)
    for position, item in enumerate(group):
        if item.key.request_id and item.key.name in seen:
            repeats.append(position)
            continue
        seen.add(item.key.name)
        fresh.append(position)
    return fresh, repeats


def _admissible(items: Sequence[NewJob], places: Mapping[str, Places]) -> set[str]:
    """Pin tokens of the new jobs that get a place at once: by priority, then arrival.

    None of a team whose earlier jobs wait: they come first, when a place gets free.
    """
    free = {team: 0 if place.waiting else place.free for team, place in places.items()}
    admitted = set()
    for item in sorted(items, key=lambda item: -item.spec.priority):
        if free.get(item.spec.team, 0) > 0:
            free[item.spec.team] -= 1
            admitted.add(item.spec.pin_token)
    return admitted


async def _repeated(
    tx: Tx,
    key: RequestKey,
    kept: Mapping[tuple[str, str, str], KeptKey],
    made: Mapping[tuple[str, str, str], Job],
    group: Sequence[NewJob],
) -> Job | ContentshopError:
    """What a repeat is answered: the job its request_id made, before or within the group."""
    if key.name in kept:
        known = kept[key.name]
    else:
        first = next(item.key for item in group if item.key.name == key.name)
        known = KeptKey(first.body_hash, made[key.name].id)
    try:
        check_same(key, known)
    except AlreadyExistsError as error:
        return error
    return await jobs.find(tx, known.resource_id, key.team) or NotFoundError("job")
