"""One table between typed errors and gRPC statuses, used in both directions.

Every status of ours carries exactly one google.rpc.ErrorInfo (AIP-193); INVALID_ARGUMENT adds
BadRequest, limits add QuotaFailure, state adds PreconditionFailure, what can be retried adds
RetryInfo.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from libs.common import errors

_CODES: dict[type[errors.ContentshopError], grpc.StatusCode] = {
    errors.InvalidArgumentError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.LeaseLostError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.FailedPreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.AbortedError: grpc.StatusCode.ABORTED,
    errors.ResourceExhaustedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.DataLossError: grpc.StatusCode.DATA_LOSS,
    errors.UnimplementedError: grpc.StatusCode.UNIMPLEMENTED,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}
_NUMBERS = {code: code.value[0] for code in grpc.StatusCode}
DETAILS_KEY = "grpc-status-details-bin"
# Trailers over 8 KiB are refused by clients, sometimes; base64 makes four bytes of three.
MAX_VIOLATION_BYTES = 4 * 1024


def code_of(error: errors.ContentshopError) -> grpc.StatusCode:
    """The gRPC code of a typed error; a subclass has that of the class it refines."""
    for cls in type(error).__mro__:
        if code := _CODES.get(cls):
            return code
    return grpc.StatusCode.INTERNAL


def to_status(error: errors.ContentshopError) -> status_pb2.Status:
    """The whole status of a typed error, details included."""
    info = error_details_pb2.ErrorInfo(
        reason=error.reason, domain=errors.DOMAIN, metadata=error.metadata
    )
    details: list[Message] = [info]
    if isinstance(error, errors.InvalidArgumentError) and error.violations:
        details.append(_bad_request(error.violations))
    if isinstance(error, errors.NotFoundError):
        details.append(error_details_pb2.ResourceInfo(resource_type=error.resource_type))
    if isinstance(error, errors.FailedPreconditionError):
        violation = error_details_pb2.PreconditionFailure.Violation(
            type=error.reason, description=error.message
        )
        details.append(error_details_pb2.PreconditionFailure(violations=[violation]))
    if isinstance(error, errors.ResourceExhaustedError):
        quota = error_details_pb2.QuotaFailure.Violation(
            subject=error.quota_subject, description=error.message
        )
        details.append(error_details_pb2.QuotaFailure(violations=[quota]))
    if error.retry_after_seconds is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(error.retry_after_seconds * 1e9))
        details.append(retry)
    status = status_pb2.Status(code=_NUMBERS[code_of(error)], message=error.message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _bad_request(violations: Sequence[errors.FieldViolation]) -> error_details_pb2.BadRequest:
    """The first violations, as many as a client is sure to take; the message counts them all."""
    bad_request = error_details_pb2.BadRequest()
    for v in violations:
        bad_request.field_violations.add(field=v.field, description=v.description, reason=v.reason)
        if bad_request.ByteSize() > MAX_VIOLATION_BYTES and len(bad_request.field_violations) > 1:
            del bad_request.field_violations[-1]
            break
    return bad_request


def trailing_metadata(error: errors.ContentshopError) -> tuple[tuple[str, bytes], ...]:
    """The details as gRPC trailers."""
    return ((DETAILS_KEY, to_status(error).SerializeToString()),)


_CLASSES: dict[grpc.StatusCode, type[errors.ContentshopError]] = {
    code: cls for cls, code in _CODES.items() if cls is not errors.LeaseLostError
}


def from_rpc_error(error: grpc.aio.AioRpcError) -> errors.ContentshopError:
    """The typed error behind a failed call; calls that never reached a server are UNAVAILABLE."""
    info, violations, retry_after, resource, subject = _read_details(error)
    code = error.code()
    # Words that are not ours may name addresses and paths, and a servicer passes them on.
    message = (info.reason and error.details()) or f"the call ended with {code.name}"
    if info.reason == errors.LeaseLostError.default_reason:
        return errors.LeaseLostError(message)
    if code is grpc.StatusCode.NOT_FOUND and resource:
        return errors.NotFoundError(resource)
    reason = info.reason or None
    metadata = dict(info.metadata)
    cls = _CLASSES.get(code)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return errors.InvalidArgumentError(
            message, reason=reason, metadata=metadata, violations=violations
        )
    if cls is errors.ResourceExhaustedError:
        return errors.ResourceExhaustedError(
            message,
            reason=reason,
            metadata=metadata,
            retry_after_seconds=retry_after,
            quota_subject=subject,
        )
    if cls is None or cls is errors.NotFoundError or (cls is errors.InternalError and not reason):
        # CANCELLED, UNKNOWN and the like: not of our making, so nothing is known of the result.
        # INTERNAL without our details is grpc.aio's own word for a write that crossed an answer
        # (seen in 1 to 3 of 100 uploads that are answered at their header).
        return errors.UnavailableError(f"the call ended with {code.name}")
    return cls(message, reason=reason, metadata=metadata, retry_after_seconds=retry_after)


def _read_details(
    error: grpc.aio.AioRpcError,
) -> tuple[error_details_pb2.ErrorInfo, list[errors.FieldViolation], float | None, str, str]:
    info = error_details_pb2.ErrorInfo()
    violations: list[errors.FieldViolation] = []
    retry_after: float | None = None
    resource = subject = ""
    for detail in _details(error):
        bad_request = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        resource_info = error_details_pb2.ResourceInfo()
        quota = error_details_pb2.QuotaFailure()
        if detail.Unpack(info):
            if info.domain != errors.DOMAIN:
                info.Clear()
            continue
        if detail.Unpack(bad_request):
            violations += [
                errors.FieldViolation(v.field, v.description, v.reason)
                for v in bad_request.field_violations
            ]
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
        elif detail.Unpack(resource_info):
            resource = resource_info.resource_type
        elif detail.Unpack(quota) and quota.violations:
            subject = quota.violations[0].subject
    return info, violations, retry_after, resource, subject


def _details(error: grpc.aio.AioRpcError) -> list[any_pb2.Any]:
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            status = status_pb2.Status()
            try:
                status.ParseFromString(value)
            except DecodeError:
                return []
            return list(status.details)
    return []
