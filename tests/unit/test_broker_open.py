from __future__ import annotations

import pytest

from libs.common.broker_amqp import AmqpBroker
from libs.common.broker_memory import MemoryBroker
from libs.common.broker_open import open_broker
from libs.common.clock import SystemClock
from libs.common.errors import FailedPreconditionError, InvalidArgumentError
from libs.common.ids import SystemIds

CLOCK, IDS = SystemClock(), SystemIds()


@pytest.mark.parametrize("url", ["amqp://guest:guest@rabbit/", "amqps://rabbit:5671/vhost"])
async def test_amqp_urls_make_an_amqp_broker(url: str) -> None:
    broker = open_broker(url, name="test", clock=CLOCK, ids=IDS)
    assert isinstance(broker, AmqpBroker)
    assert not broker.connected


async def test_memory_is_the_broker_handed_in() -> None:
    memory = MemoryBroker(clock=CLOCK, ids=IDS)
    assert open_broker("memory://", name="test", clock=CLOCK, ids=IDS, memory=memory) is memory


def test_memory_alone_is_refused() -> None:
    with pytest.raises(FailedPreconditionError) as refused:
        open_broker("memory://", name="test", clock=CLOCK, ids=IDS)
    assert refused.value.reason == "MEMORY_BROKER_OUTSIDE_UP"
    assert "contentshop up" in refused.value.message


@pytest.mark.parametrize("url", ["", "redis://x", "amqp:///vhost", "rabbit:5672", "http://x/"])
def test_other_urls_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        open_broker(url, name="test", clock=CLOCK, ids=IDS)
    assert not url or url not in refused.value.message
