"""AssetsService: folders."""

from __future__ import annotations

from typing import Any

from contentshop.assets.v1 import assets_pb2
from libs.common.auth import current_caller
from libs.common.canonical import request_key
from libs.common.checks import MAX_ID, checking
from libs.common.paging import page_size
from services.assets.filenames import MAX_CHARACTERS, clean_folder_name
from services.assets.servicer.convert import file_message, folder_message
from services.assets.servicer.means import Doors
from services.assets.usecases import filing

DEFAULT_PAGE = 50
MAX_PAGE = 200


class FolderDoors(Doors):
    """Requests about folders; the team is the token's."""

    async def CreateFolder(
        self, request: assets_pb2.CreateFolderRequest, context: Any
    ) -> assets_pb2.CreateFolderResponse:
        """A folder under a name."""
        key = request_key(current_caller().team, "CreateFolder", request)
        folder = await filing.create_folder(self._means.deps, key, lambda: _name(request.name))
        return assets_pb2.CreateFolderResponse(folder=folder_message(folder))

    async def GetFolder(
        self, request: assets_pb2.GetFolderRequest, context: Any
    ) -> assets_pb2.GetFolderResponse:
        """One folder."""
        with checking() as check:
            check.id(request.folder_id, "folder_id")
        folder = await filing.get_folder(self._means.deps, current_caller().team, request.folder_id)
        return assets_pb2.GetFolderResponse(folder=folder_message(folder))

    async def ListFolders(
        self, request: assets_pb2.ListFoldersRequest, context: Any
    ) -> assets_pb2.ListFoldersResponse:
        """A page of folders, newest first."""
        team = current_caller().team
        with checking() as check:
            check.within(request.batch_id, 0, MAX_ID, "batch_id")
        limit = page_size(request.page_size, default=DEFAULT_PAGE, most=MAX_PAGE)
        scope = ("ListFolders", team, request.batch_id)
        before = self._means.tokens.open(request.page_token, *scope)
        found = await filing.list_folders(
            self._means.deps, team, request.batch_id, before_id=before, limit=limit + 1
        )
        return assets_pb2.ListFoldersResponse(
            folders=[folder_message(folder) for folder in found[:limit]],
            next_page_token=self._means.next_page([f.id for f in found], limit, *scope),
        )

    async def ListFolderFiles(
        self, request: assets_pb2.ListFolderFilesRequest, context: Any
    ) -> assets_pb2.ListFolderFilesResponse:
        """A page of the files in a folder, newest first."""
        team = current_caller().team
        with checking() as check:
            check.id(request.folder_id, "folder_id")
        limit = page_size(request.page_size, default=DEFAULT_PAGE, most=MAX_PAGE)
        scope = ("ListFolderFiles", team, request.folder_id)
        before = self._means.tokens.open(request.page_token, *scope)
        files = await filing.list_folder_files(
            self._means.deps, team, request.folder_id, before_id=before, limit=limit + 1
        )
        return assets_pb2.ListFolderFilesResponse(
            files=[file_message(file) for file in files[:limit]],
            next_page_token=self._means.next_page([f.id for f in files], limit, *scope),
        )


def _name(raw: str) -> str:
    with checking() as check:
        if check.text(raw, MAX_CHARACTERS, "name", required=True):
            check.check("\n" not in raw, "name", "must not contain line breaks")
            check.check(clean_folder_name(raw) != "", "name", "must hold a letter or a digit")
    return clean_folder_name(raw)
