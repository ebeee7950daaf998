"""Calls of every RPC, as Hypothesis draws them: who calls, what, in how many messages."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from random import Random
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from contentshop.assets.v1 import assets_pb2, backend_pb2
from libs.common.grpc_server import access_rules, service_descriptors
from services.assets.app import SERVICES as ASSETS
from services.enqueue.app import SERVICES as ENQUEUE
from services.packager.app import SERVICES as PACKAGER
from services.worker.app import SERVICES as WORKER
from tests.fixtures import images
from tests.fuzz.house import CALLERS, OTHERS, OURS
from tests.fuzz.messages import HOSTILE, Filler, request_of
from tests.fuzz.pool import Pool
from tests.fuzz.wire import mutated

SERVICES = (*ASSETS, *ENQUEUE, *PACKAGER, *WORKER)
METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for service in service_descriptors(SERVICES)
    for method in service.methods
}
RULES = access_rules(service_descriptors(SERVICES))


@dataclass(frozen=True)
class Call:
    """One call; `repr` is enough to make it again."""

    method: str
    caller: str
    team: str
    messages: tuple[bytes, ...]

    def __repr__(self) -> str:
        sent = ",".join(base64.b85encode(message).decode() for message in self.messages)
        return f"{self.caller} {self.team} {self.method} {sent}"

    @classmethod
    def parse(cls, text: str) -> Call:
        """The call of a repr."""
        caller, team, method, sent = text.split(" ")
        return cls(method, caller, team, tuple(base64.b85decode(one) for one in sent.split(",")))


def calls(pool: Pool) -> st.SearchStrategy[Call]:
    """Calls of all methods, mostly by those who may make them.

    Hypothesis draws a seed for each and no more: a request of forty values takes it 5 ms, and
    what is found could not be shrunk, for the services are not as they were.
    """
    methods = tuple(METHODS)
    randoms = st.randoms(use_true_random=True)
    return st.builds(lambda random: call_of(random, random.choice(methods), pool), randoms)


def call_of(random: Random, method: str, pool: Pool) -> Call:
    """A call of a method."""
    descriptor = METHODS[method]
    team = OTHERS if random.randrange(5) == 0 else OURS
    if descriptor.client_streaming:
        messages = _stream(random, descriptor, pool, team)
    else:
        messages = [request_of(random, descriptor.input_type, pool, team).SerializeToString()]
    if random.randrange(5) == 0:
        at = random.randrange(max(len(messages), 1))
        messages[at : at + 1] = [mutated(random, messages[at] if messages else b"")]
    allowed = [caller for caller in CALLERS if caller in RULES[method]]
    strangers = random.randrange(20) == 0
    return Call(method, random.choice(CALLERS if strangers else allowed), team, tuple(messages))


def _stream(random: Random, descriptor: MethodDescriptor, pool: Pool, team: str) -> list[bytes]:
    """A header and chunks, in the right order and size, or not."""
    data = images.encoded("PNG", images.picture(random.randint(1, 60), 9))
    filler = Filler(random, pool, team, random.choice(HOSTILE))
    request: Any = {
        "UploadFileRequest": assets_pb2.UploadFileRequest,
        "StoreGeneratedRequest": backend_pb2.StoreGeneratedRequest,
    }[descriptor.input_type.name]
    head = request()
    filler.fill(head.header)
    if not filler.chance(30):
        head.header.size_bytes = len(data)
        head.header.sha256 = hashlib.sha256(data).hexdigest()
    step = random.choice((1_000_000, 64, 1_000))
    parts = [request(chunk=data[at : at + step]) for at in range(0, len(data), step)]
    order = random.choice(("right",) * 8 + ("twice", "late", "none", "mixed", "only", "nothing"))
    if order == "mixed":
        random.shuffle(parts)
    sent = {
        "right": [head, *parts],
        "mixed": [head, *parts],
        "twice": [head, *parts[:1], head, *parts[1:]],
        "late": [*parts, head],
        "none": parts,
        "only": [head],
        "nothing": [],
    }[order]
    return [part.SerializeToString() for part in sent]


def drawn(strategy: st.SearchStrategy[Any], count: int, number: int | None = None) -> list[Any]:
    """So many examples: those of a seed, or without one always the same."""
    found: list[Any] = []

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=number is None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    (collect if number is None else seed(number)(collect))()
    return found
