"""The gRPC doors of enqueue: request → use case → response."""

from contentshop.enqueue.v1 import enqueue_pb2_grpc
from services.enqueue.servicer.batches import BatchDoors
from services.enqueue.servicer.credits import CreditDoors
from services.enqueue.servicer.execution import ExecutionServicer
from services.enqueue.servicer.jobs import JobDoors
from services.enqueue.servicer.means import Means
from services.enqueue.servicer.ops import OpsServicer
from services.enqueue.servicer.reviewing import ReviewDoors
from services.enqueue.servicer.watching import WatchDoors
from services.enqueue.servicer.workflows import WorkflowDoors


class EnqueueServicer(
    JobDoors,
    BatchDoors,
    WatchDoors,
    CreditDoors,
    ReviewDoors,
    WorkflowDoors,
    enqueue_pb2_grpc.EnqueueServiceServicer,
):
    """Requests of teams: the parts, one per noun."""


__all__ = ["EnqueueServicer", "ExecutionServicer", "Means", "OpsServicer"]
