"""The composition root of the worker: settings → objects → components. The only place that builds."""

from __future__ import annotations

import os
import socket

import grpc

from contentshop.worker.v1 import worker_pb2_grpc
from libs.common.auth import service_tokens
from libs.common.blobs import BlobUrls
from libs.common.blobs_open import open_blob_urls
from libs.common.broker import Broker
from libs.common.broker_open import open_broker
from libs.common.clock import Clock, SystemClock
from libs.common.crash import CrashPoints
from libs.common.env import SettingsError
from libs.common.grpc_client import RpcClient, open_channel
from libs.common.grpc_server import GrpcServer, Readiness, ServerLimits
from libs.common.ids import Ids, SystemIds
from libs.common.lifecycle import Component, Components, Owned
from services.worker.carrier import Carrier
from services.worker.circuit import GeneratorCircuit
from services.worker.commands import CommandWatcher
from services.worker.consumer import Consumer
from services.worker.domain import Generator
from services.worker.gateways.assets import AssetsGateway
from services.worker.gateways.enqueue import EnqueueGateway
from services.worker.gateways.patience import Patience
from services.worker.inhand import Counters, JobsInHand
from services.worker.leases import LeaseKeeper
from services.worker.servicer import WorkerFacts, WorkerServicer
from services.worker.settings import Settings
from services.worker.usecases.make_image import MakeImage
from services.worker.usecases.references import LoadReferences
from services.worker.usecases.run_job import RunJob

SERVICES = ("contentshop.worker.v1.WorkerService",)


class WorkerApp(Components):
    """One worker as one component; `port` once it is started."""

    def __init__(self, components: list[Component], server: GrpcServer, name: str) -> None:
        super().__init__(components)
        self.server = server
        self.name = name

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.port


def build(
    settings: Settings,
    *,
    clock: Clock | None = None,
    ids: Ids | None = None,
    broker: Broker | None = None,
    generator: Generator | None = None,
    blob_urls: BlobUrls | None = None,
) -> WorkerApp:
    """The worker, ready to start.

    Args:
        settings: what the environment says.
        clock: time; the machine's by default.
        ids: randomness; the machine's by default.
        broker: a running broker to share (the embedded house); else BROKER_URL is opened.
        generator: instead of the one GENERATOR names; closed with the worker.
        blob_urls: instead of the reader of BLOB_URL; closed with the worker.
    """
    clock = clock or SystemClock()
    ids = ids or SystemIds()
    name = settings.name or f"{socket.gethostname()}-{os.getpid()}-{ids.token()[:6]}"
    owned_broker = (
        []
        if broker is not None
        else [Owned(broker := open_broker(settings.broker_url, name=name, clock=clock, ids=ids))]
    )
    crash = CrashPoints(settings.crash_at)
    generator = generator or open_generator(settings, clock)
    blobs = blob_urls or open_blob_urls(
        settings.blob_url,
        access_key=settings.blob_access_key,
        secret_key=settings.blob_secret_key,
    )
    patience = Patience(limit_seconds=settings.patience_seconds, clock=clock, ids=ids)
    enqueue_client = _client(settings, settings.enqueue_target, "enqueue", name, clock)
    assets_client = _client(settings, settings.assets_target, "assets", name, clock)
    enqueue = EnqueueGateway(enqueue_client, worker=name, patience=patience, clock=clock)
    assets = AssetsGateway(assets_client, blobs, patience=patience, crash=crash)
    hand = JobsInHand(settings.slots)
    counters = Counters()
    circuit = GeneratorCircuit(clock, probe_seconds=settings.probe_seconds)
    make_image = MakeImage(
        generator=generator,
        store=assets,
        records=enqueue,
        circuit=circuit,
        counters=counters,
        at_once=settings.images_at_once,
        timeout_seconds=settings.image_timeout_seconds,
        clock=clock,
        ids=ids,
        crash=crash,
    )
    run_job = RunJob(
        records=enqueue,
        load_references=LoadReferences(
            assets, at_once=settings.downloads_at_once, patience=patience
        ),
        make_image=make_image,
        crash=crash,
    )
    carrier = Carrier(
        run_job, releases=enqueue, hand=hand, clock=clock, drain_seconds=settings.drain_seconds
    )
    keeper = LeaseKeeper(
        enqueue,
        hand,
        lanes=settings.lanes,
        every_seconds=settings.renew_seconds,
        clock=clock,
        ids=ids,
    )
    watcher = CommandWatcher(enqueue, hand, on_connect=keeper.wake, clock=clock, ids=ids)
    consumer = Consumer(
        broker,
        lanes=settings.lanes,
        claims=enqueue,
        hand=hand,
        circuit=circuit,
        carry=carrier.carry,
        renew_soon=keeper.wake,
        ids=ids,
        crash=crash,
    )
    servicer = WorkerServicer(
        facts=WorkerFacts(name, settings.lanes, generator.name, clock.monotonic()),
        consumer=consumer,
        hand=hand,
        circuit=circuit,
        counters=counters,
        clock=clock,
    )
    server = _server(settings, servicer, clock)
    checks = {
        "enqueue": enqueue.ready,
        "assets": assets.ready,
        "broker": lambda: broker.connected,
    }
    # Stopped from the end: no new jobs, then the drain, and only then what the drain needs.
    components: list[Component] = [
        Owned(enqueue_client),
        Owned(assets_client),
        Owned(blobs),
        Owned(generator),
        *owned_broker,
        keeper,
        watcher,
        circuit,
        carrier,
        consumer,
        server,
        Readiness(server, checks),
    ]
    return WorkerApp(components, server, name)


def open_generator(settings: Settings, clock: Clock) -> Generator:
    """The generator that GENERATOR names; only that one's libraries are loaded."""
    if settings.generator == "offline":
        from services.worker.generators.offline import OfflineGenerator  # noqa: PLC0415 - lazy

        return OfflineGenerator(clock=clock, delay_seconds=settings.offline_delay_seconds)
    from services.worker.generators.gemini import (  # noqa: PLC0415 - lazy
        DEFAULT_MODELS,
        GeminiGenerator,
        GeminiSettings,
    )

    try:
        return GeminiGenerator(
            GeminiSettings(
                api_key=settings.gemini_api_key,
                base_url=settings.gemini_base_url or None,
                models={
                    "fast": settings.gemini_model_fast or DEFAULT_MODELS["fast"],
                    "high": settings.gemini_model_high or DEFAULT_MODELS["high"],
                },
                timeout_seconds=settings.image_timeout_seconds,
                proxy_url=settings.gemini_proxy_url or None,
            )
        )
    except ValueError as error:
        raise SettingsError([str(error)]) from None


def _client(settings: Settings, target: str, service: str, subject: str, clock: Clock) -> RpcClient:
    tokens = service_tokens(
        secret=settings.service_secret,
        subject=subject,
        target=service,
        scope="worker",
        clock=clock,
    )
    return RpcClient(open_channel(target, settings.client_tls()), tokens)


def _server(settings: Settings, servicer: WorkerServicer, clock: Clock) -> GrpcServer:
    def register(server: grpc.aio.Server) -> None:
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(servicer, server)

    return GrpcServer(
        services=SERVICES,
        register=register,
        authenticator=settings.authenticator("worker", clock),
        address=settings.listen,
        tls=settings.server_tls(),
        limits=ServerLimits(settings.max_unary, settings.max_streams_per_team),
        reflect=settings.reflection,
        grace_seconds=settings.grace_seconds,
    )
