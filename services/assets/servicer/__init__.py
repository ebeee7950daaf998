"""The gRPC doors of assets: request → use case → response."""

from contentshop.assets.v1 import assets_pb2_grpc
from services.assets.servicer.backend import AssetsBackendServicer
from services.assets.servicer.files import FileDoors
from services.assets.servicer.folders import FolderDoors
from services.assets.servicer.means import Means
from services.assets.servicer.moodboards import MoodboardDoors
from services.assets.servicer.ops import AssetsOpsServicer
from services.assets.servicer.storage import StorageDoors
from services.assets.servicer.uploads import UploadDoors
from services.assets.servicer.variants import VariantDoors


class AssetsServicer(
    FileDoors,
    FolderDoors,
    MoodboardDoors,
    StorageDoors,
    UploadDoors,
    VariantDoors,
    assets_pb2_grpc.AssetsServiceServicer,
):
    """Requests of teams: the parts, one per noun."""


__all__ = ["AssetsBackendServicer", "AssetsOpsServicer", "AssetsServicer", "Means"]
