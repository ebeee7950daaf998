"""A run: load, disturbances that overlap, healing, and the check of every promise."""

from __future__ import annotations

import asyncio
import io
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from libs.common.errors import ContentshopError
from tests.chaos.disturbances import OF_SERVICES, Disturbance
from tests.chaos.figures import kept, summary
from tests.chaos.house import ChaosHouse
from tests.chaos.load import Load
from tests.chaos.surroundings import OF_GEMINI, OF_SERVERS, OF_WIRES
from tests.support.invariants import State, check_invariants, check_logs, read_state
from tests.support.process import StartError
from tests.support.zips import read_strictly

SHOWN_CHARS = 2_000  # of a broken promise, as it breaks
PROGRESS_SECONDS = 30.0
REST_SECONDS = 300.0  # a zip may be asked for again only after minutes
SAMPLE = 25


@dataclass(frozen=True)
class Pace:
    """One line of disturbances, each after the end of the one before, and a pause.

    Lines run beside each other, so that what they do overlaps.
    """

    choices: Sequence[Disturbance]
    least_seconds: float
    most_seconds: float


PACES = (
    Pace(OF_SERVICES, 3.0, 14.0),
    Pace(OF_SERVICES, 3.0, 14.0),
    Pace(OF_SERVERS, 35.0, 75.0),
    Pace(OF_WIRES, 20.0, 50.0),
    Pace(OF_GEMINI, 15.0, 40.0),
)


@dataclass(frozen=True)
class Plan:
    """How long, how much, and by which lines.

    Attributes:
        each: instead of lines and minutes: these, one after another.
    """

    minutes: float
    teams: int = 8
    jobs_per_minute: float = 36.0
    paces: Sequence[Pace] = PACES
    each: Sequence[Disturbance] = ()


class Run:
    """One run on a house that is whole.

    Args:
        house: what it happens to.
        plan: what happens.
        say: takes a line of progress.
    """

    def __init__(self, house: ChaosHouse, plan: Plan, say: Callable[[str], None]) -> None:
        self._house = house
        self._plan = plan
        self._say = say
        self._load = Load(house, teams=plan.teams, jobs_per_minute=plan.jobs_per_minute)
        self._began = time.monotonic()
        self._over = asyncio.Event()
        self.broken: list[str] = []

    async def __call__(self) -> dict[str, Any]:
        """The figures; `broken` has what was promised and not kept."""
        await self._load.prepare()
        self._began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(self._tell())
            working = group.create_task(self._load.run())
            await self._disturb()
            self._say("no more faults: healing")
            await self._heal()
            self._load.stop()
            done, _ = await asyncio.wait({working}, timeout=REST_SECONDS)
            if not done:
                self.broken.append(f"{self._load.accepted.live} jobs did not end after the healing")
                working.cancel()
            telling.cancel()
        healed = time.monotonic()
        state = await self._check()
        figures = summary(self._house, self._load.accepted, state)
        figures["minutes"] = round((healed - self._began) / 60, 2)
        figures["broken"] = self.broken
        return figures

    async def _disturb(self) -> None:
        """All lines beside each other until time is up; each ends what it has begun."""
        for disturbance in self._plan.each:
            await disturbance.act(self._house)
        if self._plan.each:
            return
        async with asyncio.TaskGroup() as group:
            for pace in self._plan.paces:
                group.create_task(self._line(pace))
            group.create_task(self._keep_alive())
            await asyncio.sleep(self._plan.minutes * 60)
            self._over.set()

    async def _line(self, pace: Pace) -> None:
        dice, weights = self._house.dice, [each.weight for each in pace.choices]
        while not await self._over_within(dice.uniform(pace.least_seconds, pace.most_seconds)):
            chosen = dice.choices(pace.choices, weights=weights)[0]
            try:
                await chosen.act(self._house)
            except (OSError, RuntimeError, AssertionError, StartError) as error:
                self.broken.append(f"{chosen.name} could not be done: {error}")

    async def _over_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            return False
        return True

    async def _keep_alive(self) -> None:
        """Starts again what ended by itself, which nothing may."""
        house = self._house
        while not await self._over_within(2.0):
            for name in house.free(*("enqueue", "assets", "packager", "worker")):
                if not house.fleet.running(name):
                    self.broken.append(f"{name} ended by itself")
                    await house.start(name)
            self._look_at_logs()

    def _look_at_logs(self) -> None:
        try:
            check_logs(self._house.fleet)
        except AssertionError as error:
            self.broken.append(str(error))

    async def _heal(self) -> None:
        """Everything up and whole, before the load ends."""
        for proxy in self._house.wires.all().values():
            await proxy.heal()
        for name in self._house.names:
            self._house.fleet.resume(name)
            if not self._house.fleet.running(name):
                await self._house.start(name)
        try:
            await self._house.fleet.wait_ready()
        except ExceptionGroup as errors:
            self.broken += [f"not ready after the healing: {error}" for error in errors.exceptions]

    async def _check(self) -> State:
        """Every promise, by the rows, the blobs, the watchers, the logs and a sample of zips."""
        house, accepted = self._house, self._load.accepted
        self._look_at_logs()
        try:
            state = await check_invariants(house.fleet, rest_seconds=REST_SECONDS)
        except AssertionError as error:
            self.broken.append(str(error))
            state = await asyncio.to_thread(read_state, house.fleet)
        self.broken += accepted.wrong
        self.broken += kept(accepted, state)
        self.broken += await self._sample_of_zips(state)
        return state

    async def _sample_of_zips(self, state: State) -> list[str]:
        """Zips as the packager hands them out: exactly the job's images, in order."""
        zipped = [job for job in state.jobs if job["archive_state"] == "READY"]
        broken = []
        for job in self._house.dice.sample(zipped, min(SAMPLE, len(zipped))):
            team = self._load.teams[job["team"]]
            try:
                data = await team.download_archive(job["id"])
                images = state.images[job["id"]]
                made = [await team.download(image["file_id"]) for image in images]
            except (ContentshopError, AssertionError) as error:
                broken.append(f"zip of job {job['id']}: {error}")
                continue
            names = [entry.name for entry in read_strictly(data).entries]
            with zipfile.ZipFile(io.BytesIO(data)) as found:
                if [found.read(name) for name in names[:-1]] != made:
                    broken.append(f"zip of job {job['id']} holds {names}, not its images")
        return broken

    async def _tell(self) -> None:
        """A line every half minute, and what broke since the last."""
        told = 0
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            deeds, accepted = self._house.ledger.deeds, self._load.accepted
            ends = sum(deed.kind in {"kill", "term", "crash point"} for deed in deeds)
            self._say(
                f"{(time.monotonic() - self._began) / 60:5.1f} min: "
                f"{len(accepted.jobs)} jobs ({accepted.live} live), "
                f"{self._house.gemini.count} generator calls, {ends} service ends, "
                f"{len(deeds) - ends} other faults, "
                f"{len(self.broken) + len(accepted.wrong)} broken promises"
            )
            broken = [*self.broken, *accepted.wrong]
            for line in broken[told:]:
                self._say(f"BROKEN: {line[:SHOWN_CHARS]}")
            told = len(broken)
