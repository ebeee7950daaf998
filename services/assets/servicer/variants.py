"""AssetsService: variants."""

from __future__ import annotations

from typing import Any

from contentshop.assets.v1 import assets_pb2
from libs.common.auth import current_caller
from libs.common.checks import MAX_ID, Violations, checking
from libs.common.paging import page_size
from services.assets.domain import Candidates, NewVariant
from services.assets.servicer.convert import file_message, variant_message
from services.assets.servicer.means import Doors
from services.assets.usecases import cataloguing

DEFAULT_PAGE = 100
MAX_PAGE = 500
MAX_PUT = 500
MAX_ASKED = 100
MAX_CHARS = 200


class VariantDoors(Doors):
    """Requests about variants; the team is the token's."""

    async def PutVariants(
        self, request: assets_pb2.PutVariantsRequest, context: Any
    ) -> assets_pb2.PutVariantsResponse:
        """Puts variants, new or changed."""
        new = _variants(request)
        kept = await cataloguing.put_variants(self._means.deps, current_caller().team, new)
        return assets_pb2.PutVariantsResponse(variants=[variant_message(v) for v in kept])

    async def ListVariants(
        self, request: assets_pb2.ListVariantsRequest, context: Any
    ) -> assets_pb2.ListVariantsResponse:
        """A page of variants, by id."""
        team = current_caller().team
        with checking() as check:
            check.text(request.product, MAX_CHARS, "product")
        limit = page_size(request.page_size, default=DEFAULT_PAGE, most=MAX_PAGE)
        scope = ("ListVariants", team, request.product)
        after = self._means.tokens.open_text(request.page_token, *scope)
        found = await cataloguing.list_variants(
            self._means.deps, team, request.product, after_id=after, limit=limit + 1
        )
        more = len(found) > limit
        return assets_pb2.ListVariantsResponse(
            variants=[variant_message(variant) for variant in found[:limit]],
            next_page_token=self._means.tokens.seal_text(found[limit - 1].id, *scope)
            if more
            else "",
        )

    async def ListImageCandidates(
        self, request: assets_pb2.ListImageCandidatesRequest, context: Any
    ) -> assets_pb2.ListImageCandidatesResponse:
        """Which images could stand for variants."""
        with checking() as check:
            _check_count(check, len(request.variant_ids), MAX_ASKED, "variant_ids")
        with checking() as check:
            for position, variant_id in enumerate(request.variant_ids):
                check.text(variant_id, MAX_CHARS, f"variant_ids[{position}]", required=True)
        found = await cataloguing.list_image_candidates(
            self._means.deps, current_caller().team, request.variant_ids
        )
        return assets_pb2.ListImageCandidatesResponse(
            variants=[_candidates(candidates) for candidates in found.variants],
            uploads=[file_message(file) for file in found.uploads],
        )


def _candidates(found: Candidates) -> assets_pb2.VariantCandidates:
    return assets_pb2.VariantCandidates(
        variant=variant_message(found.variant),
        image=None if found.image is None else file_message(found.image),
        generated=[file_message(file, with_provenance=False) for file in found.generated],
    )


def _variants(request: assets_pb2.PutVariantsRequest) -> list[NewVariant]:
    """What is to be put; whether images are there is not known here."""
    with checking() as check:
        _check_count(check, len(request.variants), MAX_PUT, "variants")
    seen: set[str] = set()
    with checking() as check:
        for position, variant in enumerate(request.variants):
            field = f"variants[{position}]"
            check.text(variant.id, MAX_CHARS, f"{field}.id", required=True)
            check.text(variant.product, MAX_CHARS, f"{field}.product")
            check.text(variant.title, MAX_CHARS, f"{field}.title")
            check.within(variant.image_file_id, 0, MAX_ID, f"{field}.image_file_id")
            check.check(variant.id not in seen, f"{field}.id", "stands twice")
            seen.add(variant.id)
    return [
        NewVariant(variant.id, variant.product, variant.title, variant.image_file_id)
        for variant in request.variants
    ]


def _check_count(check: Violations, count: int, most: int, field: str) -> None:
    check.check(1 <= count <= most, field, f"takes 1 to {most}")
