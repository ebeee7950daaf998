"""What people and scripts are told when something goes wrong."""

from __future__ import annotations

import pytest

from cli.errors import (
    EXIT_CODE_TEXTS,
    CliError,
    ExitCode,
    NotRunningError,
    exit_code_table,
    explain,
    option_path,
)
from libs.common import errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidArgumentError("no"), 2),
        (errors.NotFoundError("job"), 3),
        (errors.UnauthenticatedError("no"), 4),
        (errors.PermissionDeniedError("no"), 4),
        (errors.UnavailableError("no"), 5),
        (errors.DeadlineExceededError("no"), 5),
        (errors.AbortedError("no"), 5),
        (errors.FailedPreconditionError("no"), 6),
        (errors.LeaseLostError("no"), 6),
        (errors.ResourceExhaustedError("no"), 6),
        (errors.AlreadyExistsError("no"), 6),
        (errors.DataLossError("no"), 1),
        (errors.InternalError("no"), 1),
        (errors.UnimplementedError("no"), 1),
        (NotRunningError("no", hint=""), 5),
        (KeyboardInterrupt(), 130),
        (OSError(28, "No space left on device", "a.png"), 1),
        (ZeroDivisionError("secret"), 1),
    ],
)
def test_every_error_has_its_exit_code(error: BaseException, code: int) -> None:
    assert explain(error).exit_code == code


def test_a_fault_of_ours_does_not_show_its_text() -> None:
    problem = explain(ZeroDivisionError("/home/me/secret"))
    assert "secret" not in problem.message + problem.hint
    assert "CONTENTSHOP_DEBUG" in problem.hint


def test_of_a_group_the_first_error_is_told() -> None:
    inner = ExceptionGroup("inner", [CliError("this one", ExitCode.USAGE)])
    assert explain(ExceptionGroup("outer", [inner, ValueError()])).message == "this one"


def test_wrong_fields_are_named_as_they_were_typed() -> None:
    error = errors.InvalidArgumentError(
        "1 field is wrong",
        violations=[
            errors.FieldViolation("product_images[1].file_id", "is not found", "IMAGE_NOT_FOUND")
        ],
    )
    problem = explain(error)
    assert problem.details == (("--product-image 2", "is not found (IMAGE_NOT_FOUND)"),)
    assert problem.payload()["error"]["details"] == [
        {"field": "--product-image 2", "message": "is not found (IMAGE_NOT_FOUND)"}
    ]


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ("product_images", "--product-image"),
        ("product_images[0]", "--product-image 1"),
        ("model_image.upload_url", "--model-image"),
        ("moodboard.positive_images[2].file_id", "--moodboard-image 3"),
        ("input.aspect_ratio", "--aspect-ratio"),
        ("input.unheard_of", "input.unheard_of"),
        ("product_images_x", "product_images_x"),
        ("labels.product", "labels.product"),
    ],
)
def test_fields_to_options(field: str, shown: str) -> None:
    assert option_path(field) == shown


def test_a_wait_the_server_asks_for_is_told() -> None:
    error = errors.ResourceExhaustedError("too many", reason="OTHER", retry_after_seconds=2.0)
    assert explain(error).hint == "Try again in 2 s."


def test_the_retry_that_is_in_the_way_is_named() -> None:
    error = errors.FailedPreconditionError(
        "the job was run again already", reason="JOB_ALREADY_RETRIED", metadata={"retryJobId": "13"}
    )
    assert explain(error).hint == "Look at its retry: contentshop job 13"


def test_every_exit_code_is_documented() -> None:
    assert set(EXIT_CODE_TEXTS) == set(ExitCode)
    assert len(list(exit_code_table())) == len(ExitCode)
