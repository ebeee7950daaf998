"""Every variable of the packager: meaning, default, unit."""

from __future__ import annotations

from dataclasses import dataclass

from libs.common.blobs_open import parse_blob_url
from libs.common.env import SettingsError, setting
from libs.common.settings import CommonSettings

MAX_BUILDS = 3  # each holds a thread of the blob client, whose embedded form has four


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings):
    """What the packager is told by its environment. It holds no key of the blob store."""

    listen: str = setting("PACKAGER_LISTEN", "host:port to serve gRPC on", "127.0.0.1:50053")
    database_url: str = setting(
        "PACKAGER_DATABASE_URL", "SQLAlchemy URL of the application role", secret=True
    )
    duty_database_url: str = setting(
        "PACKAGER_DUTY_DATABASE_URL", "URL of the duty role (PostgreSQL)", "", secret=True
    )
    owner_database_url: str = setting(
        "PACKAGER_OWNER_DATABASE_URL", "URL of the owner, for migrate", "", secret=True
    )
    pool_size: int = setting("PACKAGER_POOL_SIZE", "connections per role", 5, at_least=2)
    broker_url: str = setting("BROKER_URL", "amqp:// or memory://", "memory://", secret=True)
    enqueue_target: str = setting("ENQUEUE_TARGET", "host:port of enqueue", "127.0.0.1:50051")
    assets_target: str = setting("ASSETS_TARGET", "host:port of assets", "127.0.0.1:50052")
    blob_url: str = setting("BLOB_URL", "s3:// or file:///, as assets has it")
    builds: int = setting("PACKAGER_BUILDS", "zips built at once", 2, at_least=1)
    attempts: int = setting("PACKAGER_ATTEMPTS", "attempts at one zip", 5, at_least=1)
    retry_seconds: float = setting(
        "PACKAGER_RETRY_SECONDS", "the longest first wait between attempts", 0.5, at_least=0.001
    )
    lease_seconds: float = setting(
        "PACKAGER_LEASE_SECONDS", "a dead packager's zips are begun again after", 30.0, at_least=1
    )
    sweep_seconds: float = setting(
        "PACKAGER_SWEEP_SECONDS", "floor of the duties", 2.0, at_least=0.05
    )
    watch_seconds: float = setting(
        "PACKAGER_WATCH_SECONDS",
        "how soon a watcher hears of a zip that another packager builds",
        0.5,
        at_least=0.05,
    )
    heartbeat_seconds: float = setting(
        "HEARTBEAT_SECONDS", "silence of a watch before a heartbeat", 15.0, at_least=0.1
    )
    retention_archives_days: float = setting(
        "RETENTION_ARCHIVES_DAYS", "ended archives are removed after; 0: never", 30.0, at_least=0
    )
    retention_keys_days: float = setting(
        "RETENTION_KEYS_DAYS", "a request_id is forgotten after; 0: never", 7.0, at_least=0
    )
    retention_seconds: float = setting(
        "RETENTION_SECONDS", "between two looks for what is too old", 600.0, at_least=0.05
    )

    def __post_init__(self) -> None:
        """Checks what no single variable shows."""
        problems = []
        try:
            super().__post_init__()
        except SettingsError as error:
            problems += error.problems
        try:
            parse_blob_url(self.blob_url)
        except ValueError as error:
            problems.append(str(error))
        if self.builds > MAX_BUILDS:
            problems.append(f"PACKAGER_BUILDS must be at most {MAX_BUILDS}; run more packagers")
        if problems:
            raise SettingsError(problems)
