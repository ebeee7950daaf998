"""The composition root of the packager: settings → objects → components. The only builder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc

from contentshop.packager.v1 import packager_pb2_grpc
from libs.common import migrations
from libs.common.auth import service_tokens
from libs.common.backoff import Backoff
from libs.common.blobs import BlobUrls
from libs.common.blobs_open import FileLocation, open_blob_urls, parse_blob_url
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
from libs.common.service_app import ServiceApp
from services.packager.consumer import Consumer
from services.packager.gateways.assets import AssetsGateway
from services.packager.gateways.enqueue import EnqueueGateway
from services.packager.gateways.zips import ZipWriter
from services.packager.relay import Builder
from services.packager.servicer import PackagerServicer
from services.packager.settings import Settings
from services.packager.usecases.building import BuildArchive, ZipSink
from services.packager.usecases.deps import Deps, Limits
from services.packager.usecases.reporting import report_archives
from services.packager.usecases.requesting import CreateArchive
from services.packager.usecases.retention import Ages, retention_of
from services.packager.watch import WatchHub

SERVICES = ("contentshop.packager.v1.PackagerService",)
LONGEST_RETRY_SECONDS = 60.0


class PackagerApp(ServiceApp):
    """The packager as one component; `port` once it is started."""

    def __init__(
        self, components: list[Component], server: GrpcServer, deps: Deps, hub: WatchHub
    ) -> None:
        super().__init__(components, server)
        self.deps = deps
        self.hub = hub


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
    clients: Callable[[str], RpcClient] | None = None,
    blobs: BlobUrls | None = None,
    zips: ZipSink | None = None,
) -> PackagerApp:
    """The service, ready to start.

    Args:
        settings: what the environment says.
        clock: time; the machine's by default.
        ids: randomness; the machine's by default.
        broker: a running broker to share (the embedded house); else BROKER_URL is opened.
        database: in place of the one of the settings.
        clients: gives the client of a service, in place of channels to the targets.
        blobs: in place of those of BLOB_URL.
        zips: where zips are written, in place of a writer to those blobs.
    """
    clock = clock or SystemClock()
    ids = ids or SystemIds()
    owned_broker: list[Component] = []
    if broker is None:
        broker = open_broker(settings.broker_url, name="packager", clock=clock, ids=ids)
        owned_broker.append(Owned(broker))
    crash = CrashPoints(settings.crash_at)
    db = database or Database(
        settings.database_url,
        duty_url=settings.duty_database_url,
        clock=clock,
        pool_size=settings.pool_size,
        guarded=True,
    )
    blobs = blobs or open_blob_urls(settings.blob_url, clock=clock, ids=ids)
    writer = _zip_writer(settings, blobs, crash)
    targets = {"enqueue": settings.enqueue_target, "assets": settings.assets_target}
    clients = clients or (lambda service: _client(settings, targets[service], service, clock))
    assets_client, enqueue_client = clients("assets"), clients("enqueue")
    assets, enqueue = AssetsGateway(assets_client), EnqueueGateway(enqueue_client)
    hub = WatchHub(
        db,
        heartbeat_seconds=settings.heartbeat_seconds,
        sweep_seconds=settings.watch_seconds,
        ids=ids,
    )
    deps = Deps(
        db=db,
        clock=clock,
        limits=_limits(settings),
        ids=ids,
        crash=crash,
        wake_builder=lambda: builder.wake(),  # noqa: PLW0108 - it is made below, with deps
        wake_reporter=lambda: reporting.wake(),  # noqa: PLW0108 - likewise
        wake_watchers=hub.wake,
    )
    reporting = Duty(
        "report",
        lambda: report_archives(deps, enqueue),
        floor_seconds=settings.sweep_seconds,
        ids=ids,
    )
    ages = Ages(settings.retention_archives_days, settings.retention_keys_days)
    retention = Duty(
        "retention",
        retention_of(deps, ages).round,
        floor_seconds=settings.retention_seconds,
        ids=ids,
    )
    builder = Builder(
        deps,
        BuildArchive(deps, assets, zips or writer),
        at_once=settings.builds,
        floor_seconds=settings.sweep_seconds,
        alone=not db.on_postgres,
    )
    create = CreateArchive(deps, enqueue, assets)
    door = PackagerServicer(deps, create, hub, assets, blobs)
    server = _server(settings, door, clock, before_stop=hub.send_away)
    components: list[Component] = [
        db,
        *owned_broker,
        Owned(assets_client),
        Owned(enqueue_client),
        Owned(blobs),
        Owned(writer),
        reporting,
        retention,
        builder,
        Consumer(deps, enqueue, broker),
        hub,
        server,
        # Archives may be asked for while the broker is away; without assets none can be had.
        Readiness(server, {"database": db.ping, "assets": assets.ready}),
    ]
    return PackagerApp(components, server, deps, hub)


def _limits(settings: Settings) -> Limits:
    longest = max(settings.retry_seconds, LONGEST_RETRY_SECONDS)
    return Limits(
        attempts=settings.attempts,
        lease_seconds=settings.lease_seconds,
        retry=Backoff(settings.retry_seconds, longest, factor=5.0),
        report=Backoff(settings.retry_seconds, longest),
    )


def _zip_writer(settings: Settings, blobs: BlobUrls, crash: CrashPoints) -> ZipWriter:
    place = parse_blob_url(settings.blob_url)
    return ZipWriter(
        blobs,
        local_root=place.root if isinstance(place, FileLocation) else None,
        zips_at_once=settings.builds,
        crash=crash,
    )


def _client(settings: Settings, target: str, service: str, clock: Clock) -> RpcClient:
    tokens = service_tokens(
        secret=settings.service_secret,
        subject="packager",
        target=service,
        scope="packager",
        clock=clock,
    )
    return RpcClient(open_channel(target, settings.client_tls()), tokens)


def _server(
    settings: Settings,
    door: PackagerServicer,
    clock: Clock,
    *,
    before_stop: Callable[[], None],
) -> GrpcServer:
    def register(server: grpc.aio.Server) -> None:
        packager_pb2_grpc.add_PackagerServiceServicer_to_server(door, server)

    return GrpcServer(
        services=SERVICES,
        register=register,
        authenticator=settings.authenticator("packager", clock),
        address=settings.listen,
        tls=settings.server_tls(),
        limits=ServerLimits(settings.max_unary, settings.max_streams_per_team),
        rates=CallRates(lambda _team: settings.calls_per_minute_per_team, clock),
        reflect=settings.reflection,
        grace_seconds=settings.grace_seconds,
        before_stop=before_stop,
    )
