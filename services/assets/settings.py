"""Every variable of the assets service: meaning, default, unit."""

from __future__ import annotations

from dataclasses import dataclass

from libs.common.env import setting
from libs.common.settings import CommonSettings

_MIB = 1024 * 1024
_GIB = 1024 * _MIB


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings):
    """What assets is told by its environment."""

    listen: str = setting("ASSETS_LISTEN", "host:port to serve gRPC on", "127.0.0.1:50052")
    database_url: str = setting(
        "ASSETS_DATABASE_URL", "SQLAlchemy URL of the application role", secret=True
    )
    duty_database_url: str = setting(
        "ASSETS_DUTY_DATABASE_URL", "URL of the duty role (PostgreSQL)", "", secret=True
    )
    owner_database_url: str = setting(
        "ASSETS_OWNER_DATABASE_URL", "URL of the owner, for migrate", "", secret=True
    )
    pool_size: int = setting("ASSETS_POOL_SIZE", "connections per role", 10, at_least=2)
    broker_url: str = setting("BROKER_URL", "amqp:// or memory://", "memory://", secret=True)
    blob_url: str = setting("BLOB_URL", "file:///folder or s3://…")
    blob_access_key: str = setting("BLOB_ACCESS_KEY", "of the S3 store", "", secret=True)
    blob_secret_key: str = setting("BLOB_SECRET_KEY", "of the S3 store", "", secret=True)
    blob_create_bucket: bool = setting(
        "BLOB_CREATE_BUCKET", "make a missing bucket at start", False
    )
    upload_hosts: tuple[str, ...] = setting(
        "ASSETS_UPLOAD_HOSTS", "hosts (host or host:port) of absolute upload URLs", ()
    )
    upload_max_pixels: int = setting(
        "ASSETS_UPLOAD_MAX_PIXELS", "of an upload", 25_000_000, at_least=1
    )
    generated_max_pixels: int = setting(
        "ASSETS_GENERATED_MAX_PIXELS", "of a generated image", 50_000_000, at_least=1
    )
    generated_max_bytes: int = setting(
        "ASSETS_GENERATED_MAX_BYTES", "of a generated image", 500 * _MIB, at_least=1
    )
    spool_bytes: int = setting(
        "ASSETS_SPOOL_BYTES", "of a generated image kept in memory, the rest on disk", 16 * _MIB
    )
    spool_folder: str = setting(
        "ASSETS_SPOOL_FOLDER", "where that is; empty: the system's folder", ""
    )
    chunk_seconds: float = setting(
        "ASSETS_CHUNK_SECONDS", "wait for the next bytes of an upload", 15.0, at_least=0.01
    )
    upload_seconds: float = setting(
        "ASSETS_UPLOAD_SECONDS", "life of an upload in all", 300.0, at_least=0.01
    )
    uploads: int = setting("ASSETS_UPLOADS", "uploads taken in at once", 16, at_least=1)
    uploads_per_team: int = setting(
        "ASSETS_UPLOADS_PER_TEAM", "of them, for one team", 8, at_least=1
    )
    generated: int = setting(
        "ASSETS_GENERATED", "generated images taken in at once", 16, at_least=1
    )
    place_seconds: float = setting(
        "ASSETS_PLACE_SECONDS", "wait for a place before SERVER_BUSY", 10.0, at_least=0
    )
    max_stored_bytes: int = setting(
        "MAX_STORED_BYTES_PER_TEAM", "of all files of a team; 0: no limit", 50 * _GIB, at_least=0
    )
    imaging_threads: int = setting(
        "ASSETS_IMAGING_THREADS", "images inspected at once", 2, at_least=1
    )
    pin_seconds: float = setting(
        "ASSETS_PIN_SECONDS", "life of a pin until its job is known", 600.0, at_least=0.05
    )
    # As long as any URL to it lives, so that who has begun to read reads to the end.
    removal_seconds: float = setting(
        "ASSETS_REMOVAL_SECONDS", "from deletion to the blob's removal", 900.0, at_least=0
    )
    orphan_seconds: float = setting(
        "ASSETS_ORPHAN_SECONDS", "age of a blob without a file when it is removed", 3600.0
    )
    folders_per_team: int = setting(
        "ASSETS_FOLDERS_PER_TEAM", "that a team makes itself", 1_000, at_least=1
    )
    moodboards_per_team: int = setting(
        "ASSETS_MOODBOARDS_PER_TEAM", "that a team keeps", 500, at_least=1
    )
    variants_per_team: int = setting(
        "ASSETS_VARIANTS_PER_TEAM", "that a team keeps", 100_000, at_least=1
    )
    review_required: bool = setting(
        "REVIEW_REQUIRED", "hide images until their job is approved", False
    )
    retention_generated_days: float = setting(
        "RETENTION_GENERATED_DAYS", "unused generated images go after; 0: never", 365.0, at_least=0
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
    recount_seconds: float = setting(
        "ASSETS_RECOUNT_SECONDS", "between two checks of what teams store", 3600.0, at_least=0.05
    )
    sweep_seconds: float = setting(
        "ASSETS_SWEEP_SECONDS", "floor of the clean-up duties", 60.0, at_least=0.05
    )
