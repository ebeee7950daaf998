"""OpsService: what operators ask and set, for all teams; the parts, one per noun."""

from __future__ import annotations

from contentshop.enqueue.v1 import ops_pb2_grpc
from services.enqueue.servicer.dead import DeadDoors
from services.enqueue.servicer.ops_credits import OpsCreditDoors
from services.enqueue.servicer.ops_figures import FigureDoors
from services.enqueue.servicer.ops_limits import LimitDoors


class OpsServicer(
    FigureDoors, LimitDoors, OpsCreditDoors, DeadDoors, ops_pb2_grpc.OpsServiceServicer
):
    """Requests of operators."""
