"""Every strategy's own trace keeps the laws that the analysis checks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import analysis
from analysis.strategies import STRATEGIES
from pools import Trace


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("seed", [1, 2])
def test_what_a_pool_says_of_itself_is_what_its_events_add_up_to(
    strategy: str, seed: int, tmp_path: Path
) -> None:
    source = random.Random(seed)
    path = tmp_path / f"{strategy}.pptrace"
    pool = STRATEGIES[strategy].build(64 << 20)
    with Trace(path) as trace:
        pool.attach(trace)
        held = []
        for step in range(4000):
            if held and source.random() < 0.45:
                held.pop(source.randrange(len(held))).release()
            else:
                held.append(pool.acquire(min(int(source.paretovariate(1) * 64), 16384), f"tag {step % 7}"))
            if step % 50 == 0:
                pool.sample()
        pool.sample()
        for lease in held:
            lease.release()
        pool.sample()
        pool.close()
    summary = analysis.summary(path)
    assert summary.warnings == ()
    assert summary.strategy == strategy
    assert summary.leaked_blocks == 0
