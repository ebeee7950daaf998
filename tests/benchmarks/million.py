"""What operators ask, with a million jobs in PostgreSQL: the plans' nodes, and milliseconds."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
from sqlalchemy import event

from libs.common.clock import SystemClock
from libs.common.crash import CrashPoints
from libs.common.db import Database
from libs.common.ids import SystemIds
from services.enqueue.gateways import ProtoAnnouncer
from services.enqueue.store import admission
from services.enqueue.usecases import operating
from services.enqueue.usecases.deps import Deps, Limits
from services.enqueue.usecases.explaining import explain_job
from services.enqueue.wakeups import LocalWakeups
from tests.benchmarks.figures import Report, Target, median
from tests.benchmarks.houses import fleet
from tests.benchmarks.plan import Bench

JOBS, QUICK_JOBS = 1_000_000, 50_000
ROUNDS = 5
MAX_MS = 200.0
# 95 of 100 ended within the last 30 days; of the rest one in 80 is live, the others wait.
FILL = """
INSERT INTO jobs (
    team, type, lane, quality, format, schema_key, input, aspect_ratio, number_of_variations,
    inputs, prompt_original, priority, product, variant, destination, workspace_session_id,
    template_name, source_task_id, pin_token, created_at, state, last_sequence, images_done,
    images_failed, attempts, max_attempts, lost_workers, started_at, finished_at, admitted_at,
    dispatch_no, rings, ring_at, fence, lease_expires_at, archive_state, archive_rings)
SELECT
    'team-' || n %% 200, kind, kind || '.' || quality, quality, 'png', 'apparel.catalog.v1', '{}',
    '3:4', 4, '[["product", 1]]', repeat('a shirt on a wall ', 10), 0, '', '', '', '', '', '',
    md5(n::text), ended - interval '70 s',
    CASE WHEN n <= last THEN (ARRAY['SUCCEEDED', 'SUCCEEDED', 'SUCCEEDED', 'SUCCEEDED',
        'SUCCEEDED', 'SUCCEEDED', 'SUCCEEDED', 'SUCCEEDED', 'FAILED', 'CANCELED'])[1 + n %% 10]
        WHEN n %% 160 = 0 THEN 'RUNNING' ELSE 'QUEUED' END,
    6, 0, 0, 1, 3, 0,
    CASE WHEN n <= last OR n %% 160 = 0 THEN ended - make_interval(secs => 5 + n %% 60) END,
    CASE WHEN n <= last THEN ended END,
    CASE WHEN n <= last OR n %% 80 = 0 THEN ended - interval '65 s' END,
    1, 0, CASE WHEN n > last AND n %% 160 = 80 THEN now() + interval '1 h' END, 1,
    CASE WHEN n > last AND n %% 160 = 0 THEN now() + interval '1 h' END, 'NONE', 0
FROM (
    SELECT n, last, now() - (last - least(n, last)) * interval '30 days' / last AS ended,
        CASE WHEN n %% 4 = 3 THEN 'image_edit' ELSE 'image_generation' END AS kind,
        CASE WHEN n %% 3 = 0 THEN 'high' ELSE 'fast' END AS quality
    FROM generate_series(1, %(jobs)s) AS n, (SELECT %(jobs)s * 95 / 100 AS last) AS split
) AS made ORDER BY n
"""
TEAMS = """
INSERT INTO teams (team, created_at) SELECT 'team-' || n, now() FROM generate_series(0, 199) AS n
"""


async def measure(bench: Bench, report: Report) -> None:
    """Adds the rows of `million`."""
    jobs = bench.pick(full=JOBS, quick=QUICK_JOBS)
    async with fleet(bench.servers) as house:
        dsn = house.dsn("enqueue")
        begun = time.monotonic()
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("SET statement_timeout = 0")
            connection.execute(TEAMS)
            connection.execute(FILL, {"jobs": jobs})
            connection.execute("VACUUM ANALYZE jobs")
        report.add("million", f"filling {jobs:,} jobs", time.monotonic() - begun, "s")
        urls = house.urls["enqueue"]
        db = Database(urls.app, duty_url=urls.duty, clock=SystemClock())
        try:
            report.samples["million"] = await _questions(db, dsn, jobs, report)
        finally:
            await db.stop()


async def _questions(db: Database, dsn: str, jobs: int, report: Report) -> dict[str, Any]:
    deps = Deps(
        db=db,
        announcer=ProtoAnnouncer(),
        wakeups=LocalWakeups(),
        wake_relay=lambda: None,
        limits=Limits(),
        crash=CrashPoints(""),
        ids=SystemIds(),
    )
    now = SystemClock().now()

    async def sweep() -> None:
        async with db.duty() as tx:
            await admission.to_ring(tx, 100)

    async def metrics(days: int, team: str = "") -> None:
        await operating.job_metrics(deps, now - timedelta(days=days), now, team)

    asks: dict[str, Callable[[], Awaitable[Any]]] = {
        "GetQueueStats": lambda: operating.queue_stats(deps),
        "GetJobMetrics, a day": lambda: metrics(1),
        "GetJobMetrics, a day of one team": lambda: metrics(1, "team-7"),
        "GetJobMetrics, all 30 days": lambda: metrics(30),
        "ExplainJob, one that waits": lambda: explain_job(deps, None, jobs - 1),
        "ExplainJob, one that has ended": lambda: explain_job(deps, None, jobs // 2),
        "the sweep's look": sweep,
    }
    plans: dict[str, Any] = {}
    for what, ask in asks.items():
        with _statements(db) as seen:
            await ask()
        plans[what] = [_plan(dsn, text, parameters) for text, parameters in seen]
        nodes = sorted({node for plan in plans[what] for node in plan["nodes"]})
        times = []
        for _ in range(ROUNDS):
            begun = time.monotonic()
            await ask()
            times.append((time.monotonic() - begun) * 1000)
        target = None if "30 days" in what else Target(at_most=MAX_MS, of_value=True)
        report.add("million", f"{what}: {'; '.join(nodes)}", median(times), "ms", target=target)
    return plans


@contextmanager
def _statements(db: Database) -> Iterator[list[tuple[str, Any]]]:
    """The statements that run meanwhile, without those of sessions."""
    seen: list[tuple[str, Any]] = []

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if " FROM " in statement.replace("\n", " "):
            seen.append((statement, parameters))

    engine = db._duty.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


def _plan(dsn: str, statement: str, parameters: Any) -> dict[str, Any]:
    """Its milliseconds, and what reads which rows: scans by index or of whole tables."""
    with psycopg.connect(dsn) as connection:
        query = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}".encode()
        [[row]] = connection.execute(query, parameters).fetchall()
        connection.rollback()
    [plan] = row if isinstance(row, list) else json.loads(row)
    nodes = [
        f"{node['Node Type']} {node.get('Index Name') or node.get('Relation Name')}"
        for node in _nodes(plan["Plan"])
        if "Index Name" in node or node["Node Type"] == "Seq Scan"
    ]
    return {"statement": statement, "ms": plan["Execution Time"], "nodes": nodes}


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for below in node.get("Plans", ()):
        yield from _nodes(below)
