"""The application's team filter, taken out of every statement on its way to PostgreSQL.

Row-level security must hold alone: with this on, `WHERE team = …` is gone from all that the
application's roles execute, and no team may see anything it did not see before. The statements of
the services stay as they are; their trees are rewritten as SQLAlchemy is about to run them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.sql import operators, visitors

APPLICATION = "_app"  # how the roles end that row-level security holds for
_COMPARISONS = (operators.eq, operators.in_op)


class Removed(Counter[str]):
    """How many conditions were taken out, by table."""


_counts: list[Removed] = []  # of who has it off now: a test may, within a suite that has


@contextmanager
def team_filter_off() -> Iterator[Removed]:
    """Statements of the application's roles lose their conditions on `team` until the end."""
    if not _counts:
        event.listen(sa.Engine, "before_execute", _rewrite, retval=True)
    _counts.append(Removed())
    try:
        yield _counts[-1]
    finally:
        _counts.pop()
        if not _counts:
            event.remove(sa.Engine, "before_execute", _rewrite)


def _rewrite(
    connection: sa.Connection, statement: Any, many: Any, parameters: Any, _options: Any
) -> tuple[Any, Any, Any]:
    role = connection.engine.url.username or ""
    if role.endswith(APPLICATION) and isinstance(statement, sa.ClauseElement):
        removed = Removed()
        statement = without_team(statement, removed)
        for counts in _counts:
            counts.update(removed)
    return statement, many, parameters


def without_team(statement: Any, removed: Removed) -> Any:
    """The statement with a condition that always holds where a team is compared with a value.

    It is one on the same column, for a statement may know of its table by that alone.
    Conditions between columns stay (`files.team = folders.team`): they join, and choose nobody.
    """

    def replace(element: Any, **_: Any) -> Any:
        if not isinstance(element, sa.BinaryExpression) or element.operator not in _COMPARISONS:
            return None
        if not isinstance(element.right, sa.BindParameter):
            return None
        if isinstance(element.left, sa.Tuple):
            return _shorter(element, removed)
        if _is_team(element.left):
            removed[element.left.table.name] += 1
            return element.left.is_not(None)
        return None

    return visitors.replacement_traverse(statement, {}, replace)


def _shorter(element: Any, removed: Removed) -> Any:
    """`(team, a, b) IN …` as `(a, b) IN …`; None where no team is in it."""
    columns = list(element.left.clauses)
    kept = [n for n, column in enumerate(columns) if not _is_team(column)]
    if len(kept) == len(columns):
        return None
    removed[columns[0].table.name] += 1
    values = [tuple(value[n] for n in kept) for value in element.right.value]
    return sa.tuple_(*(columns[n] for n in kept)).in_(values)


def _is_team(column: Any) -> bool:
    return isinstance(column, sa.Column) and column.name == "team"
