"""A pool that falls back to malloc, as its trace has it: two pools, each with a balance of its own."""

from __future__ import annotations

import numpy as np

import analysis
from analysis.layout import Op
from pools import SlabPool, Trace


def test_blocks_of_the_fallback_are_another_pools_in_the_trace(tmp_path):
    path = tmp_path / "fallback.pptrace"
    with Trace(path) as trace, SlabPool(4096, 8, on_exhausted="fallback", name='"recv"') as pool:
        early = [pool.acquire(tag="early") for _ in range(12)]
        pool.attach(trace)
        late = [pool.acquire(tag="late") for _ in range(6)]
        for lease in early + late[:4]:
            lease.release()
        pool.close()
        pool.attach(None)
        for lease in late[4:]:
            lease.release()
    read = analysis.load(path)
    assert [read.pool_name(number) for number in read.pool_numbers] == ['"recv"', '"recv", fallback']
    ops, numbers = read.ops, read.records["pool"]
    counts = {
        (int(number), op): int(np.count_nonzero((numbers == number) & (ops == op)))
        for number in read.pool_numbers
        for op in (Op.ALLOC, Op.FREE, Op.LEAK, Op.REGION_ADD)
    }
    own, fallback = read.pool_numbers
    assert [counts[own, op] for op in (Op.ALLOC, Op.FREE, Op.LEAK, Op.REGION_ADD)] == [8, 8, 0, 1]
    assert [counts[fallback, op] for op in (Op.ALLOC, Op.FREE, Op.LEAK, Op.REGION_ADD)] == [10, 8, 2, 0]
    assert analysis.summary(path)
