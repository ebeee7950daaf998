"""The composition root of enqueue: settings → objects → components. The only place that builds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc

from contentshop.enqueue.v1 import enqueue_pb2_grpc, execution_pb2_grpc, ops_pb2_grpc
from libs.common import migrations
from libs.common.auth import service_tokens
from libs.common.broker import Broker
from libs.common.broker_open import open_broker
from libs.common.call_rates import CallRates
from libs.common.clock import Clock, SystemClock
from libs.common.crash import CrashPoints
from libs.common.db import Database
from libs.common.grpc_client import RpcClient, open_channel
from libs.common.grpc_server import GrpcServer, Readiness, ServerLimits
from libs.common.ids import Ids, SystemIds
from libs.common.lifecycle import Component, Duty, Owned
from libs.common.outbox import Relay
from libs.common.paging import PageTokens
from libs.common.service_app import ServiceApp
from services.enqueue import relay, tables
from services.enqueue.gateways import AssetsGateway, ProtoAnnouncer
from services.enqueue.prompt import PromptStrategy
from services.enqueue.servicer import EnqueueServicer, ExecutionServicer, Means, OpsServicer
from services.enqueue.servicer.execution import WorkerCommands
from services.enqueue.settings import Settings
from services.enqueue.usecases.batches import EnqueueBatch
from services.enqueue.usecases.confirming import Listener
from services.enqueue.usecases.deps import Deps, Limits
from services.enqueue.usecases.enqueueing import EnqueueJob, ImageResolver
from services.enqueue.usecases.governing import Governor
from services.enqueue.usecases.operating import TeamRates
from services.enqueue.usecases.reconciling import ReconcileDuty
from services.enqueue.usecases.retaining import Ages, EventRetention, retention_of
from services.enqueue.usecases.retrying import Retry
from services.enqueue.usecases.storing import StoreRequests
from services.enqueue.wakeups import LocalWakeups, PostgresWakeups
from services.enqueue.watch import WatchHub

SERVICES = (
    "contentshop.enqueue.v1.EnqueueService",
    "contentshop.enqueue.v1.ExecutionService",
    "contentshop.enqueue.v1.OpsService",
)

# How long another replica may not know of a team's new call rate.
RATES_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Doors:
    """The servicers; the simulation calls them without a network between."""

    team: EnqueueServicer
    worker: ExecutionServicer
    ops: OpsServicer


class EnqueueApp(ServiceApp):
    """The enqueue service as one component; `port` once it is started."""

    def __init__(
        self,
        components: list[Component],
        server: GrpcServer,
        hub: WatchHub,
        wakeups: LocalWakeups,
        doors: Doors,
    ) -> None:
        super().__init__(components, server)
        self.hub = hub
        self.wakeups = wakeups
        self.doors = doors
        self.duties = {part.name: part for part in components if isinstance(part, Duty)}


class Assets(ImageResolver, Listener, Protocol):
    """assets, as enqueue needs it."""


class _EmbeddedRecovery:
    """At the start of an embedded house: leases of the dead run out, doorbells ring again."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps

    async def start(self) -> None:
        await relay.recover_embedded(self._deps)

    async def stop(self) -> None:
        return


def migrate(settings: Settings) -> None:
    """Brings the database to the newest revision."""
    url = settings.owner_database_url or settings.database_url
    migrations.migrate(url, Path(__file__).parent / "migrations")


def build(
    settings: Settings,
    *,
    clock: Clock | None = None,
    ids: Ids | None = None,
    broker: Broker | None = None,
    database: Database | None = None,
    resolver: Assets | None = None,
    embedded: bool | None = None,
) -> EnqueueApp:
    """The service, ready to start.

    Args:
        settings: what the environment says.
        clock: time; the machine's by default.
        ids: randomness; the machine's by default.
        broker: a running broker to share (the embedded house); else BROKER_URL is opened.
        database: in place of the one of the settings.
        resolver: in place of assets.
        embedded: whether the workers live and die with us; by default with a broker to share.
    """
    clock = clock or SystemClock()
    ids = ids or SystemIds()
    shared = broker is not None
    embedded = shared if embedded is None else embedded
    crash = CrashPoints(settings.crash_at)
    broker = broker or open_broker(
        settings.broker_url, name="enqueue", clock=clock, ids=ids, crash=crash
    )
    db = database or Database(
        settings.database_url,
        duty_url=settings.duty_database_url,
        clock=clock,
        pool_size=settings.pool_size,
        guarded=True,
    )
    if db.on_postgres:
        duty_url = settings.duty_database_url or settings.database_url
        wakeups: LocalWakeups = PostgresWakeups(duty_url, origin=ids.token(), ids=ids)
    else:
        wakeups = LocalWakeups()
    outbox_relay = Relay(db, tables.outbox, broker, crash)
    relaying = Duty("relay", outbox_relay.round, floor_seconds=settings.sweep_seconds, ids=ids)
    deps = Deps(
        db=db,
        announcer=ProtoAnnouncer(review_required=settings.review_required),
        wakeups=wakeups,
        wake_relay=relaying.wake,
        limits=_limits(settings),
        crash=crash,
        ids=ids,
    )
    hub = WatchHub(
        db,
        heartbeat_seconds=settings.heartbeat_seconds,
        sweep_seconds=settings.sweep_seconds,
        openings=max(1, settings.pool_size // 2),
        ids=ids,
    )
    commands = WorkerCommands()
    wakeups.listen(hub.heard)
    wakeups.listen(commands.heard)
    assets = RpcClient(
        open_channel(settings.assets_target, settings.client_tls()),
        service_tokens(
            secret=settings.service_secret,
            subject="enqueue",
            target="assets",
            scope="backend",
            clock=clock,
        ),
    )
    store = StoreRequests(deps)
    gateway = resolver or AssetsGateway(assets)
    enqueue = EnqueueJob(deps, gateway, clock, ids, store)
    means = Means(
        deps,
        enqueue,
        EnqueueBatch(deps, enqueue),
        Retry(deps, enqueue),
        hub,
        PageTokens(settings.service_secret, clock),
    )
    team_door = EnqueueServicer(means)
    governor = Governor(deps, clock)
    wakeups.listen(governor.heard)
    worker_door = ExecutionServicer(deps, commands, governor)
    sweeping = Duty(
        "sweep", lambda: relay.sweep(deps), floor_seconds=settings.sweep_seconds, ids=ids
    )
    rates = TeamRates(db, settings.calls_per_minute_per_team)
    ops_door = OpsServicer(means, governor, rates, sweeping.wake)

    def register(server: grpc.aio.Server) -> None:
        enqueue_pb2_grpc.add_EnqueueServiceServicer_to_server(team_door, server)
        execution_pb2_grpc.add_ExecutionServiceServicer_to_server(worker_door, server)
        ops_pb2_grpc.add_OpsServiceServicer_to_server(ops_door, server)

    def send_watchers_away() -> None:
        hub.send_away()
        commands.send_away()

    server = GrpcServer(
        services=SERVICES,
        register=register,
        authenticator=settings.authenticator("enqueue", clock),
        address=settings.listen,
        tls=settings.server_tls(),
        limits=ServerLimits(settings.max_unary, settings.max_streams_per_team),
        rates=CallRates(rates.of, clock),
        reflect=settings.reflection,
        grace_seconds=settings.grace_seconds,
        before_stop=send_watchers_away,
    )
    components: list[Component] = [
        db,
        *([_EmbeddedRecovery(deps)] if embedded and not db.on_postgres else []),
        *([] if shared else [Owned(broker)]),
        Owned(assets),
        wakeups,
        relaying,
        sweeping,
        Duty("rates", rates.refresh, floor_seconds=RATES_SECONDS, ids=ids),
        Duty(
            "confirm",
            lambda: relay.confirm(deps, gateway),
            floor_seconds=min(15.0, settings.confirm_seconds / 2),
            ids=ids,
        ),
        *_duties(deps, settings, clock, ids),
        hub,
        store.commits,
        governor.commits,
        server,
        # A job may be enqueued, watched and canceled while the broker is away: the outbox keeps.
        Readiness(server, {"database": db.ping}),
    ]
    return EnqueueApp(components, server, hub, wakeups, Doors(team_door, worker_door, ops_door))


def _limits(settings: Settings) -> Limits:
    return Limits(
        lease_seconds=settings.lease_seconds,
        live_jobs_per_team=settings.live_jobs_per_team,
        queued_jobs_per_team=settings.queued_jobs_per_team,
        max_attempts=settings.max_attempts,
        max_lost_workers=settings.max_lost_workers,
        archive_ring_seconds=settings.archive_ring_seconds,
        archive_rings=settings.archive_rings,
        confirm_seconds=settings.confirm_seconds,
        max_references_fast=settings.max_references_fast,
        max_references_high=settings.max_references_high,
        unlimited_without_account=settings.teams_without_account == "unlimited",
        review_required=settings.review_required,
        prompt_strategy=PromptStrategy(settings.prompt_strategy.upper()),
    )


def _duties(deps: Deps, settings: Settings, clock: Clock, ids: Ids) -> list[Duty]:
    every = min(1.0, settings.sweep_seconds)
    reaper = relay.Reaper(deps, clock, every)
    return [
        Duty("reaper", reaper.round, floor_seconds=every, ids=ids),
        Duty("readmit", lambda: relay.readmit(deps), floor_seconds=every, ids=ids),
        Duty(
            "archives", lambda: relay.archives(deps), floor_seconds=settings.sweep_seconds, ids=ids
        ),
        Duty(
            "credits",
            ReconcileDuty(deps).round,
            floor_seconds=settings.credit_check_seconds,
            ids=ids,
        ),
        *_retention(deps.db, settings, clock, ids),
        Duty("workers", lambda: relay.forget_workers(deps), floor_seconds=3600.0, ids=ids),
    ]


def _retention(db: Database, settings: Settings, clock: Clock, ids: Ids) -> list[Duty]:
    ages = Ages(
        jobs_days=settings.retention_jobs_days,
        events_days=settings.retention_events_days,
        keys_days=settings.retention_keys_days,
        audit_days=settings.retention_audit_days,
    )
    rounds = {
        "retention": retention_of(db, clock, ages).round,
        "event_retention": EventRetention(db, clock, ages.events_days).round,
    }
    every = settings.retention_seconds
    return [Duty(name, work, floor_seconds=every, ids=ids) for name, work in rounds.items()]
