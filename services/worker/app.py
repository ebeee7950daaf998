"""The composition root of the worker: settings → objects → components."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

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
from libs.common.lifecycle import Component, Owned
from libs.common.service_app import ServiceApp
from services.worker.carrier import Carrier
from services.worker.circuit import GeneratorCircuit
from services.worker.commands import CommandWatcher
from services.worker.consumer import Consumer
from services.worker.gateways.assets import AssetsGateway
from services.worker.gateways.enqueue import EnqueueGateway
from services.worker.gateways.patience import Patience
from services.worker.generation import Generator
from services.worker.inhand import Counters, JobsInHand
from services.worker.leases import LeaseKeeper
from services.worker.servicer import WorkerFacts, WorkerServicer
from services.worker.settings import Settings
from services.worker.usecases.call_leave import CallLeave
from services.worker.usecases.enhance_prompt import EnhancePrompt
from services.worker.usecases.make_image import MakeImage
from services.worker.usecases.references import LoadReferences
from services.worker.usecases.run_job import RunJob

SERVICES = ("contentshop.worker.v1.WorkerService",)


class WorkerApp(ServiceApp):
    """One worker as one component; `port` once it is started."""

    def __init__(self, components: list[Component], server: GrpcServer, name: str) -> None:
        super().__init__(components, server)
        self.name = name


def build(
    settings: Settings,
    *,
    clock: Clock | None = None,
    ids: Ids | None = None,
    broker: Broker | None = None,
    generator: Generator | None = None,
    clients: Callable[[str], RpcClient] | None = None,
    blobs: BlobUrls | None = None,
) -> WorkerApp:
    """The worker, ready to start.

    Args:
        settings: what the environment says.
        clock: time; the machine's by default.
        ids: randomness; the machine's by default.
        broker: a running broker to share (the embedded house); else BROKER_URL is opened.
        generator: instead of the one GENERATOR names; closed with the worker.
        clients: gives the client of a service, in place of channels to the targets.
        blobs: in place of those of BLOB_URL.
    """
    base = _Base(
        settings=settings,
        clock=clock or SystemClock(),
        ids=ids or SystemIds(),
        crash=CrashPoints(settings.crash_at),
    )
    host = socket.gethostname()
    name = settings.name.replace("{host}", host) or f"{host}-{os.getpid()}-{base.ids.token()[:6]}"
    shared = broker is not None
    broker = broker or open_broker(settings.broker_url, name=name, clock=base.clock, ids=base.ids)
    generator = generator or open_generator(settings, base.clock)
    blobs = blobs or _blob_urls(base)
    targets = {"enqueue": settings.enqueue_target, "assets": settings.assets_target}
    clients = clients or (lambda service: _client(base, targets[service], service, name))
    enqueue_client, assets_client = clients("enqueue"), clients("assets")
    patience = Patience(limit_seconds=settings.patience_seconds, clock=base.clock, ids=base.ids)
    enqueue = EnqueueGateway(enqueue_client, worker=name, patience=patience, clock=base.clock)
    assets = AssetsGateway(
        assets_client,
        blobs,
        patience=patience,
        crash=base.crash,
        send_prompt=settings.provenance_prompt,
    )
    state = _State(
        hand=JobsInHand(settings.slots),
        counters=Counters(),
        circuit=GeneratorCircuit(base.clock, probe_seconds=settings.probe_seconds),
        leave=CallLeave(enqueue, places=settings.images_at_once, clock=base.clock, ids=base.ids),
    )
    run_job = _run_job(
        base, state, enqueue=enqueue, assets=assets, patience=patience, generator=generator
    )
    carrier = Carrier(
        run_job,
        releases=enqueue,
        hand=state.hand,
        clock=base.clock,
        drain_seconds=settings.drain_seconds,
    )
    keeper = LeaseKeeper(
        enqueue,
        state.hand,
        lanes=lambda: () if consumer.draining else settings.lanes,
        every_seconds=settings.renew_seconds,
        clock=base.clock,
        ids=base.ids,
    )
    consumer = _consumer(
        base, state, broker=broker, enqueue=enqueue, carrier=carrier, keeper=keeper
    )
    facts = WorkerFacts(name, settings.lanes, generator.name, base.clock.monotonic())
    server = _server(base, state, facts, consumer)
    checks: dict[str, Callable[[], bool]] = {
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
        *([] if shared else [Owned(broker)]),
        keeper,
        CommandWatcher(enqueue, state.hand, on_connect=keeper.wake, clock=base.clock, ids=base.ids),
        state.circuit,
        state.leave,
        carrier,
        consumer,
        server,
        Readiness(server, checks),
    ]
    return WorkerApp(components, server, name)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Base:
    """What nearly every part is given."""

    settings: Settings
    clock: Clock
    ids: Ids
    crash: CrashPoints


@dataclass(frozen=True, kw_only=True, slots=True)
class _State:
    """What the parts share of the worker's own state."""

    hand: JobsInHand
    counters: Counters
    circuit: GeneratorCircuit
    leave: CallLeave


def _run_job(
    base: _Base,
    state: _State,
    *,
    enqueue: EnqueueGateway,
    assets: AssetsGateway,
    patience: Patience,
    generator: Generator,
) -> RunJob:
    settings = base.settings
    make_image = MakeImage(
        generator=generator,
        store=assets,
        records=enqueue,
        circuit=state.circuit,
        counters=state.counters,
        leave=state.leave,
        model_of=generator.model_for if settings.governor else lambda _quality: "",
        timeout_seconds=settings.image_timeout_seconds,
        prices=settings.prices(),
        clock=base.clock,
        ids=base.ids,
        crash=base.crash,
    )
    load = LoadReferences(assets, at_once=settings.downloads_at_once, patience=patience)
    enhance = EnhancePrompt(
        generator=generator,
        records=enqueue,
        leave=state.leave,
        governed=settings.governor,
        timeout_seconds=settings.prompt_timeout_seconds,
        prices=settings.prices(),
        clock=base.clock,
    )
    return RunJob(
        records=enqueue,
        load_references=load,
        enhance_prompt=enhance,
        make_image=make_image,
        crash=base.crash,
    )


def _consumer(
    base: _Base,
    state: _State,
    *,
    broker: Broker,
    enqueue: EnqueueGateway,
    carrier: Carrier,
    keeper: LeaseKeeper,
) -> Consumer:
    return Consumer(
        broker,
        lanes=base.settings.lanes,
        claims=enqueue,
        known=keeper.known,
        hand=state.hand,
        circuit=state.circuit,
        carry=carrier.carry,
        renew_soon=keeper.wake,
        ids=base.ids,
        crash=base.crash,
    )


def _blob_urls(base: _Base) -> BlobUrls:
    try:
        return open_blob_urls(base.settings.blob_url, clock=base.clock, ids=base.ids)
    except ValueError as error:
        raise SettingsError([str(error)]) from None


def open_generator(settings: Settings, clock: Clock) -> Generator:
    """The generator that GENERATOR names; only that one's libraries are loaded."""
    if settings.generator == "offline":
        from services.worker.generators.offline import OfflineGenerator  # noqa: PLC0415 - lazy

        return OfflineGenerator(clock=clock, delay_seconds=settings.offline_delay_seconds)
    from services.worker.generators.gemini import (  # noqa: PLC0415 - lazy
        DEFAULT_MODELS,
        DEFAULT_PROMPT_MODEL,
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
                prompt_model=settings.gemini_prompt_model or DEFAULT_PROMPT_MODEL,
                timeout_seconds=settings.image_timeout_seconds,
                proxy_url=settings.gemini_proxy_url or None,
            )
        )
    except ValueError as error:
        raise SettingsError([str(error)]) from None


def _client(base: _Base, target: str, service: str, subject: str) -> RpcClient:
    tokens = service_tokens(
        secret=base.settings.service_secret,
        subject=subject,
        target=service,
        scope="worker",
        clock=base.clock,
    )
    return RpcClient(open_channel(target, base.settings.client_tls()), tokens)


def _server(base: _Base, state: _State, facts: WorkerFacts, consumer: Consumer) -> GrpcServer:
    settings = base.settings
    servicer = WorkerServicer(
        facts=facts,
        consumer=consumer,
        hand=state.hand,
        circuit=state.circuit,
        counters=state.counters,
        clock=base.clock,
    )

    def register(server: grpc.aio.Server) -> None:
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(servicer, server)

    return GrpcServer(
        services=SERVICES,
        register=register,
        authenticator=settings.authenticator("worker", base.clock),
        address=settings.listen,
        tls=settings.server_tls(),
        limits=ServerLimits(settings.max_unary, settings.max_streams_per_team),
        reflect=settings.reflection,
        grace_seconds=settings.grace_seconds,
    )
