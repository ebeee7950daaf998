"""Storing what was enqueued: each request's jobs all or none, many requests in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from libs.common import request_keys
from libs.common.db import Tx
from libs.common.errors import AlreadyExistsError, ContentshopError
from libs.common.group_commit import GroupCommit
from libs.common.request_keys import KeptKey, Name, RequestKey, check_same
from services.enqueue import tables
from services.enqueue.domain import EventKind, Job, JobSpec
from services.enqueue.store import admission, audit, batches, ledger, new_jobs
from services.enqueue.store.admission import Places
from services.enqueue.store.events import NewEvent, about
from services.enqueue.usecases.deps import Deps, send, tell
from services.enqueue.usecases.refusing import Refusals

MAX_KNOWN_TEAMS = 10_000
MAX_JOBS_PER_COMMIT = 256


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch to store with its jobs."""

    name: str


@dataclass(frozen=True, slots=True)
class NewRequest:
    """One create: all its jobs are stored, or none. The team is the key's, and every spec's.

    Attributes:
        key: the caller's; its request_id may be empty.
        specs: at least one, each with a pin token of its own.
        batch: a new batch they belong to.
        requeued_by: the operator for whom dead jobs are run again; empty: it is the team's own.
    """

    key: RequestKey
    specs: tuple[JobSpec, ...]
    batch: NewBatch | None = None
    requeued_by: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a request has made.

    Attributes:
        resource_id: of the new batch, else of the first job.
        jobs: as they were stored; none where the request_id made them before.
    """

    resource_id: int
    jobs: tuple[Job, ...] = ()


class StoreRequests:
    """Stores requests; those that come while a transaction runs share the next (group commit)."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._known_teams: set[str] = set()
        self.commits: GroupCommit[NewRequest, Stored] = GroupCommit(
            self._store, max_weight=MAX_JOBS_PER_COMMIT, weight=lambda new: len(new.specs)
        )

    async def __call__(self, new: NewRequest) -> Stored:
        """What the request has made, now or, by its request_id, before.

        Raises:
            AlreadyExistsError: IDEMPOTENCY_KEY_REUSED.
            ContentshopError: it was refused; see `Refusals`.
            UnavailableError: nothing is known of the result; repeat with the same request_id.
        """
        stored = await self.commits.submit(new)
        self._deps.crash.here("E3")
        return stored

    async def made_before(self, key: RequestKey) -> int | None:
        """The id of what this key has made before; AlreadyExistsError for another body."""
        if not key.request_id:
            return None
        async with self._deps.db.read(key.team) as tx:
            kept = await request_keys.find_same(tx, tables.idempotency_keys, key)
        return kept.resource_id if kept else None

    async def _store(self, group: Sequence[NewRequest]) -> Sequence[Stored | ContentshopError]:
        """The group in one transaction: what each request has made, or its own error."""
        teams = {new.key.team for new in group}
        async with self._deps.db.transaction(*sorted(teams)) as tx:
            if not teams <= self._known_teams:
                await admission.ensure_teams(tx, teams)
            limits = await admission.lock_teams(tx, teams)
            names = {new.key.name for new in group if new.key.request_id}
            kept = await request_keys.find(tx, tables.idempotency_keys, names)
            fresh, repeats = _split(group, kept)
            made = await self._add(tx, [group[i] for i in fresh], limits) if fresh else []
            self._deps.crash.here("E2")
        if len(self._known_teams) < MAX_KNOWN_TEAMS:
            self._known_teams |= teams
        results = dict(zip(fresh, made, strict=True))
        firsts = {group[i].key.name: i for i in fresh}
        for i in repeats:
            name = group[i].key.name
            if name in kept:
                results[i] = _repeated(group[i].key, kept[name])
            else:
                first = firsts[name]
                results[i] = _repeated_within(group[i].key, group[first].key, results[first])
        return [results[i] for i in range(len(group))]

    async def _add(
        self, tx: Tx, requests: Sequence[NewRequest], limits: Mapping[str, int | None]
    ) -> list[Stored | ContentshopError]:
        """What each new request has made, or why it was refused."""
        refusals = await Refusals.read(tx, self._deps, [new.specs for new in requests])
        refused = [refusals.judge(new.specs) for new in requests]
        accepted = [new for new, no in zip(requests, refused, strict=True) if no is None]
        paying = refusals.paying
        stored = await self._add_accepted(tx, accepted, limits, paying) if accepted else []
        refusals.stored(job for made in stored for job in made.jobs)
        results = iter(stored)
        return [next(results) if no is None else no for no in refused]

    async def _add_accepted(
        self,
        tx: Tx,
        requests: Sequence[NewRequest],
        limits: Mapping[str, int | None],
        paying: Collection[str],
    ) -> list[Stored]:
        """Stores jobs with slots, holds, events, keys, messages; admits those with a place."""
        deps = self._deps
        named = [(new.key.team, new.batch.name) for new in requests if new.batch]
        batch_ids = iter(await batches.add(tx, named))
        owners = [next(batch_ids) if new.batch else 0 for new in requests]
        specs = [
            replace(spec, batch_id=owner) if owner else spec
            for new, owner in zip(requests, owners, strict=True)
            for spec in new.specs
        ]
        places = await admission.places(tx, limits, deps.limits.live_jobs_per_team)
        added = await new_jobs.add(
            tx,
            specs,
            admitted=_admissible(specs, places),
            paying=paying,
            max_attempts=deps.limits.max_attempts,
            ring=deps.limits.first_ring_seconds,
            confirm=deps.limits.unhurried_confirm_seconds,
        )
        stored = _share_out(requests, owners, added)
        await ledger.hold(tx, added)
        for new, made in zip(requests, stored, strict=True):
            await _note_requeues(tx, new.requeued_by, made.jobs)
        await tell(tx, deps, [event for job in added for event in _first_events(job)])
        keys = [
            (new.key, made.resource_id)
            for new, made in zip(requests, stored, strict=True)
            if new.key.request_id
        ]
        await request_keys.add(tx, tables.idempotency_keys, keys)
        announcer = deps.announcer
        messages = [announcer.enqueued(j.id, j.spec.team, j.spec.pin_token) for j in added]
        messages += [announcer.doorbell(j) for j in added if j.admitted_at is not None]
        await send(tx, deps, messages)
        return stored


async def _note_requeues(tx: Tx, actor: str, made: Sequence[Job]) -> None:
    """Audits what an operator did to a team's dead jobs."""
    for job in made if actor else ():
        details = {"new_job_id": job.id}
        team, old = job.spec.team, job.spec.retry_of
        await audit.add(tx, team, actor, "REQUEUE_DEAD_JOB", job_id=old, details=details)


def _share_out(
    requests: Sequence[NewRequest], owners: Sequence[int], added: Sequence[Job]
) -> list[Stored]:
    """The jobs, which stand in the order of the requests, to their requests."""
    stored, start = [], 0
    for new, owner in zip(requests, owners, strict=True):
        mine = tuple(added[start : start + len(new.specs)])
        start += len(new.specs)
        stored.append(Stored(owner or mine[0].id, mine))
    return stored


def _first_events(job: Job) -> list[NewEvent]:
    kinds = [EventKind.QUEUED, *([EventKind.ADMITTED] if job.admitted_at else [])]
    return [about(job, kind, sequence=sequence) for sequence, kind in enumerate(kinds, 1)]


def _split(
    group: Sequence[NewRequest], kept: Mapping[Name, KeptKey]
) -> tuple[list[int], list[int]]:
    """Positions of new requests and of repeats, repeats within the group included."""
    fresh, repeats, seen = [], [], set(kept)
    for position, new in enumerate(group):
        if new.key.request_id and new.key.name in seen:
            repeats.append(position)
            continue
        seen.add(new.key.name)
        fresh.append(position)
    return fresh, repeats


def _admissible(specs: Sequence[JobSpec], places: Mapping[str, Places]) -> set[str]:
    """Pin tokens of the new jobs that get a place at once: by priority, then arrival.

    None of a team whose earlier jobs wait: they come first, when a place gets free.
    """
    free = {team: 0 if place.waiting else place.free for team, place in places.items()}
    admitted = set()
    for spec in sorted(specs, key=lambda spec: -spec.priority):
        if free.get(spec.team, 0) > 0:
            free[spec.team] -= 1
            admitted.add(spec.pin_token)
    return admitted


def _repeated(key: RequestKey, known: KeptKey) -> Stored | ContentshopError:
    """What a repeat is answered: what its request_id has made."""
    try:
        check_same(key, known)
    except AlreadyExistsError as error:
        return error
    return Stored(known.resource_id)


def _repeated_within(
    key: RequestKey, first: RequestKey, made: Stored | ContentshopError
) -> Stored | ContentshopError:
    """What a repeat is answered whose first stands in the same group, and may be refused."""
    if isinstance(made, ContentshopError):
        return made
    return _repeated(key, KeptKey(first.body_hash, made.resource_id))
