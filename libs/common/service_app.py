"""A service as one component: what every `build` gives back."""

from __future__ import annotations

from collections.abc import Sequence

from libs.common.grpc_server import GrpcServer
from libs.common.lifecycle import Component, Components


class ServiceApp(Components):
    """Its components, started in order and stopped in reverse; `port` once it is started.

    Args:
        components: all of them, the server among them.
        server: where it is called.
    """

    def __init__(self, components: Sequence[Component], server: GrpcServer) -> None:
        super().__init__(components)
        self.server = server

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.port
