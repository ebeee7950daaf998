"""Every variable of the worker: meaning, default, unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from libs.common.broker import LANES
from libs.common.env import SettingsError, setting
from libs.common.settings import CommonSettings
from services.worker.prices import Price, read_prices

GENERATORS = ("offline", "gemini")


@dataclass(frozen=True, kw_only=True)
class Settings(CommonSettings):
    """What the worker is told by its environment."""

    listen: str = setting("WORKER_LISTEN", "host:port to serve gRPC on", "127.0.0.1:50054")
    name: str = setting(
        "WORKER_NAME",
        "this worker's own, kept over its restarts, {host} the machine's; empty: host-pid-random",
        "",
    )
    slots: int = setting("WORKER_SLOTS", "jobs carried at once", 4, at_least=1)
    images_at_once: int = setting(
        "WORKER_IMAGES_AT_ONCE", "generator calls at once, of all jobs", 16, at_least=1
    )
    downloads_at_once: int = setting(
        "WORKER_DOWNLOADS_AT_ONCE", "input images read at once, of all jobs", 8, at_least=1
    )
    lanes: tuple[str, ...] = setting("WORKER_LANES", "lanes served, with commas", LANES)
    renew_seconds: float = setting(
        "WORKER_RENEW_SECONDS", "between two renewals of the leases", 5.0, at_least=0.05
    )
    image_timeout_seconds: float = setting(
        "WORKER_IMAGE_TIMEOUT_SECONDS", "for one generator call", 120.0, at_least=0.05
    )
    patience_seconds: float = setting(
        "WORKER_PATIENCE_SECONDS",
        "how long a call to assets or enqueue is repeated while it is away",
        120.0,
        at_least=0,
    )
    probe_seconds: float = setting(
        "WORKER_PROBE_SECONDS", "between tries while the generator's key is refused", 30.0
    )
    drain_seconds: float = setting(
        "WORKER_DRAIN_SECONDS", "for images in flight at stop", 25.0, at_least=0
    )
    enqueue_target: str = setting("ENQUEUE_TARGET", "host:port of enqueue", "127.0.0.1:50051")
    assets_target: str = setting("ASSETS_TARGET", "host:port of assets", "127.0.0.1:50052")
    broker_url: str = setting("BROKER_URL", "amqp:// or memory://", "memory://", secret=True)
    blob_url: str = setting("BLOB_URL", "s3:// or file:///, as assets has it")
    generator: str = setting("GENERATOR", "offline or gemini", "offline")
    governor: bool = setting(
        "GOVERNOR",
        "keep with all workers to a provider's rate, by enqueue's leave; never for offline",
        True,  # noqa: FBT003
    )
    offline_delay_seconds: float = setting(
        "OFFLINE_DELAY_SECONDS", "how long an offline image takes at least", 0.0, at_least=0
    )
    gemini_api_key: str = setting("GEMINI_API_KEY", "key of the Gemini API", "", secret=True)
    gemini_base_url: str = setting("GEMINI_BASE_URL", "another address of the API", "")
    gemini_model_fast: str = setting("GEMINI_MODEL_FAST", "model of quality fast; empty: ours", "")
    gemini_model_high: str = setting("GEMINI_MODEL_HIGH", "model of quality high; empty: ours", "")
    gemini_proxy_url: str = setting("GEMINI_PROXY_URL", "HTTP proxy to Gemini", "", secret=True)
    gemini_prompt_model: str = setting(
        "GEMINI_PROMPT_MODEL", "text model that enhances prompts; empty: ours", ""
    )
    prompt_timeout_seconds: float = setting(
        "PROMPT_TIMEOUT_SECONDS",
        "for enhancing one prompt; then the original is used",
        8.0,
        at_least=0.05,
    )
    model_prices: tuple[str, ...] = setting(
        "MODEL_PRICES",
        "model=input:output:image with commas: decimals per million tokens, per image",
        (),
    )
    provenance_prompt: bool = setting(
        "PROVENANCE_PROMPT",
        "write the prompt into the files of made images",
        False,  # noqa: FBT003 - a default
    )

    def __post_init__(self) -> None:
        """Checks what no single variable shows."""
        problems = []
        try:
            super().__post_init__()
        except SettingsError as error:
            problems += error.problems
        if unknown := [lane for lane in self.lanes if lane not in LANES]:
            problems.append(f"WORKER_LANES: no such lane: {', '.join(unknown)}")
        if not self.lanes:
            problems.append("WORKER_LANES must name a lane")
        if self.generator not in GENERATORS:
            problems.append(f"GENERATOR must be one of {', '.join(GENERATORS)}")
        if self.generator == "gemini" and not self.gemini_api_key:
            problems.append("GENERATOR=gemini needs GEMINI_API_KEY")
        problems += [f"MODEL_PRICES: {mistake}" for mistake in read_prices(self.model_prices)[1]]
        if problems:
            raise SettingsError(problems)

    def prices(self) -> Mapping[str, Price]:
        """Model → price."""
        return read_prices(self.model_prices)[0]
