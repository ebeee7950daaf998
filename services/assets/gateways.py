"""What assets calls out to: the imaging room, in threads of its own."""

from __future__ import annotations

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor

from libs.common.errors import InvalidArgumentError
from services.assets.imaging import Inspected, Limits, inspect_image


class ImageInspector:
    """Inspects images off the event loop, few at a time: decoding takes memory by the pixel.

    Args:
        threads: images inspected at once.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="imaging")

    async def inspect(
        self,
        data: memoryview,
        *,
        sha256: str,
        declared_type: str,
        limits: Limits,
        xmp: bytes | None = None,
    ) -> Inspected:
        """What may be stored; its parts are slices of data, which must outlive them.

        Args:
            data: the whole image.
            sha256: what the sender says it hashes to, lower-case hex; empty: nothing said.
            declared_type: what the sender says it is; empty: nothing said.
            limits: what is too large.
            xmp: a packet to store in it.

        Raises:
            InvalidArgumentError: CHECKSUM_MISMATCH, or a reason of `inspect_image`.
        """

        def work() -> Inspected:
            if sha256 and hashlib.sha256(data).hexdigest() != sha256:
                raise InvalidArgumentError(
                    "the bytes do not match the declared SHA-256", reason="CHECKSUM_MISMATCH"
                )
            return inspect_image(data, declared_type=declared_type or None, limits=limits, xmp=xmp)

        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def close(self) -> None:
        """Ends the threads; waits for the images they are at."""
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)
