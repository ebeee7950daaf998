"""The gRPC doors of enqueue: request → use case → response."""

from services.enqueue.servicer.execution import ExecutionServicer
from services.enqueue.servicer.team import EnqueueServicer

__all__ = ["EnqueueServicer", "ExecutionServicer"]
