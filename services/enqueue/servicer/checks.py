"""Checks that several doors share."""

from __future__ import annotations

from libs.common.auth import TEAM_PATTERN
from libs.common.broker import LANES
from libs.common.checks import Violations


def optional_team(team: str, check: Violations, field: str = "team") -> None:
    """Adds the field unless it is empty or a team's name."""
    if team:
        required_team(team, check, field)


def required_team(team: str, check: Violations, field: str = "team") -> None:
    """Adds the field unless it is a team's name."""
    right = TEAM_PATTERN.fullmatch(team) is not None
    check.check(right, field, "must be 1 to 64 of A-Z a-z 0-9 _ . -")


def known_lane(lane: str, check: Violations) -> None:
    """Adds the field unless there is such a lane."""
    check.check(lane in LANES, "lane", f"must be one of {', '.join(LANES)}")
