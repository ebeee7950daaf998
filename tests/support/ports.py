"""Free TCP ports for servers that tests start."""

from __future__ import annotations

import os
import random
import socket

# Below the range the kernel gives to outgoing connections, so that none of those takes the port
# between our look and the server's bind.
_LOWEST, _HIGHEST = 10_000, 32_000
_SHARES = 8  # of the range: test processes side by side take none of each other's
_given: set[int] = set()


def _share() -> range:
    """The ports of this test process: pytest-xdist names its processes gw0, gw1…"""
    name = os.environ.get("PYTEST_XDIST_WORKER", "gw0")  # noqa: TID251 - xdist's, not a setting
    size = (_HIGHEST - _LOWEST) // _SHARES
    first = _LOWEST + int(name.removeprefix("gw")) % _SHARES * size
    return range(first, first + size)


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on; never the same twice in this process."""
    share = _share()
    for _ in range(1_000):
        port = random.SystemRandom().choice(share)
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
