"""Every variable of the enqueue service: meaning, default, unit."""

from __future__ import annotations

from dataclasses import dataclass

from libs.common.env import SettingsError, setting
from libs.common.settings import CommonSettings

PROMPT_STRATEGIES = ("none", "template", "gemini")


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings):
    """What enqueue is told by its environment."""

    listen: str = setting("ENQUEUE_LISTEN", "host:port to serve gRPC on", "127.0.0.1:50051")
    database_url: str = setting(
        "ENQUEUE_DATABASE_URL", "SQLAlchemy URL of the application role", secret=True
    )
    duty_database_url: str = setting(
        "ENQUEUE_DUTY_DATABASE_URL", "URL of the duty role (PostgreSQL)", "", secret=True
    )
    owner_database_url: str = setting(
        "ENQUEUE_OWNER_DATABASE_URL", "URL of the owner, for migrate", "", secret=True
    )
    pool_size: int = setting("ENQUEUE_POOL_SIZE", "connections per role", 10, at_least=2)
    broker_url: str = setting("BROKER_URL", "amqp:// or memory://", "memory://", secret=True)
    assets_target: str = setting("ASSETS_TARGET", "host:port of assets", "127.0.0.1:50052")
    lease_seconds: float = setting("LEASE_SECONDS", "life of a lease", 15.0, at_least=1)
    live_jobs_per_team: int = setting("LIVE_JOBS_PER_TEAM", "places of a team", 3, at_least=1)
    queued_jobs_per_team: int = setting(
        "QUEUED_JOBS_PER_TEAM", "waiting jobs of a team at most", 10_000, at_least=1
    )
    max_attempts: int = setting("MAX_ATTEMPTS", "attempts of a job", 3, at_least=1)
    max_lost_workers: int = setting("MAX_LOST_WORKERS", "lost workers per job", 3, at_least=1)
    max_references_fast: int = setting(
        "MAX_REFERENCES_FAST", "input images of a fast job at most", 14, at_least=1
    )
    max_references_high: int = setting(
        "MAX_REFERENCES_HIGH", "input images of a high job at most", 14, at_least=1
    )
    sweep_seconds: float = setting("SWEEP_SECONDS", "floor of relay and sweep", 2.0, at_least=0.05)
    heartbeat_seconds: float = setting(
        "HEARTBEAT_SECONDS", "silence of a watch before a heartbeat", 15.0, at_least=0.1
    )
    archive_ring_seconds: float = setting(
        "ARCHIVE_RING_SECONDS", "first wait before the packager is asked again", 30.0, at_least=0.1
    )
    archive_rings: int = setting("ARCHIVE_RINGS", "asks before a zip is FAILED", 8, at_least=1)
    confirm_seconds: float = setting(
        "CONFIRM_SECONDS",
        "from a job's end until assets is asked if it heard; from its enqueueing, 5 times so long",
        60.0,
        at_least=0.05,
    )
    teams_without_account: str = setting(
        "TEAMS_WITHOUT_ACCOUNT", "their credits: unlimited or none", "unlimited"
    )
    credit_check_seconds: float = setting(
        "CREDIT_CHECK_SECONDS", "between checks of accounts by ledger and jobs", 3600.0, at_least=1
    )
    review_required: bool = setting(
        "REVIEW_REQUIRED",
        "hide images until their job is approved",
        False,  # noqa: FBT003
    )
    retention_jobs_days: float = setting(
        "RETENTION_JOBS_DAYS",
        "ended jobs, and batches of them, go after; 0: never",
        365.0,
        at_least=0,
    )
    retention_events_days: float = setting(
        "RETENTION_EVENTS_DAYS", "events of ended jobs go after; 0: never", 90.0, at_least=0
    )
    retention_audit_days: float = setting(
        "RETENTION_AUDIT_DAYS", "entries of the audit go after; 0: never", 730.0, at_least=0
    )
    retention_keys_days: float = setting(
        "RETENTION_KEYS_DAYS", "a request_id is forgotten after; 0: never", 7.0, at_least=0
    )
    retention_seconds: float = setting(
        "RETENTION_SECONDS", "between two looks for what is too old", 600.0, at_least=0.05
    )
    prompt_strategy: str = setting(
        "PROMPT_STRATEGY", "of jobs that ask for none: none, template or gemini", "none"
    )

    def __post_init__(self) -> None:
        """Checks what no single variable shows."""
        problems = []
        try:
            super().__post_init__()
        except SettingsError as error:
            problems += error.problems
        if self.teams_without_account not in ("unlimited", "none"):
            problems.append("TEAMS_WITHOUT_ACCOUNT must be unlimited or none")
        if self.prompt_strategy not in PROMPT_STRATEGIES:
            problems.append(f"PROMPT_STRATEGY must be one of {', '.join(PROMPT_STRATEGIES)}")
        if problems:
            raise SettingsError(problems)
