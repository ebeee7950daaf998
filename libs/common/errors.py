"""The typed errors every layer may raise; standard library only.

An error is here only if a caller treats it differently. `libs.common.status` turns each into
one gRPC status (server side) and back into the same class (client side). Messages are written
by us for the caller: never exception text, SQL, paths or the caller's own bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DOMAIN = "contentshop"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field of a request, by its path (`product_images[2].upload_url`)."""

    field: str
    description: str
    reason: str = "INVALID_VALUE"


class ContentshopError(Exception):
    """Base of all typed errors.

    Attributes:
        reason: stable UPPER_SNAKE word that clients switch on.
        message: one sentence for a person.
        metadata: small string facts for ErrorInfo (camelCase keys).
        retry_after_seconds: when trying again may help; None where it cannot.
    """

    default_reason = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata: dict[str, str] = dict(metadata or {})
        self.retry_after_seconds = retry_after_seconds


class InvalidArgumentError(ContentshopError):
    """The request is wrong whatever the state; `violations` names every bad field."""

    default_reason = "INVALID_ARGUMENT"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)
        self.violations = tuple(violations)


class UnauthenticatedError(ContentshopError):
    """No token, or one that does not hold."""

    default_reason = "INVALID_TOKEN"


class PermissionDeniedError(ContentshopError):
    """A valid token of the wrong class for this RPC. Never used for single resources."""

    default_reason = "PERMISSION_DENIED"


class NotFoundError(ContentshopError):
    """Unknown, deleted or another team's: the answer is the same to the byte."""

    default_reason = "RESOURCE_NOT_FOUND"

    def __init__(self, resource_type: str) -> None:
        super().__init__(f"{resource_type} not found")
        self.resource_type = resource_type


class AlreadyExistsError(ContentshopError):
    """The name is taken, or a request_id was used with another body."""

    default_reason = "ALREADY_EXISTS"


class FailedPreconditionError(ContentshopError):
    """Right request, wrong state; trying again without a change of state cannot help."""

    default_reason = "FAILED_PRECONDITION"


class LeaseLostError(FailedPreconditionError):
    """The fence is stale or the job is no longer this worker's: stop at once."""

    default_reason = "LEASE_LOST"


class AbortedError(ContentshopError):
    """A conflict between transactions outlived its retries."""

    default_reason = "CONFLICT"


class ResourceExhaustedError(ContentshopError):
    """A limit of ours; `quota_subject` names it."""

    default_reason = "RESOURCE_EXHAUSTED"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
        quota_subject: str = "",
    ) -> None:
        super().__init__(
            message, reason=reason, metadata=metadata, retry_after_seconds=retry_after_seconds
        )
        self.quota_subject = quota_subject


class UnavailableError(ContentshopError):
    """A dependency is away; the same call may succeed soon."""

    default_reason = "UNAVAILABLE"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = 1.0,
    ) -> None:
        super().__init__(
            message, reason=reason, metadata=metadata, retry_after_seconds=retry_after_seconds
        )


class DeadlineExceededError(ContentshopError):
    """The server gave up waiting (a stalled upload, a slow dependency)."""

    default_reason = "DEADLINE_EXCEEDED"


class DataLossError(ContentshopError):
    """Stored bytes do not match their checksum; they are not served."""

    default_reason = "DATA_LOSS"


class UnimplementedError(ContentshopError):
    """Not built into this server."""

    default_reason = "UNIMPLEMENTED"


class InternalError(ContentshopError):
    """A fault of ours; the details are in our log, under the request's id."""

    default_reason = "INTERNAL"


# A refused token is a rotation in progress or a skewed clock: waiting mends both, failing would
# cost jobs that have done nothing wrong.
TRANSIENT = (
    UnavailableError,
    DeadlineExceededError,
    ResourceExhaustedError,
    AbortedError,
    UnauthenticatedError,
)
"""What may pass: who was asked is away, late, busy or full, or does not take our token."""
