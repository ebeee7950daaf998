"""The gRPC doors of assets: request → use case → response."""

from services.assets.servicer.backend import AssetsBackendServicer
from services.assets.servicer.team import AssetsServicer

__all__ = ["AssetsBackendServicer", "AssetsServicer"]
