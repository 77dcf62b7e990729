"""The plan of the traffic: the same for the same seed, and within its bounds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.demo.traffic import LARGEST, LEAK, RESIDENT, SMALLEST, VISITOR, payload_source, plan_traffic


def test_a_seed_gives_the_same_plan_every_time() -> None:
    first = plan_traffic(3, connections=50, duration_s=2, leak=True)
    assert first == plan_traffic(3, connections=50, duration_s=2, leak=True)
    assert first != plan_traffic(4, connections=50, duration_s=2, leak=True)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(), connections=st.integers(1, 60), leak=st.booleans())
def test_every_plan_keeps_its_bounds(seed: int, connections: int, leak: bool) -> None:
    traffic = plan_traffic(seed, connections=connections, duration_s=1.0, leak=leak)
    source = payload_source(seed)
    kinds = [plan.kind for plan in traffic.connections]
    assert len(kinds) == connections + leak
    assert kinds.count(LEAK) == leak
    assert kinds.count(RESIDENT) == min(8, connections - 1)
    assert kinds.count(VISITOR) >= 1
    for plan in traffic.connections:
        assert plan.messages
        assert 0 <= plan.opens_at_s <= 1.0
        for message in plan.messages:
            assert SMALLEST <= message.size <= LARGEST
            assert message.start + message.size <= len(source)


def test_the_mix_reaches_from_small_requests_to_the_largest_documents() -> None:
    traffic = plan_traffic(1, connections=200, duration_s=8, leak=False)
    sizes = sorted(message.size for plan in traffic.connections for message in plan.messages)
    assert sizes[len(sizes) // 2] < 1500
    assert sizes[-1] == LARGEST
    assert traffic.messages == len(sizes)
    assert traffic.payload_bytes == sum(sizes)
