"""Settings from the environment: every mistake named at once, secrets kept out of sight."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from libs.common.env import SettingsError, describe, load, setting
from libs.common.settings import CommonSettings


@dataclass(frozen=True, kw_only=True)
class Example:
    """One setting of each kind."""

    name: str = setting("NAME", "who")
    count: int = setting("COUNT", "how many", 3, at_least=1)
    share: float = setting("SHARE", "how much", 0.5, at_least=0)
    loud: bool = setting("LOUD", "aloud", False)
    hosts: tuple[str, ...] = setting("HOSTS", "where", ())
    key: str = setting("KEY", "secret", "", secret=True)


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        load(Example, environ)
    return raised.value.problems


def test_values_are_parsed_and_defaults_kept() -> None:
    loaded = load(
        Example, {"NAME": "x", "COUNT": "7", "SHARE": "0.25", "LOUD": "Yes", "HOSTS": "a, b,,"}
    )
    assert loaded == Example(name="x", count=7, share=0.25, loud=True, hosts=("a", "b"))
    assert load(Example, {"NAME": "x"}).count == 3


def test_all_mistakes_are_named_at_once_and_no_value() -> None:
    wrong = {"COUNT": "many", "SHARE": "-1", "LOUD": "perhaps", "KEY": "hush"}
    found = problems(wrong)
    assert found == [
        "NAME is not set: who",
        "COUNT: not a whole number",
        "SHARE must be at least 0",
        "LOUD: not a yes or no",
    ]


@pytest.mark.parametrize("share", ["nan", "inf", "-inf", "", "1e999", "0,5"])
def test_a_number_is_finite(share: str) -> None:
    assert problems({"NAME": "x", "SHARE": share}) == ["SHARE: not a number"]


def test_a_value_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("hush\n")
    assert load(Example, {"NAME": "x", "KEY_FILE": str(path)}).key == "hush"
    assert problems({"NAME": "x", "KEY_FILE": str(tmp_path / "missing")}) == [
        "KEY: cannot read the file that KEY_FILE names"
    ]


def test_a_secret_is_not_shown() -> None:
    assert "hush" not in repr(load(Example, {"NAME": "x", "KEY": "hush"}))
    assert describe(Example)[1] == ("COUNT", "3", "how many")


def test_what_is_described_as_default_means_the_default() -> None:
    described = {variable: default for variable, default, _ in describe(Example)}
    assert load(Example, described | {"NAME": "x"}) == load(Example, {"NAME": "x"})


RIGHT = {"AUTH_SECRET": "u" * 32, "SERVICE_SECRET": "s" * 32}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"AUTH_SECRET": ""}, "set exactly one of AUTH_SECRET and AUTH_JWKS"),
        ({"AUTH_JWKS": "keys.json"}, "set exactly one of AUTH_SECRET and AUTH_JWKS"),
        ({"AUTH_SECRET": "short"}, "AUTH_SECRET must have at least 32 characters"),
        ({"SERVICE_SECRET": "short"}, "SERVICE_SECRET must have at least 32 characters"),
        (
            {"AUTH_SECRET": "", "AUTH_JWKS": "http://keys"},
            "AUTH_JWKS must be a file or an https URL",
        ),
        ({"TLS_CERT": "c.pem"}, "set both TLS_CERT and TLS_KEY, or neither"),
        ({"TLS_CLIENT_CA": "ca.pem"}, "TLS_CLIENT_CA needs TLS_CERT and TLS_KEY"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL must be one of debug, info, warning, error"),
    ],
)
def test_what_no_single_variable_shows(changes: dict[str, str], problem: str) -> None:
    assert load(CommonSettings, RIGHT).auth_issuer == "contentshop"
    with pytest.raises(SettingsError) as raised:
        load(CommonSettings, {**RIGHT, **changes})
    assert raised.value.problems == [problem]
