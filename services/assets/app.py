"""The composition root of assets: settings → objects → components. The only place that builds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import grpc

from contentshop.assets.v1 import assets_pb2_grpc, backend_pb2_grpc
from libs.common import migrations
from libs.common.blobs import BlobStore
from libs.common.blobs_open import open_blob_store
from libs.common.broker import Broker
from libs.common.broker_open import open_broker
from libs.common.call_rates import CallRates
from libs.common.clock import Clock, SystemClock
from libs.common.crash import CrashPoints
from libs.common.db import Database
from libs.common.env import SettingsError
from libs.common.grpc_server import GrpcServer, Readiness, ServerLimits
from libs.common.ids import Ids, SystemIds
from libs.common.lifecycle import Component, Duty, Owned, TaskOwner
from libs.common.paging import PageTokens
from libs.common.service_app import ServiceApp
from services.assets import relay
from services.assets.consumer import JobMessages
from services.assets.gateways import ImageInspector
from services.assets.imaging import GENERATED_LIMITS, UPLOAD_LIMITS
from services.assets.receiving import Pace, Places
from services.assets.servicer import (
    AssetsBackendServicer,
    AssetsOpsServicer,
    AssetsServicer,
    Means,
)
from services.assets.settings import Settings
from services.assets.upload_urls import UploadUrls
from services.assets.usecases.calling import CallLimits
from services.assets.usecases.completing import CompleteUpload
from services.assets.usecases.deps import Deps, Figures
from services.assets.usecases.generating import StoreGenerated
from services.assets.usecases.resolving import ResolveImages
from services.assets.usecases.retaining import Ages, retention_of
from services.assets.usecases.uploading import Intake, UploadFile

SERVICES = (
    "contentshop.assets.v1.AssetsService",
    "contentshop.assets.v1.AssetsBackendService",
    "contentshop.assets.v1.AssetsOpsService",
)
_LONGEST_SWEEP_SECONDS = 900.0
# From an upload's last byte to its file, with room: its reservation must outlive it.
_STORING_SECONDS = 120.0


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
    blobs: BlobStore | None = None,
) -> ServiceApp:
    """The service, ready to start.

    Args:
        settings: what the environment says.
        clock: time; the machine's by default.
        ids: randomness; the machine's by default.
        broker: a running broker to share (the embedded house); else BROKER_URL is opened.
        database: in place of the one of the settings.
        blobs: in place of those of BLOB_URL.

    Raises:
        SettingsError: BLOB_URL is wrong.
    """
    clock = clock or SystemClock()
    ids = ids or SystemIds()
    shared = broker is not None
    broker = broker or open_broker(settings.broker_url, name="assets", clock=clock, ids=ids)
    crash = CrashPoints(settings.crash_at)
    blobs = blobs or open_blobs(settings, clock, ids, crash)
    inspector = ImageInspector(settings.imaging_threads)
    db = database or _database(settings, clock)
    removals = Duty(
        "removals",
        lambda: relay.remove_blobs(deps),
        floor_seconds=settings.sweep_seconds,
        ids=ids,
    )
    deps = Deps(
        db=db,
        blobs=blobs,
        inspector=inspector,
        clock=clock,
        ids=ids,
        crash=crash,
        figures=_figures(settings),
        wake_removals=removals.wake,
        tasks=TaskOwner(),
    )
    calls = CallLimits(settings.calls_per_minute_per_team)
    resolve = ResolveImages(deps)
    generate = _generate(settings, deps)
    backend_door = AssetsBackendServicer(
        deps, resolve, generate, UploadUrls(settings.upload_hosts), _pace(settings)
    )
    server = _server(settings, deps, backend_door, calls, clock)
    components: list[Component] = [
        db,
        Owned(blobs),
        Owned(inspector),
        Owned(deps.tasks),
        *([] if shared else [Owned(broker)]),
        removals,
        *_duties(settings, deps, calls, ids),
        JobMessages(deps, broker, clock, ids),
        resolve.reads,
        resolve.commits,
        generate.looks,
        server,
        # Uploads and reads work while the broker is away: its messages wait.
        Readiness(server, {"database": db.ping, "blobs": blobs.ping}),
    ]
    return ServiceApp(components, server)


def _database(settings: Settings, clock: Clock) -> Database:
    return Database(
        settings.database_url,
        duty_url=settings.duty_database_url,
        clock=clock,
        pool_size=settings.pool_size,
        guarded=True,
    )


def open_blobs(
    settings: Settings, clock: Clock, ids: Ids, crash: CrashPoints | None = None
) -> BlobStore:
    """The blob store of the settings; SettingsError where BLOB_URL is wrong."""
    try:
        return open_blob_store(
            settings.blob_url,
            clock=clock,
            ids=ids,
            access_key=settings.blob_access_key,
            secret_key=settings.blob_secret_key,
            create_bucket=settings.blob_create_bucket,
            crash=crash,
        )
    except ValueError as error:
        raise SettingsError([str(error)]) from None


def _figures(settings: Settings) -> Figures:
    return Figures(
        upload=replace(UPLOAD_LIMITS, max_pixels=settings.upload_max_pixels),
        generated=replace(
            GENERATED_LIMITS,
            max_pixels=settings.generated_max_pixels,
            max_bytes=settings.generated_max_bytes,
        ),
        spool_bytes=settings.spool_bytes,
        spool_folder=settings.spool_folder,
        pin_seconds=settings.pin_seconds,
        removal_seconds=settings.removal_seconds,
        orphan_seconds=settings.orphan_seconds,
        folders_per_team=settings.folders_per_team,
        moodboards_per_team=settings.moodboards_per_team,
        variants_per_team=settings.variants_per_team,
        upload_seconds=settings.upload_seconds,
        reservation_seconds=settings.place_seconds + settings.upload_seconds + _STORING_SECONDS,
        max_stored_bytes=settings.max_stored_bytes,
        review_required=settings.review_required,
    )


def _duties(settings: Settings, deps: Deps, calls: CallLimits, ids: Ids) -> list[Duty]:
    orphans = relay.OrphanSweep(deps)
    ages = Ages(
        generated_days=settings.retention_generated_days,
        archives_days=settings.retention_archives_days,
        keys_days=settings.retention_keys_days,
    )
    retention = retention_of(deps, ages)
    recount = relay.Recount(deps)
    sweep = settings.sweep_seconds
    # A listing of the whole store: a few times per grace is enough.
    rarely = max(sweep, min(_LONGEST_SWEEP_SECONDS, settings.orphan_seconds / 4))
    return [
        Duty("pins", lambda: relay.forget_pins(deps), floor_seconds=sweep, ids=ids),
        Duty("reservations", lambda: relay.forget_reservations(deps), floor_seconds=sweep, ids=ids),
        Duty("calls", lambda: relay.refresh_calls(deps, calls), floor_seconds=sweep, ids=ids),
        Duty("retention", retention.round, floor_seconds=settings.retention_seconds, ids=ids),
        Duty("recount", recount.round, floor_seconds=settings.recount_seconds, ids=ids),
        Duty("orphans", orphans.round, floor_seconds=rarely, ids=ids),
    ]


def _pace(settings: Settings) -> Pace:
    return Pace(settings.chunk_seconds, settings.upload_seconds)


def _generate(settings: Settings, deps: Deps) -> StoreGenerated:
    # Workers are ours, and a team's live jobs are limited already: no share per team.
    places = Places(
        settings.generated, per_holder=settings.generated, wait_seconds=settings.place_seconds
    )
    return StoreGenerated(deps, places)


def _server(
    settings: Settings,
    deps: Deps,
    backend_door: AssetsBackendServicer,
    calls: CallLimits,
    clock: Clock,
) -> GrpcServer:
    uploads = Places(
        settings.uploads,
        per_holder=settings.uploads_per_team,
        wait_seconds=settings.place_seconds,
    )
    tokens = PageTokens(settings.service_secret, clock)
    intake = Intake(deps, uploads)
    team_door = AssetsServicer(
        Means(deps, UploadFile(deps, intake), CompleteUpload(deps, intake), tokens, _pace(settings))
    )

    def register(server: grpc.aio.Server) -> None:
        assets_pb2_grpc.add_AssetsServiceServicer_to_server(team_door, server)
        assets_pb2_grpc.add_AssetsOpsServiceServicer_to_server(
            AssetsOpsServicer(deps, calls), server
        )
        backend_pb2_grpc.add_AssetsBackendServiceServicer_to_server(backend_door, server)

    return GrpcServer(
        services=SERVICES,
        register=register,
        authenticator=settings.authenticator("assets", clock),
        address=settings.listen,
        tls=settings.server_tls(),
        limits=ServerLimits(settings.max_unary, settings.max_streams_per_team),
        reflect=settings.reflection,
        rates=CallRates(calls.of, clock),
        grace_seconds=settings.grace_seconds,
    )
