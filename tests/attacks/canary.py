"""Words that are secret, each in its own place; and everything a system leaves, as text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import sqlalchemy as sa

from libs.common.broker import EXCHANGE, TOPOLOGY
from tests.support.databases import DatabaseUrls

WORD = "Canary5f2e"
PROMPT, NOTES, FILENAME, DATABASE, GEMINI, PROVIDER, SUBJECT, QUERY = CANARIES = tuple(
    f"{WORD}{place}"
    for place in (
        "prompt",
        "notes",
        "filename",
        "database",
        "gemini",
        "provider",
        "subject",
        "query",
    )
)
# Of secrets that we do not name ourselves: the store's URLs, tokens, and the broker's password,
# whose own user would take two more calls of rabbitmqctl.
OTHERS = ("X-Amz-Signature", "eyJ", "Bearer ", "guest:guest", "://guest")
# A team's own words are kept where they are of use, and nowhere else.
KEPT = {
    ("jobs", "input"): PROMPT,
    ("jobs", "prompt_original"): PROMPT,
    ("jobs", "prompt_enhanced"): PROMPT,
    ("jobs", "review_notes"): NOTES,
    ("files", "filename"): FILENAME,
    ("audit_entries", "actor"): SUBJECT,
    ("audit_entries", "details"): NOTES,  # each review as it was said
    ("jobs", "reviewer"): SUBJECT,
}


def found_in(text: str, *more: str) -> list[str]:
    """The secrets that a text holds."""
    return [secret for secret in (*CANARIES, *OTHERS, *more) if secret in text]


def with_password(urls: DatabaseUrls) -> DatabaseUrls:
    """The same URLs with a password, which the private cluster does not ask for."""
    return DatabaseUrls(
        *(
            url.replace("@", f":{DATABASE}@", 1) if url else ""
            for url in (urls.app, urls.duty, urls.owner)
        )
    )


def leaking_cells(url: str, *more: str) -> Iterator[str]:
    """`table.column` with the secrets in it, of every table of a database."""
    engine = sa.create_engine(url.replace("+aiosqlite", ""), poolclass=sa.NullPool)
    metadata = sa.MetaData()
    with engine.connect() as connection:
        metadata.reflect(connection)
        for table in metadata.sorted_tables:
            for row in connection.execute(sa.select(sa.text("*")).select_from(table)).mappings():
                yield from _leaks(table.name, dict(row), *more)
    engine.dispose()


def _leaks(table: str, row: Mapping[Any, Any], *more: str) -> Iterator[str]:
    for column, value in row.items():
        text = (
            bytes(value).decode("latin-1") if isinstance(value, bytes | memoryview) else str(value)
        )
        held = [s for s in found_in(text, *more) if s != KEPT.get((table, str(column)))]
        if held:
            yield f"{table}.{column}: {held}"


class Tap:
    """Every message that services publish, from now on."""

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self.bodies: list[bytes] = []

    async def drain(self) -> list[bytes]:
        """All so far."""
        while (message := await self._queue.get(fail=False, no_ack=True)) is not None:
            self.bodies.append(message.body + str(message.headers).encode())
        return self.bodies


@asynccontextmanager
async def tapped(url: str) -> AsyncIterator[Tap]:
    """A queue of our own that gets a copy of each message of the exchange."""
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel(publisher_confirms=False)
        queue = await channel.declare_queue(exclusive=True)
        for key in sorted({key for lane in TOPOLOGY for key in lane.routing_keys}):
            await queue.bind(EXCHANGE, key)
        yield Tap(queue)
