"""How the command reaches the services: addresses, tokens, and calls that try again.

Addresses come from the data folder of a running house, or from CONTENTSHOP_ENQUEUE, _ASSETS and
_PACKAGER. They are asked for before every call, so a house that came back on other ports is
found again. Every call we make may be repeated: creates carry a request_id.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import grpc

from cli.datafolder import DataFolder
from cli.errors import CliError, ExitCode, NotRunningError
from cli.settings import DEFAULT_DATA, CliSettings
from contentshop.assets.v1.assets_pb2_grpc import AssetsOpsServiceStub, AssetsServiceStub
from contentshop.enqueue.v1.enqueue_pb2_grpc import EnqueueServiceStub
from contentshop.enqueue.v1.ops_pb2_grpc import OpsServiceStub
from contentshop.packager.v1.packager_pb2_grpc import PackagerServiceStub
from libs.common import env
from libs.common.auth import TEAM_PATTERN, mint_user_token
from libs.common.backoff import Backoff
from libs.common.clock import Clock, SystemClock
from libs.common.errors import (
    AbortedError,
    ContentshopError,
    DeadlineExceededError,
    ResourceExhaustedError,
    UnavailableError,
)
from libs.common.grpc_client import ClientTls, RpcClient, open_channel
from libs.common.ids import Ids, SystemIds

CALL_SECONDS = 15.0
TRIES = 5  # about three seconds in all
LONGEST_WAIT_SECONDS = 10.0  # that a server may ask for; beyond, the person decides
BACKOFF = Backoff(first_seconds=0.2, max_seconds=2.0)
ISSUER = "contentshop"
# How libs.common.status words an end that no server of ours wrote: nobody was there.
_NOBODY = "the call ended with"

StubT = TypeVar("StubT")


class Source(Protocol):
    """Where the services are and what lets us in; asked before every call."""

    @property
    def hint(self) -> str:
        """What to do when nobody answers."""
        ...

    def target(self, service: str) -> str:
        """The service's host:port; CliError where it is not known."""
        ...

    def token(self) -> str:
        """A bearer token; CliError where there is none."""
        ...


class FolderSource:
    """A house of `contentshop up`: addresses and secrets are in its data folder."""

    def __init__(
        self, folder: DataFolder, *, team: str, scope: str, token: str, clock: Clock
    ) -> None:
        self._folder = folder
        self._team = team
        self._scope = scope
        self._token = token
        self._clock = clock

    @property
    def hint(self) -> str:
        """How to start it."""
        return self._folder.how_to_start

    def target(self, service: str) -> str:
        """From endpoints.json, as it is now."""
        return str(getattr(self._folder.read_endpoints(), service))

    def token(self) -> str:
        """The one given, else one made for this call."""
        if self._token:
            return self._token
        return mint_user_token(
            secret=self._folder.read_secrets().auth,
            issuer=ISSUER,
            team=self._team,
            scopes=self._scope.split(),
            clock=self._clock,
        )


@dataclass(frozen=True, slots=True)
class ExplicitSource:
    """Addresses from the environment; the token too, or else from a data folder's secrets."""

    targets: dict[str, str]
    give_token: Callable[[], str]
    hint: str = "Are the addresses in CONTENTSHOP_ENQUEUE, _ASSETS and _PACKAGER right?"

    def target(self, service: str) -> str:
        """From CONTENTSHOP_<SERVICE>."""
        target = self.targets[service]
        if not target:
            raise CliError(
                f"the address of {service} is not known",
                ExitCode.USAGE,
                hint=f"Set CONTENTSHOP_{service.upper()}=host:port.",
                reason="NO_ADDRESS",
            )
        return target

    def token(self) -> str:
        """As given."""
        return self.give_token()


class Remote(Generic[StubT]):
    """One service: its channel is opened when first used, and again when it has moved."""

    def __init__(
        self,
        name: str,
        source: Source,
        make_stub: Callable[[grpc.aio.Channel], StubT],
        *,
        tls: ClientTls | None,
        ids: Ids,
    ) -> None:
        self._name = name
        self._source = source
        self._make_stub = make_stub
        self._tls = tls
        self._ids = ids
        self._open: tuple[str, RpcClient, StubT] | None = None
        self._moved: list[RpcClient] = []

    def _reach(self) -> tuple[str, RpcClient, StubT]:
        target = self._source.target(self._name)
        if self._open is None or self._open[0] != target:
            if self._open is not None:
                self._moved.append(self._open[1])
            client = RpcClient(open_channel(target, self._tls), self._source.token)
            self._open = (target, client, self._make_stub(client.channel))
        return self._open

    async def unary(
        self,
        method: Callable[[StubT], Any],
        request: Any,
        *,
        timeout_seconds: float = CALL_SECONDS,
    ) -> Any:
        """One answer, tried again while the service is away or asks for a short wait.

        Args:
            method: picks the method of the stub.
            request: the message, or a function that makes the stream of messages anew.
            timeout_seconds: for each try.
        """
        failures = 0
        while True:
            target, client, stub = self._reach()
            made = request() if callable(request) else request
            try:
                return await client.unary(method(stub), made, timeout_seconds=timeout_seconds)
            except (UnavailableError, AbortedError, DeadlineExceededError) as error:
                failures += 1
                if failures == TRIES or isinstance(error, DeadlineExceededError):
                    raise self._away(error, target) from None
                wait = 0.0
            except ResourceExhaustedError as error:
                # Too many calls just now, say in the middle of a hundred uploads: it says when.
                wait = error.retry_after_seconds or LONGEST_WAIT_SECONDS
                failures += 1
                if failures == TRIES or wait >= LONGEST_WAIT_SECONDS:
                    raise
            await asyncio.sleep(wait + BACKOFF.wait(failures, self._ids))

    async def stream(
        self, method: Callable[[StubT], Any], request: Any
    ) -> AsyncGenerator[Any, None]:
        """The answers to one request; one try."""
        target, client, stub = self._reach()
        async with aclosing(client.stream(method(stub), request)) as responses:
            try:
                async for response in responses:
                    yield response
            except UnavailableError as error:
                raise self._away(error, target) from None

    def _away(self, error: ContentshopError, target: str) -> Exception:
        if error.message.startswith(_NOBODY):
            return NotRunningError(
                f"{self._name} at {target} does not answer", hint=self._source.hint
            )
        return error

    async def close(self) -> None:
        """Closes what was opened."""
        for client in [*self._moved, *([self._open[1]] if self._open else [])]:
            await client.close()


class Connection:
    """The three services a team talks to, and enqueue and assets as operators do.

    Args:
        source: where they are.
        flags: what a command we advise must be given to reach the same place.
    """

    def __init__(
        self,
        source: Source,
        *,
        flags: str = "",
        tls: ClientTls | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
    ) -> None:
        self.flags = flags
        self.clock = clock or SystemClock()
        self.ids = ids or SystemIds()
        self.enqueue = Remote("enqueue", source, EnqueueServiceStub, tls=tls, ids=self.ids)
        self.assets = Remote("assets", source, AssetsServiceStub, tls=tls, ids=self.ids)
        self.ops = Remote("enqueue", source, OpsServiceStub, tls=tls, ids=self.ids)
        self.assets_ops = Remote("assets", source, AssetsOpsServiceStub, tls=tls, ids=self.ids)
        self.packager = Remote("packager", source, PackagerServiceStub, tls=tls, ids=self.ids)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for remote in (self.enqueue, self.assets, self.packager, self.ops, self.assets_ops):
            await remote.close()


def connect(data: Path | None, team: str | None, *, scope: str = "team") -> Connection:
    """The connection that options and environment ask for; --data goes before the environment.

    Args:
        data: the data folder, if one was given.
        team: the team, if one was given.
        scope: of the tokens we make ourselves, several with spaces; `ops` for operators.
    """
    settings = cli_settings()
    clock = SystemClock()
    targets = {
        "enqueue": settings.enqueue,
        "assets": settings.assets,
        "packager": settings.packager,
    }
    folder = data_folder(data, settings)
    from_folder = FolderSource(
        folder,
        team=checked_team(team or settings.team),
        scope=scope,
        token="" if data else settings.token,
        clock=clock,
    )
    if data or not any(targets.values()):
        flags = (f" --data {data}" if data else "") + (f" --team {team}" if team else "")
        return Connection(from_folder, flags=flags, clock=clock)
    tls = None
    if settings.ca:
        if not Path(settings.ca).is_file():
            raise CliError(f"CONTENTSHOP_CA: no such file: {settings.ca}", ExitCode.USAGE)
        shown = [Path(one) for one in (settings.cert, settings.key) if one]
        tls = ClientTls(Path(settings.ca), *shown)
    return Connection(ExplicitSource(targets, _token_or_hint(from_folder)), tls=tls, clock=clock)


def _token_or_hint(source: FolderSource) -> Callable[[], str]:
    def token() -> str:
        try:
            return source.token()
        except NotRunningError:
            raise CliError(
                "there is no token",
                ExitCode.DENIED,
                hint="Give one in CONTENTSHOP_TOKEN.",
                reason="MISSING_TOKEN",
            ) from None

    return token


def cli_settings() -> CliSettings:
    """What the environment says."""
    return env.load(CliSettings, env.process_environ())


def data_folder(data: Path | None, settings: CliSettings) -> DataFolder:
    """The folder that --data, CONTENTSHOP_DATA or the default names."""
    return DataFolder(data or Path(settings.data or DEFAULT_DATA))


def checked_team(team: str) -> str:
    """The team, if it can be one's name."""
    if TEAM_PATTERN.fullmatch(team) is None:
        raise CliError(
            f"{team!r} is not a team's name",
            ExitCode.USAGE,
            hint="1 to 64 of A-Z a-z 0-9 _ . -",
            reason="BAD_TEAM",
        )
    return team
