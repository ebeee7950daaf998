"""One call and its answer: what most small commands are made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli.connection import Connection, Remote, connect
from cli.running import run

SERVICES: dict[str, Callable[[Connection], Remote[Any]]] = {
    "enqueue": lambda shop: shop.enqueue,
    "assets": lambda shop: shop.assets,
    "reviews": lambda shop: shop.enqueue,
    "ops": lambda shop: shop.ops,
    "assets_ops": lambda shop: shop.assets_ops,
}
PAGE = 200
_SCOPES = {"reviews": "team review", "ops": "ops", "assets_ops": "ops"}


def ask(
    service: str, method: str, request: Any, *, data: Path | None, team: str | None = None
) -> Any:
    """The answer of one method; a create without a request_id is given one, to repeat it safely."""

    async def work() -> Any:
        async with _shop(service, data, team) as shop:
            fields = request.DESCRIPTOR.fields_by_name
            if "request_id" in fields and not request.request_id:
                request.request_id = shop.ids.token()
            return await SERVICES[service](shop).unary(lambda stub: getattr(stub, method), request)

    return run(work())


def ask_pages(
    service: str,
    method: str,
    request: Any,
    items: str,
    *,
    limit: int,
    data: Path | None,
    team: str | None = None,
) -> tuple[list[Any], bool]:
    """Up to `limit` items of a list, and whether there are more.

    Args:
        service: whose method.
        method: the list.
        request: the first page's request.
        items: the answer's field with the items.
        limit: at most so many.
        data: the data folder, if one was given.
        team: the team, if one was given.
    """

    async def work() -> tuple[list[Any], bool]:
        found: list[Any] = []
        async with _shop(service, data, team) as shop:
            while True:
                request.page_size = min(PAGE, limit - len(found))
                answer = await SERVICES[service](shop).unary(
                    lambda stub: getattr(stub, method), request
                )
                found += getattr(answer, items)
                request.page_token = answer.next_page_token
                if not answer.next_page_token or len(found) >= limit:
                    return found, bool(answer.next_page_token)

    return run(work())


def _shop(service: str, data: Path | None, team: str | None) -> Connection:
    return connect(data, team, scope=_SCOPES.get(service, "team"))
