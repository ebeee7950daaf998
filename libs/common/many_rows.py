"""Inserting rows with one statement, however many they are.

A statement per row costs the driver and PostgreSQL alike as much as the row; one of as many values
as there are rows is another text for every count, to be written, read and planned anew. So
PostgreSQL is given an array per column. SQLite, which is no journey away, takes row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from libs.common.db import Instant, Tx

Row = Mapping[str, Any]
Computed = Callable[[Any], Mapping[str, sa.ColumnElement[Any]]]


class InsertRows:
    """Inserts rows of one table; made once, where the table is known.

    Args:
        table: where.
        names: its columns that the rows give, none of them JSON.
        times: those that get the time, or some seconds after it.
        computed: on PostgreSQL, further columns from those given (`given.team` and so on). Asked
            once: what it says holds for every call.
        on_conflict: makes of the insert one that bears rows that are there already.
    """

    def __init__(
        self,
        table: sa.Table,
        names: Sequence[str],
        *,
        times: Sequence[str] = (),
        computed: Computed = lambda _given: {},
        on_conflict: Callable[[Any], Any] = lambda insert: insert,
    ) -> None:
        self._table = table
        self._names = tuple(names)
        self._times = tuple(times)
        self._on_conflict = on_conflict
        arrays = [
            sa.bindparam(f"all_{name}", type_=postgresql.ARRAY(table.c[name].type, dimensions=1))
            for name in names
        ]
        columns = [sa.column(name, table.c[name].type) for name in names]
        given = sa.func.unnest(*arrays).table_valued(*columns).render_derived(name="given")
        span = sa.bindparam("span", timedelta(), sa.Interval())
        time = sa.type_coerce(sa.func.clock_timestamp() + span, Instant())
        further = {**dict.fromkeys(times, time), **computed(given.c)}
        chosen = sa.select(*given.c, *further.values())
        # Nothing is read back: who inserts may have no leave to read.
        insert = postgresql.insert(table).from_select([*names, *further], chosen).inline()
        self._at_once = on_conflict(insert)

    async def __call__(self, tx: Tx, rows: Sequence[Row], *, seconds: float = 0.0) -> None:
        """Inserts the rows, in order; on SQLite with all that they hold beside `names`.

        Args:
            tx: where.
            rows: any number of them.
            seconds: from now, for `times`.
        """
        if not rows:
            return
        if tx.on_postgres:
            arrays = {f"all_{name}": [row.get(name) for row in rows] for name in self._names}
            await tx.execute(self._at_once, {**arrays, "span": timedelta(seconds=seconds)})
            return
        times = dict.fromkeys(self._times, tx.after(seconds))
        insert = tx.insert(self._table).inline().values(times)
        await tx.execute(self._on_conflict(insert), list(rows))
