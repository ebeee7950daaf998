"""Every variable of the `contentshop` command: meaning, default."""

from __future__ import annotations

from dataclasses import dataclass

from libs.common.env import setting

DEFAULT_DATA = "data"
DEFAULT_TEAM = "demo"


@dataclass(frozen=True, kw_only=True)
class CliSettings:
    """What the command is told by its environment; options given go first."""

    data: str = setting("CONTENTSHOP_DATA", "data folder of `contentshop up`", "")
    enqueue: str = setting("CONTENTSHOP_ENQUEUE", "host:port of enqueue", "")
    assets: str = setting("CONTENTSHOP_ASSETS", "host:port of assets", "")
    packager: str = setting("CONTENTSHOP_PACKAGER", "host:port of packager", "")
    token: str = setting("CONTENTSHOP_TOKEN", "bearer token of a user", "", secret=True)
    ca: str = setting("CONTENTSHOP_CA", "PEM file to check the servers by; empty: no TLS", "")
    cert: str = setting("CONTENTSHOP_CERT", "PEM file to show the servers, where they ask", "")
    key: str = setting("CONTENTSHOP_KEY", "PEM file of its key", "")
    team: str = setting("CONTENTSHOP_TEAM", "team to act for with a data folder", DEFAULT_TEAM)
    debug: bool = setting("CONTENTSHOP_DEBUG", "show tracebacks", False)  # noqa: FBT003
