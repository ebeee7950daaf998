"""What can go wrong for the person at the terminal: one sentence, what to do, an exit code."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from libs.common import errors


class ExitCode(enum.IntEnum):
    """How the command ended, for scripts. The texts are shown by `contentshop --help`."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    DENIED = 4
    UNAVAILABLE = 5
    REFUSED = 6
    INTERRUPTED = 130


EXIT_CODE_TEXTS: dict[ExitCode, str] = {
    ExitCode.OK: "it worked",
    ExitCode.FAILED: "the job or batch failed or was canceled, or something broke",
    ExitCode.USAGE: "wrong arguments, or the server refused the request as wrong",
    ExitCode.NOT_FOUND: "no such job, batch or file in this team",
    ExitCode.DENIED: "no token, or not a token for this",
    ExitCode.UNAVAILABLE: "the server is not running or cannot answer now; try again",
    ExitCode.REFUSED: "right request, wrong moment: a state or a limit is in the way",
    ExitCode.INTERRUPTED: "stopped by Ctrl-C",
}


class CliError(Exception):
    """A fault found by the command itself.

    Attributes:
        message: one sentence.
        exit_code: how the command ends.
        hint: what to do about it; may be empty.
        reason: a stable word for --json.
    """

    def __init__(
        self, message: str, exit_code: ExitCode, *, hint: str = "", reason: str = "CLI"
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.hint = hint
        self.reason = reason


class NotRunningError(CliError):
    """No `contentshop up` holds this data folder, or it does not answer."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message, ExitCode.UNAVAILABLE, hint=hint, reason="NOT_RUNNING")


@dataclass(frozen=True, slots=True)
class Problem:
    """An error, ready to be shown.

    Attributes:
        message: one sentence.
        exit_code: how the command ends.
        reason: a stable word.
        details: (where, what) for each wrong field.
        hint: what to do; may be empty.
    """

    message: str
    exit_code: ExitCode
    reason: str
    details: tuple[tuple[str, str], ...] = ()
    hint: str = ""

    def payload(self) -> dict[str, Any]:
        """For --json."""
        return {
            "error": {
                "message": self.message,
                "reason": self.reason,
                "exit_code": int(self.exit_code),
                "details": [{"field": field, "message": text} for field, text in self.details],
                "hint": self.hint,
            }
        }


_EXIT_CODES: tuple[tuple[type[errors.ContentshopError], ExitCode], ...] = (
    (errors.InvalidArgumentError, ExitCode.USAGE),
    (errors.NotFoundError, ExitCode.NOT_FOUND),
    (errors.UnauthenticatedError, ExitCode.DENIED),
    (errors.PermissionDeniedError, ExitCode.DENIED),
    (errors.UnavailableError, ExitCode.UNAVAILABLE),
    (errors.DeadlineExceededError, ExitCode.UNAVAILABLE),
    (errors.AbortedError, ExitCode.UNAVAILABLE),
    (errors.FailedPreconditionError, ExitCode.REFUSED),
    (errors.ResourceExhaustedError, ExitCode.REFUSED),
    (errors.AlreadyExistsError, ExitCode.REFUSED),
)

_HINTS = {
    "TOKEN_EXPIRED": "Make a new token: contentshop token",
    "INVALID_TOKEN": "Is it a token of this server? Make one with: contentshop token",
    "MISSING_TOKEN": "Give one in CONTENTSHOP_TOKEN, or --data a folder with its secrets.",
    "SCOPE_MISSING": "Make a token with that scope: contentshop token --scope …",
    "IDEMPOTENCY_KEY_REUSED": "Choose another --request-id, or leave it out.",
    "JOB_TERMINAL": "Look at it: contentshop job ID",
    "QUEUE_FULL": "Wait until some jobs have ended: contentshop jobs --state queued",
    "ARCHIVE_NOT_READY": "Wait for the job's end: contentshop watch ID",
    "INSUFFICIENT_CREDITS": "See what there is: contentshop credits",
    "JOB_NOT_RETRYABLE": "Only failed jobs run again: contentshop jobs --state failed",
    "BATCH_NOT_RETRYABLE": "None of its jobs has failed: contentshop batch show ID",
    "BATCH_TERMINAL": "Look at it: contentshop batch show ID",
    "STORAGE_QUOTA": "See what is stored: contentshop storage",
    "BAD_CURSOR": "Take the cursor of a message of this watch, or leave --after out.",
    "UNAVAILABLE": "Try again in a moment.",
    "DATA_LOSS": "The stored bytes are damaged; nothing was saved.",
}

# How the fields of a request are called on the command line.
_OPTIONS: tuple[tuple[str, str], ...] = (
    ("product_images", "--product-image"),
    ("model_image", "--model-image"),
    ("background_image", "--background-image"),
    ("moodboard.positive_images", "--moodboard-image"),
    ("moodboard.negative_images", "--avoid-image"),
    ("base_image", "the image"),
    ("reference_image", "--reference-image"),
    ("input.custom_instructions", "--instruction"),
    ("input.instruction", "--instruction"),
    ("input.aspect_ratio", "--aspect-ratio"),
    ("input.purpose", "--purpose"),
    ("number_of_variations", "--variations"),
    ("schema_key", "--workflow"),
    ("request_id", "--request-id"),
    ("quality", "--quality"),
    ("format", "--format"),
    ("after_sequence", "--after"),
    ("after_cursor", "--after"),
)


def explain(error: BaseException) -> Problem:
    """What to show for an error; of a group, its first error."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, CliError):
        return Problem(error.message, error.exit_code, error.reason, hint=error.hint)
    if isinstance(error, errors.ContentshopError):
        return _explain_answer(error)
    if isinstance(error, (KeyboardInterrupt, InterruptedError)):
        return Problem("stopped", ExitCode.INTERRUPTED, "INTERRUPTED")
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return Problem(f"{error.strerror or error}{where}", ExitCode.FAILED, "OS_ERROR")
    return Problem(
        f"the command itself is at fault ({type(error).__name__})",
        ExitCode.FAILED,
        "CLI_FAULT",
        hint="Set CONTENTSHOP_DEBUG=1 to see where.",
    )


def _explain_answer(error: errors.ContentshopError) -> Problem:
    code = next((code for cls, code in _EXIT_CODES if isinstance(error, cls)), ExitCode.FAILED)
    details: tuple[tuple[str, str], ...] = ()
    if isinstance(error, errors.InvalidArgumentError):
        details = tuple(
            (option_path(v.field), f"{v.description} ({v.reason})") for v in error.violations
        )
    hint = _HINTS.get(error.reason, "")
    if isinstance(error, errors.NotFoundError) and error.resource_type == "job":
        hint = "List your team's jobs: contentshop jobs"
    if isinstance(error, errors.NotFoundError) and error.resource_type == "batch":
        hint = "List your team's batches: contentshop batch list"
    if error.reason == "JOB_ALREADY_RETRIED":
        hint = f"Look at its retry: contentshop job {error.metadata.get('retryJobId', 'ID')}"
    wait = error.retry_after_seconds
    if not hint and wait:
        hint = f"Try again in {wait:g} s."
    return Problem(error.message, code, error.reason, details, hint)


def option_path(field: str) -> str:
    """A request's field as a person typed it: `product_images[1].file_id` → `--product-image 2`."""
    for prefix, option in _OPTIONS:
        if field == prefix or field.startswith((f"{prefix}.", f"{prefix}[")):
            position = re.match(r"\[(\d+)\]", field[len(prefix) :])
            number = f" {int(position[1]) + 1}" if position else ""
            return f"{option}{number}"
    return field


def exit_code_table() -> Iterator[str]:
    """One line per exit code."""
    for code, text in EXIT_CODE_TEXTS.items():
        yield f"{int(code):>3}  {text}"
