"""Which modules are put to the test, and by what."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
# The tests that wind the store by hand, and the rules: a tenth of a second each.
QUICK = (
    "tests/unit/test_batch.py",
    "tests/unit/test_crediting.py",
    "tests/unit/test_job_rules.py",
    "tests/integration/enqueue/test_reaper.py",
    "tests/integration/enqueue/test_store_duties.py",
    "tests/integration/enqueue/test_store_executing.py",
    "tests/integration/enqueue/test_store_leases.py",
    "tests/integration/enqueue/test_store_ledger.py",
    "tests/integration/enqueue/test_store_locks.py",
    "tests/integration/enqueue/test_store_places.py",
    "tests/integration/enqueue/test_store_requests.py",
)
# Those with the whole of enqueue around them.
WHOLE = tuple(
    f"tests/integration/enqueue/test_{name}.py"
    for name in (
        *("bad_execution", "batches", "circling", "credits", "governor", "life", "ops"),
        *("retries", "reviews"),
    )
)
# The state machine, admission, fencing, credits: where a fault costs money, or breaks a promise.
# Then what stands around them: how a request is stored or refused, its key, the duties.
MODULES = {
    "domain": ("services.enqueue.domain", QUICK),
    "admission": ("services.enqueue.store.admission", QUICK),
    "leases": ("services.enqueue.store.leases", QUICK),
    "ledger": ("services.enqueue.store.ledger", QUICK),
    "credit_checks": ("services.enqueue.store.credit_checks", QUICK),
    "crediting": ("services.enqueue.usecases.crediting", (*QUICK, *WHOLE)),
    "reconciling": ("services.enqueue.usecases.reconciling", (*QUICK, *WHOLE)),
    "jobs": ("services.enqueue.store.jobs", (*QUICK, *WHOLE)),
    "executing": ("services.enqueue.usecases.executing", QUICK),
    "deps": ("services.enqueue.usecases.deps", (*QUICK, *WHOLE)),
    "storing": ("services.enqueue.usecases.storing", QUICK),
    "refusing": ("services.enqueue.usecases.refusing", (*QUICK, *WHOLE)),
    "relay": ("services.enqueue.relay", QUICK),
    "request_keys": ("libs.common.request_keys", (*QUICK, *WHOLE)),
}
# Of those that reach a fault, so many are run.
MOST_TESTS = 15
# Histories of the simulation, walked when no test has found the fault.
SEEDS = 3
STEPS = 150


def source_of(module: str) -> Path:
    """The file of a module."""
    return ROOT / (module.replace(".", "/") + ".py")
