"""Free TCP ports for servers that tests start."""

from __future__ import annotations

import random
import socket

# Below the range the kernel gives to outgoing connections, so that none of those takes the port
# between our look and the server's bind.
_LOWEST, _HIGHEST = 10_000, 32_000
_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on; never the same twice in this process."""
    for _ in range(1_000):
        port = random.SystemRandom().randint(_LOWEST, _HIGHEST)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise RuntimeError("no free port")
