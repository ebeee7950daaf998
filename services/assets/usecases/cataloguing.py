"""The shop's variants as far as images need them, and the images that could stand for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from libs.common.errors import ResourceExhaustedError
from services.assets.domain import Candidates, File, NewVariant, Variant
from services.assets.store import files, teams, variants
from services.assets.usecases.deps import Deps
from services.assets.usecases.referencing import hold_images

MAX_GENERATED = 50
MAX_UPLOADS = 200


@dataclass(frozen=True, slots=True)
class AllCandidates:
    """The candidates of each known variant, in the order asked, and the newest uploads."""

    variants: list[Candidates]
    uploads: list[File]


async def put_variants(deps: Deps, team: str, new: Sequence[NewVariant]) -> list[Variant]:
    """The variants, new or changed, in the order given; their ids differ.

    Raises:
        InvalidArgumentError: BAD_IMAGE_REFERENCE, naming every bad one at variants[i].
        ResourceExhaustedError: TOO_MANY_VARIANTS.
    """
    named = {
        f"variants[{position}].image_file_id": variant.image_file_id
        for position, variant in enumerate(new)
        if variant.image_file_id
    }
    most = deps.figures.variants_per_team
    async with deps.db.transaction(team) as tx:
        await teams.lock(tx, team)
        if named:
            await hold_images(tx, team, named)
        added = len(new) - await variants.known(tx, team, [variant.id for variant in new])
        # Counting reads all there are, so only when there will be more.
        if added and await variants.count(tx, team) + added > most:
            raise ResourceExhaustedError(
                f"the team would keep more than {most} variants",
                reason="TOO_MANY_VARIANTS",
                quota_subject="variants",
            )
        kept = await variants.put(tx, team, new)
    return [kept[variant.id] for variant in new]


async def list_variants(
    deps: Deps, team: str, product: str, *, after_id: str | None, limit: int
) -> list[Variant]:
    """A page of a team's variants, by id."""
    async with deps.db.read(team) as tx:
        return await variants.page(tx, team, product, after_id=after_id, limit=limit)


async def list_image_candidates(deps: Deps, team: str, variant_ids: Sequence[str]) -> AllCandidates:
    """What could stand for these variants: four statements, however many they are."""
    async with deps.db.read(team) as tx:
        known = await variants.find(tx, team, variant_ids)
        own = {variant.image_file_id for variant in known.values()} - {0}
        images = await files.find_images(tx, team, own, hold=False)
        generated = await variants.newest_generated(tx, team, known, MAX_GENERATED)
        uploads = await variants.newest_uploads(tx, team, MAX_UPLOADS)
    candidates = [
        Candidates(
            variant=known[variant_id],
            image=images.get(known[variant_id].image_file_id),
            generated=tuple(generated.get(variant_id, ())),
        )
        for variant_id in dict.fromkeys(variant_ids)
        if variant_id in known
    ]
    return AllCandidates(candidates, uploads)
