"""What every service is told by its environment; each service's Settings adds its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from libs.common.auth import Authenticator, Keys, SharedSecret
from libs.common.clock import Clock
from libs.common.env import SettingsError, setting
from libs.common.grpc_client import ClientTls
from libs.common.grpc_server import Tls
from libs.common.jwks import JwksKeys

MIN_SECRET_CHARS = 32
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, kw_only=True)
class CommonSettings:
    """Listening, TLS, tokens and logs."""

    listen: str = setting("LISTEN", "host:port to serve gRPC on", "127.0.0.1:0")
    tls_cert: str = setting("TLS_CERT", "PEM file of the server certificate; empty: no TLS", "")
    tls_key: str = setting("TLS_KEY", "PEM file of its key", "")
    tls_client_ca: str = setting("TLS_CLIENT_CA", "PEM file; set: clients need a certificate", "")
    tls_ca: str = setting("TLS_CA", "PEM file to check other services by; empty: no TLS", "")
    reflection: bool = setting("REFLECTION", "serve gRPC reflection", True)  # noqa: FBT003
    grace_seconds: float = setting("GRACE_SECONDS", "time for calls to end at stop", 5.0)
    max_unary: int = setting("MAX_UNARY", "unary calls served at once", 256, at_least=1)
    max_streams_per_team: int = setting(
        "MAX_STREAMS_PER_TEAM", "response streams open at once per team", 5000, at_least=1
    )
    calls_per_minute_per_team: int = setting(
        "CALLS_PER_MINUTE_PER_TEAM", "calls of a team per process; 0: no limit", 6000, at_least=0
    )
    auth_issuer: str = setting("AUTH_ISSUER", "iss of user tokens", "contentshop")
    auth_secret: str = setting(
        "AUTH_SECRET", "HS256 secret of user tokens; not with AUTH_JWKS", "", secret=True
    )
    auth_jwks: str = setting("AUTH_JWKS", "file or https URL of a JWKS for user tokens", "")
    service_secret: str = setting(
        "SERVICE_SECRET", "HS256 secret of service tokens, 32 characters or more", secret=True
    )
    log_level: str = setting("LOG_LEVEL", "debug, info, warning or error", "info")
    log_json: bool = setting("LOG_JSON", "JSON logs; off: for people", True)  # noqa: FBT003
    crash_at: str = setting("CRASH_AT", "crash point to die at, in tests", "")

    def __post_init__(self) -> None:
        """Checks what no single variable shows."""
        problems = []
        if bool(self.auth_secret) == bool(self.auth_jwks):
            problems.append("set exactly one of AUTH_SECRET and AUTH_JWKS")
        for name, value in (
            ("AUTH_SECRET", self.auth_secret),
            ("SERVICE_SECRET", self.service_secret),
        ):
            if value and len(value) < MIN_SECRET_CHARS:
                problems.append(f"{name} must have at least {MIN_SECRET_CHARS} characters")
        if self.auth_jwks.startswith("http://"):
            problems.append("AUTH_JWKS must be a file or an https URL")
        if bool(self.tls_cert) != bool(self.tls_key):
            problems.append("set both TLS_CERT and TLS_KEY, or neither")
        if self.tls_client_ca and not self.tls_cert:
            problems.append("TLS_CLIENT_CA needs TLS_CERT and TLS_KEY")
        if self.log_level.lower() not in LOG_LEVELS:
            problems.append(f"LOG_LEVEL must be one of {', '.join(LOG_LEVELS)}")
        if problems:
            raise SettingsError(problems)

    def server_tls(self) -> Tls | None:
        """The server's TLS, if any."""
        if not self.tls_cert:
            return None
        ca = Path(self.tls_client_ca) if self.tls_client_ca else None
        return Tls(Path(self.tls_cert), Path(self.tls_key), ca)

    def client_tls(self) -> ClientTls | None:
        """TLS towards other services, if any; the server's certificate serves for mTLS."""
        if not self.tls_ca:
            return None
        if not self.tls_cert:
            return ClientTls(Path(self.tls_ca))
        return ClientTls(Path(self.tls_ca), Path(self.tls_cert), Path(self.tls_key))

    def user_keys(self, clock: Clock) -> Keys:
        """What verifies user tokens."""
        return JwksKeys(self.auth_jwks, clock) if self.auth_jwks else SharedSecret(self.auth_secret)

    def authenticator(self, service: str, clock: Clock) -> Authenticator:
        """The verifier of this service."""
        return Authenticator(
            service=service,
            user_keys=self.user_keys(clock),
            user_issuer=self.auth_issuer,
            service_secret=self.service_secret,
            clock=clock,
        )
