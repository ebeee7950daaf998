"""What can be done to the services: each a name, a kind, and what it does from begin to end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from tests.chaos.house import DEATH_SECONDS, ChaosHouse

Act = Callable[[ChaosHouse], Awaitable[None]]

# The crash points of docs/LIFE-OF-A-JOB.md, by service. A point of the upload or the deletion of a
# file is passed seldom; W5 and A2 lie within one stream.
CRASH_POINTS = {
    "enqueue": ("E1", "E2", "E3", "E4", "E5", "E6", "E8", "E9", "E10", "E11"),
    "worker": ("W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8"),
    "assets": ("A1", "A2", "A3", "A4", "A5", "A6", "C1"),
    "packager": ("P1", "P2", "P3", "P4"),
}
SERVICES = tuple(CRASH_POINTS)


@dataclass(frozen=True)
class Disturbance:
    """Something that goes wrong, and is right again when `act` returns.

    Attributes:
        name: one of its own.
        kind: of what: kill, term, freeze, drain, crash point, broker, database, blobs, wire,
            generator, watchers.
        act: does it.
        weight: how often, against others of its list.
    """

    name: str
    kind: str
    act: Act
    weight: int = 1


async def _killed(house: ChaosHouse, name: str) -> None:
    await house.kill(name)
    await house.pause_between(0.0, 3.0)
    await house.start(name)


async def _away(house: ChaosHouse, name: str) -> None:
    """Longer than a retry, as when a machine is lost."""
    await house.kill(name)
    await house.pause_between(10.0, 20.0)
    await house.start(name)


async def _terminated(house: ChaosHouse, name: str) -> None:
    deed = house.ledger.open("SIGTERM", "term", name)
    if name.startswith("worker"):
        deed.jobs = await house.jobs_of(name)
    await house.fleet.terminate(name)
    await house.start(name)


async def _frozen(house: ChaosHouse, name: str, least: float, most: float) -> None:
    """SIGSTOP, and SIGCONT later: past the lease, a worker is a zombie then."""
    with house.ledger.during("SIGSTOP", "freeze") as deed:
        deed.victim = name
        if name.startswith("worker"):
            deed.jobs = await house.jobs_of(name)
        house.fleet.pause(name)
        try:
            await house.pause_between(least, most)
        finally:
            house.fleet.resume(name)


async def _drained(house: ChaosHouse, name: str) -> None:
    """Takes no jobs for a while; what it has goes on."""
    with house.ledger.during("drained", "drain") as deed:
        deed.victim = name
        await house.fleet.drain(name)
        await house.pause_between(2.0, 8.0)
        await house.fleet.undrain(name)


async def _crashed(house: ChaosHouse, name: str, point: str) -> None:
    """Restarted to die at a point, and started again when it has."""
    await house.kill(name, "kill -9 to arm")
    await house.start(name, CRASH_AT=point)
    try:
        await house.fleet.died(name, timeout_seconds=DEATH_SECONDS)
    except AssertionError:
        house.ledger.open(f"{point} not passed", "idle", name)
        await house.kill(name, "kill -9 to disarm")
    else:
        deed = house.ledger.open(f"crash at {point}", "crash point", name)
        if name.startswith("worker"):
            deed.jobs = await house.jobs_of(name)
    await house.start(name)


def on_a_process(act: Callable[[ChaosHouse, str], Awaitable[None]], *services: str) -> Act:
    """Does it to a process that nobody else is at; nothing where there is none."""

    async def do(house: ChaosHouse) -> None:
        names = house.free(*services)
        if not names:
            return
        name = house.dice.choice(names)
        async with house.hold(name):
            await act(house, name)
            await house.pause_between(1.0, 4.0)  # it comes up, and does something

    return do


def _of_services() -> list[Disturbance]:
    found: list[Disturbance] = []
    for service, points in CRASH_POINTS.items():
        often = {"worker": 12, "enqueue": 9}.get(service, 3)
        found += [
            Disturbance(f"kill {service}", "kill", on_a_process(_killed, service), often),
            Disturbance(f"stop {service}", "term", on_a_process(_terminated, service), 2),
            Disturbance(f"lose {service} for a while", "kill", on_a_process(_away, service), 1),
            Disturbance(
                f"freeze {service}",
                "freeze",
                on_a_process(partial(_frozen, least=1.0, most=6.0), service),
                1,
            ),
        ]
        found += [
            Disturbance(
                f"crash {service} at {point}",
                "crash point",
                on_a_process(partial(_crashed, point=point), service),
            )
            for point in points
        ]
    found.append(Disturbance("drain worker", "drain", on_a_process(_drained, "worker"), 2))
    zombie = partial(_frozen, least=18.0, most=24.0)
    found.append(Disturbance("zombie worker", "freeze", on_a_process(zombie, "worker"), 2))
    return found


OF_SERVICES = tuple(_of_services())
