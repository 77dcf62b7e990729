"""A recorded program, the same on every machine: sizes of all kinds, pins, resizes, refusals, leaks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import synthetic


def recorded(path: Path, *, steps: int = 3000, seed: int = 11) -> Path:
    """Write its trace."""
    rng = random.Random(seed)
    builder = synthetic.TraceBuilder()
    builder.pool(1, name="main", strategy="malloc")
    builder.note("strategy", "malloc")
    held: dict[int, int] = {}
    pinned: list[int] = []
    time, handle = 5, 3
    for block in (1, 2, 3):
        held[block] = 700 * block
        builder.alloc(time, block, 0, held[block], tag="early", flags=synthetic.BORN_BEFORE)
    for _ in range(steps):
        time += rng.randrange(0, 3) * 1000
        choice = rng.random()
        if choice < 0.02:
            builder.event(synthetic.FAIL, time, requested=rng.randrange(1, 1 << 21), tag="refused")
        elif choice < 0.05 and pinned:
            builder.event(synthetic.UNPIN, time, block=pinned.pop(0))
        elif choice < 0.10 and held:
            block = rng.choice(sorted(held))
            builder.event(synthetic.PIN, time, block=block)
            pinned.append(block)
        elif choice < 0.15 and set(held) - set(pinned):
            block = rng.choice(sorted(set(held) - set(pinned)))
            before, held[block] = held[block], max(1, held[block] * rng.randrange(1, 8) // 4)
            builder.event(
                synthetic.RESIZE, time, block=block, requested=held[block], granted=held[block], aux=before
            )
        elif choice < 0.1502:
            builder.event(synthetic.DISCARD_ALL, time)
            held.clear()
            pinned.clear()
        elif len(held) > 150 or (held and choice < 0.55):
            block = rng.choice(sorted(held))
            builder.free(time, block, requested=held.pop(block))
        else:
            handle += 1
            held[handle] = min(rng.randrange(16, 1 << rng.randrange(5, 17)), 40000)
            builder.alloc(
                time, handle, 0, held[handle], tag=f"conn-{handle % 9}", stack="serve (server.py:10)"
            )
    for block in sorted(held)[:4]:
        builder.event(synthetic.LEAK, time, block=block, requested=held[block], granted=held[block])
    return builder.write(path)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(tmp_path_factory.mktemp("recorded") / "program.pptrace")
