"""AssetsService: moodboards."""

from __future__ import annotations

from typing import Any

from contentshop.assets.v1 import assets_pb2
from libs.common.auth import current_caller
from libs.common.canonical import request_key
from libs.common.checks import checking
from libs.common.paging import page_size
from services.assets.domain import MoodboardContent
from services.assets.servicer.convert import moodboard_message
from services.assets.servicer.means import Doors
from services.assets.usecases import moodboarding

DEFAULT_PAGE = 50
MAX_PAGE = 200
MAX_POSITIVE = 6
MAX_NEGATIVE = 2
MAX_NAME_CHARS = 100
MAX_STYLE_CHARS = 1_000


class MoodboardDoors(Doors):
    """Requests about moodboards; the team is the token's."""

    async def CreateMoodboard(
        self, request: assets_pb2.CreateMoodboardRequest, context: Any
    ) -> assets_pb2.CreateMoodboardResponse:
        """Keeps a moodboard."""
        key = request_key(current_caller().team, "CreateMoodboard", request)
        moodboard = await moodboarding.create_moodboard(
            self._means.deps, key, lambda: _content(request.content)
        )
        return assets_pb2.CreateMoodboardResponse(moodboard=moodboard_message(moodboard))

    async def GetMoodboard(
        self, request: assets_pb2.GetMoodboardRequest, context: Any
    ) -> assets_pb2.GetMoodboardResponse:
        """One moodboard."""
        _check_id(request.moodboard_id)
        moodboard = await moodboarding.get_moodboard(
            self._means.deps, current_caller().team, request.moodboard_id
        )
        return assets_pb2.GetMoodboardResponse(moodboard=moodboard_message(moodboard))

    async def UpdateMoodboard(
        self, request: assets_pb2.UpdateMoodboardRequest, context: Any
    ) -> assets_pb2.UpdateMoodboardResponse:
        """Replaces what a moodboard holds."""
        with checking() as check:
            check.id(request.moodboard_id, "moodboard_id")
            check.check(request.revision >= 0, "revision", "must not be negative")
        moodboard = await moodboarding.update_moodboard(
            self._means.deps,
            current_caller().team,
            request.moodboard_id,
            _content(request.content),
            request.revision,
        )
        return assets_pb2.UpdateMoodboardResponse(moodboard=moodboard_message(moodboard))

    async def ListMoodboards(
        self, request: assets_pb2.ListMoodboardsRequest, context: Any
    ) -> assets_pb2.ListMoodboardsResponse:
        """A page of moodboards, newest first."""
        team = current_caller().team
        limit = page_size(request.page_size, default=DEFAULT_PAGE, most=MAX_PAGE)
        scope = ("ListMoodboards", team)
        before = self._means.tokens.open(request.page_token, *scope)
        found = await moodboarding.list_moodboards(
            self._means.deps, team, before_id=before, limit=limit + 1
        )
        return assets_pb2.ListMoodboardsResponse(
            moodboards=[moodboard_message(moodboard) for moodboard in found[:limit]],
            next_page_token=self._means.next_page([m.id for m in found], limit, *scope),
        )

    async def DeleteMoodboard(
        self, request: assets_pb2.DeleteMoodboardRequest, context: Any
    ) -> assets_pb2.DeleteMoodboardResponse:
        """Deletes a moodboard."""
        _check_id(request.moodboard_id)
        await moodboarding.delete_moodboard(
            self._means.deps, current_caller().team, request.moodboard_id
        )
        return assets_pb2.DeleteMoodboardResponse()


def _check_id(moodboard_id: int) -> None:
    with checking() as check:
        check.id(moodboard_id, "moodboard_id")


def _content(content: assets_pb2.MoodboardContent) -> MoodboardContent:
    """What a moodboard is to hold; whether its files are there is not known here."""
    with checking() as check:
        check.text(content.name, MAX_NAME_CHARS, "content.name", required=True)
        check.text(content.style_appendix, MAX_STYLE_CHARS, "content.style_appendix")
        for field, file_ids, most in (
            ("positive_file_ids", content.positive_file_ids, MAX_POSITIVE),
            ("negative_file_ids", content.negative_file_ids, MAX_NEGATIVE),
        ):
            check.check(len(file_ids) <= most, f"content.{field}", f"takes at most {most}")
    return MoodboardContent(
        name=content.name.strip(),
        positive_file_ids=tuple(content.positive_file_ids),
        negative_file_ids=tuple(content.negative_file_ids),
        background_file_id=content.background_file_id,
        model_file_id=content.model_file_id,
        style_appendix=content.style_appendix,
    )
